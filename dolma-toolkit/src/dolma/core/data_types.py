"""Documents and spans as taggers written in Python see them; names and arguments are those of dolma 1.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DocResult", "Document", "DocumentWithMetadata", "Span", "TextSlice"]


class Document:
    """One document. ``version`` is that of the extraction, or None."""

    __slots__ = ("id", "source", "text", "version")

    def __init__(self, source: str, id: str, text: str, version: str | None = None) -> None:
        self.source, self.id, self.text, self.version = source, id, text, version

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> Document:
        """From the mapping that ``to_json`` gives."""
        return cls(source=d["source"], id=d["id"], text=d["text"], version=d.get("version"))

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return {"source": self.source, "version": self.version, "id": self.id, "text": self.text}

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
        """From the mapping that ``to_json`` gives."""
        return cls(d["source"], d["id"], d["text"], d.get("version"), d.get("metadata"))

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return {**super().to_json(), "metadata": self.metadata}


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
        """From the mapping that ``to_json`` gives."""
        return cls(start=di["start"], end=di["end"], type=di["type"], score=di["score"])

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
