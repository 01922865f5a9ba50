"""The errors of dolma 1.x under their module name; ``dolma.errors`` defines them."""

from dolma.errors import (
    DolmaConfigError,
    DolmaError,
    DolmaFatalError,
    DolmaRetryableFailure,
    DolmaRustPipelineError,
    DolmaShardError,
)

__all__ = [
    "DolmaConfigError",
    "DolmaError",
    "DolmaFatalError",
    "DolmaRetryableFailure",
    "DolmaRustPipelineError",
    "DolmaShardError",
]
