"""A model behind an OpenAI-style API: `http(s)://HOST/v1,model=NAME[,tokenizer=DIRECTORY]`.

With the model's tokenizer, token ids are sent (`TokenCompletions`), so that windows and boundaries are those of any
other backend. Without it, texts are sent (`TextCompletions`), and the server's `text_offset` shows which tokens are
scored: those that end in the continuation. The server must return log-probabilities of the prompt (`echo`).
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from catwalk import DISTRIBUTION, __version__
from catwalk.backends.api import CompletionsAPI, RefusedRequest
from catwalk.backends.specs import DEFAULT_LENGTH, ModelSpec, Settings
from catwalk.backends.tokens import RequestError, Score, TokenBackend, read_tokenizer
from catwalk.formats.checkpoint import inspect_checkpoint
from catwalk.formats.contract import ConfigError, sha256_file
from catwalk.formats.manifest import describe_input
from catwalk.requests import encode_prompts, move_space
from catwalk.types import Advance, Backend, Likelihood, Pair, PairError, Prompt, Request

__all__ = ["TextCompletions", "TokenCompletions", "open_completions"]

log = logging.getLogger(__name__)

_PROBE = "The sea is salt."
T = TypeVar("T")
_Sent = str | list[int]
"""A prompt as it is sent."""
_NO_LOGPROB = -9999.0  # vLLM's JSON for minus infinity
_MOST_STOPS = 4  # of OpenAI's API; the text is cut at the others here
_NEEDS_TOKENIZER = "give the directory with the model's tokenizer.json: tokenizer=DIRECTORY"


def open_completions(spec: ModelSpec, settings: Settings) -> Backend:
    """The backend of an address. Nothing is sent yet.

    Raises:
        ConfigError: for a wrong address or option. FormatError: for a damaged tokenizer.
    """
    parts = urlsplit(spec.target)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        problem = f"model: the address {parts.scheme}://{parts.hostname or ''}… is not http(s)://HOST[:PORT]/PATH"
        raise ConfigError(problem, hint="a key belongs in the environment variable OPENAI_API_KEY")
    model = spec.options.get("model")
    if not model:
        raise ConfigError(f"model: {spec.target} has no model; expected a name", hint=f"{spec.target},model=NAME")
    concurrency = spec.options.get("concurrency", "8")
    if not concurrency.isdecimal() or int(concurrency) < 1:
        raise ConfigError(f'model: concurrency is "{concurrency}"; expected an integer of at least 1')
    api = CompletionsAPI(spec.target.rstrip("/"), model, int(concurrency))
    directory = spec.options.get("tokenizer")
    if directory is not None:
        return TokenCompletions(api, Path(directory).expanduser(), settings)
    if settings.get("boundary", "whole") != "whole":
        problem = f"boundary: {settings['boundary']} needs the tokens of {spec.target}; expected whole"
        raise ConfigError(problem, hint=_NEEDS_TOKENIZER)
    return TextCompletions(api, settings)


# ---- what both have in common


class _Unusable(ValueError):
    """An answer lacks what a score needs; `prompt` is the index of its prompt."""

    prompt = 0


@dataclass(frozen=True, kw_only=True)
class _Echo:
    """The tokens of a prompt: their texts, where each begins (in characters from the prompt's beginning; not exact
    before the first whole character), ln p of each, and that of the most likely one; None for the first.
    """

    tokens: list[str]
    places: list[int]
    logprobs: list[float | None]
    best: list[float | None]

    def score(self, first: int) -> Score:
        """Σ ln p of the tokens from `first` on, and whether each is the most likely one."""
        total, greedy = 0.0, True
        for logprob, best in zip(self.logprobs[first:], self.best[first:], strict=True):
            if logprob is None or best is None or not math.isfinite(logprob) or logprob <= _NO_LOGPROB:
                raise _Unusable(f"the server's log-probability is {logprob}; expected a finite number")
            total += logprob
            greedy &= logprob >= best
        return total, greedy


class _Server(ABC):
    """The model behind the API: how prompts are scored and continued."""

    parameters = 0
    advance: Advance | None

    def __init__(self, api: CompletionsAPI, tokenizer_directory: Path | None) -> None:
        self.api = api
        self.tokenizer_directory = tokenizer_directory
        self.tokenizer_file = tokenizer_directory and tokenizer_directory / "tokenizer.json"
        self.tokenizer_sha256 = self.tokenizer_file and sha256_file(self.tokenizer_file)

    @property
    def address_identity(self) -> dict[str, Any]:
        """Address, name and tokenizer. The weights have no hash: nobody notices when the server changes them."""
        software = {DISTRIBUTION: __version__}
        return {
            "api": self.api.address,
            "model": self.api.model,
            "tokenizer": self.tokenizer_sha256,
            "software": software,
        }

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""
        return {
            "name": name,
            "architecture": f"{self.api.model} at {self.api.address}",
            "parameters": 0,
            "vocab_size": 0,
            "dtype": "unknown",
            "tokenizer_sha256": self.tokenizer_sha256,
            "manifest_sha256": None,
        }

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """The tokenizer, if it was given."""
        return [] if self.tokenizer_file is None else describe_input("checkpoint", self.tokenizer_file, output)

    def require_scores(self) -> None:
        """Find out, once, whether the server can score.

        Raises:
            ConfigError: it does not return log-probabilities of a prompt, or has another tokenizer.
        """
        _ = self._max_tokens

    @cached_property
    def _max_tokens(self) -> int:
        """How many tokens to ask for when a prompt is scored: 0, or 1 where a server refuses 0 or reads it as no limit.

        Raises as `require_scores`.
        """
        prompt = self.probe_prompt()
        problem = ""
        for max_tokens in (0, 1):
            try:
                (choice,) = self.api.choices([_scoring(prompt, max_tokens)], lambda _, found: found, attempts=2)
                self.check_probe(_read(choice, prompt, max_tokens))
            except (RefusedRequest, _Unusable) as error:
                problem = problem or f"model: {self.api.address}: {str(error).removeprefix(f'{self.api.address}: ')}"
                continue
            return max_tokens
        kind = "texts" if isinstance(prompt, str) else "token ids (without tokenizer=…, texts are sent)"
        hint = f"scores need a server that takes {kind} with echo and logprobs, as vLLM and open-instruct serve do"
        raise ConfigError(problem, hint=hint)

    @abstractmethod
    def probe_prompt(self) -> _Sent:
        """The prompt of the first request, which finds what the server cannot do before any work."""

    @abstractmethod
    def check_probe(self, echo: _Echo) -> None:
        """Raise `_Unusable`, or ConfigError, if the answer to it is of no use."""

    def scored(self, prompts: Sequence[_Sent], use: Callable[[int, _Echo], T]) -> list[T]:
        """What `use` makes of each prompt's index and its log-probabilities.

        Raises:
            _Unusable: as `use`, or for an answer without log-probabilities.
        """
        max_tokens = self._max_tokens

        def read(index: int, choice: dict[str, Any]) -> T:
            try:
                found = use(index, _read(choice, prompts[index], max_tokens))
            except _Unusable as error:
                error.prompt = index
                raise
            if self.advance is not None:
                self.advance(1, len(prompts[index]) if isinstance(prompts[index], list) else 0)
            return found

        return self.api.choices([_scoring(prompt, max_tokens) for prompt in prompts], read)

    def texts(self, prompts: Sequence[_Sent], asked: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt, up to a stop text."""
        bodies: list[dict[str, Any]] = []
        for prompt, one in zip(prompts, asked, strict=True):
            stop = {"stop": list(one.stop[:_MOST_STOPS])} if one.stop else {}
            bodies.append({"prompt": prompt, "max_tokens": one.max_tokens, "temperature": 0, **stop})

        def read(index: int, choice: dict[str, Any]) -> str:
            text: str = choice["text"]
            if self.advance is not None:
                self.advance(1, 0)
            places = (text.find(stop) for stop in asked[index].stop)
            return text[: min((place for place in places if place >= 0), default=len(text))]

        return self.api.choices(bodies, read)


