"""``dolma tokens pack``: documents of token shards in sequences of one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from dolma.config import REQUIRED, setting
from dolma.config.shared import at_least, shown_and_done
from dolma.errors import ConfigError, Problem, nearest, translated
from dolma.files.places import remotely
from dolma.formats.packed import PACKINGS
from dolma.tokenizer.derive import ShardsConfig, derive
from dolma.tokenizer.sources import details_of, shards_of

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ShardsConfig):
    """Settings of ``dolma tokens pack``."""

    sequence_length: int = setting(REQUIRED, "tokens of a sequence")
    packing: str = setting("best_fit", "best_fit: documents that fit are not cut; concatenate: cut at every length")
    pad_token_id: int | None = setting(None, "fills sequences up (default: the one that the manifest tells)")

    def check(self) -> Iterator[Problem]:
        """What no single key can tell."""
        yield from super().check()
        if self.packing not in PACKINGS:
            expected = f"expected {' or '.join(PACKINGS)}"
            yield Problem("packing", f'is "{self.packing}"; {expected}', nearest(self.packing, PACKINGS))
        yield from at_least(1, sequence_length=self.sequence_length)
        yield from at_least(0, pad_token_id=self.pad_token_id)


@remotely()
@translated
def run(config: Config) -> None:
    """Writes the missing shards, then the manifest."""
    if shown_and_done(config):
        return
    shards = shards_of(config.sources)
    details, tokenizer = details_of(shards, config.known())
    pad = details["pad_token_id"] if config.pad_token_id is None else config.pad_token_id
    if pad is None:
        hint = "give --pad_token_id; where nothing is to be told apart, the id of eos serves"
        raise ConfigError([Problem("pad_token_id", "is missing; expected it, as the shards tell none", hint)])
    if pad >= details["vocab_size"]:
        message = f"is {pad}; expected an id below {details['vocab_size']}, the size of the vocabulary"
        raise ConfigError([Problem("pad_token_id", message)])
    shape = {"sequence_length": config.sequence_length, "packing": config.packing, "pad_token_id": pad}
    settings = {"command": "tokens pack", **shape}
    work = {"command": "pack", **shape}
    derive(
        config, Path(config.destination), config.processes, shards, details, tokenizer, settings, work, told=_padding
    )


def _padding(counts: Mapping[str, int]) -> str:
    whole = counts.get("tokens", 0) + counts.get("padding", 0)
    share = counts.get("padding", 0) / whole if whole else 0.0
    cut = counts.get("documents_cut", 0)
    return f"  {counts.get('sequences', 0)} sequences  {share:.3%} padding  {cut} documents cut"


if __name__ == "__main__":  # `python -m dolma.commands.tokens_pack` is `dolma tokens pack`
    import sys

    from dolma.__main__ import main

    main(["tokens", "pack", *sys.argv[1:]])
