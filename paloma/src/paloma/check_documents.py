"""`paloma check DIR` on documents: whether a directory is a sound suite, compared with Paloma's counts if it is Paloma.

Checked are the layout, the rows, ids, splits, texts in two splits, cut documents, and the manifest if there is one.
With the original at hand, each document is compared with it.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from paloma.build import folder_of
from paloma.formats.contract import ConfigError, FormatError, files_below, is_json_lines, read_lines
from paloma.formats.document import Document, document_root, parse_document
from paloma.formats.manifest import MANIFEST, check_counts, check_files, read_manifest
from paloma.formats.results import RESULTS
from paloma.output import markdown_table
from paloma.suite import sources

__all__ = ["Report", "check_documents", "is_documents"]

_SHOWN = 20  # faults of one kind in the text
_SPLITS = ("val", "test")
_TABLE = "domains.csv"


def is_documents(path: Path) -> bool:
    """Whether a path of `paloma check` contains documents, and not results."""
    if not path.is_dir() or (path / RESULTS).is_file() or (path / "submission.json").is_file():
        return False
    return not (path / MANIFEST).is_file() or read_manifest(path).format == "document"


@dataclass(kw_only=True)
class _Domain:
    """Counts of one source, subdomain and split."""

    documents: int = 0
    bytes: int = 0
    truncated: int = 0


@dataclass(kw_only=True)
class Report:
    """What was found: counts by (source folder, subdomain, split), faults by kind, and remarks."""

    domains: dict[tuple[str, str, str], _Domain] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def fault(self, kind: str, text: str) -> None:
        """Add a fault."""
        self.faults.setdefault(kind, []).append(text)

    def text(self, path: Path) -> str:
        """A table of the sources and every kind of fault."""
        names = sorted({source for source, _, _ in self.domains})
        rows = []
        for name in names:
            found = [(key, domain) for key, domain in self.domains.items() if key[0] == name]
            splits = sorted({key[2] for key, _ in found})
            rows.append(
                [
                    name,
                    ", ".join(splits),
                    f"{len({key[1] for key, _ in found}):,}",
                    *(f"{sum(getattr(d, n) for _, d in found):,}" for n in ("documents", "bytes", "truncated")),
                ]
            )
        count = len({key[:2] for key in self.domains})
        lines = [
            f"{path}: {len(names):,} sources, {count:,} domains",
            markdown_table(["source", "splits", "domains", "documents", "bytes", "cut"], rows),
            *(f"note: {note}" for note in self.notes),
        ]
        for kind, texts in self.faults.items():
            lines += [f"fault: {kind}: {text}" for text in texts[:_SHOWN]]
            if len(texts) > _SHOWN:
                lines.append(f"fault: {kind}: {len(texts) - _SHOWN:,} more")
        lines.append("no faults" if self.sound else f"{sum(map(len, self.faults.values())):,} faults")
        return "\n".join(lines)


def check_documents(path: Path, original: Path | None = None, suite: str | None = None) -> Report:
    """Read every document below a directory and report what is wrong with it.

    `suite` is `paloma` to compare with Paloma's counts, `none` not to. By default they are compared if there is no
    manifest and all sources have names of Paloma's.

    Raises:
        ConfigError: `original` is not a directory.
    """
    if original is not None and not original.is_dir():
        raise ConfigError(f"--original: {original} not found; expected a directory", hint="check the path")
    report = Report()
    root = document_root(path)
    texts = _read(root, report)
    for key, domain in report.domains.items():
        if domain.truncated > 1:
            report.fault("cut", f"{_name(key)} has {domain.truncated} cut documents; expected at most the last")
    _check_splits(report)
    if (root / MANIFEST).is_file():
        _check_manifest(root, report)
    if suite == "paloma" or (suite is None and not (root / MANIFEST).is_file() and _looks_like_paloma(report)):
        _check_paloma(report)
    if original is not None:
        _compare(texts, _read(document_root(original), Report()), report)
    return report


# ---- the rows


def _read(root: Path, report: Report) -> dict[tuple[str, str, str], bytes]:
    """The hash of each text by (source folder, split, id)."""
    found: dict[tuple[str, str, str], bytes] = {}
    splits_of_text: dict[tuple[str, bytes], str] = {}
    twice: Counter[str] = Counter()
    for file in files_below(root):
        parts = file.relative_to(root).parts
        if not is_json_lines(file.name) or file.name in (MANIFEST, "metrics.jsonl"):
            continue
        if len(parts) != 3:
            report.fault("layout", f"{'/'.join(parts)} is not at SOURCE/SPLIT/FILE")
            continue
        source, split, _ = parts
        for document in _rows(file, report):
            domain = report.domains.setdefault((source, document.subdomain, split), _Domain())
            domain.documents += 1
            domain.bytes += len(document.text.encode())
            domain.truncated += "truncated_portion" in document.metadata
            if not document.text:
                report.fault("empty", f'{document.place}: "{document.id}" has no text')
            if (source, split, document.id) in found:
                report.fault("id", f'{document.place}: "{document.id}" appears twice in {source}/{split}')
            found[source, split, document.id] = hashlib.sha256(document.text.encode()).digest()
            uncut = document.text + str(document.metadata.get("truncated_portion", ""))  # a cut text may be one word
            text = hashlib.sha256(uncut.encode()).digest()
            first = splits_of_text.setdefault((source, text), split)
            if first != split:
                where = f"in {source}/{first} and {source}/{split}"
                report.fault("split", f'{document.place}: the text of "{document.id}" is {where}')
            twice[source] += first == split
    repeated = sum(twice.values()) - len(splits_of_text)
    if repeated:
        report.notes.append(f"{repeated:,} documents repeat a text of their source and split")
    if not found:
        report.fault("layout", f"{root} has no documents at SOURCE/SPLIT/FILE.jsonl.gz")
    return found


def _rows(file: Path, report: Report) -> Iterator[Document]:
    try:
        for line, raw in read_lines(file):
            try:
                yield parse_document(raw, file, line)
            except FormatError as error:
                report.fault("row", str(error))
    except FormatError as error:  # the file itself is damaged
        report.fault("file", str(error))


def _name(key: tuple[str, str, str]) -> str:
    return "/".join(part for part in key if part)


# ---- the whole


def _check_splits(report: Report) -> None:
    """Every domain is in every split of its source, and the splits are Paloma's or one set for all."""
    splits: dict[str, set[str]] = {}
    for source, _, split in report.domains:
        splits.setdefault(source, set()).add(split)
    for source, subdomain in sorted({key[:2] for key in report.domains}):
        missing = [split for split in sorted(splits[source]) if (source, subdomain, split) not in report.domains]
        if missing:
            report.fault("split", f"{_name((source, subdomain, ''))} is not in {', '.join(missing)}")


