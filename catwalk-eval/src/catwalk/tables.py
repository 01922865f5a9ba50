"""The report's tables as plain data: tasks, perplexity, paired differences between models. `page.py` renders them."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catwalk.columns import align
from catwalk.formats.results import METRICS
from catwalk.results import LoadedResults
from catwalk.rows import CONSTANT_FROM
from catwalk.statistics import (
    Z95,
    Paired,
    block_bootstrap,
    holm,
    interval,
    minimal_detectable_effect,
    paired_difference,
    paired_ratio_difference,
)
from catwalk.types import DocumentScore

__all__ = [
    "Dot",
    "Table",
    "bits_per_byte",
    "build_tables",
    "difference_cell",
    "estimate_cell",
    "is_lower_better",
    "is_share",
    "left_out",
    "p_cell",
    "paired_tasks",
    "scale",
]

_ABSENT = "–"


Dot = tuple[str, float, float, float]
"""The name of a series, a value, and the ends of its interval."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """`numeric` counts the trailing columns of numbers. `plot` has the first cell and the dots of each row to draw."""

    title: str
    note: str = ""
    columns: list[str]
    rows: list[list[str]]
    numeric: int = 0
    plot: list[tuple[str, list[Dot]]] = field(default_factory=list)


def build_tables(models: Sequence[LoadedResults]) -> list[Table]:
    """Every table of the report, headline first; each further model is compared with the first."""
    tables = [_task_table(models)] if any(model.tasks for model in models) else []
    if any(model.results.get("groups") for model in models):
        tables.append(_group_table(models))
    if any(model.domains for model in models):
        tables.append(_source_table(models))
    for other in models[1:]:
        paired = paired_tasks(models[0], other), _paired_sources(models[0], other)
        tables += [table for table in paired if table.rows]
    if any(model.domains for model in models):
        tables.append(_domain_table(models))
    bias = _bias_table(models)
    tables += [bias] if bias.rows else []
    tables += [_metric_table(model) for model in models if model.tasks]
    predicted = [_predicted_table(model) for model in models]
    tables += [table for table in predicted if table.rows]
    return [*tables, _model_table(models)]


# ---- tasks


def _task_table(models: Sequence[LoadedResults]) -> Table:
    """The headline: each task's primary metric with its interval, and the mean of all tasks."""
    names = sorted({name for model in models for name in model.tasks})
    rows, plot = [], []
    for name in names:
        cells, points = [], []
        entry = next(model.tasks[name] for model in models if name in model.tasks)
        primary = entry["primary_metric"]
        for model in models:
            metric = model.tasks[name]["metrics"].get(primary) if name in model.tasks else None
            if metric is None:
                cells.append(_ABSENT)
                continue
            limits = interval(primary, metric["value"], metric["stderr"], metric["n"])
            cells.append(estimate_cell(primary, metric["value"], limits))
            low, high = limits or (metric["value"],) * 2
            if is_share(primary):
                points.append((model.label, 100 * metric["value"], 100 * low, 100 * high))
        chance = f"{100 / entry['choices_mean']:.1f}" if entry["choices_mean"] > 1 else _ABSENT
        rows.append([name, primary, str(entry["items"]), chance, *cells])
        plot.append((name, points))
    shares = {row[0]: row[1] for row in rows if is_share(row[1])}
    if len(shares) > 1:
        rows.append(["mean", "", "", "", *(_mean_cell(model, shares) for model in models)])
    note = (
        f"{_shots(models)}Per cent, with 95 % intervals (Wilson; the mean's from the tasks' standard errors, √Σs² / K)."
        " `chance` is 1 / mean number of choices."
    )
    note += left_out(names, [row[1] for row in rows]) + _different_shots(models)
    columns = ["task", "metric", "items", "chance", *(model.label for model in models)]
    return Table(title="Tasks", note=note, columns=columns, rows=rows, numeric=len(models) + 2, plot=plot)


