"""Source code: the filters of StarCoder (Li et al. 2023), and secrets by detect-secrets (the extra ``code``)."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from dolma.core.data_types import DocResult, Document, DocumentWithMetadata, Span
from dolma.core.extras import require
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger, BaseTaggerWithMetadata

__all__ = ["CodeSecrets", "StarCoder", "languages", "text_of_python"]

FAILED = -1.0
"""The ratio of a document that cannot be measured."""
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What lexers and parsers raise that meet broken text; Pygments' unknown language and an empty text are among them."""
NEUTRAL = 0.5
"""What version 2 gives languages whose comments it does not look at: between the two thresholds of StarCoder."""
MEASURED = ("python", "java", "javascript")
"""Languages whose comments version 2 looks at."""
XML_CHARS = 100
"""Within so many characters from the beginning an XML declaration makes a template."""
MIN_VISIBLE_CHARS = 100
"""HTML that shows no more than that has a ratio of zero."""


@cache
def languages() -> dict[str, str]:
    """File extension to language, as in The Stack (Kocetkov et al. 2022) and dolma 1.x."""
    table = files(__package__).joinpath("languages.txt").read_text("utf-8")
    rows = (line.split() for line in table.splitlines())
    return {extension: language for language, *extensions in rows for extension in extensions}


class StarCoder(BaseTaggerWithMetadata):
    """What both versions have in common; ``metadata.ext`` and ``metadata.max_stars_count`` belong to the document."""

    comments_type: ClassVar[str]

    def __init__(self) -> None:
        name = type(self).__name__
        self._pygments: Any = require("pygments", "code", "taggers", name)
        self._lexer_of: Any = require("pygments.lexers", "code", "taggers", name).get_lexer_by_name
        comment = require("pygments.token", "code", "taggers", name).Comment
        self._comment_types = (comment.Multiline, comment.Single)
        self._soup: Any = require("bs4", "code", "taggers", name)
        self._failures = (*FAILURES, self._soup.builder.ParserRejectedMarkup)

    def share_of_comments(self, text: str, language: str) -> float:
        """Characters of comments to characters: in Python also of docstrings, without the number signs."""
        if language == "python":
            return len(text_of_python(text)) / len(text)
        tokens = self._pygments.lex(text, self._lexer_of(language))
        return sum(len(token) for kind, token in tokens if kind in self._comment_types) / len(text)

    def share_of_visible(self, text: str) -> float:
        """Characters that a browser shows to characters of HTML."""
        try:
            page = self._soup.BeautifulSoup(text, features="html.parser")
        except (TypeError, UnboundLocalError):
            return 0.0
        for hidden in page(["script", "style"]):
            hidden.extract()
        visible = len(page.get_text())
        share = visible / len(text)
        return share if visible > MIN_VISIBLE_CHARS else 0.0

    def or_failed(self, measure: Callable[..., float], *arguments: str) -> float:
        """What is measured."""
        try:
            return measure(*arguments)
        except self._failures:
            return FAILED

    @abstractmethod
    def ratios(self, text: str, language: str | None) -> tuple[float, float]:
        """Of comments and of visible text."""

    def predict(self, doc: DocumentWithMetadata) -> DocResult:
        """Four spans over the whole document."""
        extension = doc.metadata.get("ext")
        language = languages().get(extension) if isinstance(extension, str) else None
        comments, visible = self.ratios(doc.text, language)
        scores = {
            "has_xml_template_doc": float("<?xml version=" in doc.text[:XML_CHARS]),
            "num_github_stars_doc": float(doc.metadata.get("max_stars_count") or 0),
            self.comments_type: comments,
            "code_to_text_ratio_html_doc": visible,
        }
        return DocResult(doc, [Span(0, len(doc.text), kind, score) for kind, score in scores.items()])


