"""Curate text for language models. The command is ``dolma``; a tagger of your own starts with ``@dolma.add_tagger``."""

from dolma._native import __version__
from dolma.commands.dedupe import deduper
from dolma.commands.mix import mixer
from dolma.core.data_types import DocResult, Document, DocumentWithMetadata, Span
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger, BaseTaggerWithMetadata

__all__ = [
    "BaseTagger",
    "BaseTaggerWithMetadata",
    "DocResult",
    "Document",
    "DocumentWithMetadata",
    "Span",
    "__version__",
    "add_tagger",
    "deduper",
    "mixer",
]

add_tagger = TaggerRegistry.add
