"""Names of taggers: those of the core, and those written in Python, including your own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

from dolma.core.taggers import BaseTagger

__all__ = ["BaseRegistry", "TaggerRegistry"]

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
        """Whether the name is taken."""
        return name in _all()

    @classmethod
    def get(cls, name: str) -> type[BaseTagger]:
        """The class of that name.

        Raises:
            ValueError: there is none.
        """
        found = cls._classes.get(name) or _all().get(name)
        if found is None:
            raise ValueError(f'tagger "{name}" is not registered; expected one of {", ".join(sorted(_all()))}')
        return found

    @classmethod
    def items(cls) -> Iterator[tuple[str, type[BaseTagger]]]:
        """Names and classes, sorted by name."""
        yield from sorted(_all().items())


def _all() -> dict[str, type[BaseTagger]]:
    import importlib

    from dolma import _native
    from dolma.core.native import native_tagger

    importlib.import_module("dolma.tagging.models")
    native = {name: native_tagger(name) for name, _ in _native.taggers()}
    return {**native, **TaggerRegistry.registered()}
