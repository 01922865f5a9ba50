"""Messages to token ids with a mask of what is trained: exactly the assistant's words and the end of its turn.

Each segment of the rendered text is encoded by itself, so no token straddles the border between a prompt and an
answer. That is what a model meets when it answers: the prompt is encoded without the answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError, WorkError
from ..formats.chat import Message
from .render import ChatTemplate, Segment, render

__all__ = ["IGNORED", "ConversationEncoder", "Encoded"]

IGNORED = -100  # the label that torch's cross entropy and TRL leave out
_ANCHOR = "\n"
_PREFIX_SIGNS = ("▁", "Ġ")  # how SentencePiece and byte-level tokenizers write a space
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
)


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation and, beside each, whether it is trained."""

    input_ids: list[int]
    trained: list[bool]

    @property
    def labels(self) -> list[int]:
        """Give the ids where they are trained and `IGNORED` elsewhere."""
        pairs = zip(self.input_ids, self.trained, strict=True)
        return [token if trained else IGNORED for token, trained in pairs]


class ConversationEncoder:
    """Encodes conversations with one tokenizer and one template, checked against each other when it is made."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        """Check that the template fits.

        Raises:
            WorkError: the tokenizer has no end-of-sequence token.
            RequestError: a turn that does not end in a special token, or a prompt that renders differently alone.
        """
        if tokenizer.eos_token_id is None:
            raise WorkError("tokenizer_config.json: has no eos_token; expected the token that ends a text")
        self.tokenizer, self.template = tokenizer, template
        self._tokens = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
        }
        if "bos_token" in template.text and "bos_token" not in self._tokens:
            raise RequestError(
                f"template: {template.name} template begins with bos_token, which the tokenizer lacks; expected one",
                "use a template without it, or set template.add_bos=false",
            )
        self._anchor = self._find_anchor()
        special = [token for token in tokenizer.all_special_tokens if token]
        special += [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(re.escape(token) for token in sorted(set(special), key=len, reverse=True)))
        self.stop_id = self._find_stop()
        self._check_prompt()

    def holds_special(self, messages: Iterable[Message]) -> bool:
        """Whether a message's text spells a special token, which would become that token and could end a turn."""
        return any(self._special.search(message["content"]) for message in messages)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Encode conversations, many at once."""
        return self._encode([render(self.template.text, one, self._tokens) for one in conversations])

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode what stands before an answer: the conversation so far and the header of the assistant's turn."""
        segments = render(self.template.text, messages, self._tokens, add_generation_prompt=True)
        return self._encode([segments])[0].input_ids

    def encode_pair(self, prompt: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """Encode a prompt and one answer: (ids of the prompt, ids of the answer with the end of its turn)."""
        encoded = self.encode([[*prompt, {"role": "assistant", "content": answer}]])[0]
        # the last trained stretch is the answer; what the template puts after it is left out
        end = len(encoded.trained) - encoded.trained[::-1].index(True)
        start = end
        while start and encoded.trained[start - 1]:
            start -= 1
        return encoded.input_ids[:start], encoded.input_ids[start:end]

    def _encode(self, conversations: list[list[Segment]]) -> list[Encoded]:
        texts = [
            segment.text if position == 0 else self._anchor + segment.text
            for segments in conversations
            for position, segment in enumerate(segments)
        ]
        encoded = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        results = []
        for segments in conversations:
            ids: list[int] = []
            trained: list[bool] = []
            for position, segment in enumerate(segments):
                part = next(encoded)[len(self._anchor_ids) if position else 0 :]
                ids += part
                trained += [segment.trained] * len(part)
            results.append(Encoded(ids, trained))
        return results

    def _find_anchor(self) -> str:
        # A tokenizer that puts a space before every text would put one before every segment. A line break that is
        # encoded in front of the segment, and cut off again, takes that space instead.
        self._anchor_ids: list[int] = []
        encode = self.tokenizer.encode
        first = self.tokenizer.convert_ids_to_tokens(encode("a", add_special_tokens=False))[0]
        later = self.tokenizer.convert_ids_to_tokens(encode(_ANCHOR + "a", add_special_tokens=False))[-1]
        if not first.startswith(_PREFIX_SIGNS) or later.startswith(_PREFIX_SIGNS):
            return ""
        self._anchor_ids = encode(_ANCHOR, add_special_tokens=False)
        return _ANCHOR

    def _find_stop(self) -> int:
        encoded = self.encode([_PROBE])[0]
        if True not in encoded.trained:
            raise RequestError(
                f"template: {self.template.name} template marks no text as the assistant's; expected its answers"
            )
        last = len(encoded.trained) - 1 - encoded.trained[::-1].index(True)
        stop = encoded.input_ids[last]
        if not self._special.fullmatch(self.tokenizer.convert_ids_to_tokens(stop)):
            raise RequestError(
                f"template: {self.template.name} template ends an answer with "
                f'"{self.tokenizer.decode([stop])}"; expected a special token within {{% generation %}}',
                "end the answer with eos_token, or name its end in template.special_tokens",
            )
        return int(stop)

    def _check_prompt(self) -> None:
        whole = self.encode([_PROBE])[0]
        prompt = self.encode_prompt(_PROBE[:-1])
        start, _ = len(prompt), None
        if whole.input_ids[:start] != prompt or not whole.trained[start] or whole.trained[start - 1]:
            raise RequestError(
                f"template: {self.template.name} template renders a prompt alone differently than before its answer; "
                "expected the same text",
                "let add_generation_prompt add exactly the text between a user's message and {% generation %}",
            )