def left_out(names: Sequence[str], metrics: Sequence[str]) -> str:
    """A note that names the tasks that are in no mean."""
    found = [name for name, metric in zip(names, metrics, strict=False) if not is_share(metric)]
    return f" Not in the mean, since their metric is in its own unit and no share: {', '.join(found)}." if found else ""


def _different_shots(models: Sequence[LoadedResults]) -> str:
    """A warning that the prompts of a task have different numbers of examples."""
    found = []
    for name in sorted({name for model in models for name in model.tasks}):
        counts = sorted({model.tasks[name].get("num_shots", 0) for model in models if name in model.tasks})
        found += [f"{name} ({', '.join(map(str, counts))})"] if len(counts) > 1 else []
    return f" The prompts have different numbers of examples: {', '.join(found)}. Do not compare them." if found else ""


def _group_table(models: Sequence[LoadedResults]) -> Table:
    """The groups of lm-evaluation-harness."""
    found = [{group["group"]: group for group in model.results.get("groups", [])} for model in models]
    names = sorted({(name, metric) for groups in found for name, one in groups.items() for metric in one["metrics"]})
    rows = []
    for name, metric in names:
        described = next(groups[name] for groups in found if metric in groups.get(name, {"metrics": {}})["metrics"])
        entries = [groups.get(name, {"metrics": {}})["metrics"].get(metric) for groups in found]
        rows.append(
            [
                *(name, metric, str(len(described["tasks"]))),
                "items" if described["metrics"][metric]["by_items"] else "tasks",
                *(_ABSENT if one is None else estimate_cell(metric, one["value"], _normal(one)) for one in entries),
            ]
        )
    note = (
        "Groups of lm-evaluation-harness with 95 % intervals (normal). `mean of`: what counts the same, items or tasks."
    )
    columns = ["group", "metric", "tasks", "mean of", *(model.label for model in models)]
    return Table(title="Groups", note=note, columns=columns, rows=rows, numeric=len(models))


