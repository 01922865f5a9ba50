"""The verbs of `olmo`: each module adds its arguments and does its work. None imports torch before it must."""

from __future__ import annotations

from types import ModuleType

from . import convert, export, fetch, generate, import_config, inspect, launch, report, soup, train

__all__ = ["MODULES"]

MODULES: tuple[ModuleType, ...] = (
    train,
    launch,
    convert,
    export,
    fetch,
    generate,
    soup,
    import_config,
    inspect,
    report,
)
"""Modules with `add(verbs)`; each parser sets `work`, a function of the parsed arguments."""
