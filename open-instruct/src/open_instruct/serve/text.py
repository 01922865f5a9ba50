"""Generated ids to text, piece by piece, up to a stop string."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

__all__ = ["TextStream", "token_texts"]

_CONTEXT_TOKENS = 8  # of the prompt: enough to decide whether the first piece begins with a space


class TextStream:
    """The text of one answer. What could be the beginning of a stop string is held back until it is decided."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt[-_CONTEXT_TOKENS:]), skip_special_tokens=True)
        self._tokenizer, self._stop, self._ids = tokenizer, stop, list[int]()
        self._held = ""
        self.text = ""
        """Everything that was returned so far."""
        self.stopped = False
        """Whether a stop string was found; the text ends before it."""

    def add(self, id: int) -> str:
        """Return the text that the next token completes, which may be empty."""
        piece = self._stream.step(self._backend, id) or ""
        self._ids = [] if piece else [*self._ids, id]
        return self._advance(piece)

    def end(self) -> str:
        """Return what is left: text that was held back, and bytes that are no whole character."""
        rest = self._tokenizer.decode(self._ids, skip_special_tokens=True) if self._ids else ""
        return self._advance(rest, last=True)

    def _advance(self, piece: str, *, last: bool = False) -> str:
        if self.stopped:
            return ""
        held = self._held + piece
        found = [position for stop in self._stop if (position := held.find(stop)) >= 0]
        if found:
            self.stopped = True
            ready, self._held = held[: min(found)], ""
        else:
            keep = 0 if last else max((_overlap(held, stop) for stop in self._stop), default=0)
            ready, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self.text += ready
        return ready


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token by itself, all different: the vocabulary's own form where the text is not unique.

    A token that is part of a character has no text, and two such tokens must not become one key of a JSON object.
    """
    texts: dict[str, int] = {}
    found = []
    for id in ids:
        text = tokenizer.decode([id])
        if "\N{REPLACEMENT CHARACTER}" in text or texts.get(text, id) != id:  # the chosen token may occur twice
            text = tokenizer.convert_ids_to_tokens(id) or f"<{id}>"
        texts[text] = id
        found.append(text)
    return found
