"""`paloma build`: documents in, a stratified sample of every domain out, in Paloma's layout.

The layout is `<root>/<source>/<split>/<source>_00000000.jsonl.gz`, with rows of `id`, `text`, `source`, `subdomain`,
`added`, `metadata`.
Source: Paloma (Magnusson et al. 2023, arXiv:2312.10523), the guideline on subsampling.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from paloma import __version__
from paloma.artifact import Progress, staged
from paloma.configuration import ConfigError
from paloma.formats.document import Document, document_files, parse_document
from paloma.formats.errors import FormatError
from paloma.formats.json_lines import atomic_file, read_lines, write_gzip
from paloma.formats.manifest import describe_input, write_manifest
from paloma.measure import Bytes, Measure, Tokens
from paloma.sample import DomainSample, order_key, split_of, text_key
from paloma.tables import csv_table

__all__ = ["BuildConfig", "build"]

log = logging.getLogger(__name__)

_NAMED = 5  # domains that a warning names; the manifest's details have them all


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What a sample depends on besides its documents."""

    tokens_per_domain: int | None = None
    """Tokens of each domain in each split; Paloma has at least 100,000."""
    bytes_per_domain: int | None = None
    """UTF-8 bytes of each domain in each split, instead of tokens."""
    min_documents_per_domain: int = 1
    """A domain with fewer in any split is left out."""
    min_size_per_domain: int = 0
    """A domain that has less in any split, in the unit of the target, is left out."""
    seed: int = 0
    """Another seed is another sample."""
    splits: tuple[str, ...] = ("val", "test")
    """Names of the splits, disjoint in documents and in texts."""
    whole_documents: bool = False
    """Leave the last document of a domain whole where Paloma cuts it at the target."""
    default_source: str = ""
    """The source of documents that name none."""
    one_domain: tuple[str, ...] = ()
    """Sources taken as one domain, whatever subdomains their documents name (a site for each page, say)."""

    def problems(self) -> list[str]:
        """What contradicts itself, a sentence each."""
        found = []
        if (self.tokens_per_domain is None) == (self.bytes_per_domain is None):
            found.append("tokens_per_domain and bytes_per_domain are both given or both absent; expected one of them")
        for name in ("tokens_per_domain", "bytes_per_domain"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"{name} is {value}; expected at least 1")
        for name in ("min_documents_per_domain", "min_size_per_domain"):
            if getattr(self, name) < 0:
                found.append(f"{name} is {getattr(self, name)}; expected at least 0")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            found.append(f"splits is {list(self.splits)}; expected different names")
        found += [f'splits has "{s}"; expected letters, digits, _ or -' for s in self.splits if _unsafe(s)]
        return found


@dataclass(frozen=True, slots=True)
class _Key:
    source: str
    subdomain: str
    split: str


def _unsafe(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is None


def build(documents: list[Path], output: Path, config: BuildConfig, tokenizer: Path | None, *, overwrite: bool) -> str:
    """Sample the documents below the given paths into `output`; gives a line that sums it up.

    Raises:
        ConfigError: the request contradicts itself, or no domain is left.
        FormatError: a document that breaks the contract.
    """
    measure, target = _measure(config, tokenizer)
    with staged(output, overwrite=overwrite) as staging:
        progress = Progress("build", sum(f.stat().st_size for path in documents for f in document_files(path)))
        samples, seen = _sample(documents, config, measure, target, progress)
        chosen = {key: sample.documents(whole=config.whole_documents) for key, sample in samples.items()}
        kept, dropped = _large_enough(chosen, config, measure)
        if not kept:
            hint = "lower --min-documents-per-domain or --min-size-per-domain, or give more documents"
            raise ConfigError([f"--documents: none of {len(dropped)} domains is large enough"], hint)
        _check_ids(kept, documents[0])
        files = _write(staging, kept)
        table = _table(kept, measure)
        with atomic_file(staging / "domains.csv") as file:
            file.write(csv_table(table))
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
            details={"dropped_domains": [list(pair) for pair in dropped], "unit": measure.unit, "seen": seen},
            inputs=inputs,
            version=__version__,
        )
        progress.finish(staging)
    if dropped:
        names = ", ".join("/".join(pair) if pair[1] else pair[0] for pair in dropped[:_NAMED])
        more = f" and {len(dropped) - _NAMED:,} more" if len(dropped) > _NAMED else ""
        log.warning("left out, too small in at least one split: %s%s", names, more)
    sources = len({key.source for key in kept})
    return f"{counts['documents']:,} documents of {counts['domains']:,} domains in {sources:,} sources: {output}"


