"""``dolma tokens``: documents to token shards; ``decode``, ``pack`` and ``export`` of finished shards."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import REQUIRED, SKIP_BAD_ROWS, WorkDir, at_least, setting, shown_and_done
from dolma.errors import ConfigError, Problem, nearest, raise_all, raises_dolma_errors
from dolma.files.paths import Source, expand, is_remote, side_file
from dolma.formats.contract import FormatError, MissingFlagError
from dolma.formats.manifest import MANIFEST, check_files, find_manifest, read_manifest
from dolma.places import InputPattern, LocalPath, OutputDirectory
from dolma.plan import Plan, skipped_rows
from dolma.records import Reporter, bytes_text, count_text, error_log, save_config, save_skipped
from dolma.staging import with_remote_paths
from dolma.tokenizer import ShardsConfig, derive, details_of, item_type_problems, shards_of, tokenizer_path

__all__ = [
    "Config",
    "DecodeConfig",
    "ExportConfig",
    "Fields",
    "PackConfig",
    "Tokenizer",
    "decode",
    "export",
    "pack",
    "run",
]

log = logging.getLogger(__name__)

OVERSIZE_RULES = ("refuse", "split")
INTEGER_TYPES = ("int", "integer")
STRING_TYPES = ("str", "string")
PACKINGS = ("best_fit", "concatenate")
EXPORT_FORMATS = ("megatron",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Which tokenizer, and the tokens around a document."""

    name_or_path: LocalPath | None = setting(
        None, "a tokenizer.json, a directory with one, or a name in the Hugging Face cache (required)"
    )
    bos_token_id: int | None = setting(None, "token that begins every document")
    eos_token_id: int | None = setting(None, "token that ends every document; this or bos_token_id is required")
    pad_token_id: int | None = setting(None, "never written to shards; recorded in the manifest")
    segment_before_tokenization: bool = setting(False, "cut texts at line ends before they are encoded")
    refresh: int = setting(0, "accepted for configurations of dolma 1.x; not used")
    fast: bool = setting(True, "only true is accepted")
    encode_special_tokens: bool | None = setting(
        None,
        "encode special tokens that a text spells as text"
        " (default: only in documents that spell bos or eos; false: never, as dolma 1.x does)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """Where a row has its text and id; names may be dotted."""

    text_field_name: str = setting("text", "field of the text")
    text_field_type: str = setting("str", "only str is accepted")
    id_field_name: str | None = setting("id", "field of the id; null: made from file and line")
    id_field_type: str = setting("str", "str or int")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma tokens``."""

    documents: list[InputPattern] = setting([], "document files, patterns (`*`, `**`) or URLs")
    destination: OutputDirectory = setting(REQUIRED, "directory for the shards")
    tokenizer: Tokenizer | None = setting(None, "")
    tokenizer_name_or_path: LocalPath | None = setting(
        None, "deprecated: use tokenizer.name_or_path; eos is the last id"
    )
    processes: int = setting(1, "number of threads; the output does not depend on it")
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
    seed: int = setting(3920, "seed of the order of documents")
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    ignore_existing: bool = setting(False, "rewrite finished shards, even those of other settings or documents")
    debug: bool = setting(False, "accepted for configurations of dolma 1.x; not used")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        yield from at_least(
            1,
            processes=self.processes,
            files_per_process=self.files_per_process,
            batch_size=self.batch_size,
            ring_size=self.ring_size,
            max_size=self.max_size,
        )
        yield from at_least(0, seed=self.seed, skip_bad_rows=self.skip_bad_rows)
        yield from item_type_problems(self.dtype)
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
            hint = "without it documents cannot be separated; tokenizer.json lists the special tokens"
            yield Problem("tokenizer.eos_token_id", "is missing; expected the id that ends every document", hint)
        if not tokenizer.fast:
            yield Problem("tokenizer.fast", "is false; expected true: only `tokenizers` files are read")
        token_ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        yield from at_least(0, **{f"tokenizer.{name}": value for name, value in token_ids.items()})


@with_remote_paths(streams=True)
@raises_dolma_errors
def run(config: Config) -> None:
    """Writes the missing shards, then the manifest."""
    plan = make_settings(config, expand(config.documents))
    if shown_and_done(config):
        return
    destination = Path(config.destination)
    if config.ignore_existing:
        _remove_shards(destination)
    reporter = Reporter("tokens", [destination])
    start = time.monotonic()
    with error_log(destination):
        run_plan = Plan([], config.processes)
        run_plan.add("tokens", plan)
        counts = run_plan.run(reporter)["tokens"]
    save_config(config, [destination])
    report(destination, counts, time.monotonic() - start, reporter)


def _remove_shards(directory: Path) -> None:
    """Removes the shards that this command wrote. Others stay, and end the run."""
    listing = directory / MANIFEST
    shards: list[str] = []
    if listing.is_file() and (found := read_manifest(directory)).format == "tokens":
        shards += [row["path"] for row in found.files]
        listing.unlink()
    for path in (side_file(directory, "progress.ndjson"), directory / ".progress.jsonl"):
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError, KeyError):  # a line that a kill cut short, or the first
                    shards += [f"{json.loads(line)['name']}.{extension}" for extension in ("npy", "csv.gz")]
            path.unlink()
    for shard in shards:
        (directory / shard).unlink(missing_ok=True)


