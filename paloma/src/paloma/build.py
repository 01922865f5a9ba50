"""`paloma build`: documents in, a stratified sample of every domain out, in Paloma's layout.

The layout is `<root>/<source>/<split>/<source>_00000000.jsonl.gz`, with rows of `id`, `text`, `source`, `subdomain`,
`added`, `metadata`. Source: Paloma (Magnusson et al. 2023, arXiv:2312.10523), the guideline on subsampling.

A document's place in the order of its domain is a pure function of (seed, id), so the sample does not depend on the
order, number or size of the files, and a larger target only adds documents. Its split is a function of (seed, text), so
equal texts share a split. Memory holds the sample, never the corpus.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from paloma import WRITER
from paloma.formats.contract import ConfigError, FormatError, Problem, read_lines, write_file, write_gzip
from paloma.formats.document import Document, document_files, parse_document
from paloma.formats.manifest import describe_input, write_manifest
from paloma.output import csv_table, staged

__all__ = ["BuildConfig", "Bytes", "DomainSample", "Tokens", "build", "folder_of", "order_key", "split_of", "text_key"]

log = logging.getLogger(__name__)

_NAMED = 5  # domains named in a warning; the manifest's details have all of them


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What a sample depends on besides its documents. The docstrings are the help of the flags."""

    tokens_per_domain: int | None = None  # Paloma has at least 100,000
    """target size of each domain in each split, in tokens"""
    bytes_per_domain: int | None = None
    """target size of each domain in each split, in UTF-8 bytes instead of tokens"""
    tokens_per_source: int | None = None  # Paloma has at least 1,000,000
    """target size of each source in each split, in tokens, for its domains in equal shares, or tokens_per_domain if
    that is more; the documents are read twice"""
    bytes_per_source: int | None = None
    """the same in UTF-8 bytes"""
    domain_targets: tuple[str, ...] = ()
    """SOURCE=N: another target for the domains of some sources; Paloma has 500,000 tokens for those of Dolma"""
    min_documents_per_domain: int = 1
    """skip domains with fewer documents in any split"""
    min_size_per_domain: int = 0
    """skip domains smaller than this in any split, in the unit of the target"""
    seed: int = 0
    """seed of the sample"""
    splits: tuple[str, ...] = ("val", "test")
    """names of the splits, which share neither documents nor texts"""
    whole_documents: bool = False
    """do not cut the last document of a domain at the target"""
    default_source: str = ""
    """source of documents without one"""
    one_domain: tuple[str, ...] = ()
    """sources that are a single domain each, whatever the subdomains of their documents"""

    def problems(self) -> list[Problem]:
        """Contradictions and values out of range."""
        found = []
        tokens = self.tokens_per_domain is not None or self.tokens_per_source is not None
        size = self.bytes_per_domain is not None or self.bytes_per_source is not None
        if tokens == size:
            names = ("tokens_per_domain", "tokens_per_source", "bytes_per_domain", "bytes_per_source")
            found_set = [f'"{name}"' for name in names if getattr(self, name) is not None]
            message = f"{' and '.join(found_set)} are both set; expected tokens or bytes"
            if not size:
                message = '"tokens_per_domain" and "bytes_per_domain" are both missing; expected one of them'
            found.append(Problem(message, "--bytes-per-domain needs no tokenizer"))
        for text in self.domain_targets:
            if not re.fullmatch(r".+=[1-9]\d*", text):
                found.append(Problem(f'"domain_targets" contains "{text}"; expected SOURCE=N'))
        for name in ("tokens_per_domain", "bytes_per_domain", "tokens_per_source", "bytes_per_source"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(Problem(f'"{name}" is {value}; expected at least 1'))
        for name in ("min_documents_per_domain", "min_size_per_domain"):
            if getattr(self, name) < 0:
                found.append(Problem(f'"{name}" is {getattr(self, name)}; expected at least 0'))
        if not self.splits or len(set(self.splits)) < len(self.splits):
            found.append(Problem(f'"splits" is {list(self.splits)}; expected different names'))
        for split in self.splits:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
                found.append(Problem(f'"splits" contains "{split}"; expected letters, digits, _ or -'))
        return found


@dataclass(frozen=True, slots=True)
class _Key:
    source: str
    subdomain: str
    split: str


def build(documents: list[Path], output: Path, config: BuildConfig, tokenizer: Path | None, *, overwrite: bool) -> str:
    """Sample the documents below the given paths into `output`; returns a line that sums it up.

    Raises:
        ConfigError: the request contradicts itself, or no domain is large enough.
        FormatError: a document that breaks the contract.
    """
    measure = _measure(config, tokenizer)
    with staged(output, overwrite=overwrite) as staging:
        # ---- sample
        progress = _Progress(sum(f.stat().st_size for path in documents for f in document_files(path)))
        targets = _targets(documents, config)
        samples, seen = _sample(documents, config, measure, targets, progress)
        chosen = {key: sample.documents(whole=config.whole_documents) for key, sample in samples.items()}

        # ---- skip small domains
        kept, dropped = _large_enough(chosen, config, measure)
        if not kept:
            hint = "lower --min-documents-per-domain or --min-size-per-domain, or add documents"
            raise ConfigError(f"--documents: none of {len(dropped)} domains is large enough", hint=hint)
        _check_ids(kept, documents[0])

        # ---- write
        files = _write(staging, kept)
        table = _table(kept, measure)
        short = [row for row in table if row[measure.unit] < targets(row["source"])]
        write_file(staging / "domains.csv", csv_table(table))
        counts = {
            "documents": sum(map(len, kept.values())),
            "text_bytes": sum(row["bytes"] for row in table),
            "domains": len({(key.source, key.subdomain) for key in kept}),
        }
        inputs = [entry for path in documents for entry in describe_input("documents", path, output)]
        if tokenizer is not None:
            inputs += describe_input("tokenizer", tokenizer, output)
        write_manifest(
            staging,
            format="document",
            files=[*files, staging / "domains.csv"],
            config=asdict(config),
            counts=counts,
            details={
                "dropped_domains": [list(pair) for pair in dropped],
                "short_domains": [
                    [row[name] for name in ("source", "subdomain", "split", measure.unit)] for row in short
                ],
                "unit": measure.unit,
                "seen": seen,
            },
            inputs=inputs,
            writer=WRITER,
        )
        progress.finish(staging)
    if dropped:
        log.warning("skipped domains, too small in at least one split: %s", _names(dropped))
    if short:
        below = [(row["source"], row["subdomain"], row["split"]) for row in short]
        log.warning("domains below their target, with all of their documents: %s", _names(below))
    sources = len({key.source for key in kept})
    return f"{counts['documents']:,} documents of {counts['domains']:,} domains in {sources:,} sources: {output}"


def _names(domains: Sequence[tuple[str, ...]]) -> str:
    """The first few, and how many more."""
    names = ", ".join("/".join(filter(None, parts)) for parts in domains[:_NAMED])
    return names + (f" and {len(domains) - _NAMED:,} more" if len(domains) > _NAMED else "")


# ---- read


def _targets(documents: list[Path], config: BuildConfig) -> Callable[[str], int]:
    """The target of the domains of a source. Only a target for whole sources reads the documents, to count domains."""
    per_domain = config.tokens_per_domain or config.bytes_per_domain or 1
    per_source = config.tokens_per_source or config.bytes_per_source
    own = {name: int(target) for name, _, target in (text.rpartition("=") for text in config.domain_targets)}
    counts: Counter[str] = Counter()
    if per_source is not None:
        files = (file for path in documents for file in document_files(path))
        found = {(d.source, d.subdomain) for file in files for d in _read(file, config.default_source) if d.text}
        counts.update(source for source, _ in {(s, "" if s in config.one_domain else sub) for s, sub in found})

    def target(source: str) -> int:
        share = -(-per_source // counts[source]) if per_source and counts[source] else 0
        return own.get(source) or max(per_domain, share)

    return target


def _sample(
    documents: list[Path], config: BuildConfig, measure: Measure, targets: Callable[[str], int], progress: _Progress
) -> tuple[dict[_Key, DomainSample], dict[str, int]]:
    """Offer every document once to the sample of its source, subdomain and split."""
    samples: dict[_Key, DomainSample] = {}
    seen = Counter(documents=0, text_bytes=0, empty=0)
    done_bytes = 0
    folders: dict[str, str] = {}
    read: dict[Path, Path] = {}
    for path in documents:
        for file in document_files(path):
            real = file.resolve()
            if real in read:
                problem = f"--documents: {file} is listed twice, first as {read[real]}; expected each file once"
                raise ConfigError(problem, hint="remove one of them")
            read[real] = file
            for document in _read(file, config.default_source):
                progress.step(done_bytes)
                seen["documents"] += 1
                seen["text_bytes"] += len(document.text.encode())
                if not document.text:
                    seen["empty"] += 1
                    continue
                folder = folder_of(document.source)
                first = folders.setdefault(folder, document.source)
                if first != document.source:
                    problem = f'--documents: the sources "{first}" and "{document.source}" share the folder {folder}'
                    raise ConfigError(f"{problem}; expected one each", hint="rename one source")
                subdomain = "" if document.source in config.one_domain else document.subdomain
                for split in config.splits:  # a domain exists in every split, if only to be found too small
                    key = _Key(document.source, subdomain, split)
                    if key not in samples:
                        samples[key] = DomainSample(targets(document.source), measure)
                text = text_key(config.seed, document.text)
                split = split_of(text, config.splits)
                samples[_Key(document.source, subdomain, split)].offer(
                    document, order_key(config.seed, document.id), text
                )
            done_bytes += file.stat().st_size
    return samples, dict(seen)


def _read(file: Path, default_source: str) -> Iterator[Document]:
    for line, data in read_lines(file):
        document = parse_document(data, file, line)
        if not document.source:
            if not default_source:
                message = '"source" not found; expected the name that results are reported under'
                hint = "name it with --default-source"
                raise FormatError("missing_field", file, message, line=line, field="source", hint=hint)
            document = replace(document, source=default_source)
        yield document


# ---- which documents represent a domain: those whose hashes come first, until there is enough


def order_key(seed: int, id: str) -> int:
    """Place of a document in its domain's order, 128 bits."""
    return int.from_bytes(hashlib.sha256(f"order\0{seed}\0{id}".encode()).digest()[:16])


def text_key(seed: int, text: str) -> bytes:
    """Hash of a text: two documents with the same are duplicates."""
    return hashlib.sha256(f"text\0{seed}\0{text}".encode()).digest()


def split_of(key: bytes, splits: tuple[str, ...]) -> str:
    """The split of a text, each equally likely."""
    return splits[int.from_bytes(key[:8]) % len(splits)]


@dataclass(order=True, slots=True)
class _Entry:
    negative_key: int  # heapq keeps the smallest on top; here the last in order has to be there
    text_key: bytes
    document: Document = field(compare=False)
    size: int = field(compare=False)
    replaced: bool = field(compare=False, default=False)


class DomainSample:
    """The first documents of one domain and split, in hash order, up to `target` in the measure's unit."""

    def __init__(self, target: int, measure: Measure) -> None:
        self._target = target
        self._measure = measure
        self._heap: list[_Entry] = []
        self._by_text: dict[bytes, _Entry] = {}
        self._total = 0

    def offer(self, document: Document, key: int, text: bytes) -> None:
        """Take a document with text if it is among the first; of equal texts the first in order stays."""
        known = self._by_text.get(text)
        if known is not None:
            if -key <= known.negative_key:
                return
            known.replaced = True
            entry = _Entry(-key, text, document, known.size)
        else:
            self._pop_replaced()
            if self._total >= self._target and -key < self._heap[0].negative_key:
                return  # after all that are needed: not even measured
            entry = _Entry(-key, text, document, self._measure.size(document.text))
            self._total += entry.size
        heapq.heappush(self._heap, entry)
        self._by_text[text] = entry
        self._pop_replaced()
        while self._total - self._heap[0].size >= self._target:
            last = heapq.heappop(self._heap)
            del self._by_text[last.text_key]
            self._total -= last.size
            self._pop_replaced()

    def _pop_replaced(self) -> None:
        while self._heap and self._heap[0].replaced:
            heapq.heappop(self._heap)

    def documents(self, *, whole: bool) -> list[Document]:
        """The sample in order; unless `whole`, the last document is cut where the target is reached.

        The rest of its text goes to its `metadata.truncated_portion`, as in Paloma's own files.
        """
        entries = sorted((entry for entry in self._heap if not entry.replaced), reverse=True)
        chosen = [entry.document for entry in entries]
        if whole or self._total <= self._target:
            return chosen
        last = entries[-1]
        kept = self._measure.cut(last.document.text, self._target - (self._total - last.size))
        if not kept:
            return chosen[:-1]
        metadata: dict[str, Any] = last.document.metadata | {"truncated_portion": last.document.text[len(kept) :]}
        return [*chosen[:-1], replace(last.document, text=kept, metadata=metadata)]


# ---- sizes: UTF-8 bytes, or tokens of a tokenizer.json


def _measure(config: BuildConfig, tokenizer: Path | None) -> Measure:
    if config.bytes_per_domain is not None or config.bytes_per_source is not None:
        return Bytes()
    if tokenizer is None:
        flag = "--tokens-per-source" if config.tokens_per_domain is None else "--tokens-per-domain"
        problem = f"{flag}: no --tokenizer is given; expected a tokenizer.json"
        raise ConfigError(problem, hint="pass --tokenizer, or use --bytes-per-domain")
    return Tokens(tokenizer)


class Bytes:
    """UTF-8 bytes; a cut never halves a character."""

    unit = "bytes"

    def size(self, text: str) -> int:
        """Length in bytes."""
        return len(text.encode())

    def cut(self, text: str, size: int) -> str:
        """The longest prefix of at most `size` bytes, which may be empty."""
        return text.encode()[:size].decode(errors="ignore")


_OTHER_TOKENIZERS = {".tiktoken": "tiktoken", "tekken.json": "Tekken", ".model": "SentencePiece"}


class Tokens:
    """Tokens of the unchanged text, without special tokens; a cut falls between characters."""

    unit = "tokens"

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            problem = "--tokenizer: the package `tokenizers` is not installed; it counts tokens"
            hint = "pip install 'paloma-eval[tokenizers]', or use --bytes-per-domain"
            raise ConfigError(problem, hint=hint) from None
        if not path.is_file():
            found = "is a directory" if path.is_dir() else "not found"
            raise ConfigError(f"--tokenizer: {path} {found}; expected a tokenizer.json", hint="check the path")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises bare Exception for every kind of broken file
            kind = next((name for end, name in _OTHER_TOKENIZERS.items() if path.name.endswith(end)), None)
            what = f"is a {kind} file" if kind else f"is not a tokenizer ({error})"
            problem = f"--tokenizer: {path} {what}; expected a tokenizer.json of the tokenizers library"
            hint = "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of transformers converts most others"
            raise ConfigError(problem, hint=hint) from error
        # as in the other tools: the text is not truncated, and a special token spelled out in it is text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def size(self, text: str) -> int:
        """Number of tokens; at least 1 for a text that is not empty, whatever the vocabulary lacks."""
        return max(len(self._tokenizer.encode(text, add_special_tokens=False).ids), 1 if text else 0)

    def cut(self, text: str, size: int) -> str:
        """The prefix that ends with the character where token number `size` ends; it may be empty."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= size:
            return text
        end = offsets[size - 1][1] if size else 0
        # a character may be spread over several tokens: only those before a token that starts later are complete
        return text[: min(end, offsets[size][0])] if size else ""


Measure = Bytes | Tokens


# ---- domains to keep


def _large_enough(
    chosen: dict[_Key, list[Document]], config: BuildConfig, measure: Measure
) -> tuple[dict[_Key, list[Document]], list[tuple[str, str]]]:
    """Domains that are large enough in every split, in order, and the names of the others."""
    small = set()
    for key, found in chosen.items():
        enough = len(found) >= config.min_documents_per_domain
        if enough and config.min_size_per_domain:
            enough = sum(measure.size(document.text) for document in found) >= config.min_size_per_domain
        if not enough:
            small.add((key.source, key.subdomain))
    ordered = sorted(chosen, key=lambda key: (key.source, key.subdomain, key.split))
    return {key: chosen[key] for key in ordered if (key.source, key.subdomain) not in small}, sorted(small)


def _check_ids(kept: dict[_Key, list[Document]], path: Path) -> None:
    """Ids stay unique within a source: results are joined by them."""
    seen: set[tuple[str, str]] = set()
    for key, documents in kept.items():
        for document in documents:
            if (key.source, document.id) in seen:
                message = f'"id" is "{document.id}" for two texts of "{key.source}"; expected unique ids in a source'
                raise FormatError("invalid_value", path, message, field="id", hint="give the documents other ids")
            seen.add((key.source, document.id))


# ---- write


@cache
def folder_of(source: str) -> str:
    """A source as the name of a folder. ASCII letters, digits and `._-` stay, other ASCII becomes `_`, and each UTF-8
    byte of any other character becomes `%` and two hexadecimal digits, so that 好评 and 差评 differ."""
    name = re.sub(r"[^A-Za-z0-9._-]", lambda found: quote(found[0]) if found[0] > "\x7f" else "_", source)
    return name.lstrip(".") or "_"


def _write(root: Path, kept: dict[_Key, list[Document]]) -> list[Path]:
    """A file for each source and split, subdomains one after the other."""
    parts: dict[Path, list[dict[str, Any]]] = {}
    for key, documents in kept.items():
        folder = folder_of(key.source)
        path = root / folder / key.split / f"{folder}_00000000.jsonl.gz"
        parts.setdefault(path, []).extend(_row(document, key.subdomain) for document in documents)
    for path, lines in parts.items():
        with write_gzip(path) as file:
            for line in lines:
                file.write(msgspec.json.encode(line) + b"\n")
    return list(parts)


def _row(document: Document, subdomain: str) -> dict[str, Any]:
    """As in Paloma's files: the subdomain is at the top and not in `metadata`, where it may differ."""
    row: dict[str, Any] = {"id": document.id, "text": document.text, "source": document.source}
    if subdomain:
        row["subdomain"] = subdomain
    metadata = {name: value for name, value in document.metadata.items() if name != "subdomain"}
    return row | {"added": document.added, "metadata": metadata}


def _table(kept: dict[_Key, list[Document]], measure: Measure) -> list[dict[str, Any]]:
    return [
        {
            **asdict(key),
            "documents": len(documents),
            "tokens": sum(measure.size(d.text) for d in documents) if measure.unit == "tokens" else None,
            "bytes": sum(len(d.text.encode()) for d in documents),
            "chars": sum(len(d.text) for d in documents),
            "truncated": sum("truncated_portion" in d.metadata for d in documents),
        }
        for key, documents in kept.items()
    ]


class _Progress:
    """A log line every ten seconds with the rate and the time left, and one at the end."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._start = self._last = time.monotonic()
        self._documents = 0

    def step(self, done_bytes: int) -> None:
        """One more document; `done_bytes` of the inputs have been read."""
        self._documents += 1
        now = time.monotonic() if self._documents % 256 == 0 else self._last
        if now - self._last < 10.0:
            return
        self._last = now
        seconds = now - self._start
        eta = "--:--"
        if done_bytes:
            left_s = int(seconds * (self._total_bytes - done_bytes) / done_bytes)
            eta = f"{left_s // 60:02d}:{left_s % 60:02d}"
        rate = self._documents / seconds
        log.info("build  %s documents  %.0f documents/s  eta %s", f"{self._documents:,}", rate, eta)

    def finish(self, directory: Path) -> None:
        """The last line, and the same numbers in `metrics.jsonl`, which is not part of the artifact."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self._documents / seconds
        log.info("build  %s documents in %.1f s  %.0f documents/s", f"{self._documents:,}", seconds, rate)
        row = {"verb": "build", "documents": self._documents, "time_s": round(seconds, 3)}
        row["documents_per_s"] = round(rate, 1)
        (directory / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
