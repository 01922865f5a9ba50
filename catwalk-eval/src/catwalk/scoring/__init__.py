"""Arithmetic between text and numbers: requests, normalisations, windows, sums, uncertainty. No torch."""

__all__: list[str] = []