def _letters(text: str) -> str:
    """Letters only: servers differ in how they write a token with a space. Ids instead of texts say nothing."""
    return "" if "token_id:" in text else "".join(filter(str.isascii, filter(str.isalpha, text)))


def _scoring(prompt: _Sent, max_tokens: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": max_tokens, "echo": True, "logprobs": 1, "temperature": 0}


def _read(choice: dict[str, Any], prompt: _Sent, max_tokens: int) -> _Echo:
    """The prompt's part of an answer.

    Raises:
        _Unusable: the server did not echo, or gave no log-probabilities.
    """
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict) or not isinstance(logprobs.get("token_logprobs"), list):
        raise _Unusable("the answer has no logprobs; expected those of the prompt")
    own = logprobs["token_logprobs"]
    columns = [own, *(logprobs.get(name) for name in ("top_logprobs", "tokens", "text_offset"))]
    if isinstance(prompt, list):  # texts of tokens are not needed
        columns[2:] = [column or [default] * len(own) for column, default in zip(columns[2:], ("", 0), strict=True)]
    if not all(isinstance(column, list) and len(column) == len(own) for column in columns):
        names = "token_logprobs, top_logprobs, tokens and text_offset"
        raise _Unusable(f"the answer's logprobs lack one of {names}, or their lengths differ")
    _, top, tokens, offsets = columns
    count = len(prompt) if isinstance(prompt, list) else _prompt_tokens(choice["text"], prompt, tokens, max_tokens)
    if not count <= len(own) <= count + max_tokens:
        raise _Unusable(f"the answer has {len(own)} log-probabilities for {count} tokens; expected one for each")
    end = offsets[count] if count < len(own) else offsets[-1] + len(tokens[-1])
    best = [max(one.values()) if one else None for one in top]
    return _Echo(
        tokens=tokens[:count],
        places=[len(prompt) - end + offset for offset in offsets[:count]],
        logprobs=own[:count],
        best=best[:count],
    )