def _measure(config: BuildConfig, tokenizer: Path | None) -> tuple[Measure, int]:
    if config.bytes_per_domain is not None:
        return Bytes(), config.bytes_per_domain
    assert config.tokens_per_domain is not None
    if tokenizer is None:
        raise ConfigError(["--tokenizer is absent; --tokens-per-domain needs it"], "or use --bytes-per-domain")
    return Tokens(tokenizer), config.tokens_per_domain


def _sample(
    documents: list[Path], config: BuildConfig, measure: Measure, target: int, progress: Progress
) -> tuple[dict[_Key, DomainSample], dict[str, int]]:
    """Every document is offered once to the sample of its source, subdomain and split."""
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
                raise ConfigError([problem], "remove one of them")
            read[real] = file
            for document in _read(file, config.default_source):
                progress.step(done_bytes)
                seen["documents"] += 1
                seen["text_bytes"] += len(document.text.encode())
                if not document.text:
                    seen["empty"] += 1
                    continue
                folder = _folder(document.source)
                first = folders.setdefault(folder, document.source)
                if first != document.source:
                    problem = f'--documents: the sources "{first}" and "{document.source}" share the folder {folder}'
                    raise ConfigError([f"{problem}; expected one each"], "rename one source")
                subdomain = "" if document.source in config.one_domain else document.subdomain
                for split in config.splits:  # a domain exists in every split, if only to be found too small
                    key = _Key(document.source, subdomain, split)
                    if key not in samples:
                        samples[key] = DomainSample(target, measure)
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
                message = '"source" is absent; expected the name that results are reported under'
                hint = "name it with --default-source"
                raise FormatError("missing_field", file, message, line=line, field="source", hint=hint)
            document = replace(document, source=default_source)
        yield document


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
    texts: dict[tuple[str, str], str] = {}
    for key, documents in kept.items():
        for document in documents:
            if (key.source, document.id) in texts:
                message = (
                    f'"id" is "{document.id}" for two texts of "{key.source}"; expected unique ids within a source'
                )
                raise FormatError("invalid_value", path, message, field="id", hint="give the documents other ids")
            texts[key.source, document.id] = document.text


@cache
def _folder(source: str) -> str:
    """A source as the name of a folder. ASCII letters, digits and `._-` stay, other ASCII becomes `_`, and each UTF-8
    byte of any other character becomes `%` and two hexadecimal digits, so that 好评 and 差评 differ."""
    name = re.sub(r"[^A-Za-z0-9._-]", lambda found: quote(found[0]) if found[0] > "\x7f" else "_", source)
    return name.lstrip(".") or "_"


def _write(root: Path, kept: dict[_Key, list[Document]]) -> list[Path]:
    """A file for each source and split, subdomains one after the other."""
    parts: dict[Path, list[dict[str, Any]]] = {}
    for key, documents in kept.items():
        folder = _folder(key.source)
        path = root / folder / key.split / f"{folder}_00000000.jsonl.gz"
        parts.setdefault(path, []).extend(_row(document, key.subdomain) for document in documents)
    for path, lines in parts.items():
        with write_gzip(path) as file:
            for line in lines:
                file.write(msgspec.json.encode(line) + b"\n")
    return list(parts)


def _row(document: Document, subdomain: str) -> dict[str, Any]:
    """As Paloma's files have it; the subdomain stands at the top and not in `metadata`, where it might be another."""
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
