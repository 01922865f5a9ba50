"""Types of settings that name files: what a command does there, and so where URLs and ``~`` are understood."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any

__all__ = [
    "InputDirectory",
    "InputPattern",
    "LocalPath",
    "OutputDirectory",
    "OutputName",
    "Place",
    "UpdatedFile",
    "places",
]


class Place(Enum):
    """What is at the place that a setting names."""

    INPUT_PATTERN = "input files"
    INPUT_DIRECTORY = "a directory that is read"
    OUTPUT_DIRECTORY = "a directory that is written"
    OUTPUT_NAME = "a part of the path of what is written"
    UPDATED_FILE = "a file that is read if it is there, and written"
    LOCAL_PATH = "files of this machine, perhaps behind `NAME=`"

    @property
    def is_written(self) -> bool:
        """Whether it names one place, without wildcards."""
        return self in (Place.OUTPUT_DIRECTORY, Place.OUTPUT_NAME)

    @property
    def may_be_remote(self) -> bool:
        """Whether URLs are copied from and to there."""
        return self not in (Place.OUTPUT_NAME, Place.LOCAL_PATH)


InputPattern = Annotated[str, Place.INPUT_PATTERN]
InputDirectory = Annotated[str, Place.INPUT_DIRECTORY]
OutputDirectory = Annotated[str, Place.OUTPUT_DIRECTORY]
OutputName = Annotated[str, Place.OUTPUT_NAME]
UpdatedFile = Annotated[str, Place.UPDATED_FILE]
LocalPath = Annotated[str, Place.LOCAL_PATH]


_known: dict[type, dict[str, Place]] = {}


def places(settings: type) -> dict[str, Place]:
    """The settings of a dataclass that name places, also as lists or options."""
    if settings not in _known:
        hints = typing.get_type_hints(settings, include_extras=True)
        found = {field.name: next(_places_in(hints[field.name]), None) for field in dataclasses.fields(settings)}
        _known[settings] = {name: place for name, place in found.items() if place is not None}
    return _known[settings]


def _places_in(hint: Any) -> Iterator[Place]:
    if typing.get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Place))
        return
    for argument in typing.get_args(hint):
        yield from _places_in(argument)
