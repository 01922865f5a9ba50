"""Runs the core's work on token shards: one plan, one progress report, one summary."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import REQUIRED, setting
from dolma.config.shared import WorkDir, at_least, error_log, save_config
from dolma.core.progress import Reporter, count_text
from dolma.errors import Problem
from dolma.tokenizer.sources import Known, Shard, item_type_problems

__all__ = ["ShardsConfig", "derive"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """Settings of every command that makes something of each token shard."""

    sources: list[str] = setting([], "directories of token shards")
    destination: str = setting(REQUIRED, "directory for the results; one of each source shard")
    processes: int = setting(1, "number of threads; never changes the results")
    tokenizer_name_or_path: str | None = setting(None, "tokenizer of shards without a manifest")
    dtype: str | None = setting(None, "item type of shards without a manifest (default: by the tokenizer)")
    eos_token_id: int | None = setting(None, "token that ends documents in shards without a manifest")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What no single key can tell."""
        if not self.sources:
            yield Problem("sources", "is empty; expected directories of token shards")
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, eos_token_id=self.eos_token_id)
        yield from item_type_problems(self.dtype)

    def known(self) -> Known:
        """What is told of shards without a manifest."""
        return Known(self.tokenizer_name_or_path, self.dtype, self.eos_token_id)


def derive(
    config: Any,
    destination: Path,
    threads: int,
    shards: Sequence[Shard],
    details: Mapping[str, Any],
    tokenizer: Path | None,
    settings: Mapping[str, Any],
    work: Mapping[str, Any],
    told: Callable[[Mapping[str, int]], str] = lambda counts: "",
) -> None:
    """Writes the missing outputs. ``settings`` go to the manifest, ``work`` goes to the core."""
    name = str(settings["command"])
    plan = {
        "sources": [shard.plan() for shard in shards],
        "destination": str(destination),
        "threads": threads,
        "details": dict(details),
        "tokenizer": None if tokenizer is None else str(tokenizer),
        "config": dict(settings),
        "work": dict(work),
    }
    reporter = Reporter(name, [destination])
    start = time.monotonic()
    with error_log(destination):
        summary = json.loads(_native.derive_tokens(json.dumps(plan), reporter))
    save_config(config, [destination])
    counts = summary["counts"]
    if summary["discarded"]:
        log.warning(f"{name}  {summary['discarded']} shards of an unfinished, other run were removed")
    text = f"{count_text(counts['documents'])} documents  {count_text(counts['tokens'])} tokens"
    text += f"  {summary['outputs']} shards ({summary['kept']} were finished before)"
    reporter.finish(time.monotonic() - start, counts, text + told(counts))
