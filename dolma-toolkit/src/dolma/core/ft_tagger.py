"""What a tagger around a fastText model derives from; prediction is native, the names are those of dolma 1.x."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dolma import _native
from dolma.core.data_types import DocResult, Document, Span, TextSlice, split_paragraphs, split_sentences
from dolma.core.extras import fasttext_trainer
from dolma.core.taggers import BaseTagger
from dolma.errors import ConfigError, Problem, raises_dolma_errors

__all__ = ["BaseFastTextTagger", "Classifier", "Prediction"]


class Prediction(NamedTuple):
    """A label and its score; the label becomes the span type."""

    label: str
    score: float


class Classifier:
    """A fastText model, ``.bin`` or ``.ftz``, with the ``predict`` of the ``fasttext`` package for one text."""

    @raises_dolma_errors
    def __init__(self, path: str) -> None:
        self._model = _native.FastText(path)

    @property
    def labels(self) -> list[str]:
        """All labels, with their prefix."""
        return self._model.labels

    def predict(self, text: str, k: int = 1, threshold: float = 0.0) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The ``k`` most probable labels (-1 for all) of at least ``threshold``, and their probabilities.

        Raises:
            ValueError: the text has a newline, after which fastText would not read, or its score is not a number.
        """
        if "\n" in text:
            raise ValueError("the text has a newline; expected one line")
        found = self._model.predict(text)
        for label, score in found:
            if not math.isfinite(score):
                raise ValueError(f"the model gives {label} the score {score}; expected a finite number")
        found = [row for row in found if row[1] >= threshold]
        kept = found if k < 0 else found[:k]
        return tuple(label for label, _ in kept), tuple(score for _, score in kept)


class BaseFastTextTagger(BaseTagger):
    """Derive from it, give the model and the unit to ``__init__``, and write ``predict_slice``."""

    SENTENCE_LEVEL_TAGGER = "sentence"
    PARAGRAPH_LEVEL_TAGGER = "paragraph"
    DOCUMENT_LEVEL_TAGGER = "document"

    def __init__(self, model_path: str, model_mode: str) -> None:
        """``model_path`` is a path or a URL, which is fetched once to the cache of the user.

        Raises:
            ConfigError: the model is missing, or ``model_mode`` is none of the three.
        """
        modes = (self.SENTENCE_LEVEL_TAGGER, self.PARAGRAPH_LEVEL_TAGGER, self.DOCUMENT_LEVEL_TAGGER)
        if model_mode not in modes:
            raise ConfigError([Problem("model_mode", f'is "{model_mode}"; expected one of {", ".join(modes)}')])
        self.classifier = Classifier(_local(str(model_path), type(self).__name__))
        self.mode = model_mode

    @classmethod
    def train(
        cls,
        train_file: str,
        save_path: str,
        learning_rate: float = 0.1,
        word_vectors_dim: int = 100,
        max_epochs: int = 100,
        min_word_count: int = 1,
        max_word_ngram: int = 2,
        loss_function: str = "softmax",
        num_buckets: int = 2_000_000,
        num_threads: int = 1,
        **more: Any,
    ) -> Classifier:
        """Trains on a file of fastText's format; ``more`` goes to ``fasttext.train_supervised``.

        One thread gives the same model again.

        Raises:
            ConfigError: the extra ``classifier`` is not installed, or another package has written over it.
        """
        fasttext = fasttext_trainer("train")
        model = fasttext.train_supervised(
            input=train_file,
            lr=learning_rate,
            dim=word_vectors_dim,
            epoch=max_epochs,
            minCount=min_word_count,
            wordNgrams=max_word_ngram,
            loss=loss_function,
            bucket=num_buckets,
            thread=num_threads,
            **{"verbose": 0, **more},
        )
        partial = f"{save_path}.partial"
        model.save_model(partial)
        os.replace(partial, save_path)
        return Classifier(save_path)

    def predict(self, doc: Document) -> DocResult:
        """A span for each prediction of each unit."""
        units = [TextSlice(doc.text, 0, len(doc.text))]
        if self.mode == self.SENTENCE_LEVEL_TAGGER:
            units = split_sentences(doc.text)
        elif self.mode == self.PARAGRAPH_LEVEL_TAGGER:
            units = split_paragraphs(doc.text)
        spans = [
            Span(unit.start, unit.end, label, score) for unit in units for label, score in self.predict_slice(unit)
        ]
        return DocResult(doc, spans)

    @abstractmethod
    def predict_slice(self, text_slice: TextSlice) -> Iterable[Prediction]:
        """What the model says of one unit; ``self.classifier.predict`` takes text without newlines."""


def _local(place: str, tagger: str) -> str:
    from dolma.files.resources import find

    problems: list[Problem] = []
    found = find({tagger: [place]}, [tagger], [tagger], problems)
    if problems:
        raise ConfigError(problems)
    return str(Path(found[tagger][0].path))