def _check_manifest(root: Path, report: Report) -> None:
    """The files are those of the manifest, byte for byte, and domains.csv agrees with them."""
    try:
        manifest = read_manifest(root, "document")
    except FormatError as error:
        report.fault("manifest", str(error))
        return
    for wrong in check_files(manifest, checksums=True):
        report.fault("manifest", str(wrong))
    counted = {
        "documents": sum(domain.documents for domain in report.domains.values()),
        "text_bytes": sum(domain.bytes for domain in report.domains.values()),
    }
    for wrong in check_counts(manifest, {name: n for name, n in counted.items() if name in manifest.counts}):
        report.fault("manifest", str(wrong))
    if not (root / _TABLE).is_file():
        return
    with (root / _TABLE).open(newline="", encoding="utf-8") as file:
        stated = {
            (folder_of(row["source"]), row["subdomain"], row["split"]): (int(row["documents"]), int(row["bytes"]))
            for row in csv.DictReader(file)
        }
    counted_rows = {key: (domain.documents, domain.bytes) for key, domain in report.domains.items()}
    for key in sorted(stated.keys() | counted_rows.keys()):
        if stated.get(key) != counted_rows.get(key):
            numbers = [pair or (0, 0) for pair in (stated.get(key), counted_rows.get(key))]
            texts = [f"{documents:,} documents of {size:,} bytes" for documents, size in numbers]
            report.fault("manifest", f"{_TABLE}: {_name(key)} has {texts[0]}; the files have {texts[1]}")


def _looks_like_paloma(report: Report) -> bool:
    others = sorted({source for source, _, _ in report.domains} - sources().keys())
    if others:
        report.notes.append(f"{others[0]} is not a source of Paloma: its counts are not compared (--suite paloma does)")
    return bool(report.domains) and not others


def _check_paloma(report: Report) -> None:
    """The sources and the numbers of their domains are Paloma's."""
    found: Counter[str] = Counter(source for source, _ in {key[:2] for key in report.domains})
    known = sources()
    for name, source in known.items():
        if name not in found:
            text = f"{name} ({source.domains} domains) not found"
            if source.rehosted:
                report.fault("suite", text)
            else:
                report.notes.append(text)
            continue
        if found[name] != source.domains:
            report.fault("suite", f"{name} has {found[name]} domains; expected {source.domains}")
        present = {split for folder, _, split in report.domains if folder == name}
        if missing := [split for split in _SPLITS if split not in present]:
            report.fault("suite", f"{name} lacks the split {', '.join(missing)}")
    for name in sorted(found.keys() - known.keys()):
        report.fault("suite", f"{name} is not a source of Paloma")


def _compare(
    texts: dict[tuple[str, str, str], bytes], original: dict[tuple[str, str, str], bytes], report: Report
) -> None:
    """Every document is in the original and has its text, and none of the original's is missing."""
    for key in sorted(texts.keys() - original.keys()):
        report.fault("original", f"{_name(key)} is not in the original")
    for key in sorted(original.keys() - texts.keys()):
        report.fault("original", f"{_name(key)} of the original is missing")
    for key in sorted(texts.keys() & original.keys()):
        if texts[key] != original[key]:
            report.fault("original", f"{_name(key)} has another text than the original")
