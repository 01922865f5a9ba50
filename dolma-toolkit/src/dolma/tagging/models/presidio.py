"""Personal data by the recognisers of Presidio that need no language model."""

from __future__ import annotations

from typing import Any

from dolma.core.data_types import DocResult, Document, Span
from dolma.core.extras import require
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger

__all__ = ["PiiPresidio"]

CONTEXT_CHARS = 100
"""How near "isbn", "doi" or # must stand to a number that is no address or telephone, as in dolma 1.x."""


@TaggerRegistry.add("pii_presidio_v1")
class PiiPresidio(BaseTagger):
    """E-mails, phone numbers and IP addresses, and hits per word as ``doc`` (-1 where there are no words)."""

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
