"""From the name of a model to its backend. A backend is imported when one of its models is opened."""

from pathlib import Path
from typing import Unpack

from catwalk.backends.specs import Settings, parse_spec
from catwalk.formats.contract import ConfigError
from catwalk.types import Backend

__all__ = ["open_model"]


def open_model(text: str, **settings: Unpack[Settings]) -> Backend:
    """Open a model without its weights.

    Raises:
        ConfigError: for a wrong option, setting or tokenizer, or a package that is not installed.
        FormatError: the directory is not a checkpoint.
    """
    spec = parse_spec(text)
    if settings.get("token_losses") and spec.kind not in ("directory", "hub"):
        problem = f"token_losses: {text.split(',')[0]} gives no loss by token; expected a checkpoint"
        raise ConfigError(problem, hint="leave out --token-losses")
    if spec.kind == "vllm":
        from catwalk.backends.vllm import open_vllm

        return open_vllm(spec, settings)
    if spec.kind == "api":
        from catwalk.backends.completions import open_completions

        return open_completions(spec, settings)
    if spec.kind == "oracle":
        from catwalk.backends.oracle import open_oracle

        return open_oracle(spec, settings)
    from catwalk.backends.huggingface import HuggingFace

    if spec.kind == "hub":
        from catwalk.hub import download_checkpoint

        name, _, revision = spec.target.partition("@")
        directory = download_checkpoint(name, revision or "main", offline=settings.get("offline", False))
    else:
        directory = Path(spec.target).expanduser()
    adapter = spec.options.get("peft")
    return HuggingFace(directory, Path(adapter).expanduser() if adapter else None, **settings)