def _normal(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    half = Z95 * (entry["stderr"] or 0.0)
    return None if entry["stderr"] is None else (entry["value"] - half, entry["value"] + half)


def _shots(models: Sequence[LoadedResults]) -> str:
    """How many examples the prompts have, if it is the same number for all tasks."""
    found = {task.get("num_shots", 0) for model in models for task in model.tasks.values()}
    if len(found) > 1:
        return "The number of examples in a prompt follows @ in the name. "
    return "Zero-shot. " if found == {0} else f"{found.pop()}-shot. "


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric is better."""
    return metric.startswith(("bits_per_byte", "nats_", "toxic", "over_refused")) or "perplexity" in metric


def is_share(metric: str) -> bool:
    """Whether a metric is a share of items or of points: shown in per cent, and larger is better."""
    return not is_lower_better(metric) and metric != "probability_mass"


def scale(metric: str) -> tuple[float, int]:
    """The factor and the digits with which a metric is shown."""
    return (100, 1) if is_share(metric) else (1, 4)


def estimate_cell(metric: str, value: float, limits: tuple[float, float] | None) -> str:
    """A value with its 95 % interval; shares in per cent."""
    factor, digits = scale(metric)
    text = f"{value * factor:.{digits}f}"
    return text if limits is None else f"{text} [{limits[0] * factor:.{digits}f}, {limits[1] * factor:.{digits}f}]"


def _mean_cell(model: LoadedResults, metrics: Mapping[str, str]) -> str:
    """The mean over all tasks; nothing when one is missing, rather than a mean of fewer."""
    found = [
        model.tasks[name]["metrics"].get(metric) if name in model.tasks else None for name, metric in metrics.items()
    ]
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(found):
        return _ABSENT
    mean = math.fsum(entry["value"] for entry in entries) / len(entries)
    if any(entry["stderr"] is None for entry in entries):
        return f"{100 * mean:.1f}"
    half = Z95 * math.sqrt(math.fsum(entry["stderr"] ** 2 for entry in entries)) / len(entries)
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"


def _bias_table(models: Sequence[LoadedResults]) -> Table:
    """The bias scores of tasks whose choices have roles."""
    rows = []
    for name in sorted({name for model in models for name in model.tasks}):
        entries = [model.tasks.get(name, {}).get("bias", {}) for model in models]
        for score in dict.fromkeys(score for entry in entries for score in entry):
            cells = [f"{entry[score]['value']:.3f}" if score in entry else _ABSENT for entry in entries]
            rows.append([name, score, *cells])
    note = "From −1 to 1 for BBQ (0 is best), else from 0 to 1 (best: `stereotype_score` 0.5, the others 1)."
    columns = ["task", "score", *(model.label for model in models)]
    return Table(title="Bias", note=note, columns=columns, rows=rows, numeric=len(models))


def _metric_table(model: LoadedResults) -> Table:
    """Every metric of every task of one model."""
    rows = []
    for name, task in model.tasks.items():
        cells = []
        for metric in METRICS:
            entry = task["metrics"].get(metric)
            cells.append(_ABSENT if entry is None else estimate_cell(metric, entry["value"], None))
        counts = model.details.get("tasks", {}).get(name, {})
        cells += [str(counts.get(key, _ABSENT)) for key in ("truncated_contexts", "border_crossings")]
        rows.append([name, *cells])
    note = (
        "Accuracies in per cent under each normalisation. A probability mass near 0: the model expects none of the "
        "choices. `cut` counts contexts cut to fit the window, `crossings` choices whose first token began in the "
        "context."
    )
    columns = ["task", *METRICS, "cut", "crossings"]
    title = f"All metrics: {model.label}"
    return Table(title=title, note=note, columns=columns, rows=rows, numeric=len(columns) - 1)


def _predicted_table(model: LoadedResults) -> Table:
    """How often each position is predicted, and how often it is right."""
    rows = []
    for name, column in sorted(model.columns.items()):
        if not column.predicted:
            continue
        positions = range(max([*column.predicted, *column.right]) + 1)
        counts = [[side[position] for position in positions] for side in (column.predicted, column.right)]
        constant = len(column.predicted) == 1 and len(column.ids) >= CONSTANT_FROM
        rows.append(
            [
                *(name, str(len(column.ids)), *(" ".join(map(str, side)) for side in counts)),
                f"always {next(iter(column.predicted))}" if constant else "",
            ]
        )
    note = (
        "Items for which the primary metric predicts the first, second … choice, and for which that choice is right. "
        "A model that always predicts the same position has not read the choices: its accuracy says how often that "
        "position is right."
    )
    columns = ["task", "items", "predicted", "right", "alarm"]
    return Table(title=f"Predicted choices: {model.label}", note=note, columns=columns, rows=rows, numeric=0)


# ---- perplexity


def _source_table(models: Sequence[LoadedResults]) -> Table:
    """Bits per byte pooled over each source, with intervals if the sums of the documents are stored."""
    sources = sorted({source for model in models for source, _ in model.domains})
    rows, plot = [], []
    for source in sources:
        cells, points = [], []
        for model in models:
            value = bits_per_byte(model, source)
            if value is None:
                cells.append(_ABSENT)
                continue
            documents = [one for one in model.documents if one.source == source]
            limits = block_bootstrap([_bits(one) for one in documents], [float(one.bytes) for one in documents])
            cells.append(estimate_cell("bits_per_byte", value, limits))
            points.append((model.label, value, *(limits or (value, value))))
        counted = [domain for key, domain in _any_domains(models).items() if key[0] == source]
        counts = [
            str(len(counted)),
            f"{sum(one['documents'] for one in counted):,}",
            f"{sum(one['bytes'] for one in counted):,}",
        ]
        rows.append([source or "(none)", *counts, *cells])
        plot.append((source or "(none)", points))
    columns = ["source", "domains", "documents", "bytes", *(model.label for model in models)]
    note = "Bits per byte, pooled over the source's documents, with 95 % intervals (bootstrap of whole documents)."
    note += _differing(models)
    numeric = len(columns) - 1
    return Table(title="Perplexity by source", note=note, columns=columns, rows=rows, numeric=numeric, plot=plot)


def bits_per_byte(model: LoadedResults, source: str) -> float | None:
    """Pooled over the domains of a source; None if they have no bytes."""
    domains = [domain for key, domain in model.domains.items() if key[0] == source]
    size_bytes = sum(domain["bytes"] for domain in domains)
    return math.fsum(domain["nll_nats"] for domain in domains) / (size_bytes * math.log(2)) if size_bytes else None


def _bits(document: DocumentScore) -> float:
    return document.nll_nats / math.log(2)


def _differing(models: Sequence[LoadedResults]) -> str:
    """A warning that models were scored in different ways, so that their numbers do not compare."""
    found = []
    for name in ("split", "windowing", "max_length_tokens", "prefix"):
        values = [model.results["inference"].get(name) for model in models if model.domains]
        if len(set(values)) > 1:
            found.append(f"{name} ({', '.join(str(value) for value in dict.fromkeys(values))})")
    return f" The models were scored with different {', '.join(found)}: do not compare them." if found else ""


def _any_domains(models: Sequence[LoadedResults]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every domain, described by the first model that has it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for model in reversed(models):
        found |= model.domains
    return found


def _domain_table(models: Sequence[LoadedResults]) -> Table:
    """Bits per byte and token perplexity of every domain."""
    rows = []
    for (source, subdomain), first in sorted(_any_domains(models).items()):
        cells = []
        for model in models:
            domain = model.domains.get((source, subdomain))
            if domain is None or domain["bits_per_byte"]["value"] is None:
                cells += [_ABSENT, _ABSENT]
                continue
            ratio = domain["bits_per_byte"]
            limits = interval("bits_per_byte", ratio["value"], ratio["stderr"], ratio["n"])
            cells.append(estimate_cell("bits_per_byte", ratio["value"], limits))
            cells.append(_perplexity(domain["nll_nats"], domain["tokens"]))
        rows.append([source or "(none)", subdomain or "(all)", str(first["documents"]), f"{first['bytes']:,}", *cells])
    columns = ["source", "domain", "documents", "bytes"]
    for model in models:
        columns += [f"{model.label}: bits per byte", f"{model.label}: perplexity"]
    vocabularies = {model.results["model"]["tokenizer_sha256"] for model in models}
    note = "Perplexity is per token, exp(nll / tokens)."
    if len(vocabularies) > 1:
        note += " The models' tokenizers differ: compare bits per byte, not perplexity."
    note += _differing(models)
    return Table(title="Perplexity by domain", note=note, columns=columns, rows=rows, numeric=len(columns) - 2)


def _perplexity(nll_nats: float, tokens: int) -> str:
    if not tokens:
        return _ABSENT
    exponent = nll_nats / tokens
    return f"{math.exp(exponent):,.1f}" if exponent < 50 else f"e^{exponent:.1f}"


# ---- paired differences


def paired_tasks(
    first: LoadedResults, other: LoadedResults, clean: Mapping[str, Collection[str]] | None = None
) -> Table:
    """Differences on the items that both models have; with `clean`, only on these ids of these tasks."""
    found = []
    for name in sorted(first.columns.keys() & other.columns.keys()):
        if clean is not None and name not in clean:
            continue
        columns = [one.columns[name] for one in (first, other)]
        (left, right), clusters = align([one if clean is None else one.only(clean[name]) for one in columns])
        if len(left):
            binary = set(left.tolist()) | set(right.tolist()) <= {0.0, 1.0}
            paired = paired_difference(left.tolist(), right.tolist(), binary=binary, clusters=clusters)
            found.append((name, first.tasks[name]["primary_metric"], paired))
    adjusted = holm([paired.p for _, _, paired in found])
    note = (
        "Percentage points on the items that both have; 95 % intervals from the standard error of the differences; p "
        "is McNemar's, exact, and normal for values other than right and wrong; `p (Holm)` is adjusted for the number "
        "of tasks. `detectable` is the smallest difference that a test at 5 % finds with a chance of 80 %. Items that "
        "share a passage count as one observation: their p is from flipping the signs of whole passages."
    )
    return Table(
        title=f"Paired differences on {'tasks' if clean is None else 'clean items'}: {other.label} − {first.label}",
        note=note,
        columns=["task", "metric", "items", "difference", "p", "p (Holm)", "detectable"],
        rows=[
            [
                *(name, metric, str(paired.n), difference_cell(paired, *scale(metric))),
                *(p_cell(paired.p), p_cell(p), _detectable(paired, metric)),
            ]
            for (name, metric, paired), p in zip(found, adjusted, strict=True)
        ],
        numeric=5,
    )


def _detectable(paired: Paired, metric: str) -> str:
    factor, digits = scale(metric)
    return _ABSENT if not paired.stderr else f"{minimal_detectable_effect(paired.stderr) * factor:.{digits}f}"


def _paired_sources(first: LoadedResults, other: LoadedResults) -> Table:
    left, right = _by_key(first.documents), _by_key(other.documents)
    keys = sorted(key for key in left.keys() & right.keys() if left[key].bytes == right[key].bytes)
    found = []
    for source in sorted({key[0] for key in keys}):
        chosen = [key for key in keys if key[0] == source]
        sizes = [float(left[key].bytes) for key in chosen]
        if sum(sizes):
            bits = [[_bits(side[key]) for key in chosen] for side in (left, right)]
            found.append((source or "(none)", paired_ratio_difference(bits[0], bits[1], sizes)))
    adjusted = holm([paired.p for _, paired in found])
    note = "Bits per byte on the documents that both have (below 0: the second is better); delta method over documents."
    return Table(
        title=f"Paired differences on documents: {other.label} − {first.label}",
        note=note,
        columns=["source", "documents", "difference", "p", "p (Holm)"],
        rows=[
            [source, str(paired.n), difference_cell(paired, 1, 4), p_cell(paired.p), p_cell(p)]
            for (source, paired), p in zip(found, adjusted, strict=True)
        ],
        numeric=4,
    )


def _by_key(documents: Sequence[DocumentScore]) -> dict[tuple[str, str, str, int], DocumentScore]:
    """Documents by source, subdomain, id and occurrence: an id may repeat."""
    found: dict[tuple[str, str, str, int], DocumentScore] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    for one in documents:
        key = (one.source, one.subdomain, one.id)
        found[*key, times[key]] = one
        times[key] += 1
    return found


def difference_cell(paired: Paired, factor: float, digits: int) -> str:
    """A difference with its 95 % interval."""
    text = f"{paired.difference * factor:+.{digits}f}"
    if paired.stderr is None:
        return text
    half = Z95 * paired.stderr
    low, high = (paired.difference - half) * factor, (paired.difference + half) * factor
    return f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def p_cell(value: float | None) -> str:
    """A p value with four digits."""
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


# ---- models


def _model_table(models: Sequence[LoadedResults]) -> Table:
    """What was scored, and how."""
    rows, notes = [], []
    for model in models:
        about, inference = model.results["model"], model.results["inference"]
        imported = model.results.get("imported", {"unknown": ()})
        fields = {
            "model.architecture": about["architecture"],
            "model.parameters": f"{about['parameters']:,}",
            "model.vocab_size": f"{about['vocab_size']:,}",
            "model.dtype": f"{about['dtype']} → {inference['dtype']}",
            "inference.max_length_tokens": f"{inference['max_length_tokens']:,}",
            "inference.windowing": ", ".join(
                filter(None, (inference["windowing"], inference["prefix"], inference.get("split")))
            ),
            "model.manifest_sha256": (about["manifest_sha256"] or _ABSENT)[:12],
        }
        rows.append([model.label, *(_ABSENT if key in imported["unknown"] else text for key, text in fields.items())])
        if imported["unknown"]:
            version = f"{imported['from']} {imported['version']}"
            notes.append(
                f"{model.label}: imported from {version}, which does not say {', '.join(imported['unknown'])}."
            )
    columns = ["model", "architecture", "parameters", "vocabulary"]
    columns += ["weights → scored in", "window", "documents", "manifest"]
    return Table(title="Models", note=" ".join(notes), columns=columns, rows=rows)
