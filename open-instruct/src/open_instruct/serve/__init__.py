"""`open-instruct serve`: a chat page and an OpenAI-compatible API over one checkpoint."""

__all__: list[str] = []
