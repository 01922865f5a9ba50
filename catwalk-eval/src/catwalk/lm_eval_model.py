"""`catwalk lm-eval …`: the command of lm-evaluation-harness with `--model catwalk`, which scores with our backends.

The harness 0.4 looks for models in its own list only, so the class is registered before its command starts.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from catwalk.backends.opening import open_model
from catwalk.backends.specs import parse_spec
from catwalk.chat import Chat
from catwalk.formats.checkpoint import inspect_checkpoint
from catwalk.formats.contract import ConfigError
from catwalk.lm_eval_tasks import prompt_of
from catwalk.types import Pair

__all__ = ["CatwalkLM", "run_lm_eval"]


@register_model("catwalk")
class CatwalkLM(LM):  # type: ignore[misc]
    """A model of ours for the harness. `pretrained` is any model of `catwalk run`; other arguments are its options.

    `max_length` is the harness's name of `max_length_tokens`. `batch_size` counts rows there, and is ignored: batches
    are made by tokens. Before a document is BOS where the tokenizer has one, as in the harness.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        device: str | None = None,
        dtype: str = "float32",
        max_length: int | None = None,
        batch_tokens: int | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        prefix: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        spec = ",".join([str(pretrained), *(f"{key}={value}" for key, value in options.items())])
        parsed = parse_spec(spec)
        if prefix is None and parsed.kind == "directory":
            bos = inspect_checkpoint(Path(parsed.target).expanduser()).special_token_id("bos")
            prefix = None if bos is None else "bos"
        self.backend = open_model(
            spec,
            device=device or "auto",
            dtype="float32" if dtype == "auto" else dtype,
            batch_tokens=batch_tokens,
            max_length_tokens=max_length,
            prefix=prefix,
        )

    @cached_property
    def _chat(self) -> Chat:
        """The tokenizer's chat template; from its first use on, contexts are chats."""
        if self.backend.tokenizer_directory is None:
            raise ConfigError("apply_chat_template: the model has no tokenizer on this machine; expected one")
        return Chat(self.backend.tokenizer_directory, None, False)

    @property
    def _rendered(self) -> bool:
        return "_chat" in vars(self)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, for the harness's results."""
        return self._chat.template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a chat."""
        return self._chat.render(chat_history, add_generation_prompt=add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """What tells requests in the harness's cache apart."""
        return str(self.backend.tokenizer_directory).replace("/", "__")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Σ ln p of each continuation, and whether greedy decoding would produce it."""
        pairs = [Pair(context=one.args[0], continuation=one.args[1], rendered=self._rendered) for one in requests]
        return [(found.sum_logprob, found.greedy) for found in self.backend.score(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Σ ln p of whole texts."""
        return [found.sum_logprob for found in self.backend.documents([one.args[0] for one in requests])]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What greedy decoding adds to each context."""
        return self.backend.generate([replace(prompt_of(*one.args), rendered=self._rendered) for one in requests])

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes under `config`."""
        about = self.backend.describe("catwalk")
        return {
            "model_num_parameters": self.backend.parameters,
            "model_dtype": str(self.backend.settings["dtype"]),
            "model_sha": about["manifest_sha256"] or "",
            "max_length": self.backend.settings["max_length_tokens"],
        }


def run_lm_eval(arguments: Sequence[str]) -> int:
    """The harness's command, with the model `catwalk`."""
    from lm_eval.__main__ import cli_evaluate

    before, sys.argv = sys.argv, ["lm_eval", *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0
