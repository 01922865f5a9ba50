"""Languages by CLD2, CLD3, langdetect and lingua, personal data by Presidio, with the span types of dolma 1.x."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any, ClassVar

from dolma.core.data_types import DocResult, Document, Span, split_paragraphs
from dolma.core.extras import require
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import TAGGER_SCORE_PRECISION, BaseTagger

__all__ = ["LanguageTagger", "PiiPresidio", "in_order"]

Scores = list[tuple[str, float]]
Detector = Callable[[str], Scores]


def in_order(scores: Scores) -> Scores:
    """The best first. Scores that print alike are sorted by name, since a detector may return them in hash order.

    Raises:
        ValueError: a score is not a number.
    """
    for language, score in scores:
        if not math.isfinite(score):
            raise ValueError(f"the detector gives {language} the score {score}; expected a finite number")
    return sorted(scores, key=lambda scored: (-round(scored[1], TAGGER_SCORE_PRECISION), scored[0]))


class LanguageTagger(BaseTagger):
    """What the detectors have in common: units, English only, its opposite, the mean over the document."""

    make_detector: ClassVar[Callable[[], Detector]]
    by_paragraph: ClassVar[bool] = False
    english_only: ClassVar[bool] = False
    with_opposite: ClassVar[bool] = False
    with_document_score: ClassVar[bool] = False
    likely_only: ClassVar[bool] = False
    """Languages above 0.01, to two decimals."""

    def __init__(self) -> None:
        self._detect = type(self).make_detector()

    def scores(self, text: str) -> Scores:
        """Languages of a text and their scores."""
        found = in_order(self._detect(text))
        if self.likely_only:
            found = [(language, round(score, 2)) for language, score in found if score > 0.01]
        if self.english_only:
            found = [scored for scored in found if scored[0] == "en"] or [("en", 0.0)]
        return found

    def predict(self, doc: Document) -> DocResult:
        """Spans of each unit; then, where they are wanted, the opposites and the two of the document."""
        units = [(0, len(doc.text), doc.text)]
        if self.by_paragraph:
            units = [(part.start, part.end, part.text) for part in split_paragraphs(doc.text)]
        spans = [Span(start, end, name, score) for start, end, text in units for name, score in self.scores(text)]
        if self.with_opposite:
            spans += [Span(span.start, span.end, f"not_{span.type}", 1.0 - span.score) for span in spans]
        if self.with_document_score:
            length = len(doc.text)
            english = sum(len(span) * span.score for span in spans if span.type == "en") / max(length, 1)
            spans.append(Span(0, length, "doc_en", english))
            spans.append(Span(0, length, "doc_not_en", 1.0 - english if length else 0.0))
        return DocResult(doc, spans)


def _cld2() -> Detector:
    cld2 = require("pycld2", "lang", "taggers", "CLD2")
    anyascii = require("anyascii", "lang", "taggers", "CLD2").anyascii

    def without_controls(text: str) -> str:
        return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cs"))

    def detect(text: str) -> Scores:
        # CLD2 refuses some control characters; what it refuses is respelled, as dolma 1.x does
        for spelled in (str, anyascii, without_controls):
            try:
                is_reliable, _, details = cld2.detect(spelled(text))
            except cld2.error:
                continue
            known = [row for row in details if row[0] != "UNKNOWN_LANGUAGE"] if is_reliable else []
            # the type is made of the language's name, not of its code: ENGLISH gives en, GERMAN ge
            return [(row[0][:2].lower(), row[2] / 100.0) for row in known]
        return []

    return detect


def _cld3() -> Detector:
    gcld3 = require("gcld3", "lang", "taggers", "CLD3")
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)

    def detect(text: str) -> Scores:
        found = identifier.FindLanguage(text=text)
        return [(found.language, found.probability)] if text else []

    return detect


def _langdetect() -> Detector:
    package = require("langdetect", "lang", "taggers", "langdetect")
    failure = require("langdetect.lang_detect_exception", "lang", "taggers", "langdetect").LangDetectException
    factory = package.DetectorFactory()
    factory.load_profile(package.PROFILES_DIRECTORY)
    # it samples n-grams; the seed makes a text's scores its own
    factory.set_seed(0)

    def detect(text: str) -> Scores:
        detector = factory.create()
        detector.append(text)
        try:
            found = detector.get_probabilities()
        except failure:
            return []
        return [(str(row.lang).strip().lower(), float(row.prob)) for row in found]

    return detect


def _lingua() -> Detector:
    lingua = require("lingua", "lang", "taggers", "lingua")
    detector: Any = lingua.LanguageDetectorBuilder.from_all_languages().build()

    def detect(text: str) -> Scores:
        found = detector.compute_language_confidence_values(text) or []
        return [(row.language.iso_code_639_1.name.lower(), float(row.value)) for row in found]

    return detect


_ENGLISH = {"english_only": True, "with_opposite": True}
_PARAGRAPH = {"by_paragraph": True}
_MEAN = {**_ENGLISH, **_PARAGRAPH, "with_document_score": True}

_NAMES: dict[str, tuple[Callable[[], Detector], dict[str, bool]]] = {
    "cld2_doc_v2": (_cld2, {}),
    "cld2_en_doc_v2": (_cld2, _ENGLISH),
    "cld2_en_paragraph_v2": (_cld2, {**_ENGLISH, **_PARAGRAPH}),
    "cld2_en_paragraph_with_doc_score_v2": (_cld2, _MEAN),
    "cld2_paragraph_v2": (_cld2, _PARAGRAPH),
    "cld3_en_doc_v2": (_cld3, _ENGLISH),
    "cld3_en_paragraph_v2": (_cld3, {**_ENGLISH, **_PARAGRAPH}),
    "cld3_en_paragraph_with_doc_score_v2": (_cld3, _MEAN),
    "langdetect_doc_en_v1": (_langdetect, _ENGLISH),
    "langdetect_doc_v1": (_langdetect, {}),
    "langdetect_en_paragraph_v1": (_langdetect, {**_ENGLISH, **_PARAGRAPH}),
    "langdetect_paragraph_v1": (_langdetect, _PARAGRAPH),
    "lingua_1e2": (_lingua, {"likely_only": True}),
    "lingua_doc_en_v1": (_lingua, _ENGLISH),
    "lingua_doc_v1": (_lingua, {}),
    "lingua_en_only_v1": (_lingua, {"english_only": True}),
    "lingua_en_par_v1": (_lingua, {**_ENGLISH, **_PARAGRAPH}),
    "lingua_par_v1": (_lingua, _PARAGRAPH),
}

for _name, (_detector, _choices) in _NAMES.items():
    _members = {"make_detector": staticmethod(_detector), "__module__": __name__, **_choices}
    TaggerRegistry.add(_name)(type(_name, (LanguageTagger,), _members))


CONTEXT_CHARS = 100
"""A number this near to "isbn", "doi" or # is not an address or telephone number, as in dolma 1.x."""