def report(destination: Path, counts: dict[str, Any], seconds: float, reporter: Reporter) -> None:
    """Says what was done."""
    skipped = skipped_rows(counts.pop("skipped"))
    save_skipped("tokens", destination, skipped)
    counts |= {"rows_skipped": len(skipped)} if skipped else {}
    if counts["shards_discarded"]:
        log.warning(f"tokens  {counts['shards_discarded']} shards of an unfinished, other run were removed")
    if counts["respelt"]:
        log.warning(f"tokens  {counts['respelt']} documents spell bos or eos; their special tokens are encoded as text")
    if counts["documents_empty"]:
        log.info(f"tokens  {count_text(counts['documents_empty'])} documents have no text and are in no shard")
    if not counts["documents"]:
        log.warning("tokens  no document has any text; no shard was written")
    text = f"{count_text(counts['documents'])} documents  {count_text(counts['tokens'])} tokens"
    rate = f"{bytes_text(counts['text_bytes'] / max(seconds, 1e-9))}/s of text"
    shards = f"{counts['shards']} shards ({counts['shards_kept']} were finished before)"
    reporter.finish(seconds, counts, f"{text}  {shards}  {rate}")


def make_settings(config: Config, sources: Sequence[Source]) -> dict[str, Any]:
    """Settings as the core takes them."""
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
    """What all names begin with, up to a ``/``: the order of documents does not depend on where they are."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, length) + 1]


def _tokenizer(config: Config) -> dict[str, Any]:
    tokenizer = config.tokenizer or Tokenizer()
    name = tokenizer.name_or_path or config.tokenizer_name_or_path or ""
    path = tokenizer_path(name)
    eos = tokenizer.eos_token_id
    if tokenizer.name_or_path is None:
        # as dolma 1.x did before there was a setting for the id
        added = json.loads(path.read_text("utf-8"))
        ids = {*added["model"]["vocab"].values(), *(token["id"] for token in added.get("added_tokens", []))}
        eos = len(ids) - 1 if eos is None else eos
        log.warning(f"tokens  tokenizer_name_or_path is deprecated; eos_token_id is set to {eos}")
    copied = ("bos_token_id", "pad_token_id", "segment_before_tokenization", "encode_special_tokens")
    return {"path": str(path), "eos_token_id": eos, **{key: getattr(tokenizer, key) for key in copied}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Settings of ``dolma tokens decode``."""

    path: LocalPath | None = setting(None, "a directory that `dolma tokens` wrote, or one .npy", positional=True)
    document: int | None = setting(None, "number of the document, from 0, shards in sorted order (default: 0)")
    id: str | None = setting(None, "id of the documents to show, instead of a number")
    tokenizer: LocalPath | None = setting(None, "tokenizer.json or a name (default: the one next to the shards)")
    dtype: str | None = setting(None, "item type of shards without a manifest")
    eos_token_id: int | None = setting(None, "token that ends documents, without manifest and table")
    json: bool = setting(False, "one JSON object per document instead of readable lines")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.path is None:
            yield Problem("path", "is missing; expected a directory of token shards, or one .npy")
        elif not Path(self.path).exists():
            yield Problem("path", f'is "{self.path}", which was not found; expected token shards')
        if self.document is not None and self.id is not None:
            yield Problem("id", "is given together with document; expected one of the two")
        yield from item_type_problems(self.dtype)
        yield from at_least(0, document=self.document, eos_token_id=self.eos_token_id)


@raises_dolma_errors
def decode(config: DecodeConfig) -> None:
    """Prints the requested documents; finding none is an error."""
    path = Path(config.path or "")
    directory = path if path.is_dir() else path.parent
    shape = _shape(config, directory)
    tokenizer = tokenizer_path(config.tokenizer or str(directory / "tokenizer.json"))
    wanted = config.document or 0
    seen, shown = 0, 0
    for row in _rows(path, shape):
        if (config.id is None and seen == wanted) or (config.id is not None and row["id"] == config.id):
            _show(row | {"document": seen, "text": _native.decode_tokens(str(tokenizer), row["tokens"])}, config.json)
            shown += 1
            if config.id is None:
                return
        seen += 1
    if not shown and config.id is not None:
        raise ConfigError([Problem("id", f'is "{config.id}", which none of the {seen} documents has')])
    if not shown:
        raise ConfigError(
            [Problem("document", f"is {wanted}; expected a number below {seen}, the documents there are")]
        )


