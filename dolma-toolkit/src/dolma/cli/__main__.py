"""``python -m dolma.cli``, and ``main`` under its name in dolma 1.x."""

from dolma.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
