"""Which documents a run scores: their files, the split they are of, and what would be added together unseen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catwalk.errors import ConfigError
from catwalk.formats.document import document_files, document_root, read_documents
from catwalk.formats.manifest import MANIFEST, read_manifest

__all__ = ["Corpus", "find_corpus"]

log = logging.getLogger(__name__)

_SPLITS = ("val", "valid", "validation", "dev", "test", "train")  # names of folders and files; the first is scored


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Files in the order in which they are scored. `split` is None where nothing names one."""

    files: tuple[Path, ...]
    split: str | None
    num_documents: int


def find_corpus(paths: Sequence[Path], split: str | None) -> Corpus:
    """Every document file of one split, each document read once and checked.

    The splits are those of the manifest of a sample (`paloma build`), else folders or files named val, test and so on.
    Without `split` the first of several is scored, and the others are named.

    Raises:
        ConfigError: a file that is named twice, a split not found in the data, or paths of more than one split.
        FormatError: a damaged row.
    """
    found = [(path, file, name) for path in paths for file, name in _files(path)]
    _check_once(found)
    chosen = _choose(found, split)
    files = [(path, file) for path, file, name in found if chosen is None or name in (chosen, None)]
    return Corpus(files=tuple(file for _, file in files), split=chosen, num_documents=_count(files))


def _files(path: Path) -> list[tuple[Path, str | None]]:
    """The files of a path with their splits."""
    root = document_root(path)
    files = document_files(path)
    if (root / MANIFEST).is_file():
        names = read_manifest(root, "document")["config"].get("splits")
        if isinstance(names, list) and names:
            return [(file, file.parent.name if file.parent.name in names else None) for file in files]
    splits = [_split(file.relative_to(root)) if path.is_dir() else _split(Path(*file.parts[-2:])) for file in files]
    if not any(splits) and path.is_dir():
        splits = [path.name if path.name in _SPLITS else None] * len(files)
    return list(zip(files, splits, strict=True))


def _split(path: Path) -> str | None:
    """The innermost part of a path that names a split: `books/val/0.jsonl.gz`, `books/val.jsonl.gz`."""
    parts = (*path.parts[:-1], path.name.partition(".")[0])
    return next((part for part in reversed(parts) if part in _SPLITS), None)


def _check_once(found: Sequence[tuple[Path, Path, str | None]]) -> None:
    seen: dict[Path, Path] = {}
    for _, file, _ in found:
        real = file.resolve()
        if real in seen:
            problem = f"documents: {file} is named twice, first as {seen[real]}; expected each document once"
            raise ConfigError(problem, hint="leave out one of them")
        seen[real] = file


def _choose(found: Sequence[tuple[Path, Path, str | None]], split: str | None) -> str | None:
    by_path: dict[Path, list[str]] = {}
    for path, _, name in found:
        if name is not None and name not in by_path.setdefault(path, []):
            by_path[path].append(name)
    names = list(dict.fromkeys(name for one in by_path.values() for name in one))
    if split is not None:
        if split not in names:
            there = f"the documents have {', '.join(sorted(names))}" if names else "the documents name no split"
            raise ConfigError(f'split: "{split}" not found; {there}', hint="name one of them, or none")
        return split
    if len(names) < 2:
        return names[0] if names else None
    if all(len(one) < 2 for one in by_path.values()):
        problem = f"documents: the paths are of the splits {', '.join(names)}; expected one, which the numbers are of"
        raise ConfigError(problem, hint="call catwalk run once for each")
    ranks = {name: rank for rank, name in enumerate(_SPLITS)}
    first = min(names, key=lambda name: (ranks.get(name, len(ranks)), name))
    others = ", ".join(sorted(set(names) - {first}))
    log.warning("documents: scoring the split %s; %s is left out (--split names another)", first, others)
    return first


def _count(files: Sequence[tuple[Path, Path]]) -> int:
    """Documents; warns of ids that stand twice and of domains that several paths add to."""
    count, repeated = 0, 0
    ids: set[int] = set()
    domains: dict[tuple[str, str], Path] = {}
    shared: dict[tuple[str, str], tuple[Path, Path]] = {}
    for path, file in files:
        for document in read_documents(file):
            count += 1
            key = hash((document.source, document.id))
            repeated += key in ids
            ids.add(key)
            domain = (document.source, document.subdomain)
            first = domains.setdefault(domain, path)
            if first != path:
                shared.setdefault(domain, (first, path))
    if repeated:
        log.warning("documents: %d of %d have the source and id of an earlier one; each is counted", repeated, count)
    for domain, pair in sorted(shared.items())[:3]:
        name = "/".join(part for part in domain if part) or "(none)"
        log.warning("documents: the domain %s is of %s and %s; its documents are added together", name, *pair)
    return count
