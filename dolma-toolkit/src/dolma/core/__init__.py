"""What a tagger written in Python needs; the module names are those of dolma 1.x."""

import sys

from dolma.core import text
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger

__all__ = ["BaseTagger", "DocResult", "Document", "Span", "TaggerRegistry"]

# taggers written for dolma 1.x import this module as `dolma.core.utils`
utils = text
sys.modules["dolma.core.utils"] = text
