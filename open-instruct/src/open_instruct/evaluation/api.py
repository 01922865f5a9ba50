"""An endpoint of OpenAI's API as the model of an evaluation, or as a judge: open-instruct serve, vLLM, a hosted one."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..formats.contract import ConfigError, WorkError, first_line
from .items import Answer, Decoding, Prompt, Score

__all__ = ["KEY_VARIABLE", "ApiModel", "is_address"]

KEY_VARIABLE = "OPENAI_API_KEY"
_TRIES = 5
_LONGEST_WAIT_S = 30.0
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}


def is_address(name: str) -> bool:
    """Whether a model is named by the address of an API."""
    return name.startswith(("http://", "https://"))


class _DoesNotFit(WorkError):
    """The server says that a prompt and its answer are too long for the model."""


class ApiModel:
    """A model behind `<address>/chat/completions` and `<address>/completions`; the address ends in `/v1`, usually."""

    def __init__(self, address: str, model: str | None = None, *, at_once: int = 16, timeout_s: float = 600.0) -> None:
        """Ask for the model's name, unless it is given. The key of the API is in the variable OPENAI_API_KEY.

        Raises:
            ConfigError: nothing answers there, or it serves several models and none is named.
        """
        import httpx

        self.room = 1
        self._address, self._at_once = address.rstrip("/"), at_once
        key = os.environ.get(KEY_VARIABLE)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=at_once),
        )
        self.name = model or self._only_model()

    @property
    def identity(self) -> dict[str, Any]:
        """The address and the model's name. Nobody can say whether the weights behind them are the same."""
        return {"address": self._address, "model": self.name}

    @property
    def description(self) -> dict[str, Any]:
        """`model` of results.json; what an API does not tell is 0 or null."""
        unknown = {"architecture": "api", "parameters": 0, "vocab_size": 0, "dtype": "unknown"}
        host = urlsplit(self._address).netloc.rpartition("@")[2]
        return {"name": self.name, **unknown, "tokenizer_sha256": None, "manifest_sha256": None, "host": host}

    @property
    def inputs(self) -> list[Path]:
        """No directory."""
        return []

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fits(self, prompt: Prompt, max_tokens: int) -> bool:
        """True: only the server can say."""
        return True

    def _only_model(self) -> str:
        try:
            found = [str(one["id"]) for one in self._json("GET", "/models", None)["data"]]
        except (WorkError, KeyError, TypeError) as error:
            reason = (
                first_line(error).partition("; expected")[0]
                if isinstance(error, WorkError)
                else f"{self._address} lists no models"
            )
            raise ConfigError(f"model: {reason}; expected an OpenAI-compatible API") from error
        if len(found) != 1:
            listed = ", ".join(found[:5]) or "no model"
            raise ConfigError(
                f"model: {self._address} serves {listed}; expected one model", hint="name it with --served-model"
            )
        return found[0]

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The answer to a request; a busy server is asked again. Raises WorkError."""
        import httpx

        for attempt in range(_TRIES):
            wait_s = min(_LONGEST_WAIT_S, 2.0**attempt)
            try:
                answer = self._client.request(method, self._address + path, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                if isinstance(error, httpx.InvalidURL | httpx.ConnectError | httpx.UnsupportedProtocol):
                    break
            else:
                if answer.status_code == 200:
                    try:
                        return answer.json()
                    except ValueError as error:
                        raise WorkError(f"{self._address}{path}: the answer is not JSON; expected JSON") from error
                reason, code = _reason(answer)
                if answer.status_code == 400 and (code == "context_length_exceeded" or "context length" in reason):
                    raise _DoesNotFit(reason)
                reason = f"status {answer.status_code}: {reason}"
                if answer.status_code not in _BUSY:
                    break
                wait_s = min(_LONGEST_WAIT_S, _seconds(answer.headers.get("retry-after")) or wait_s)
            if attempt + 1 < _TRIES:
                time.sleep(wait_s)
        raise WorkError(f"{self._address}{path}: {reason}; expected an answer")

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding, keep: Callable[[int, Answer], None]) -> None:
        """Answer the prompts, several requests at a time. Raises WorkError for the first that fails."""
        with ThreadPoolExecutor(self._at_once) as pool:
            found = {pool.submit(self._answer, prompt, decoding): index for index, prompt in enumerate(prompts)}
            try:
                for future, index in found.items():
                    keep(index, future.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _answer(self, prompt: Prompt, decoding: Decoding) -> Answer:
        body: dict[str, Any] = {
            "model": self.name,
            "max_tokens": decoding.max_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed_of(prompt),
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        try:
            if prompt.messages:
                value = self._json("POST", "/chat/completions", body | {"messages": list(prompt.messages)})
            else:
                value = self._json("POST", "/completions", body | {"prompt": prompt.text})
        except _DoesNotFit:
            return Answer(text="", ended=False, cut=True)
        try:
            choice = value["choices"][0]
            text = choice["message"]["content"] if prompt.messages else choice["text"]
            tokens = int((value.get("usage") or {}).get("completion_tokens") or 0)
            return Answer(text=text or "", tokens=tokens, ended=choice.get("finish_reason") != "length")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise WorkError(f"{self._address}: an answer has no choices; expected OpenAI's form") from error

    def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        """Score continuations of a plain text with `echo`.

        Raises:
            ConfigError: for a chat; the API has no log-probabilities of a given answer.
        """
        if prompt.messages:
            raise ConfigError(
                "model: an API does not score given answers to chats; expected a directory, or plain texts",
                hint="pass --prompts text, or the checkpoint's directory",
            )
        body = {"model": self.name, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        value = self._json(
            "POST", "/completions", body | {"prompt": [prompt.text + continuation for continuation in continuations]}
        )
        try:
            choices = sorted(value["choices"], key=lambda choice: choice.get("index", 0))
            return [_echoed(choice["logprobs"], len(prompt.text)) for choice in choices]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            message = f"{self._address}: no log-probabilities of the prompt; expected a server with `echo`"
            raise WorkError(message) from error


def _echoed(logprobs: dict[str, Any], start: int) -> Score:
    """The score of the tokens that end after the place `start` of the text."""
    offsets = [int(offset) for offset in logprobs["text_offset"]]
    ends = [*offsets[1:], None]
    own = [
        float(logprob)
        for logprob, end in zip(logprobs["token_logprobs"], ends, strict=True)
        if end is None or end > start
    ]
    return Score(sum_logprob=min(0.0, round(sum(own), 6)), tokens=len(own))


def _reason(answer: Any) -> tuple[str, str | None]:
    """The server's message, shortened, and its code."""
    code = None
    try:
        error = answer.json()["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message = answer.text
    return " ".join(str(message).split())[:300], code


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
