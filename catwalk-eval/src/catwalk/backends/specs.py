"""How a model is named: `MODEL[,key=value…]`. `opening.py` opens it.

- `DIRECTORY[,peft=ADAPTER]`: a checkpoint, perhaps with a LoRA adapter, run by transformers (huggingface.py).
- `hub:NAME[@REVISION][,peft=ADAPTER]`: the same from the Hugging Face Hub, kept in its cache.
- `vllm:DIRECTORY[,tensor_parallel_size=N]`: a checkpoint run by vLLM on a GPU (vllm.py).
- `http(s)://HOST/v1,model=NAME[,tokenizer=DIRECTORY][,concurrency=N]`: an OpenAI-style API (completions.py).
- `oracle:uniform[,vocab_size=N][,tokenizer=DIRECTORY]` and `oracle:FILE.jsonl`: known answers (oracle.py).
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from catwalk.formats.contract import ConfigError
from catwalk.types import Boundary, Windowing

__all__ = ["DEFAULT_LENGTH", "ModelSpec", "Settings", "parse_spec"]

DEFAULT_LENGTH = 2048  # OLMo and Paloma score with 2048 tokens
_OPTIONS = {  # by the kind of the model
    "directory": ("peft",),
    "hub": ("peft",),
    "vllm": ("tensor_parallel_size",),
    "oracle": ("vocab_size", "tokenizer"),
    "api": ("model", "tokenizer", "concurrency"),
}
_OPTION = re.compile(r",(?=[a-z_]+=)")


class Settings(TypedDict, total=False):
    """The settings of `catwalk run` that a backend depends on."""

    device: str
    dtype: str
    batch_tokens: int | None
    max_length_tokens: int | None
    prefix: str | None
    windowing: Windowing
    boundary: Boundary
    share_context: bool
    token_losses: bool
    offline: bool


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A parsed specification. `target` is a path, an address, or what follows `hub:`, `vllm:` and `oracle:`."""

    kind: str
    target: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name in tables unless another is given. It can be the name of a directory."""
        if self.kind in ("hub", "api"):
            name = self.target if self.kind == "hub" else self.options.get("model", "api")
            return re.sub(r"[^\w.-]+", "-", name.rpartition("/")[2])
        if self.kind == "oracle":
            return f"oracle-{Path(self.target).stem}"
        return Path(self.target).expanduser().resolve().name


def parse_spec(text: str) -> ModelSpec:
    """Parse a specification. A directory may have any name, with `,` and `=` too.

    Raises:
        ConfigError: for an option that this kind of model does not have.
    """
    if Path(text).expanduser().is_dir():
        return ModelSpec(kind="directory", target=text)
    target, *options = _OPTION.split(text)
    kind = "directory"
    if target.startswith(("hub:", "oracle:", "vllm:")):
        kind, target = target.split(":", 1)
    elif target.startswith(("http://", "https://")):
        kind = "api"
    given = dict(option.split("=", 1) for option in options)
    for name in given:
        if name not in _OPTIONS[kind]:
            near = difflib.get_close_matches(name, _OPTIONS[kind], n=1)
            known = f"did you mean {near[0]}?" if near else f"it has {', '.join(_OPTIONS[kind]) or 'no options'}"
            raise ConfigError(f'model: unknown option "{name}" of {text.split(",")[0]}', hint=known)
    return ModelSpec(kind=kind, target=target, options=given)
