"""Files: patterns and names, remote files, and files that taggers need."""

__all__: list[str] = []
