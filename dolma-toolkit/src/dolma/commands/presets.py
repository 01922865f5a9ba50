"""``dolma presets``: published recipes as settings of ``dolma tag``, ``dolma dedupe`` and ``dolma mix``.

Each recipe is a file in ``dolma/presets``, with one YAML document for each command in the order in which they run. All
recipes read the same documents and write to the same directory, so one replacement each makes them the user's.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from importlib.resources import files

from dolma.config import setting
from dolma.errors import ConfigError, Problem, nearest
from dolma.places import LocalPath

__all__ = ["DOCUMENTS", "OUTPUT", "Config", "names", "parts", "run"]

DOCUMENTS = "documents/**/*.jsonl.gz"
"""What every recipe reads."""
OUTPUT = "mixed"
"""Where every recipe writes."""

_FOLDER = files("dolma") / "presets"
_SUFFIX = ".yaml"
ACTIONS = ("list", "show")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma presets``."""

    action: str | None = setting(None, "list: the names; show: the settings of one", positional=True)
    name: str | None = setting(None, "the preset to show", positional=True)
    part: str | None = setting(
        None, "the command whose settings to show (default: all, one YAML document each)", positional=True
    )
    documents: LocalPath | None = setting(None, "pattern of the documents, instead of the preset's")
    output: LocalPath | None = setting(None, "directory for the output of mix, instead of the preset's")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.action not in ACTIONS:
            got = "is missing" if self.action is None else f'is "{self.action}"'
            yield Problem("action", f"{got}; expected list or show", nearest(self.action or "", ACTIONS))
        elif self.action == "show" and self.name is None:
            yield Problem("name", "is missing; expected a preset", "`dolma presets list` prints the names")
        elif self.name is not None and self.name not in names():
            yield Problem("name", f'is "{self.name}", which is not a preset', nearest(self.name, names()))


def run(config: Config) -> None:
    """Prints ``name<TAB>description`` for each preset, or the YAML of one."""
    if config.action == "list":
        for name, description in names().items():
            sys.stdout.write(f"{name}\t{description}\n")
        return
    found = parts(str(config.name), config.documents, config.output)
    if config.part is not None and config.part not in found:
        message = f'is "{config.part}"; expected one of {", ".join(found)}'
        raise ConfigError([Problem("part", message, nearest(config.part, found))])
    sys.stdout.write(found[config.part] if config.part else "---\n".join(found.values()))


def names() -> dict[str, str]:
    """Every recipe, sorted, with what its file says of it before the first colon."""
    found = {}
    for entry in _FOLDER.iterdir():
        if entry.name.endswith(_SUFFIX):
            comment = " ".join(line.removeprefix("#").strip() for line in _head(entry.read_text("utf-8")))
            found[entry.name.removesuffix(_SUFFIX)] = comment.split(":")[0]
    return dict(sorted(found.items()))


def parts(name: str, documents: str | None = None, output: str | None = None) -> dict[str, str]:
    """The YAML of each command of a recipe: ``tag``, then ``dedupe_...`` for each filter, then ``mix``."""
    text = (_FOLDER / f"{name}{_SUFFIX}").read_text("utf-8")
    if documents is not None:
        text = text.replace(json.dumps(DOCUMENTS), json.dumps(documents, ensure_ascii=False))
    if output is not None:
        text = text.replace(f"path: {json.dumps(OUTPUT)}", f"path: {json.dumps(output, ensure_ascii=False)}")
    return {_part(part): part for part in text.split("---\n")}


def _head(text: str) -> list[str]:
    lines = text.splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return lines[:end]


def _part(text: str) -> str:
    if name := re.search(r"^  name: (dedupe_\w+)$", text, re.MULTILINE):
        return name[1]
    return "mix" if re.search("^streams:$", text, re.MULTILINE) else "tag"


if __name__ == "__main__":  # `python -m dolma.commands.presets` is `dolma presets`
    from dolma.__main__ import main

    main(["presets", *sys.argv[1:]])
