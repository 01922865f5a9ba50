"""Names of the taggers written in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

from dolma.core.taggers import BaseTagger

__all__ = ["TaggerRegistry"]

T = TypeVar("T", bound=type[BaseTagger])


class TaggerRegistry:
    """Name to class. Native taggers are not here; ``dolma._native.taggers()`` lists them."""

    _classes: ClassVar[dict[str, type[BaseTagger]]] = {}

    @classmethod
    def add(cls, name: str) -> Callable[[T], T]:
        """Class decorator that registers a tagger.

        Raises:
            ValueError: another class has the name.
        """

        def register(tagger: T) -> T:
            known = cls._classes.get(name)
            # a module that is imported twice, by path and by name, defines its classes twice
            if known is not None and known.__qualname__ != tagger.__qualname__:
                raise ValueError(f'tagger "{name}" is {known.__qualname__} already; expected a name of its own')
            cls._classes[name] = tagger
            return tagger

        return register

    @classmethod
    def remove(cls, name: str) -> bool:
        """Forgets a tagger; whether there was one."""
        return cls._classes.pop(name, None) is not None

    @classmethod
    def has(cls, name: str) -> bool:
        """Whether the name is taken."""
        return name in cls._classes

    @classmethod
    def get(cls, name: str) -> type[BaseTagger]:
        """The class of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in cls._classes:
            raise ValueError(f'tagger "{name}" is not registered; expected one of {sorted(cls._classes)}')
        return cls._classes[name]

    @classmethod
    def items(cls) -> Iterator[tuple[str, type[BaseTagger]]]:
        """Names and classes, sorted by name."""
        yield from sorted(cls._classes.items())
