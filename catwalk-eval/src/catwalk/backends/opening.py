"""From the name of a model to its backend. A backend is imported when one of its models is opened."""

from pathlib import Path
from typing import Unpack

from catwalk.backends.specs import Settings, parse_spec
from catwalk.types import Backend

__all__ = ["open_model"]


def open_model(text: str, **settings: Unpack[Settings]) -> Backend:
    """Open a model without its weights.

    Raises:
        ConfigError: for a wrong option, setting or tokenizer, or a package that is not installed.
        FormatError: the directory is not a checkpoint.
    """
    spec = parse_spec(text)
    if spec.kind == "oracle":
        from catwalk.backends.oracle import open_oracle

        return open_oracle(spec, settings)
    from catwalk.backends.huggingface import open_checkpoint

    return open_checkpoint(Path(spec.target).expanduser(), **settings)
