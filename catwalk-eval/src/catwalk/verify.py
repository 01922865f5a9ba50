"""`catwalk verify`: derive every stored number again from the rows, and report which one differs."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catwalk.formats.contract import ConfigError, read_rows
from catwalk.formats.results import PER_DOCUMENT, read_results, validate
from catwalk.lm_eval_groups import GroupRule, group_row
from catwalk.perplexity import domain_rows
from catwalk.results import read_document_rows, read_rows_by_task
from catwalk.rows import derived_row, task_row
from catwalk.token_losses import TYPES

__all__ = ["verify"]

_RELATIVE_TOLERANCE = 1e-9  # ten significant digits are stored
_TYPES_TOLERANCE = 1e-6  # sums in another order


def verify(directories: Sequence[Path]) -> Iterator[str]:
    """A sentence for every number that does not follow from the rows, with the directory of its results.

    Raises:
        ConfigError: when one is not a directory.
        FormatError: when a file is damaged or breaks the format (the manifest's hashes included).
    """
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"results: {directory} not found; expected a results directory")
    for directory in directories:
        yield from (f"{directory}: {line}" for line in _verify(directory))


def _verify(directory: Path) -> Iterator[str]:
    validate(directory)
    results = read_results(directory)
    rows = read_rows_by_task(directory) if results["tasks"] else {}
    for stored in results["tasks"]:
        name = stored["task"]
        if name not in rows:
            if not all("summed_by" in entry for entry in stored["metrics"].values()):
                yield f"{name}: no predictions are stored"
            continue
        # a task of lm-eval with sums of its own: nothing here can derive them
        sums = {metric: entry for metric, entry in stored["metrics"].items() if "summed_by" in entry}
        derived = task_row(name, stored["split"], stored["primary_metric"], rows[name], stored["num_shots"], sums)
        yield from _differences(name, stored, derived)
        counts = Counter(row["id"] for row in rows[name])
        yield from (f"{name} item {id} appears {count} times" for id, count in counts.items() if count > 1)
    by_name = {task["task"]: task for task in results["tasks"]}
    for group in results.get("groups", []):
        by_items = {name: entry["by_items"] for name, entry in group["metrics"].items()}
        rule = GroupRule(name=group["group"], tasks=tuple(group["tasks"]), by_items=by_items)
        yield from _differences(group["group"], group, group_row(rule, by_name))
    for name in sorted(rows.keys() - {task["task"] for task in results["tasks"]}):
        yield f"{name}: predictions are stored, but results.json lacks the task"
    for row in (row for found in rows.values() for row in found):
        yield from _differences(f"{row['task']} item {row['id']}", row, derived_row(row))
    documents = read_document_rows(directory)
    if results["perplexity"] and not documents:
        yield f"perplexity: {PER_DOCUMENT} not found; expected the document rows that its numbers follow from"
        return
    try:
        domains = domain_rows(documents)
    except ValueError as error:  # tokens that cost no bits, or sums that overflow
        yield str(error)
        return
    yield from _differences("perplexity", results["perplexity"], domains)
    if (directory / TYPES).is_file():
        yield from _wrong_types(directory / TYPES, results["perplexity"])


def _wrong_types(path: Path, domains: list[dict[str, Any]]) -> Iterator[str]:
    """Domains whose counts and losses by token id do not sum to their own."""
    found = {(row["source"], row["subdomain"]): row for _, row in read_rows(path)}
    for domain in domains:
        row = found.get((domain["source"], domain["subdomain"]), {"counts": [], "nll_nats": []})
        for name, total in (("tokens", sum(row["counts"])), ("nll_nats", math.fsum(row["nll_nats"]))):
            if not math.isclose(total, domain[name], rel_tol=_TYPES_TOLERANCE):
                where = f"{path.name}: {domain['source']}/{domain['subdomain']}"
                yield f"{where} has {name} {total}; expected {domain[name]}"


def _differences(where: str, stored: Any, derived: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(derived, dict):
        for key in sorted(stored.keys() | derived.keys()):
            if key not in stored or key not in derived:
                yield f'{where}: "{key}" is {"missing" if key not in stored else "not derivable from the rows"}'
            else:
                yield from _differences(f"{where}.{key}", stored[key], derived[key])
    elif isinstance(stored, list) and isinstance(derived, list) and len(stored) == len(derived):
        for index, (left, right) in enumerate(zip(stored, derived, strict=True)):
            yield from _differences(f"{where}.{index}", left, right)
    elif not _equal(stored, derived):
        yield f"{where} is {stored}; expected {derived} from the rows"


def _equal(stored: Any, derived: Any) -> bool:
    if isinstance(stored, (int, float)) and isinstance(derived, (int, float)):
        return math.isclose(stored, derived, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-12)
    return bool(stored == derived)
