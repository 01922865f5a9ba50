"""Messages to token ids with a mask of what is trained: exactly the assistant's words and the end of its turn.

The rendered conversation is encoded whole, as transformers' `apply_chat_template` does, and the mask follows from each
token's offsets in the text. There are two exceptions. A token that would straddle the border between a prompt and an
answer is cut there, because at inference the model sees the prompt without the answer. And a special token that a
message spells out (`<s>` in an answer about HTML) is encoded as text: only the template writes special tokens.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..formats.chat import Message
from ..formats.contract import ConfigError, WorkError
from .render import ChatTemplate, Refusal, Rendered, render

__all__ = ["IGNORED", "ConversationEncoder", "Encoded", "PromptEncoder"]

IGNORED = -100  # the label that torch's cross entropy and TRL ignore
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
)
# Characters to encode in front of a piece of text, so that the tokenizer puts no space before the piece itself
_ANCHORS = ("\n", "a", ".", "1")
# Private-use characters: one that breaks a special token's text, and two around the id in a token's stand-in
_BREAK, _OPEN, _CLOSE = "\U000f5a16", "\U000f5a17", "\U000f5a18"
_FIRST_STAND_IN = 0x100000
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and whether each of them is trained."""

    input_ids: list[int]
    trained: list[bool]

    @property
    def labels(self) -> list[int]:
        """Return the ids that are trained, and `IGNORED` for the others."""
        pairs = zip(self.input_ids, self.trained, strict=True)
        return [token if trained else IGNORED for token, trained in pairs]


@dataclass(frozen=True)
class _Aligned:
    """Token ids with their (start, end) offsets in the text, and the assistant's spans of the same text."""

    ids: list[int]
    offsets: Spans
    spans: Spans


class _TextEncoder:
    """Text to ids and their offsets.

    Its tokenizer has no post-processor, which would add tokens and exclude white space from the offsets.
    """

    def __init__(self, backend: Tokenizer, control: Iterable[str]) -> None:
        self._plain = Tokenizer.from_str(backend.to_str())
        self._plain.post_processor = None
        self._plain.no_truncation()
        self._plain.no_padding()
        self._plain.encode_special_tokens = False
        added = self._plain.get_added_tokens_decoder()
        wanted = set(control)
        # tokens where a template writes them, text where a message does
        self._controls = {
            id: token
            for id, token in added.items()
            if token.content and not token.single_word and (token.special or token.content in wanted)
        }
        texts = sorted((token.content for token in self._controls.values()), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, texts)) or "(?!)")

    def is_control(self, id: int) -> bool:
        """Whether an id is a special token, or one that the template names."""
        return id in self._controls

    def encode_plain(self, rendered: Sequence[Rendered]) -> list[_Aligned]:
        """Encode texts in which only the template has written special tokens."""
        encodings = self._plain.encode_batch([one.text for one in rendered], add_special_tokens=False)
        return [
            _cut_at_borders(self._plain, one.text, encoding, one.spans)
            for one, encoding in zip(rendered, encodings, strict=True)
        ]

    def break_special(self, messages: Sequence[Message]) -> list[Message] | None:
        """Break each special token that the messages spell out with `_BREAK`; None if they spell none."""
        if not any(self.special.search(message["content"]) for message in messages):
            return None
        if any(mark in message["content"] for message in messages for mark in (_BREAK, _OPEN, _CLOSE)):
            reserved = f"U+{ord(_BREAK):X} to U+{ord(_CLOSE):X}"
            raise Refusal(f"a message contains both a special token and a reserved character, {reserved}")

        def broken(match: re.Match[str]) -> str:
            return match[0][0] + _BREAK + match[0][1:]

        return [message | {"content": self.special.sub(broken, message["content"])} for message in messages]

    def encode_broken(self, rendered: Rendered) -> _Aligned:
        """Encode what was rendered from broken messages.

        The template's special tokens are replaced by stand-ins, which are not special; then the broken texts are joined
        again and encoded with special tokens as text.
        """
        backend, real_ids = self._by_text
        stand_ins = {token.content: _stand_in(id) for id, token in self._controls.items()}
        parts: list[str] = []
        old, new = [0], [0]  # where each replacement ends, in the old text and in the new one
        position = 0
        for match in re.compile(f"{self.special.pattern}|{_BREAK}").finditer(rendered.text):
            replacement = stand_ins.get(match[0], "")
            parts += [rendered.text[position : match.start()], replacement]
            position = match.end()
            old.append(position)
            new.append(new[-1] + len(parts[-2]) + len(replacement))
        parts.append(rendered.text[position:])
        text = "".join(parts)

        def moved(offset: int) -> int:
            index = bisect_right(old, offset) - 1
            return new[index] + offset - old[index]

        spans = [(moved(start), moved(end)) for start, end in rendered.spans]
        aligned = _cut_at_borders(backend, text, backend.encode(text, add_special_tokens=False), spans)
        return replace(aligned, ids=[real_ids.get(id, id) for id in aligned.ids])

    @cached_property
    def _by_text(self) -> tuple[Tokenizer, dict[int, int]]:
        """A tokenizer for which special tokens are text and stand-ins are tokens; and the real id of each stand-in."""
        backend = Tokenizer.from_str(self._plain.to_str())
        backend.add_special_tokens([token.content for token in self._controls.values() if not token.special])
        backend.encode_special_tokens = True
        kinds = ("lstrip", "rstrip", "normalized", "single_word")
        backend.add_tokens(
            [
                AddedToken(_stand_in(id), special=False, **{kind: getattr(token, kind) for kind in kinds})
                for id, token in self._controls.items()
            ]
        )
        return backend, {int(backend.token_to_id(_stand_in(id)) or 0): id for id in self._controls}


