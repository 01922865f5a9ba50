"""Rows as ``msgspec`` decodes and encodes them; taggers of dolma 1.x import them from ``dolma.core.data_types``."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["InputSpec", "InputSpecWithMetadata", "InputSpecWithMetadataAndAttributes", "OutputSpec"]


class InputSpec(Struct):
    """A row of a document file, as ``msgspec`` decodes it."""

    id: str
    text: str
    source: str = ""
    created: str = ""
    added: str = ""
    version: str | None = None


class InputSpecWithMetadata(InputSpec):
    """A row with its metadata."""

    metadata: dict[str, Any] | None = None


class InputSpecWithMetadataAndAttributes(InputSpecWithMetadata):
    """A row with metadata and merged attributes."""

    attributes: dict[str, list[tuple[int, int, float]]] | None = None


class OutputSpec(Struct):
    """A row of an attribute file."""

    id: str
    attributes: dict[str, list[tuple[int, int, float]]]
    source: str | None = None
