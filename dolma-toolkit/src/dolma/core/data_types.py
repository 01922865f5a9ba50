"""Documents and spans as taggers written in Python see them; names and arguments are those of dolma 1.x."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from dolma import _native

if TYPE_CHECKING:
    from dolma.core.specs import (
        InputSpec,
        InputSpecWithMetadata,
        InputSpecWithMetadataAndAttributes,
        OutputSpec,
    )

__all__ = [
    "DocResult",
    "Document",
    "DocumentWithMetadata",
    "DocumentWithMetadataAndAttributes",
    "InputSpec",
    "InputSpecWithMetadata",
    "InputSpecWithMetadataAndAttributes",
    "OutputSpec",
    "Span",
    "TaggerOutputDictType",
    "TaggerOutputType",
    "TaggerOutputValueType",
    "TextSlice",
    "make_variable_name",
    "split_paragraphs",
    "split_sentences",
    "split_words",
]

TaggerOutputValueType: TypeAlias = tuple[int, int, float]
"""Start, end and score of a span."""
TaggerOutputType: TypeAlias = list[TaggerOutputValueType]
TaggerOutputDictType: TypeAlias = dict[str, TaggerOutputType]
"""Spans by the key of their attribute."""


def __getattr__(name: str) -> Any:
    """The row structs need ``msgspec``, which a command that reads no rows does not load."""
    if name in ("InputSpec", "InputSpecWithMetadata", "InputSpecWithMetadataAndAttributes", "OutputSpec"):
        from dolma.core import specs

        return getattr(specs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Document:
    """One document. ``version`` is that of the extraction, or None."""

    __slots__ = ("id", "source", "text", "version")

    def __init__(self, source: str, id: str, text: str, version: str | None = None) -> None:
        self.source, self.id, self.text, self.version = source, id, text, version

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> Document:
        """From the mapping that ``to_json`` returns."""
        return cls(source=d["source"], id=d["id"], text=d["text"], version=d.get("version"))

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return {"source": self.source, "version": self.version, "id": self.id, "text": self.text}

    @classmethod
    def from_spec(cls, spec: InputSpec) -> Document:
        """From a decoded row."""
        return cls(source=spec.source, id=spec.id, text=spec.text, version=spec.version)

    def to_spec(self) -> InputSpec:
        """As a row to encode."""
        from dolma.core.specs import InputSpec

        return InputSpec(source=self.source, version=self.version, id=self.id, text=self.text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(source={self.source!r}, id={self.id!r}, text={self.text!r})"


class DocumentWithMetadata(Document):
    """A document with its free ``metadata``, ``{}`` where it has none."""

    __slots__ = ("metadata",)

    def __init__(
        self, source: str, id: str, text: str, version: str | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(source, id, text, version)
        self.metadata = metadata or {}

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> DocumentWithMetadata:
        """From the mapping that ``to_json`` returns."""
        return cls(d["source"], d["id"], d["text"], d.get("version"), d.get("metadata"))

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return {**super().to_json(), "metadata": self.metadata}

    @classmethod
    def from_spec(cls, spec: InputSpec) -> DocumentWithMetadata:
        """From a decoded row."""
        return cls(spec.source, spec.id, spec.text, spec.version, getattr(spec, "metadata", None))

    def to_spec(self) -> InputSpecWithMetadata:
        """As a row to encode."""
        from dolma.core.specs import InputSpecWithMetadata

        row = InputSpecWithMetadata(source=self.source, version=self.version, id=self.id, text=self.text)
        row.metadata = self.metadata
        return row


class DocumentWithMetadataAndAttributes(DocumentWithMetadata):
    """A document with its metadata and the attributes that were merged into its row."""

    __slots__ = ("attributes",)

    def __init__(
        self,
        source: str,
        id: str,
        text: str,
        version: str | None = None,
        metadata: dict[str, Any] | None = None,
        attributes: TaggerOutputDictType | None = None,
    ) -> None:
        super().__init__(source, id, text, version, metadata)
        self.attributes = attributes or {}

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> DocumentWithMetadataAndAttributes:
        """From the mapping that ``to_json`` returns."""
        return cls(d["source"], d["id"], d["text"], d.get("version"), d.get("metadata"), d.get("attributes"))

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return {**super().to_json(), "attributes": self.attributes}

    @classmethod
    def from_spec(cls, spec: InputSpec) -> DocumentWithMetadataAndAttributes:
        """From a decoded row."""
        metadata, attributes = getattr(spec, "metadata", None), getattr(spec, "attributes", None)
        return cls(spec.source, spec.id, spec.text, spec.version, metadata, attributes)

    def to_spec(self) -> InputSpecWithMetadataAndAttributes:
        """As a row to encode."""
        from dolma.core.specs import InputSpecWithMetadataAndAttributes

        row = InputSpecWithMetadataAndAttributes(source=self.source, version=self.version, id=self.id, text=self.text)
        row.metadata, row.attributes = self.metadata, self.attributes
        return row


class Span:
    """A scored part of a text: ``start`` and ``end`` (exclusive) count code points; ``type`` ends the attribute key."""

    __slots__ = ("end", "experiment", "score", "start", "tagger", "type")

    def __init__(
        self,
        start: int,
        end: int,
        type: str,
        score: float = 1.0,
        experiment: str | None = None,
        tagger: str | None = None,
    ) -> None:
        self.start, self.end, self.type, self.score = start, end, type, float(score)
        self.experiment, self.tagger = experiment, tagger

    def mention(self, text: str, window: int = 0) -> str:
        """The text that the span covers, with up to ``window`` code points around it."""
        return text[max(0, self.start - window) : min(len(text), self.end + window)]

    def select(self, doc: Document) -> str:
        """The text of the document that the span covers."""
        return doc.text[self.start : self.end]

    def to_json(self, text: str | None = None, window: int = 0) -> dict[str, Any]:
        """The fields as a mapping, with the ``mention`` where ``text`` is given."""
        fields: dict[str, Any] = {"start": self.start, "end": self.end, "type": self.type, "score": self.score}
        return fields if text is None else {**fields, "mention": self.mention(text, window)}

    @classmethod
    def from_json(cls, di: Mapping[str, Any]) -> Span:
        """From the mapping that ``to_json`` returns."""
        return cls(start=di["start"], end=di["end"], type=di["type"], score=di["score"])

    @classmethod
    def from_spec(cls, attribute_name: str, attribute_value: TaggerOutputValueType) -> Span:
        """From a key ``experiment__tagger__type`` (or one name for all three) and one value of its list."""
        parts = attribute_name.split("__", 2)
        if len(parts) == 2:
            raise ValueError(f'the key is "{attribute_name}"; expected experiment__tagger__type, or one name')
        experiment, tagger, kind = parts if len(parts) == 3 else parts * 3
        start, end, score = attribute_value
        return cls(int(start), int(end), kind, float(score), experiment, tagger)

    def to_spec(self) -> tuple[str, TaggerOutputValueType]:
        """The key of the attribute and the value for its list.

        Raises:
            ValueError: the experiment or the tagger is not known.
        """
        if self.experiment is None or self.tagger is None:
            raise ValueError(f"experiment is {self.experiment} and tagger is {self.tagger}; expected both names")
        return f"{self.experiment}__{self.tagger}__{self.type}", (self.start, self.end, self.score)

    def __len__(self) -> int:
        return self.end - self.start

    def __eq__(self, other: object) -> bool:
        mine = (self.start, self.end, self.type, self.score)
        return isinstance(other, Span) and mine == (other.start, other.end, other.type, other.score)

    def __hash__(self) -> int:
        return hash((self.start, self.end, self.type, self.score))

    def __repr__(self) -> str:
        return f"Span(start={self.start}, end={self.end}, type={self.type!r}, score={self.score:.5f})"


class DocResult:
    """What a tagger found in one document."""

    __slots__ = ("doc", "spans")

    def __init__(self, doc: Document, spans: list[Span]) -> None:
        self.doc, self.spans = doc, spans

    def to_json(self, with_doc: bool = False, window: int = 0) -> dict[str, Any]:
        """The spans, with what they cover, as a mapping."""
        spans: dict[str, Any] = {"spans": [span.to_json(self.doc.text, window) for span in self.spans]}
        return {**spans, "doc": self.doc.to_json()} if with_doc else spans

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> DocResult:
        """From the mapping that ``to_json(with_doc=True)`` gives."""
        return cls(Document.from_json(d["doc"]), [Span.from_json(span) for span in d["spans"]])

    @classmethod
    def from_spec(cls, doc: InputSpec, *attrs_groups: OutputSpec) -> DocResult:
        """From a document row and its attribute rows.

        Raises:
            ValueError: their ids differ.
        """
        for attributes in attrs_groups:
            if attributes.id != doc.id:
                raise ValueError(f'the attributes have the id "{attributes.id}"; expected "{doc.id}"')
        rows = [pair for attributes in attrs_groups for pair in attributes.attributes.items()]
        return cls(Document.from_spec(doc), [Span.from_spec(key, value) for key, values in rows for value in values])

    def to_spec(self) -> tuple[InputSpec, OutputSpec]:
        """The document row and its attribute row."""
        from dolma.core.specs import OutputSpec

        attributes: TaggerOutputDictType = {}
        for key, value in (span.to_spec() for span in self.spans):
            attributes.setdefault(key, []).append(value)
        return self.doc.to_spec(), OutputSpec(source=self.doc.source, id=self.doc.id, attributes=attributes)

    def __repr__(self) -> str:
        return f"DocResult(doc={self.doc!r}, spans={self.spans!r})"


class TextSlice:
    """A part of a text that knows where it was cut; ``start`` and ``end`` count code points."""

    __slots__ = ("doc", "end", "start")

    def __init__(self, doc: str, start: int, end: int) -> None:
        self.doc, self.start, self.end = doc, start, end

    @property
    def text(self) -> str:
        """What the slice covers."""
        return self.doc[self.start : self.end]

    def __repr__(self) -> str:
        return f"TextSlice(text={self.text!r}, start={self.start}, end={self.end})"


# ---- words, paragraphs and sentences: ``dolma.core.utils`` of dolma 1.x

_LINE = re.compile(r"[^\n]*\n|[^\n]+$")


def make_variable_name(name: str, remove_multiple_underscores: bool = False) -> str:
    """Every ASCII character but letters, digits and ``_`` becomes ``_``; characters beyond ASCII stay as they are."""
    found = re.sub(r"[^a-zA-Z0-9_\u0080-\U0010ffff]", "_", name)
    return re.sub(r"__+", "_", found) if remove_multiple_underscores else found


def split_words(text: str, remove_empty: bool = True) -> list[TextSlice]:
    """Words by UAX 29; without those that are only white space, unless ``remove_empty`` is false."""
    places = [*_native.word_starts(text), len(text)]
    slices = [TextSlice(text, start, end) for start, end in pairwise(places)]
    return [word for word in slices if word.text.strip()] if remove_empty else slices


def split_paragraphs(text: str, remove_empty: bool = True) -> list[TextSlice]:
    """Lines with their newlines; without those that are only white space, unless ``remove_empty`` is false."""
    slices = [TextSlice(text, match.start(), match.end()) for match in _LINE.finditer(text)]
    return [part for part in slices if part.text.strip()] if remove_empty else slices


def split_sentences(text: str) -> list[TextSlice]:
    """Sentences by UAX 29, without white space around them; abbreviations and continued lines do not end one."""
    return [TextSlice(text, start, end) for start, end in _native.sentences(text)]
