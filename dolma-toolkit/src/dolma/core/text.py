"""Words, paragraphs and sentences of a text, and names in attribute keys: ``dolma.core.utils`` of dolma 1.x."""

from __future__ import annotations

import re
from itertools import pairwise

from dolma import _native
from dolma.core.data_types import TextSlice

__all__ = ["make_variable_name", "split_paragraphs", "split_sentences", "split_words"]

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
