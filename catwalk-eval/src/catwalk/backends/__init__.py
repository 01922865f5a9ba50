"""Models behind one protocol, `catwalk.types.Backend`: a module for each kind."""
