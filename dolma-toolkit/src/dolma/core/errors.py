"""Errors under the names of dolma 1.x; the errors of this package derive from them.

``ConfigError`` (a wrong request) is a ``DolmaConfigError``. ``FormatError`` and ``ProblemsError`` (bad rows) are a
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
    """The base of all errors."""


class DolmaFatalError(DolmaError):
    """The whole run has to end."""


class DolmaShardError(DolmaError):
    """A file cannot be finished."""


class DolmaRetryableFailure(DolmaError):
    """A file may be tried again, as ``BaseParallelProcessor`` does."""


class DolmaRustPipelineError(DolmaError):
    """Deduplication or mixing failed."""


class DolmaConfigError(DolmaError):
    """A setting is wrong."""
