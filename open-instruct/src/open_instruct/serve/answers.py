"""Answers of OpenAI's API: the events of the engine as JSON, in one piece or in chunks."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from .engine import Token
from .requests import Refused
from .text import token_texts

__all__ = ["ChatShape", "CompletionShape", "error_body", "usage"]


def error_body(refused: Refused) -> dict[str, Any]:
    """Return the JSON of an error."""
    kind = "invalid_request_error" if refused.status < 500 and refused.status != 429 else "server_error"
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return the counts of tokens."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


class _Shape:
    """What all JSON of one answer has in common: its id, time and model."""

    prefix, whole, chunk = "", "", ""

    def __init__(self, model: str, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._head = {"id": f"{self.prefix}{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def envelope(self, choices: list[dict[str, Any]], *, streaming: bool = False) -> dict[str, Any]:
        """Return an answer with these choices, or one chunk of it."""
        kind = self.chunk if streaming else self.whole
        return {**self._head, "object": kind, "choices": choices}


class ChatShape(_Shape):
    """/v1/chat/completions."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return the log-probabilities of generated tokens."""
        return {"content": [self._entry(token) for token in tokens], "refusal": None}

    def _entry(self, token: Token) -> dict[str, Any]:
        texts = token_texts(self._tokenizer, [token.id, *(id for id, _ in token.top)])
        named = [
            {"token": text, "logprob": logprob, "bytes": list(text.encode())}
            for text, logprob in zip(texts, [token.logprob, *(logprob for _, logprob in token.top)], strict=True)
        ]
        return {**named[0], "top_logprobs": named[1:]}

    def choice(self, index: int, text: str, reason: str, logprobs: Any) -> dict[str, Any]:
        """Return one whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def delta(self, index: int, text: str | None, reason: str | None, logprobs: Any) -> dict[str, Any]:
        """Return a piece of an answer; the first one has no text, only the role."""
        delta = {"role": "assistant", "content": ""} if text is None else {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


class CompletionShape(_Shape):
    """/v1/completions."""

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def __init__(self, model: str, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self._offsets: dict[int, int] = {}

    def logprobs(self, tokens: Sequence[Token], index: int = 0) -> dict[str, Any]:
        """Return the log-probabilities of tokens, which continue those of the calls before for this choice."""
        texts, top, offsets = [], [], []
        at = self._offsets.get(index, 0)
        for token in tokens:
            own, *likely = token_texts(self._tokenizer, [token.id, *(id for id, _ in token.top)])
            texts.append(own)
            named = {text: logprob for text, (_, logprob) in zip(likely, token.top, strict=True)}
            top.append(None if token.logprob is None else named | {own: token.logprob})
            offsets.append(at)
            at += len(own)
        self._offsets[index] = at
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": offsets,
        }

    def choice(self, index: int, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
        """Return one whole answer, or a piece of it."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
