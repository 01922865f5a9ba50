"""``dolma tokens``: documents to token shards."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import REQUIRED, setting
from dolma.config.shared import (
    SKIP_BAD_ROWS,
    WorkDir,
    at_least,
    error_log,
    save_config,
    save_skipped,
    shown_and_done,
)
from dolma.core.progress import Reporter, bytes_text, count_text
from dolma.errors import ConfigError, Problem, nearest, translated
from dolma.files.mirror import is_remote
from dolma.files.paths import Source, expand, side_file
from dolma.files.places import remotely
from dolma.formats.manifest import read as read_manifest

__all__ = ["Config", "Fields", "Tokenizer", "run", "tokenizer_path"]

log = logging.getLogger(__name__)

OVERSIZE_RULES = ("refuse", "split")
ITEM_TYPES = ("uint8", "uint16", "uint32")
INTEGER_TYPES = ("int", "integer")
STRING_TYPES = ("str", "string")
_OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "tiktoken.model", "vocab.json", "merges.txt", "vocab.txt")
"""Tokenizer files that are not supported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Which tokenizer, and the tokens around a document."""

    name_or_path: str | None = setting(
        None, "a tokenizer.json, a directory with one, or a name in the Hugging Face cache (required)"
    )
    bos_token_id: int | None = setting(None, "token that begins every document")
    eos_token_id: int | None = setting(None, "token that ends every document; this or bos_token_id is required")
    pad_token_id: int | None = setting(None, "never written; told in the manifest")
    segment_before_tokenization: bool = setting(False, "cut texts at line ends before they are encoded")
    refresh: int = setting(0, "accepted and not needed: nothing leaks")
    fast: bool = setting(True, "only true is possible")
    encode_special_tokens: bool | None = setting(
        None,
        "encode special tokens that a text spells as text"
        " (default: only in documents that spell bos or eos; false: never, as dolma 1.x does)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """Where text and id stand in a row; names may be dotted."""

    text_field_name: str = setting("text", "field of the text")
    text_field_type: str = setting("str", "only str is possible")
    id_field_name: str | None = setting("id", "field of the id; null: made from file and line")
    id_field_type: str = setting("str", "str or int")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma tokens``."""

    documents: list[str] = setting([], "document files, patterns (`*`, `**`) or URLs")
    destination: str = setting(REQUIRED, "directory for the shards")
    tokenizer: Tokenizer | None = setting(None, "")
    tokenizer_name_or_path: str | None = setting(None, "deprecated: use tokenizer.name_or_path; eos is the last id")
    processes: int = setting(1, "number of threads; never changes the shards")
    files_per_process: int | None = setting(None, "files that share a series of shards (default: all)")
    batch_size: int = setting(10_000, "documents that are shuffled together")
    ring_size: int = setting(8, "files that are read in turn")
    sample_ring_prop: bool = setting(False, "read them in proportion to their sizes")
    fields: Fields = setting(Fields(), "")
    max_size: int = setting(1024 * 1024 * 1024, "size of a shard in bytes")
    oversize: str = setting(
        "refuse", "a document larger than a shard: refuse, or split into rows that fill a shard each"
    )
    dtype: str | None = setting(None, "uint8, uint16 or uint32 (default: uint16 or uint32, by the vocabulary)")
    seed: int = setting(3920, "of the order of documents")
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    ignore_existing: bool = setting(False, "rewrite finished shards, even those of other settings or documents")
    debug: bool = setting(False, "accepted; the work is done in this process anyway")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What no single key can tell."""
        yield from at_least(
            1,
            processes=self.processes,
            files_per_process=self.files_per_process,
            batch_size=self.batch_size,
            ring_size=self.ring_size,
            max_size=self.max_size,
        )
        yield from at_least(0, seed=self.seed, skip_bad_rows=self.skip_bad_rows)
        if self.dtype is not None and self.dtype not in ITEM_TYPES:
            yield Problem("dtype", f'is "{self.dtype}"; expected one of {", ".join(ITEM_TYPES)}')
        if self.oversize not in OVERSIZE_RULES:
            yield Problem(
                "oversize", f'is "{self.oversize}"; expected refuse or split', nearest(self.oversize, OVERSIZE_RULES)
            )
        if self.fields.text_field_type not in STRING_TYPES:
            yield Problem("fields.text_field_type", f'is "{self.fields.text_field_type}"; expected str')
        if self.fields.id_field_type not in STRING_TYPES + INTEGER_TYPES:
            yield Problem("fields.id_field_type", f'is "{self.fields.id_field_type}"; expected str or int')
        tokenizer = self.tokenizer or Tokenizer()
        if tokenizer.name_or_path is None and self.tokenizer_name_or_path is None:
            yield Problem(
                "tokenizer.name_or_path", "is missing; expected a tokenizer.json", "give the path of the file"
            )
        elif tokenizer.bos_token_id is None and tokenizer.eos_token_id is None and not self.tokenizer_name_or_path:
            hint = "documents could not be told apart; its special tokens stand in tokenizer.json"
            yield Problem("tokenizer.eos_token_id", "is missing; expected the id that ends every document", hint)
        if not tokenizer.fast:
            yield Problem("tokenizer.fast", "is false; expected true: only `tokenizers` files are read")
        token_ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        yield from at_least(0, **{f"tokenizer.{name}": value for name, value in token_ids.items()})


@remotely()
@translated
def run(config: Config) -> None:
    """Writes the missing shards, then the manifest."""
    plan = _plan(config, expand(config.documents))
    if shown_and_done(config):
        return
    destination = Path(config.destination)
    if config.ignore_existing:
        _remove_shards(destination)
    reporter = Reporter("tokens", [destination])
    start = time.monotonic()
    with error_log(destination):
        counts, skipped = _native.tokens(json.dumps(plan), reporter)
    save_config(config, [destination])
    save_skipped("tokens", destination, skipped)
    counts |= {"rows_skipped": len(skipped)} if skipped else {}
    _say(counts, time.monotonic() - start, reporter)


def _remove_shards(directory: Path) -> None:
    """Removes the shards that this command wrote there. Others stay, and end the run."""
    manifest = directory / "manifest.json"
    shards: list[str] = []
    if manifest.is_file() and (found := read_manifest(directory)).format == "tokens":
        shards += found.paths
        manifest.unlink()
    for path in (side_file(directory, "progress.ndjson"), directory / ".progress.jsonl"):
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError):  # a line that a kill cut short
                    shards += [f"{json.loads(line)['name']}.{extension}" for extension in ("npy", "csv.gz")]
            path.unlink()
    for shard in shards:
        (directory / shard).unlink(missing_ok=True)


def _say(counts: dict[str, int], seconds: float, reporter: Reporter) -> None:
    if counts["shards_discarded"]:
        log.warning(f"tokens  {counts['shards_discarded']} shards of an unfinished, other run were removed")
    if counts["respelt"]:
        log.warning(f"tokens  {counts['respelt']} documents spell bos or eos; their special tokens are encoded as text")
    if counts["documents_empty"]:
        log.info(f"tokens  {count_text(counts['documents_empty'])} documents have no text and are in no shard")
    if not counts["documents"]:
        log.warning("tokens  no document has any text; there is no shard")
    text = f"{count_text(counts['documents'])} documents  {count_text(counts['tokens'])} tokens"
    rate = f"{bytes_text(counts['text_bytes'] / max(seconds, 1e-9))}/s of text"
    shards = f"{counts['shards']} shards ({counts['shards_kept']} were finished before)"
    reporter.finish(seconds, counts, f"{text}  {shards}  {rate}")


def _plan(config: Config, sources: Sequence[Source]) -> dict[str, Any]:
    ordered = sorted(sources, key=lambda source: source.name)
    shared = _shared_directory([source.name for source in ordered])
    files = [
        {
            "path": source.path,
            "name": source.name,
            "relative": source.name[len(shared) :],
            "remote": is_remote(source.name),
        }
        for source in ordered
    ]
    fields = {
        "text_field_name": config.fields.text_field_name,
        "id_field_name": config.fields.id_field_name,
        "id_is_integer": config.fields.id_field_type in INTEGER_TYPES,
    }
    copied = (
        "destination",
        "files_per_process",
        "batch_size",
        "ring_size",
        "sample_ring_prop",
        "oversize",
        "dtype",
        "seed",
    )
    return {
        "files": files,
        "tokenizer": _tokenizer(config),
        "fields": fields,
        "threads": config.processes,
        "max_size_bytes": config.max_size,
        "rows": {"generate_ids": False, "skip_bad_rows": config.skip_bad_rows},
        **{name: getattr(config, name) for name in copied},
    }


def _shared_directory(names: Sequence[str]) -> str:
    """What all names begin with, up to a ``/``: the order of documents does not depend on where they lie."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, length) + 1]


