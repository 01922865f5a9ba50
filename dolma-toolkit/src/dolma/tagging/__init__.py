"""Taggers written in Python: finding their modules, running them in processes of their own."""

__all__: list[str] = []
