"""``dolma tokens export``: token shards as the files of other trainers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from dolma.config import setting
from dolma.config.shared import shown_and_done
from dolma.errors import ConfigError, Problem, nearest, translated
from dolma.files.places import remotely
from dolma.tokenizer.derive import ShardsConfig, derive
from dolma.tokenizer.sources import details_of, shards_of

__all__ = ["Config", "run"]

TARGETS = ("megatron",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ShardsConfig):
    """Settings of ``dolma tokens export``."""

    format: str = setting("megatron", "megatron: .bin and .idx of Megatron-LM's indexed dataset")

    def check(self) -> Iterator[Problem]:
        """What no single key can tell."""
        yield from super().check()
        if self.format not in TARGETS:
            expected = f"expected {' or '.join(TARGETS)}"
            yield Problem("format", f'is "{self.format}"; {expected}', nearest(self.format, TARGETS))


@remotely()
@translated
def run(config: Config) -> None:
    """Writes the missing pairs, then the manifest."""
    if shown_and_done(config):
        return
    shards = shards_of(config.sources)
    details, tokenizer = details_of(shards, config.known())
    if details["vocab_size"] > 1 << 31:
        message = f"have a vocabulary of {details['vocab_size']}; expected at most {1 << 31}, as Megatron's int32 holds"
        raise ConfigError([Problem("sources", message)])
    settings = {"command": "tokens export", "format": config.format}
    work = {"command": config.format}
    derive(config, Path(config.destination), config.processes, shards, details, tokenizer, settings, work)


if __name__ == "__main__":  # `python -m dolma.commands.tokens_export` is `dolma tokens export`
    import sys

    from dolma.__main__ import main

    main(["tokens", "export", *sys.argv[1:]])
