"""What a tagger written in Python needs; the module names are those of dolma 1.x."""

import sys
from types import ModuleType

from dolma.core.data_types import DocResult, Document, Span
from dolma.core.names import variable_name
from dolma.core.registry import TaggerRegistry
from dolma.core.splitting import split_paragraphs, split_sentences, split_words
from dolma.core.taggers import BaseTagger

__all__ = ["BaseTagger", "DocResult", "Document", "Span", "TaggerRegistry"]

# taggers that were written for dolma 1.x import these four from one module
_as_in_1_x = ModuleType("dolma.core.utils", "Words, paragraphs and sentences of a text, under the module name of 1.x.")
_as_in_1_x.make_variable_name = variable_name  # type: ignore[attr-defined]
_as_in_1_x.split_paragraphs = split_paragraphs  # type: ignore[attr-defined]
_as_in_1_x.split_sentences = split_sentences  # type: ignore[attr-defined]
_as_in_1_x.split_words = split_words  # type: ignore[attr-defined]
sys.modules[_as_in_1_x.__name__] = _as_in_1_x
utils = _as_in_1_x