@TaggerRegistry.add("code_starcoder_taggers_v1")
class StarCoderV1(StarCoder):
    """Comments in every language that Pygments knows."""

    comments_type = "nl_ratio_doc"

    def ratios(self, text: str, language: str | None) -> tuple[float, float]:
        """Both fail together."""
        comments = self.or_failed(self.share_of_comments, text, language) if language else FAILED
        if comments == FAILED or language != "html":
            return comments, FAILED if comments == FAILED else 1.0
        visible = self.or_failed(self.share_of_visible, text)
        return (FAILED, FAILED) if visible == FAILED else (comments, visible)


@TaggerRegistry.add("code_starcoder_taggers_v2")
class StarCoderV2(StarCoder):
    """Comments in Python, Java and JavaScript only."""

    comments_type = "code_to_comment_ratio_doc"

    def ratios(self, text: str, language: str | None) -> tuple[float, float]:
        """Each by itself."""
        comments = self.or_failed(self.share_of_comments, text, language) if language in MEASURED else NEUTRAL
        return comments, self.or_failed(self.share_of_visible, text) if language == "html" else 1.0


_ORDER = {ast.ClassDef: 0, ast.FunctionDef: 1, ast.Module: 2}
"""Kinds of definitions whose docstrings count, in the order of the result."""


def text_of_python(source: str) -> str:
    """Docstrings, then comments without their number signs; nothing of what cannot be parsed.

    Both follow the grammar of the Python that runs.
    """
    with warnings.catch_warnings():
        # of the text, not of this program
        warnings.simplefilter("ignore")
        return f"{_docstrings(source)}\n{_comments(source)}".strip()


def _docstrings(source: str) -> str:
    try:
        found = sorted(_definitions(source), key=lambda row: row[:2])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # the last two mean brackets that are nested too deeply
        return ""
    return "\n".join(text for *_, text in found if text)


def _definitions(source: str) -> Iterator[tuple[int, str, str | None]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
            yield _ORDER[type(node)], getattr(node, "name", ""), ast.get_docstring(node)


def _comments(source: str) -> str:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return ""
    return "".join(token.string for token in tokens if token.type == tokenize.COMMENT).replace("#", "")


SECRETS_FILE_NAME = "code_str.yml"
"""The file name that detect-secrets gets, as in dolma 1.x: some plugins depend on the kind of file."""


@TaggerRegistry.add("code_secrets_v1")
class CodeSecrets(BaseTagger):
    """A ``SECRET_`` span for each different secret, and secrets per word as ``doc`` (-1 without words)."""

    def __init__(self) -> None:
        self._scan: Any = require("detect_secrets.core.scan", "code", "taggers", "code_secrets_v1")
        self._settings: Any = require("detect_secrets.settings", "code", "taggers", "code_secrets_v1")
        self._collection: Any = require("detect_secrets.core.secrets_collection", "code", "taggers", "code_secrets_v1")

    def _secrets(self, lines: list[str]) -> list[Any]:
        """Sorted by line; of equal ones the first. The default plugins and filters; none uses the network."""
        found = self._collection.SecretsCollection()
        with self._settings.default_settings():
            for secret in self._scan._process_line_based_plugins(list(enumerate(lines, start=1)), SECRETS_FILE_NAME):
                found[SECRETS_FILE_NAME].add(secret)
        return [secret for _, secret in found]

    def predict(self, doc: Document) -> DocResult:
        """The spans in the order of their lines, then that of the document."""
        lines = doc.text.splitlines()
        spans = []
        for secret in self._secrets(lines):
            line, value = lines[secret.line_number - 1], secret.secret_value or ""
            start = doc.text.find(line)
            # a plugin may give a value that is not literally in the line: then the line is the secret's place
            at = line.find(value) if value else -1
            start, length = (start + at, len(value)) if at >= 0 else (start, len(line))
            spans.append(Span(start, start + length, f"SECRET_{secret.type.replace(' ', '_')}"))
        words = len(doc.text.split())
        spans.append(Span(0, len(doc.text), "doc", len(spans) / words if words else -1.0))
        return DocResult(doc, spans)
