"""`open-instruct eval`: benchmarks for chat models, from local files to docs/formats/results.md."""

__all__: list[str] = []
