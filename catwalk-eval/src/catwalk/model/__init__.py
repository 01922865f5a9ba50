"""From a checkpoint directory to log-probabilities: `load.py`, `rows.py` (what shares a forward row), `scorer.py`."""

__all__: list[str] = []
