"""One module a command, each with ``Config`` and ``run``; ``dolma.cli`` imports the one that it needs."""

__all__: list[str] = []
