"""Results directories as a report needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from catwalk.errors import ConfigError
from catwalk.formats.manifest import MANIFEST, read_manifest
from catwalk.formats.results import read_results
from catwalk.results.verify import read_document_rows, read_item_scores
from catwalk.types import DocumentScore, ItemScore

__all__ = ["LoadedResults", "load_all"]


@dataclass(frozen=True, kw_only=True)
class LoadedResults:
    """One results directory; rows are read when they are first asked for."""

    label: str
    directory: Path
    results: dict[str, Any]
    details: dict[str, Any]

    @cached_property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Entries of `tasks` by name."""
        return {task["task"]: task for task in self.results["tasks"]}

    @cached_property
    def domains(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Entries of `perplexity` by (source, subdomain)."""
        return {(domain["source"], domain["subdomain"]): domain for domain in self.results["perplexity"]}

    @cached_property
    def items(self) -> dict[str, list[ItemScore]]:
        """Item scores by task."""
        return read_item_scores(self.directory) if self.tasks else {}

    @cached_property
    def documents(self) -> list[DocumentScore]:
        """Document scores; empty for results without them."""
        return read_document_rows(self.directory)


def load_all(directories: Sequence[Path]) -> list[LoadedResults]:
    """Results with labels that differ: the model's name, and the directory's where two models share one.

    Raises:
        ConfigError: when a path is not a directory. FormatError: when results are damaged.
    """
    absent = [f"results: {path} is absent; expected a results directory" for path in directories if not path.is_dir()]
    if absent:
        raise ConfigError(absent, hint="catwalk run writes one")
    if len({path.resolve() for path in directories}) < len(directories):
        raise ConfigError("results: one directory is listed twice; expected different results")
    read = [read_results(path, hashes=True) for path in directories]
    names = [str(results["model"]["name"]) for results in read]
    loaded = []
    for path, results, name in zip(directories, read, names, strict=True):
        label = name if names.count(name) == 1 else f"{name} ({path})"
        details = read_manifest(path, "results")["details"] if (path / MANIFEST).is_file() else {}
        loaded.append(LoadedResults(label=label, directory=path, results=results, details=details))
    return loaded
