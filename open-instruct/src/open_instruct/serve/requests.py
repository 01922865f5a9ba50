"""Requests of OpenAI's API, checked: a request is either understood in full or refused with the field's name."""

from dataclasses import dataclass
from typing import Any

from ..formats.chat import Message
from ..formats.contract import type_name

__all__ = ["ChatRequest", "CompletionRequest", "Refused", "Sampling", "read_chat", "read_completion"]

MOST_LOGPROBS = 20
_MOST_STOPS = 16
_MOST_CHOICES = 128
_IGNORED = {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# Fields that would change the answer in a way that this server does not implement, with the values that change nothing
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Refused(ValueError):
    """A request that gets an error; `param` is the field, `code` a name for programs."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str = "invalid_value"
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What chat and text completions have in common."""

    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    choices: int
    top_logprobs: int | None
    stream: bool
    include_usage: bool
    ignore_eos: bool


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A request to /v1/chat/completions."""

    messages: list[Message]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request to /v1/completions: one or more prompts, each a text or token ids."""

    prompts: list[str | list[int]]
    echo: bool
    add_special_tokens: bool
    sampling: Sampling


class _Fields:
    """The fields of a body; each is read once, and `finish` refuses those that were not read."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise Refused(f"the body is {type_name(body)}; expected an object")
        self._left = dict(body)

    def take(self, name: str, default: Any = None) -> Any:
        value = self._left.pop(name, None)
        return default if value is None else value

    def number(self, name: str, default: float | None, least: float, most: float) -> float | None:
        value = self.take(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Refused(f"{name}: is {_shown(value)}; expected a number from {least:g} to {most:g}", name)
        return value

    def integer(self, name: str, default: int | None, least: int, most: int) -> int | None:
        value = self.take(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refused(f"{name}: is {_shown(value)}; expected an integer from {least} to {most}", name)
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise Refused(f"{name}: is {_shown(value)}; expected true or false", name)
        return value

    def finish(self) -> None:
        for name, value in self._left.items():
            if name in _IGNORED:
                continue
            if name not in _NEUTRAL:
                raise Refused(f"{name}: unknown field", name, code="unknown_parameter")
            if not any(value == one and (type(value) is type(one) or value == 0) for one in _NEUTRAL[name]):
                raise Refused(f"{name}: is {_shown(value)}; this server does not support it", name, code="unsupported")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _sampling(fields: _Fields, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
    stop = fields.take("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > _MOST_STOPS or not all(isinstance(one, str) for one in stop):
        raise Refused(f"stop: is {_shown(stop)}; expected a string, or up to {_MOST_STOPS} of them", "stop")
    options = fields.take("stream_options", {})
    if not isinstance(options, dict):
        raise Refused(f"stream_options: is {type_name(options)}; expected an object", "stream_options")
    temperature = fields.number("temperature", 1.0, 0, 100)
    top_p = fields.number("top_p", 1.0, 0, 1)
    choices = fields.integer("n", 1, 1, _MOST_CHOICES)
    assert temperature is not None  # it has a default, as the next two
    assert top_p is not None
    assert choices is not None
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=fields.integer("seed", None, -(2**63), 2**63 - 1),
        stop=tuple(one for one in stop if one),
        choices=choices,
        top_logprobs=top_logprobs,
        stream=fields.boolean("stream", False),
        include_usage=options.get("include_usage") is True,
        ignore_eos=fields.boolean("ignore_eos", False),
    )


def read_chat(body: Any) -> ChatRequest:
    """Check the body of /v1/chat/completions. Raises Refused."""
    fields = _Fields(body)
    given = fields.take("messages")
    if not isinstance(given, list) or not given:
        raise Refused("messages: expected an array with at least one message", "messages")
    messages = [_message(one, f"messages.{position}") for position, one in enumerate(given)]
    former = fields.integer("max_tokens", None, 1, 2**31)
    max_tokens = fields.integer("max_completion_tokens", former, 1, 2**31)
    wanted = fields.boolean("logprobs", False)
    top = fields.integer("top_logprobs", None, 0, MOST_LOGPROBS)
    if top is not None and not wanted:
        raise Refused("top_logprobs: needs logprobs: true", "top_logprobs")
    sampling = _sampling(fields, max_tokens, (top or 0) if wanted else None)
    fields.finish()
    return ChatRequest(messages=messages, sampling=sampling)


def _message(value: Any, field: str) -> Message:
    if not isinstance(value, dict):
        raise Refused(f"{field}: is {type_name(value)}; expected an object", field)
    role = _ROLES.get(value["role"]) if isinstance(value.get("role"), str) else None
    if role is None:
        raise Refused(f"{field}.role: is {_shown(value.get('role'))}; expected one of {', '.join(_ROLES)}", field)
    content = value.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise Refused(f"{field}.content: has parts that are not text; expected only text", field)
        content = "".join(part for part in parts if part)
    if not isinstance(content, str):
        raise Refused(f"{field}.content: is {type_name(content)}; expected text", field)
    for name in ("tool_calls", "function_call", "audio", "refusal"):
        if value.get(name):
            raise Refused(f"{field}.{name}: this server does not support it", field, code="unsupported")
    return {"role": role, "content": content}


def read_completion(body: Any) -> CompletionRequest:
    """Check the body of /v1/completions. Raises Refused."""
    fields = _Fields(body)
    prompts = _prompts(fields.take("prompt"))
    echo = fields.boolean("echo", False)
    max_tokens = fields.integer("max_tokens", 16, 0, 2**31)
    top = fields.integer("logprobs", None, 0, MOST_LOGPROBS)
    special = fields.boolean("add_special_tokens", True)
    sampling = _sampling(fields, max_tokens, top)
    fields.finish()
    return CompletionRequest(prompts=prompts, echo=echo, add_special_tokens=special, sampling=sampling)


def _prompts(value: Any) -> list[str | list[int]]:
    if isinstance(value, str) or _is_ids(value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(one, str) or _is_ids(one) for one in value):
        return value
    raise Refused("prompt: expected a text, token ids, or an array of either", "prompt")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(id) is int for id in value)