def _prompt_tokens(text: str, prompt: str, tokens: Sequence[str], max_tokens: int) -> int:
    """How many tokens are the prompt's. A generated one adds to the text, or does not show in it (an end token)."""
    if not text.startswith(prompt):
        raise _Unusable("the answer does not begin with the prompt; expected an echo of it")
    last = tokens[-1] if tokens else ""
    generated = len(text) > len(prompt) or not last or not prompt.endswith(last)
    return len(tokens) - (max_tokens and generated)


# ---- token ids


class TokenCompletions(_Server, TokenBackend):
    """Sends token ids. The server must accept one token more than `max_length_tokens`: the last one that is scored."""

    def __init__(self, api: CompletionsAPI, directory: Path, settings: Settings) -> None:
        tokenizer = read_tokenizer(directory)
        positions = inspect_checkpoint(directory).max_positions if (directory / "config.json").is_file() else None
        length = settings.get("max_length_tokens") or (positions - 1 if positions else DEFAULT_LENGTH)
        TokenBackend.__init__(self, tokenizer, {**settings, "max_length_tokens": length})
        _Server.__init__(self, api, directory)

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, as far as it is known."""
        return {"dtype": "unknown", **self.text_settings}

    @property
    def identity(self) -> dict[str, Any]:
        """The address, the tokenizer and the settings."""
        return {**self.address_identity, **self.settings}

    def probe_prompt(self) -> _Sent:
        """The probe's ids."""
        return self.tokenizer.encode([_PROBE])[0]

    def check_probe(self, echo: _Echo) -> None:
        """The ids must mean the same to the server."""
        echo.score(1)
        spelled = _letters("".join(echo.tokens))
        if spelled and _letters(_PROBE) not in spelled:
            problem = f"model: {self.tokenizer_file} is not the tokenizer of {self.api.model}"
            raise ConfigError(f'{problem}: the server reads its tokens as "{spelled}"')

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find what cannot be scored, and whether the server can score at all.

        Raises:
            PairError: as of every backend. ConfigError: the server cannot score.
        """
        super().check(pairs)
        self.require_scores()

    def score_requests(self, requests: Sequence[Request]) -> list[Score]:
        """The requests' scores in their order.

        Raises:
            RequestError: for a log-probability that is not finite, or an answer without it.
        """
        prompts: list[_Sent] = [[*request.context, *request.continuation] for request in requests]
        try:
            return self.scored(prompts, lambda index, echo: echo.score(len(requests[index].context)))
        except _Unusable as error:
            raise RequestError(str(error), error.prompt) from error

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt. A prompt that does not fit the window is cut on the left."""
        return self.texts(encode_prompts(prompts, self.tokenizer, self.max_length_tokens), prompts)