def _tokenizer(config: Config) -> dict[str, Any]:
    tokenizer = config.tokenizer or Tokenizer()
    name = tokenizer.name_or_path or config.tokenizer_name_or_path or ""
    path = tokenizer_path(name)
    eos = tokenizer.eos_token_id
    if tokenizer.name_or_path is None:
        # what dolma 1.x did before the id could be given
        added = json.loads(path.read_text("utf-8"))
        ids = {*added["model"]["vocab"].values(), *(token["id"] for token in added.get("added_tokens", []))}
        eos = len(ids) - 1 if eos is None else eos
        log.warning(f"tokens  tokenizer_name_or_path is deprecated; eos_token_id is taken to be {eos}")
    copied = ("bos_token_id", "pad_token_id", "segment_before_tokenization", "encode_special_tokens")
    return {"path": str(path), "eos_token_id": eos, **{key: getattr(tokenizer, key) for key in copied}}


def tokenizer_path(name: str) -> Path:
    """The ``tokenizer.json`` for a path, a directory, or a name in the local Hugging Face cache; nothing is fetched.

    Raises:
        ConfigError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (path / "tokenizer.json").is_file():
        return path / "tokenizer.json"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    reference = cache / "refs" / "main"
    if reference.is_file():
        cached = cache / "snapshots" / reference.read_text().strip() / "tokenizer.json"
        if cached.is_file():
            return cached
    others = [other for other in _OTHER_TOKENIZERS if (path / other).is_file()]
    if path.is_dir() and others:
        message = f'is "{name}", which has {", ".join(others)} but no tokenizer.json; expected that file'
        hint = "write it with transformers: `AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)`"
        raise ConfigError([Problem("tokenizer.name_or_path", message, hint)])
    if path.exists() and not path.is_dir():
        message = f'is "{name}", a pipe or a device; expected a file'
        raise ConfigError([Problem("tokenizer.name_or_path", message, "write it to a file first")])
    message = f'is "{name}", which is neither a file, a directory with tokenizer.json, nor in the local cache'
    hint = f"give a path, or fetch it once: `hf download {name} tokenizer.json`" if name.count("/") == 1 else ""
    raise ConfigError([Problem("tokenizer.name_or_path", f"{message}; expected a tokenizer", hint)])


if __name__ == "__main__":  # `python -m dolma.commands.tokens` is `dolma tokens`
    import sys

    from dolma.__main__ import main

    main(["tokens", *sys.argv[1:]])
