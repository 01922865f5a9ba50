"""``dolma list``: the names of all taggers."""

from __future__ import annotations

import dataclasses
import sys

from dolma import _native
from dolma.config import setting
from dolma.core.registry import TaggerRegistry
from dolma.places import LocalPath
from dolma.tagging.workers import import_modules

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma list``."""

    tagger_modules: list[LocalPath] = setting([], "modules (names or paths) with taggers of your own")


def run(config: Config) -> None:
    """Prints ``name<TAB>description`` to stdout, sorted by name."""
    import_modules(config.tagger_modules)
    rows = dict(_native.taggers())
    for old, new in _native.renamed_taggers():
        rows[new] += f" (old name: {old})"
    for name, cls in TaggerRegistry.registered().items():
        rows[name] = f"{cls.__module__}.{cls.__qualname__}"
    for name in sorted(rows):
        sys.stdout.write(f"{name}\t{rows[name]}\n")


if __name__ == "__main__":  # `python -m dolma.commands.list` is `dolma list`
    from dolma.__main__ import main

    main(["list", *sys.argv[1:]])