def _stand_in(id: int) -> str:
    return _OPEN + "".join(chr(_FIRST_STAND_IN + int(digit)) for digit in str(id)) + _CLOSE


def _cut_at_borders(backend: Tokenizer, text: str, encoding: Encoding, spans: Spans) -> _Aligned:
    """Return the encoding of a text, or encode it in pieces if a token straddles the border of a span."""
    cuts = _straddled(encoding.offsets, spans)
    if not cuts:
        return _Aligned(encoding.ids, encoding.offsets, spans)
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    edges = [0, *cuts, len(text)]
    for start, end in pairwise(edges):
        piece, shift = text[start:end], start
        encoding = backend.encode(piece, add_special_tokens=False)
        first = 0
        # A tokenizer that puts a space before every text would put one before the piece. A character that is encoded
        # in front of the piece, and dropped again, gets that space instead.
        for anchor in _ANCHORS if start else ():
            longer = backend.encode(anchor + piece, add_special_tokens=False)
            count = sum(offset[0] < len(anchor) for offset in longer.offsets)
            anchor_ids = backend.encode(anchor, add_special_tokens=False).ids
            if longer.ids[:count] == anchor_ids and all(offset[1] <= len(anchor) for offset in longer.offsets[:count]):
                encoding, first, shift = longer, count, start - len(anchor)
                break
        ids += encoding.ids[first:]
        offsets += [(one + shift, other + shift) for one, other in encoding.offsets[first:]]
    return _Aligned(ids, offsets, spans)


def _straddled(offsets: Spans, spans: Spans) -> list[int]:
    """List the borders of spans that are inside a token."""
    starts = [start for start, _ in offsets]
    found = set()
    for border in {border for span in spans for border in span}:
        index = bisect_left(starts, border) - 1
        if index >= 0 and offsets[index][1] > border:
            found.add(border)
    return sorted(found)


