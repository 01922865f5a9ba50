"""What a tagger written in Python needs; the module names are those of dolma 1.x."""

import sys

from dolma import errors
from dolma.core import data_types
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger

__all__ = ["BaseTagger", "DocResult", "Document", "Span", "TaggerRegistry"]

# code written for dolma 1.x imports these as `dolma.core.utils` and `dolma.core.errors`
utils = data_types
sys.modules |= {"dolma.core.utils": data_types, "dolma.core.errors": errors}
