"""Errors under the names of dolma 1.x; those of this package are kinds of them.

``ConfigError`` (a wrong request) is a ``DolmaConfigError``; ``FormatError`` and ``ProblemsError`` (wrong rows) are a
``DolmaShardError``. All are a ``DolmaRustPipelineError``, which is what ``dolma.mixer`` and ``dolma.deduper`` raise in
1.x.
"""

__all__ = [
    "DolmaConfigError",
    "DolmaError",
    "DolmaFatalError",
    "DolmaRetryableFailure",
    "DolmaRustPipelineError",
    "DolmaShardError",
]


class DolmaError(Exception):
    """Every other derives from it."""


class DolmaFatalError(DolmaError):
    """The whole run has to end."""


class DolmaShardError(DolmaError):
    """A file cannot be finished."""


class DolmaRetryableFailure(DolmaError):
    """A file may be tried again; ``BaseParallelProcessor`` does so."""


class DolmaRustPipelineError(DolmaError):
    """Deduplication or mixing failed."""


class DolmaConfigError(DolmaError):
    """A setting is wrong."""
