"""Extractors of text from HTML, and the processes that they run in."""

__all__: list[str] = []