def _shape(config: DecodeConfig, directory: Path) -> tuple[str | None, int | None]:
    """Item type and eos; a single shard of an artifact has them from its manifest."""
    if config.dtype is not None or not (directory / MANIFEST).is_file():
        return config.dtype, config.eos_token_id
    details = read_manifest(directory, "tokens").fields("details")
    return details.string("dtype"), config.eos_token_id


def _rows(path: Path, shape: tuple[str | None, int | None]) -> Iterator[dict[str, Any]]:
    # it needs NumPy, which the other commands do not load
    from dolma.formats.tokens import dump

    dtype, eos_token_id = shape
    if found := find_manifest(path, "tokens"):
        raise_all(list(check_files(found, checksums=True)))
    errors = []
    try:
        for row in dump(path, dtype=dtype, eos_token_id=eos_token_id):
            if isinstance(row, FormatError):
                errors.append(row)
            else:
                yield row
    except MissingFlagError as error:
        key = str(error).removeprefix("--").replace("-", "_")
        raise ConfigError([Problem(key, "is missing; expected it, as no manifest says it")]) from None
    raise_all(errors)


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(f"document {row['document']}  {row['file']}  tokens {row['start']} to {row['end']}\n")
    sys.stdout.write(f"id       {row['id']}\nsource   {row['src']}:{row['loc']}\n")
    sys.stdout.write(f"ids      {' '.join(map(str, row['tokens']))}\ntext\n{row['text']}\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig(ShardsConfig):
    """Settings of ``dolma tokens pack``."""

    sequence_length: int = setting(REQUIRED, "tokens of a sequence")
    packing: str = setting("best_fit", "best_fit: documents that fit are not cut; concatenate: cut at every length")
    pad_token_id: int | None = setting(None, "fills sequences up (default: the one in the manifest)")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        yield from super().check()
        if self.packing not in PACKINGS:
            expected = f"expected {' or '.join(PACKINGS)}"
            yield Problem("packing", f'is "{self.packing}"; {expected}', nearest(self.packing, PACKINGS))
        yield from at_least(1, sequence_length=self.sequence_length)
        yield from at_least(0, pad_token_id=self.pad_token_id)


@with_remote_paths()
@raises_dolma_errors
def pack(config: PackConfig) -> None:
    """Writes the missing shards, then the manifest."""
    if shown_and_done(config):
        return
    shards = shards_of(config.sources)
    details, tokenizer = details_of(shards, config.known())
    pad = details["pad_token_id"] if config.pad_token_id is None else config.pad_token_id
    if pad is None:
        hint = "give --pad_token_id; the id of eos works if padding need not be distinguished"
        raise ConfigError([Problem("pad_token_id", "is missing; expected it, as the shards have none", hint)])
    if pad >= details["vocab_size"]:
        message = f"is {pad}; expected an id below {details['vocab_size']}, the size of the vocabulary"
        raise ConfigError([Problem("pad_token_id", message)])
    shape = {"sequence_length": config.sequence_length, "packing": config.packing, "pad_token_id": pad}
    settings = {"command": "tokens pack", **shape}
    work = {"command": "pack", **shape}
    destination, threads = Path(config.destination), config.processes
    derive(config, destination, threads, shards, details, tokenizer, settings, work, summarize=_padding)


def _padding(counts: Mapping[str, int]) -> str:
    whole = counts.get("tokens", 0) + counts.get("padding", 0)
    share = counts.get("padding", 0) / whole if whole else 0.0
    cut = counts.get("documents_cut", 0)
    return f"  {counts.get('sequences', 0)} sequences  {share:.3%} padding  {cut} documents cut"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(ShardsConfig):
    """Settings of ``dolma tokens export``."""

    format: str = setting("megatron", "megatron: .bin and .idx of Megatron-LM's indexed dataset")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        yield from super().check()
        if self.format not in EXPORT_FORMATS:
            expected = f"expected {' or '.join(EXPORT_FORMATS)}"
            yield Problem("format", f'is "{self.format}"; {expected}', nearest(self.format, EXPORT_FORMATS))


@with_remote_paths()
@raises_dolma_errors
def export(config: ExportConfig) -> None:
    """Writes the missing pairs, then the manifest."""
    if shown_and_done(config):
        return
    shards = shards_of(config.sources)
    details, tokenizer = details_of(shards, config.known())
    if details["vocab_size"] > 1 << 31:
        message = (
            f"have a vocabulary of {details['vocab_size']}; expected at most {1 << 31}, the limit of Megatron's int32"
        )
        raise ConfigError([Problem("sources", message)])
    settings = {"command": "tokens export", "format": config.format}
    work = {"command": config.format}
    derive(config, Path(config.destination), config.processes, shards, details, tokenizer, settings, work)


if __name__ == "__main__":  # `python -m dolma.commands.tokens` is `dolma tokens`
    from dolma.__main__ import main

    main(["tokens", *sys.argv[1:]])