def _check_answers(rendered: Rendered, messages: Sequence[Message]) -> None:
    """Raise Refusal unless the template marks every answer, and its whole text, in order."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if len(rendered.spans) != len(answers):
        raise Refusal(f"it marks {len(rendered.spans)} answers; expected {len(answers)}")
    for number, ((start, end), answer) in enumerate(zip(rendered.spans, answers, strict=True)):
        # many published templates strip answers, and then inference strips them too
        if answer.strip() not in rendered.text[start:end]:
            raise Refusal(f"it marks {rendered.text[start:end]!r:.40} as answer {number + 1}; expected its text")


class PromptEncoder:
    """Encodes the prompt of an answer, with one tokenizer and one template."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        """Check that the template renders a conversation.

        Raises:
            ConfigError: it does not, or it needs a token that the tokenizer does not have.
        """
        self.tokenizer, self.template = tokenizer, template
        self._tokens = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
        }
        if "bos_token" in template.text and "bos_token" not in self._tokens:
            raise ConfigError(
                f"template: {template.name} template uses bos_token; expected a tokenizer that has one",
                hint="use a template without it, or set template.add_bos=false",
            )
        named = [token for token in self._tokens.values() if token]
        self._text = _TextEncoder(tokenizer.backend_tokenizer, [*template.special_tokens, *named])
        try:
            self._probe = render(template.text, _PROBE, self._tokens)
        except Refusal as refusal:
            raise ConfigError(
                f"template: {template.name} template cannot render a question and its answer ({refusal}); "
                "expected a chat template"
            ) from refusal

    @cached_property
    def drops_system(self) -> bool:
        """Whether the template silently drops a system message."""
        content = "Xyzzy-17"
        try:
            rendered = render(self.template.text, [{"role": "system", "content": content}, *_PROBE], self._tokens)
        except Refusal:
            return False
        return content not in rendered.text

    @property
    def turn_end(self) -> int | None:
        """Id of the special token that the template writes after an answer; None if it writes none."""
        answer = _PROBE[-1]["content"]
        start = self._probe.text.rfind(answer)
        match = self._text.special.search(self._probe.text, start + len(answer)) if start >= 0 else None
        id: int | None = self.tokenizer.backend_tokenizer.token_to_id(match[0]) if match else None
        return id

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode the conversation so far and the header of the assistant's turn.

        Raises:
            Refusal: the template refuses the messages.
        """
        broken = self._text.break_special(messages)
        rendered = render(self.template.text, broken or messages, self._tokens, add_generation_prompt=True)
        uncut = replace(rendered, spans=())  # as it is encoded at inference
        aligned = self._text.encode_plain([uncut])[0] if broken is None else self._text.encode_broken(uncut)
        return aligned.ids


