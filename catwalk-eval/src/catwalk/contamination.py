"""Items that dolma found in training data: numbers with and without them.

`catwalk documents` writes each item as a document. `dolma decontaminate` finds those that the training data contains,
or `dolma dedupe` marks them; `catwalk report --contamination` reads either. An item with any match is contaminated.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from catwalk.formats.contract import ConfigError, Fields, read_rows, row_files
from catwalk.formats.manifest import MANIFEST
from catwalk.results import LoadedResults
from catwalk.statistics import interval, mean_and_stderr, unpaired_difference
from catwalk.tables import Table, difference_cell, estimate_cell, p_cell, paired_tasks, scale

__all__ = ["contamination_tables", "read_marks"]

log = logging.getLogger(__name__)

_CERTIFICATE, _FOUND = "certificate.json", "items.jsonl.gz"  # docs/formats/decontamination.md


def read_marks(path: Path) -> dict[str, bool]:
    """Whether each document, by its id, was found: the result of `dolma decontaminate`, or attribute files.

    Raises:
        ConfigError: the rows are neither. FormatError: a damaged row.
    """
    marks: dict[str, bool] = {}
    if (path / _CERTIFICATE).is_file():
        items = [Fields(row, path / _FOUND, line) for line, row in read_rows(path / _FOUND)]
        short = sum(bool(item.value.get("is_too_short")) for item in items)
        if short:
            log.warning("contamination: %d of %d items were too short to find; they count as clean", short, len(items))
        return {item.string("id"): item.integer("documents") > 0 for item in items}
    for file in row_files(path):
        if file.name == MANIFEST:
            continue
        for line, row in read_rows(file):
            attributes = row.get("attributes")
            if not isinstance(attributes, dict) or "id" not in row:
                problem = f"contamination: {file}:{line} has no id with attributes; expected dolma's attributes"
                raise ConfigError(problem, hint="pass the directory attributes/NAME next to documents/")
            id = str(row["id"])
            marks[id] = marks.get(id, False) or any(isinstance(spans, list) and spans for spans in attributes.values())
    return marks


def contamination_tables(models: Sequence[LoadedResults], marks: dict[str, bool]) -> list[Table]:
    """For each model, its tasks on all, clean and contaminated items; then pairs of models on clean items.

    Raises:
        ConfigError: no task has marks, or an item of a task with marks has none.
    """
    found = {name: _task_marks(name, models, marks) for name in sorted({name for one in models for name in one.tasks})}
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        problem = f"contamination: no document is named after an item of {', '.join(found) or 'a task'}"
        raise ConfigError(problem, hint="mark the documents that `catwalk documents` writes for these tasks")
    unknown = [name for name in found if name not in known]
    note = "Items with any span are contaminated. The difference is contaminated − clean, for different items (Welch)."
    note += f" Without marks: {', '.join(unknown)}." if unknown else ""
    tables = [_split_table(model, known, note) for model in models if model.tasks.keys() & known.keys()]
    clean = {name: {id for id, marked in one.items() if not marked} for name, one in known.items()}
    for other in models[1:]:
        table = paired_tasks(models[0], other, clean)
        tables += [table] if table.rows else []
    return tables


def _task_marks(name: str, models: Sequence[LoadedResults], marks: dict[str, bool]) -> dict[str, bool] | None:
    """The marks of a task's items; those of its documents, or of the task without variant and shots."""
    ids = {id for model in models if name in model.columns for id in model.columns[name].ids}
    without_shots = name.partition("@")[0]
    for task in dict.fromkeys((name, without_shots, without_shots.partition(":")[0])):
        found = {id: marks[f"{task}-{id}"] for id in ids if f"{task}-{id}" in marks}
        if not found:
            continue
        missing = sorted(ids - found.keys())
        if missing:
            problem = f"contamination: {len(missing)} of {len(ids)} items of {name} have no mark, first {missing[0]}"
            raise ConfigError(problem, hint="use the documents of the same version of the task")
        return found
    return None


def _split_table(model: LoadedResults, known: dict[str, dict[str, bool]], note: str) -> Table:
    rows = []
    for name in sorted(model.tasks.keys() & known.keys()):
        metric = model.tasks[name]["primary_metric"]
        sides: dict[bool, list[float]] = {False: [], True: []}
        for id, value in zip(model.columns[name].ids, model.columns[name].values.tolist(), strict=True):
            sides[known[name][id]].append(value)
        clean, marked = sides[False], sides[True]
        cells = [_mean_cell(metric, values) for values in (clean + marked, clean, marked)]
        if clean and marked:
            gap = unpaired_difference(clean, marked)
            cells += [difference_cell(gap, *scale(metric)), p_cell(gap.p)]
        else:
            cells += ["–", "–"]
        rows.append([name, metric, str(len(clean)), str(len(marked)), *cells])
    columns = ["task", "metric", "clean items", "contaminated items", "all", "clean", "contaminated", "difference", "p"]
    title = f"Contamination: {model.label}"
    return Table(title=title, note=note, columns=columns, rows=rows, numeric=7)


def _mean_cell(metric: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean, stderr = mean_and_stderr(values)
    return estimate_cell(metric, mean, interval(metric, mean, stderr, len(values)))
