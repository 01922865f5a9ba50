"""``dolma presets``: published recipes as settings for the other commands."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

from dolma.config import setting
from dolma.errors import ConfigError, Problem, nearest
from dolma.presets import names, parts

__all__ = ["Config", "run"]

ACTIONS = ("list", "show")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma presets``."""

    action: str | None = setting(None, "list: the names; show: the settings of one", positional=True)
    name: str | None = setting(None, "the preset to show", positional=True)
    part: str | None = setting(
        None, "the command whose settings to show (default: all, one YAML document each)", positional=True
    )
    documents: str | None = setting(None, "pattern of the documents, in place of the preset's")
    output: str | None = setting(None, "directory for the output of mix, in place of the preset's")

    def check(self) -> Iterator[Problem]:
        """What is asked for has to be there."""
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


if __name__ == "__main__":  # `python -m dolma.commands.presets` is `dolma presets`
    from dolma.__main__ import main

    main(["presets", *sys.argv[1:]])