@TaggerRegistry.add("pii_presidio_v1")
class PiiPresidio(BaseTagger):
    """E-mails, phone numbers and IP addresses, and hits per word as ``doc`` (-1 without words)."""

    def __init__(self) -> None:
        found = require("presidio_analyzer.predefined_recognizers", "presidio", "taggers", "pii_presidio_v1")
        tldextract = require("tldextract", "presidio", "taggers", "pii_presidio_v1")
        # the list of suffixes that the package carries: fetching the newest would make results depend on the day
        domain_of = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

        class Email(found.EmailRecognizer):  # type: ignore[misc, name-defined]
            """An e-mail whose domain ends with a public suffix."""

            def validate_result(self, pattern_text: str) -> bool:
                return bool(domain_of(pattern_text).top_domain_under_public_suffix)

        self._recognizers = {
            "EMAIL_ADDRESS": Email(),
            "PHONE_NUMBER": found.PhoneRecognizer(),
            "IP_ADDRESS": found.IpRecognizer(),
        }
        recognizer = require("presidio_analyzer", "presidio", "taggers", "pii_presidio_v1").EntityRecognizer
        self._without_duplicates: Any = recognizer.remove_duplicates

    def predict(self, doc: Document) -> DocResult:
        """The spans in the order in which Presidio gives them, then that of the document."""
        results: list[Any] = []
        for kind, recognizer in self._recognizers.items():
            results.extend(recognizer.analyze(doc.text, [kind], None) or [])
        results = self._without_duplicates(results)
        # Presidio keeps them in a set, so the order of equal ranks differs between processes
        results.sort(key=lambda result: (-result.score, result.start, result.start - result.end, result.entity_type))
        spans = [Span(result.start, result.end, result.entity_type) for result in results]
        spans = [span for span in spans if _holds(span, doc.text)]
        words = len(doc.text.split())
        spans.append(Span(0, len(doc.text), "doc", len(spans) / words if words else -1.0))
        return DocResult(doc, spans)


def _holds(span: Span, text: str) -> bool:
    if span.type == "EMAIL_ADDRESS":
        addressee, _, domain = span.mention(text).partition("@")
        return addressee.strip() != "(" and "." in domain
    context = span.mention(text, CONTEXT_CHARS)
    return not any(word in context for word in ("isbn", "doi", "#"))
