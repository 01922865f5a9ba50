"""A checkpoint run by vLLM on a GPU: `vllm:DIRECTORY[,tensor_parallel_size=N]`. Needs the extra `vllm`.

Texts become tokens as for every backend (tokens.py); vLLM returns the log-probability of each token of a prompt and its
rank. Its cache of prefixes is off: tokens found there have no log-probabilities.

This file has not been run on a GPU yet: the tests cover the requests that it makes and how it reads answers.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catwalk import DISTRIBUTION, __version__
from catwalk.backends.specs import ModelSpec, Settings
from catwalk.backends.tokens import CheckpointBackend, RequestError, Score
from catwalk.formats.contract import ConfigError, WorkError, first_line
from catwalk.requests import encode_prompts
from catwalk.results import checkpoint_sha256
from catwalk.types import Prompt, Request

__all__ = ["VLLM", "answer_options", "open_vllm", "prompt_score", "score_options"]

_SPARE = 2  # positions beyond a window: its last token, which is scored, and the one that vLLM always generates


def open_vllm(spec: ModelSpec, settings: Settings) -> "VLLM":
    """The backend of a checkpoint, without its weights.

    Raises:
        ConfigError: vLLM is not installed, or an option is wrong. FormatError: the directory is not a checkpoint.
    """
    size = spec.options.get("tensor_parallel_size", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f'model: tensor_parallel_size is "{size}"; expected an integer of at least 1')
    directory = Path(spec.target).expanduser()
    if not directory.is_dir():
        raise ConfigError(f"model: {directory} not found; expected a checkpoint directory after vllm:")
    if importlib.util.find_spec("vllm") is None:
        problem = f"model: vllm:{spec.target} needs the package vllm, which is not installed"
        raise ConfigError(problem, hint='pip install "catwalk-eval[vllm]"')
    return VLLM(directory, settings, tensor_parallel_size=int(size))


class VLLM(CheckpointBackend):
    """A checkpoint in vLLM. The engine starts for the first request."""

    def __init__(self, directory: Path, settings: Settings, *, tensor_parallel_size: int) -> None:
        super().__init__(directory, settings)
        self.max_length_tokens = self.fitting_length(settings.get("max_length_tokens"), _SPARE)
        self._tensor_parallel_size = tensor_parallel_size

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, besides the checkpoint and the software."""
        return {"dtype": self.dtype, "tensor_parallel_size": self._tensor_parallel_size, **self.text_settings}

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of the files, the settings and the versions of the software."""
        software = {DISTRIBUTION: __version__, **{name: version(name) for name in ("torch", "vllm")}}
        return {"vllm": checkpoint_sha256(self.checkpoint), "software": software, **self.settings}

    @cached_property
    def _engine(self) -> Any:
        import vllm

        try:
            return vllm.LLM(
                model=str(self.checkpoint.directory),
                dtype=self.dtype,
                max_model_len=self.max_length_tokens + _SPARE,
                tensor_parallel_size=self._tensor_parallel_size,
                enable_prefix_caching=False,
                logprobs_mode="raw_logprobs",
                generation_config="vllm",  # not the checkpoint's own sampling
                seed=0,
            )
        except (ValueError, RuntimeError, ImportError, OSError) as error:
            problem = f"{self.checkpoint.directory}: vLLM cannot start ({first_line(error)})"
            raise WorkError(problem, hint="vLLM needs a GPU; without one, leave out vllm:") from error

    def _answers(self, ids: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[Any]:
        """vLLM's outputs, in the order of the prompts."""
        import vllm

        prompts = [{"prompt_token_ids": list(one)} for one in ids]
        outputs = self._engine.generate(prompts, [vllm.SamplingParams(**one) for one in options], use_tqdm=False)
        if self.advance is not None:
            self.advance(len(ids), sum(map(len, ids)))
        return list(outputs)

    def score_requests(self, requests: Sequence[Request]) -> list[Score]:
        """The requests' scores in their order.

        Raises:
            RequestError: for a log-probability that is not finite.
        """
        if not requests:
            return []
        ids = [(*request.context, *request.continuation) for request in requests]
        outputs = self._answers(ids, [score_options()] * len(ids))
        found = []
        for index, (request, output) in enumerate(zip(requests, outputs, strict=True)):
            try:
                found.append(prompt_score(output.prompt_logprobs, request))
            except ValueError as error:
                raise RequestError(str(error), index, "float16 overflows: --dtype bfloat16, or float32") from error
        return found

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt. A prompt that does not fit the window is cut on the left."""
        if not prompts:
            return []
        ids = encode_prompts(prompts, self.tokenizer, self.max_length_tokens)
        outputs = self._answers(ids, [answer_options(one, self.tokenizer.stop_token_ids) for one in prompts])
        return [output.outputs[0].text for output in outputs]


# ---- vLLM's requests and answers


def score_options() -> dict[str, Any]:
    """Options of `SamplingParams` that score a prompt. At least one token is generated; nobody reads it."""
    return {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 1, "detokenize": False}


def answer_options(prompt: Prompt, stop_token_ids: Sequence[int]) -> dict[str, Any]:
    """Options of `SamplingParams` that continue a prompt greedily up to a stop text, which is cut off."""
    stop = {"stop": list(prompt.stop)} if prompt.stop else {}
    return {"temperature": 0.0, "max_tokens": prompt.max_tokens, "stop_token_ids": list(stop_token_ids), **stop}


def prompt_score(prompt_logprobs: Sequence[Mapping[int, Any] | None] | None, request: Request) -> Score:
    """The score of a continuation from `RequestOutput.prompt_logprobs`.

    It has, for each token of the prompt, the `Logprob`s of that token and of the most likely one by id; None for the
    first token.

    Raises:
        ValueError: a token has none, or it is not finite.
    """
    start, count = len(request.context), len(request.context) + len(request.continuation)
    if prompt_logprobs is None or len(prompt_logprobs) != count:
        length = 0 if prompt_logprobs is None else len(prompt_logprobs)
        raise ValueError(f"vLLM gives {length} log-probabilities for {count} tokens; expected one for each")
    total, greedy = 0.0, True
    for id, candidates in zip(request.continuation, prompt_logprobs[start:], strict=True):
        own = (candidates or {}).get(id)
        if own is None or not math.isfinite(own.logprob):
            value = None if own is None else own.logprob
            raise ValueError(f"vLLM's log-probability is {value}; expected a finite number")
        total += own.logprob
        greedy &= own.rank == 1
    return total, greedy
