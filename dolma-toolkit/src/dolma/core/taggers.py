"""What a tagger written in Python derives from."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from dolma.core.data_types import (
    DocResult,
    Document,
    DocumentWithMetadata,
    TaggerOutputDictType,
)

if TYPE_CHECKING:
    from dolma.core.specs import InputSpec, InputSpecWithMetadata

__all__ = ["TAGGER_SCORE_PRECISION", "BaseTagger", "BaseTaggerWithMetadata", "spans_of"]

TAGGER_SCORE_PRECISION = 5
"""Decimals that a score keeps."""


class BaseTagger(ABC):
    """Derive from it, write ``predict``, and register the class with ``@dolma.add_tagger("name")``.

    One instance is made in each worker process, without arguments.
    """

    FIELDS: tuple[str, ...] | list[str] = ("text",)

    @property
    def defaults(self) -> list[str]:
        """Span types that every row has, as an empty list if the tagger found none."""
        return []

    @abstractmethod
    def predict(self, doc: Any) -> DocResult:
        """The spans of one document. ``doc`` is a Document."""

    def predict_batch(self, docs: list[Any]) -> list[DocResult]:
        """The spans of several documents, in order. Override it in taggers that are faster with many at once.

        ``dolma tag`` gives up to 64. If that raises, it gives each document alone, to name the one that fails.
        """
        return [self.predict(doc) for doc in docs]

    def spans(self, doc: Document) -> list[tuple[str, int, int, float]]:
        """``(type, start, end, score)`` of each span, in the order in which ``predict`` returns them.

        Raises:
            TypeError: ``predict`` returned no DocResult, or an offset in it is not an integer.
        """
        return spans_of(self.predict(doc))

    def group_output(self, doc_result: DocResult) -> TaggerOutputDictType:
        """The spans by their type, as in an attribute row."""
        groups: TaggerOutputDictType = {kind: [] for kind in self.defaults}
        for span in doc_result.spans:
            value = (_place(span.start), _place(span.end), round(float(span.score), TAGGER_SCORE_PRECISION))
            groups.setdefault(_text(span.type), []).append(value)
        return groups

    def tag(self, row: InputSpec) -> TaggerOutputDictType:
        """The spans of one row by their type. ``dolma tag`` calls ``predict`` directly."""
        return self.group_output(self.predict(Document.from_spec(row)))

    @classmethod
    def train(cls, *arguments: Any, **settings: Any) -> Any:
        """Override it in taggers that can be trained."""
        raise RuntimeError(f"{cls.__name__} cannot be trained; see `dolma train-classifier`")

    @classmethod
    def test(cls, *arguments: Any, **settings: Any) -> Any:
        """Override it in taggers that can be tested."""
        raise RuntimeError(f"{cls.__name__} cannot be tested; see `dolma train-classifier`")


class BaseTaggerWithMetadata(BaseTagger):
    """A tagger whose ``predict`` gets a DocumentWithMetadata."""

    @abstractmethod
    def predict(self, doc: DocumentWithMetadata) -> DocResult:
        """The spans of one document."""

    def tag(self, row: InputSpec | InputSpecWithMetadata) -> TaggerOutputDictType:
        """The spans of one row by their type."""
        return self.group_output(self.predict(DocumentWithMetadata.from_spec(row)))


def spans_of(result: Any) -> list[tuple[str, int, int, float]]:
    """``(type, start, end, score)`` of each span of a result.

    Raises:
        TypeError: it is no DocResult, or an offset in it is not an integer.
    """
    if not isinstance(result, DocResult):
        raise TypeError(f"predict gave {type(result).__name__}; expected a DocResult")
    return [(_text(span.type), _place(span.start), _place(span.end), float(span.score)) for span in result.spans]


def _place(value: Any) -> int:
    """An integer of any library, such as NumPy's."""
    try:
        return operator.index(value)
    except TypeError:
        shown = f"{value!r}, of type {type(value).__name__}"
        raise TypeError(f"a span begins or ends at {shown}; expected an integer, such as int(…) returns") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a span has the type {value!r}, which is of type {type(value).__name__}; expected a string")
    return str(value)
