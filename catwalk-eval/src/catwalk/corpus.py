"""Which documents a run scores: their files and split, with a warning when documents would be counted twice."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catwalk.formats.contract import ConfigError
from catwalk.formats.document import document_files, document_root, read_documents
from catwalk.formats.manifest import MANIFEST, read_manifest

__all__ = ["Corpus", "find_corpus"]

log = logging.getLogger(__name__)

_SPLITS = ("val", "valid", "validation", "dev", "test", "train")  # names of folders and files; the first is scored


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Files in the order in which they are scored. `split` is None if no folder, file or manifest names one.

    `inputs` are the entries for a manifest: directories that have a manifest of their own, else files.
    """

    files: tuple[Path, ...]
    inputs: tuple[Path, ...]
    split: str | None
    num_documents: int


@dataclass(frozen=True, kw_only=True)
class _File:
    file: Path
    path: Path
    """the path on the command line"""
    split: str | None


def find_corpus(paths: Sequence[Path], split: str | None) -> Corpus:
    """Every document file of one split; reads and checks each document once.

    The splits are those in the manifest of a sample (`paloma build`), else folders or files named val, test and so on.
    Without `split` the first of several is scored, and a warning names the others.

    Raises:
        ConfigError: a file listed twice, a split that the data lacks, or paths of different splits.
        FormatError: a damaged row.
    """
    found: list[_File] = []
    for path in paths:
        files = document_files(path)
        splits = _splits(path, files)
        found += [_File(file=file, path=path, split=split) for file, split in zip(files, splits, strict=True)]
    _check_once(found)
    chosen = _choose(found, split)
    scored = [one for one in found if chosen is None or one.split in (chosen, None)]
    artifacts = {path: document_root(path) for path in paths if (document_root(path) / MANIFEST).is_file()}
    return Corpus(
        files=tuple(one.file for one in scored),
        inputs=tuple(dict.fromkeys(artifacts.get(one.path, one.file) for one in scored)),
        split=chosen,
        num_documents=_count(scored),
    )


def _splits(path: Path, files: Sequence[Path]) -> list[str | None]:
    """The split of each file of a path."""
    root = document_root(path)
    if (root / MANIFEST).is_file():
        names = read_manifest(root, "document").config.get("splits")
        if isinstance(names, list) and names:
            return [file.parent.name if file.parent.name in names else None for file in files]
    splits = [_split(file.relative_to(root)) if path.is_dir() else _split(Path(*file.parts[-2:])) for file in files]
    if not any(splits) and path.is_dir():
        splits = [path.name if path.name in _SPLITS else None] * len(files)
    return splits


def _split(path: Path) -> str | None:
    """The innermost part of a path that names a split: `books/val/0.jsonl.gz`, `books/val.jsonl.gz`."""
    parts = (*path.parts[:-1], path.name.partition(".")[0])
    return next((part for part in reversed(parts) if part in _SPLITS), None)


def _check_once(found: Sequence[_File]) -> None:
    seen: dict[Path, Path] = {}
    for one in found:
        real = one.file.resolve()
        if real in seen:
            problem = f"documents: {one.file} is listed twice, first as {seen[real]}; expected each file once"
            raise ConfigError(problem, hint="remove one of them")
        seen[real] = one.file


def _choose(found: Sequence[_File], split: str | None) -> str | None:
    """`split`, else the only or the first one. Paths of different splits are an error: the user wants all of them."""
    ranks = {name: rank for rank, name in enumerate(_SPLITS)}
    names = sorted({one.split for one in found if one.split}, key=lambda name: (ranks.get(name, len(ranks)), name))
    if split is not None:
        if split not in names:
            found_names = f"the documents have {', '.join(sorted(names))}" if names else "the documents have no splits"
            raise ConfigError(f'split: "{split}" not found; {found_names}', hint="use one of them, or drop --split")
        return split
    if len(names) < 2:
        return names[0] if names else None
    if len({(one.path, one.split) for one in found if one.split}) == len({one.path for one in found if one.split}):
        problem = f"documents: the paths belong to the splits {', '.join(names)}; expected a single split"
        raise ConfigError(problem, hint="run catwalk once for each")
    log.warning("documents: scoring the split %s, skipping %s (choose with --split)", names[0], ", ".join(names[1:]))
    return names[0]


def _count(scored: Sequence[_File]) -> int:
    """Count the documents; warn about repeated ids, and about domains that several paths add to."""
    count, repeated = 0, 0
    ids: set[int] = set()
    domains: dict[tuple[str, str], Path] = {}
    shared: dict[tuple[str, str], tuple[Path, Path]] = {}
    for one in scored:
        for document in read_documents([one.file]):
            count += 1
            key = hash((document.source, document.id))
            repeated += key in ids
            ids.add(key)
            domain = (document.source, document.subdomain)
            first = domains.setdefault(domain, one.path)
            if first != one.path:
                shared.setdefault(domain, (first, one.path))
    if repeated:
        log.warning("documents: %d of %d repeat the source and id of an earlier one; each is counted", repeated, count)
    for domain, pair in sorted(shared.items())[:3]:
        name = "/".join(part for part in domain if part) or "(none)"
        log.warning("documents: %s and %s both have the domain %s; its documents are added together", *pair, name)
    return count
