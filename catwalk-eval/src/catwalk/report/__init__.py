"""Results to read: tables, one HTML page, lm-evaluation-harness's JSON. No torch."""

__all__: list[str] = []