class ConversationEncoder(PromptEncoder):
    """Encodes conversations with a mask, after checking that the template and the tokenizer fit each other."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        """Check that the template fits.

        Raises:
            WorkError: the tokenizer has no end-of-sequence token.
            ConfigError: a turn does not end in a special token, or a prompt without its answer renders differently.
        """
        if tokenizer.eos_token_id is None:
            raise WorkError("tokenizer_config.json: eos_token not found; expected the token that ends a text")
        super().__init__(tokenizer, template)
        self.stop_id = self._find_stop()
        self._check_prompt()

    def encode(
        self, conversations: Sequence[Sequence[Message]], untrained: Sequence[frozenset[int]] = ()
    ) -> list[Encoded | Refusal]:
        """Encode conversations, many at once; the result of one that the template refuses is a `Refusal`.

        `untrained` lists for each conversation the answers, counted from 0, that are not trained.
        """
        masked = untrained or [frozenset()] * len(conversations)
        results: list[Encoded | Refusal] = []
        plain: dict[int, Rendered] = {}  # encoded together afterwards, on all cores
        for index, messages in enumerate(conversations):
            try:
                broken = self._text.break_special(messages)
                rendered = render(self.template.text, broken or messages, self._tokens)
                _check_answers(rendered, broken or messages)
                if broken is None:
                    plain[index] = rendered
                    results.append(Encoded([], []))
                else:
                    results.append(self._masked(self._text.encode_broken(rendered), masked[index]))
            except Refusal as refusal:
                results.append(refusal)
        for index, aligned in zip(plain, self._text.encode_plain(list(plain.values())), strict=True):
            try:
                results[index] = self._masked(aligned, masked[index])
            except Refusal as refusal:
                results[index] = refusal
        return results

    def encode_one(self, messages: Sequence[Message]) -> Encoded:
        """Encode one conversation. Raises Refusal."""
        result = self.encode([messages])[0]
        if isinstance(result, Refusal):
            raise result
        return result

    def encode_answer(self, prompt: Sequence[Message], answer: str) -> list[int]:
        """Encode an answer to a prompt, with the end of its turn. Raises Refusal."""
        earlier = frozenset(range(sum(message["role"] == "assistant" for message in prompt)))
        encoded = self.encode([[*prompt, {"role": "assistant", "content": answer}]], [earlier])[0]
        if isinstance(encoded, Refusal):
            raise encoded
        # the run of trained tokens is the answer; what the template writes after it does not belong to it
        end = len(encoded.trained) - encoded.trained[::-1].index(True)
        start = end
        while start and encoded.trained[start - 1]:
            start -= 1
        return encoded.input_ids[start:end]

    def _masked(self, aligned: _Aligned, untrained: frozenset[int]) -> Encoded:
        """Mark the tokens of the spans. Raises Refusal: a doubled beginning, or an answer without its end."""
        bos = self.tokenizer.bos_token_id
        if bos is not None and aligned.ids[:2] == [bos, bos]:
            raise Refusal(f"the row begins with {self.tokenizer.bos_token} twice; expected it once")
        starts = [start for start, _ in aligned.offsets]
        trained = [False] * len(starts)
        for number, (start, end) in enumerate(aligned.spans):
            first, last = bisect_left(starts, start), bisect_left(starts, end)
            if first == last or not self._text.is_control(aligned.ids[last - 1]):
                raise Refusal(f"answer {number + 1} does not end in a special token, so its end would not be trained")
            if number not in untrained:
                trained[first:last] = [True] * (last - first)
        return Encoded(aligned.ids, trained)

    def _find_stop(self) -> int:
        name = self.template.name
        spans = [self._probe.text[start:end] for start, end in self._probe.spans]
        answers = [message["content"] for message in _PROBE if message["role"] == "assistant"]
        if not spans:
            raise ConfigError(f"template: {name} template marks no text as the assistant's; expected each answer")
        if len(spans) != len(answers) or any(a not in span for a, span in zip(answers, spans, strict=True)):
            raise ConfigError(
                f"template: {name} template marks {spans!r:.80} in a chat of two answers; expected each answer once",
                hint="put {% generation %} and {% endgeneration %} around each answer and its end",
            )
        aligned = self._text.encode_plain([self._probe])[0]
        starts = [start for start, _ in aligned.offsets]
        stop = aligned.ids[bisect_left(starts, aligned.spans[-1][1]) - 1]
        if not self._text.is_control(stop):
            raise ConfigError(
                f"template: {self.template.name} template ends an answer with "
                f'"{self.tokenizer.decode([stop])}"; expected a special token within {{% generation %}}',
                hint="end the answer with eos_token, or name its end in template.special_tokens",
            )
        try:
            self.encode_one(_PROBE)
        except Refusal as refusal:
            raise ConfigError(f"template: {name} template does not fit the tokenizer: {refusal}") from refusal
        return int(stop)

    def _check_prompt(self) -> None:
        prompt = render(self.template.text, _PROBE[:-1], self._tokens, add_generation_prompt=True)
        start = self._probe.spans[-1][0]
        if self._probe.text[:start] != prompt.text:
            raise ConfigError(
                f"template: {self.template.name} template renders a prompt without its answer differently; "
                "expected the same text with and without",
                hint="let add_generation_prompt add exactly the text between a user's message and {% generation %}",
            )
