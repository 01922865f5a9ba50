"""From scores to the results artifact and back: `workspace.py` (resume), `write.py`, `verify.py`."""

__all__: list[str] = []
