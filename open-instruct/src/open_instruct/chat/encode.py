"""Messages to token ids with a mask of what is trained: exactly the assistant's words and the end of its turn.

The rendered conversation is encoded whole, as transformers' `apply_chat_template` does, and the mask follows from each
token's place in the text. Two things differ, and only where they must. A token that would straddle the border between a
prompt and an answer is cut there: a model that answers meets the prompt without the answer. And a message that spells a
special token (`<s>` in an answer about HTML) is text: only what the template writes itself is a token.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..errors import RequestError, WorkError
from ..formats.chat import Message
from .render import ChatTemplate, Refusal, Rendered, render

__all__ = ["IGNORED", "ConversationEncoder", "Encoded", "PromptEncoder"]

IGNORED = -100  # the label that torch's cross entropy and TRL leave out
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
)
# Texts that may stand before a piece of a text while it is encoded, so that no space is put before it
_ANCHORS = ("\n", "a", ".", "1")
# Private-use characters: one that breaks a special token's text, and two around the number of a token's stand-in
_BREAK, _OPEN, _CLOSE = "\U000f5a16", "\U000f5a17", "\U000f5a18"
_FIRST_STAND_IN = 0x100000
Spans = Sequence[tuple[int, int]]


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


class _TextEncoder:
    """Text to ids and places. No post-processor: it would add tokens, and trim the white space off the places."""

    def __init__(self, backend: Tokenizer, control: Iterable[str]) -> None:
        self._plain = Tokenizer.from_str(backend.to_str())
        self._plain.post_processor = None
        self._plain.no_truncation()
        self._plain.no_padding()
        self._plain.encode_special_tokens = False
        self._by_text: tuple[Tokenizer, dict[int, int]] | None = None
        added = self._plain.get_added_tokens_decoder()
        wanted = set(control)
        # what a template writes as a token and a message as text
        self._controls = {
            id: token
            for id, token in added.items()
            if token.content and not token.single_word and (token.special or token.content in wanted)
        }
        texts = sorted((token.content for token in self._controls.values()), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, texts)) or "(?!)")

    def encode_plain(self, texts: list[str]) -> list[Encoding]:
        """Encode texts in which every special token is one."""
        encodings: list[Encoding] = self._plain.encode_batch(texts, add_special_tokens=False)
        return encodings

    def cut_plain(self, text: str, cuts: list[int]) -> tuple[list[int], Spans]:
        return _encode_cut(self._plain, text, cuts)

    def break_special(self, messages: Sequence[Message]) -> list[Message] | None:
        """Give the messages with each special token that they spell broken by `_BREAK`; None where they spell none."""
        if not any(self.special.search(message["content"]) for message in messages):
            return None
        if any(mark in message["content"] for message in messages for mark in (_BREAK, _OPEN, _CLOSE)):
            raise Refusal(f"a message spells a special token and holds one of U+{ord(_BREAK):X} to U+{ord(_CLOSE):X}")

        def broken(match: re.Match[str]) -> str:
            return match[0][0] + _BREAK + match[0][1:]

        return [message | {"content": self.special.sub(broken, message["content"])} for message in messages]

    def encode_broken(self, rendered: Rendered, cuts_of: Any) -> tuple[list[int], Spans, Spans]:
        """Encode what was rendered from broken messages: (ids, their places, the spans in the same text).

        The template's own tokens become stand-ins that are no special tokens; then what messages spell is mended, and
        special tokens are encoded as text. `cuts_of` gives the cuts of (places, spans).
        """
        if self._by_text is None:
            self._by_text = self._make_by_text()
        backend, real_ids = self._by_text
        stand_ins = {token.content: _stand_in(id) for id, token in self._controls.items()}
        parts: list[str] = []
        old, new = [0], [0]  # places where the text's length changes, before and after
        position = 0
        for match in re.compile(f"{self.special.pattern}|{_BREAK}").finditer(rendered.text):
            replacement = stand_ins.get(match[0], "")
            parts += [rendered.text[position : match.start()], replacement]
            position = match.end()
            old.append(position)
            new.append(new[-1] + len(parts[-2]) + len(replacement))
        parts.append(rendered.text[position:])
        text = "".join(parts)

        def moved(place: int) -> int:
            index = bisect_right(old, place) - 1
            return new[index] + place - old[index]

        spans = [(moved(start), moved(end)) for start, end in rendered.spans]
        encoding = backend.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        places: Spans = encoding.offsets
        cuts = cuts_of(places, spans)
        if cuts:
            ids, places = _encode_cut(backend, text, cuts)
        return [real_ids.get(id, id) for id in ids], places, spans

    def _make_by_text(self) -> tuple[Tokenizer, dict[int, int]]:
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


def _encode_cut(backend: Tokenizer, text: str, cuts: list[int]) -> tuple[list[int], Spans]:
    """Encode a text in pieces that end at `cuts`."""
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    edges = [0, *cuts, len(text)]
    for start, end in pairwise(edges):
        piece, shift = text[start:end], start
        encoding = backend.encode(piece, add_special_tokens=False)
        first = 0
        # A tokenizer that puts a space before every text would put one before the piece. A character that is encoded
        # in front of it, and cut off again, takes that space instead.
        for anchor in _ANCHORS if start else ():
            longer = backend.encode(anchor + piece, add_special_tokens=False)
            count = sum(place[0] < len(anchor) for place in longer.offsets)
            alone = backend.encode(anchor, add_special_tokens=False).ids
            if longer.ids[:count] == alone and all(place[1] <= len(anchor) for place in longer.offsets[:count]):
                encoding, first, shift = longer, count, start - len(anchor)
                break
        ids += encoding.ids[first:]
        places += [(one + shift, other + shift) for one, other in encoding.offsets[first:]]
    return ids, places


def _cuts(places: Spans, spans: Spans) -> list[int]:
    """List the borders of spans that a token straddles."""
    starts = [start for start, _ in places]
    found = set()
    for border in {place for span in spans for place in span}:
        index = bisect_left(starts, border) - 1
        if index >= 0 and places[index][1] > border:
            found.add(border)
    return sorted(found)


def _mask(places: Spans, spans: Spans, untrained: frozenset[int]) -> list[bool]:
    starts = [start for start, _ in places]
    trained = [False] * len(places)
    for number, (start, end) in enumerate(spans):
        for index in range(bisect_left(starts, start), bisect_left(starts, end)):
            trained[index] = number not in untrained
    return trained


class PromptEncoder:
    """Encodes what stands before an answer, with one tokenizer and one template."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        """Check that the template renders a conversation.

        Raises:
            RequestError: a template that does not, or that needs a token which the tokenizer lacks.
        """
        self.tokenizer, self.template = tokenizer, template
        self._tokens = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
        }
        if "bos_token" in template.text and "bos_token" not in self._tokens:
            raise RequestError(
                f"template: {template.name} template begins with bos_token, which the tokenizer lacks; expected one",
                "use a template without it, or set template.add_bos=false",
            )
        named = [token for token in self._tokens.values() if token]
        self._text = _TextEncoder(tokenizer.backend_tokenizer, [*template.special_tokens, *named])
        try:
            self._probe = render(template.text, _PROBE, self._tokens)
        except Refusal as refusal:
            raise RequestError(
                f"template: {template.name} template does not render a question and its answer ({refusal}); "
                "expected a chat template"
            ) from refusal

    @cached_property
    def drops_system(self) -> bool:
        """Whether the template leaves a system message out without a word."""
        content = "Xyzzy-17"
        try:
            rendered = render(self.template.text, [{"role": "system", "content": content}, *_PROBE], self._tokens)
        except Refusal:
            return False
        return content not in rendered.text

    @property
    def turn_end(self) -> int | None:
        """Id of the special token that the template puts after an answer; None where it puts none."""
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
        if broken is None:
            return list(self._text.encode_plain([rendered.text])[0].ids)
        return self._text.encode_broken(rendered, lambda *_: [])[0]


class ConversationEncoder(PromptEncoder):
    """Encodes conversations with a mask; the tokenizer and the template are checked against each other first."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        """Check that the template fits.

        Raises:
            WorkError: the tokenizer has no end-of-sequence token.
            RequestError: a turn that does not end in a special token, or a prompt that renders differently alone.
        """
        if tokenizer.eos_token_id is None:
            raise WorkError("tokenizer_config.json: has no eos_token; expected the token that ends a text")
        super().__init__(tokenizer, template)
        self.stop_id = self._find_stop()
        self._check_prompt()

    def encode(
        self, conversations: Sequence[Sequence[Message]], untrained: Sequence[frozenset[int]] = ()
    ) -> list[Encoded | Refusal]:
        """Encode conversations, many at once; a refusal stands in the place of one that the template refuses.

        `untrained` has of each conversation which of its answers, counted from 0, are not trained.
        """
        results: list[Encoded | Refusal] = []
        plain: list[tuple[int, Rendered, frozenset[int]]] = []
        for index, messages in enumerate(conversations):
            skipped = untrained[index] if untrained else frozenset()
            try:
                broken = self._text.break_special(messages)
                rendered = render(self.template.text, broken or messages, self._tokens)
                answers = sum(message["role"] == "assistant" for message in messages)
                if len(rendered.spans) != answers:
                    what = f"it marks {len(rendered.spans)} stretches as the assistant's; expected {answers}"
                    raise Refusal(what)
                if broken is None:
                    plain.append((index, rendered, skipped))
                    results.append(Encoded([], []))
                else:
                    ids, places, spans = self._text.encode_broken(rendered, _cuts)
                    results.append(Encoded(ids, _mask(places, spans, skipped)))
            except Refusal as refusal:
                results.append(refusal)
        encodings = self._text.encode_plain([rendered.text for _, rendered, _ in plain])
        for (index, rendered, skipped), encoding in zip(plain, encodings, strict=True):
            ids, places = encoding.ids, encoding.offsets
            cuts = _cuts(places, rendered.spans)
            if cuts:
                ids, places = self._text.cut_plain(rendered.text, cuts)
            results[index] = Encoded(ids, _mask(places, rendered.spans, skipped))
        return results

    def encode_one(self, messages: Sequence[Message]) -> Encoded:
        """Encode one conversation. Raises Refusal."""
        result = self.encode([messages])[0]
        if isinstance(result, Refusal):
            raise result
        return result

    def encode_pair(self, prompt: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """Encode a prompt and one answer: (ids of the prompt, ids of the answer with the end of its turn)."""
        encoded = self.encode_one([*prompt, {"role": "assistant", "content": answer}])
        # the last trained stretch is the answer; what the template puts after it is left out
        end = len(encoded.trained) - encoded.trained[::-1].index(True)
        start = end
        while start and encoded.trained[start - 1]:
            start -= 1
        return self.encode_prompt(prompt), encoded.input_ids[start:end]

    def _find_stop(self) -> int:
        name = self.template.name
        spans = [self._probe.text[start:end] for start, end in self._probe.spans]
        answers = [message["content"] for message in _PROBE if message["role"] == "assistant"]
        if not spans:
            raise RequestError(f"template: {name} template marks no text as the assistant's; expected its answers")
        if len(spans) != len(answers) or any(a not in span for a, span in zip(answers, spans, strict=True)):
            raise RequestError(
                f"template: {name} template marks {spans!r:.80} of two answers; expected each of them once",
                "put {% generation %} and {% endgeneration %} around each answer and its end",
            )
        encoded = self.encode_one(_PROBE)
        last = len(encoded.trained) - 1 - encoded.trained[::-1].index(True)
        stop = encoded.input_ids[last]
        if not self._text.special.fullmatch(self.tokenizer.convert_ids_to_tokens(stop)):
            raise RequestError(
                f"template: {self.template.name} template ends an answer with "
                f'"{self.tokenizer.decode([stop])}"; expected a special token within {{% generation %}}',
                "end the answer with eos_token, or name its end in template.special_tokens",
            )
        return int(stop)

    def _check_prompt(self) -> None:
        prompt = render(self.template.text, _PROBE[:-1], self._tokens, add_generation_prompt=True)
        start = self._probe.spans[-1][0]
        if self._probe.text[:start] != prompt.text:
            raise RequestError(
                f"template: {self.template.name} template renders a prompt alone differently than before its answer; "
                "expected the same text",
                "let add_generation_prompt add exactly the text between a user's message and {% generation %}",
            )