# ---- texts


class TextCompletions(_Server):
    """Sends texts; the server's own tokenizer encodes them. Documents need windows of tokens, so they are an error."""

    document_prefix = "eos"
    unknown_tokens = 0

    def __init__(self, api: CompletionsAPI, settings: Settings) -> None:
        super().__init__(api, None)
        self.advance: Advance | None = None
        self._length = settings.get("max_length_tokens") or DEFAULT_LENGTH

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing can be set; the values are those of the field."""
        return {
            "dtype": "unknown",
            "max_length_tokens": self._length,
            "prefix": "eos",
            "windowing": "paloma-reference",
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The address."""
        return self.address_identity

    def probe_prompt(self) -> _Sent:
        """The probe."""
        return _PROBE

    def check_probe(self, echo: _Echo) -> None:
        """Its tokens must show which of them are scored."""
        start = len(_PROBE) // 2
        _likelihood(_PROBE[:start], _PROBE[start:], echo)

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find whether the server can score at all.

        Raises:
            ConfigError: it cannot.
        """
        self.require_scores()

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Each continuation after its context; equal pairs are scored once.

        Raises:
            PairError: for a log-probability that is not finite, or tokens that do not spell the continuation.
        """
        split = [move_space(pair) for pair in pairs]
        first = {one: index for index, one in reversed(list(enumerate(split)))}
        asked = sorted(first, key=first.__getitem__)
        try:
            found = self.scored(
                [before + after for before, after in asked], lambda index, echo: _likelihood(*asked[index], echo)
            )
        except _Unusable as error:
            raise PairError(str(error), first[asked[error.prompt]], hint=_NEEDS_TOKENIZER) from error
        by_pair = dict(zip(asked, found, strict=True))
        return [by_pair[one] for one in split]

    def documents(self, texts: Sequence[str]) -> list[Likelihood]:
        """Not possible.

        Raises:
            ConfigError: always.
        """
        problem = f"documents: their windows need the tokens of {self.api.model}; expected its tokenizer"
        raise ConfigError(problem, hint=_NEEDS_TOKENIZER)

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt."""
        return self.texts([one.text for one in prompts], prompts)


def _likelihood(before: str, after: str, echo: _Echo) -> Likelihood:
    """The score of `after`: of all tokens that end in it."""
    text = before + after
    ends = [*echo.places[1:], len(text)]
    first = next(index for index, end in enumerate(ends) if end > len(before))
    whole = [index for index, token in enumerate(echo.tokens) if not _is_part(token)]
    known = [index for index in whole if index >= first]
    if len(known) < len(ends) - first:  # the places of parts of characters follow from the token before them
        known += [index for index in whole if index < first and echo.places[first] > 0][-1:]
    if not all(echo.places[index] >= 0 and text.startswith(echo.tokens[index], echo.places[index]) for index in known):
        raise _Unusable(f"the server's tokens do not spell {after[:60]!r}; expected their texts and text_offset")
    total, greedy = echo.score(first)
    crossing = echo.places[first] < len(before)
    return Likelihood(sum_logprob=total, tokens=len(ends) - first, greedy=greedy, crossing=crossing)


def _is_part(token: str) -> bool:
    """Whether a token is part of a character, and so has no text of its own."""
    return token.startswith("bytes:") or "\N{REPLACEMENT CHARACTER}" in token
