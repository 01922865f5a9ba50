"""The report's tables as plain data; `markdown.py` and `page.py` only lay them out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from catwalk.formats.results import METRICS
from catwalk.report.loaded import LoadedResults
from catwalk.scoring.uncertainty import Z95, interval, ratio_stderr
from catwalk.types import DocumentScore

__all__ = ["Table", "domain_table", "metric_tables", "model_table", "source_table", "task_table"]

_ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """`numeric` counts the trailing columns that hold numbers. `plot` gives for each row (label, [(series, value, low,
    high)]) to draw, or nothing."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    numeric: int
    plot: list[tuple[str, list[tuple[str, float, float, float]]]]


def shown(value: float, stderr: float | None, n: int, metric: str) -> str:
    """A value with its 95 % interval; accuracies in per cent."""
    limits = interval(metric, value, stderr, n)
    scale, digits = (100, 1) if metric.startswith("acc_") else (1, 4)
    text = f"{value * scale:.{digits}f}"
    return text if limits is None else f"{text} [{limits[0] * scale:.{digits}f}, {limits[1] * scale:.{digits}f}]"


def model_table(models: Sequence[LoadedResults]) -> Table:
    """What was scored, and how."""
    rows = []
    for model in models:
        about, inference = model.results["model"], model.results["inference"]
        rows.append(
            [
                model.label,
                about["architecture"],
                f"{about['parameters']:,}",
                f"{about['vocab_size']:,}",
                f"{about['dtype']} → {inference['dtype']}",
                f"{inference['max_length_tokens']:,}",
                ", ".join(filter(None, (inference["windowing"], inference["prefix"], inference.get("split")))),
                (about["manifest_sha256"] or _ABSENT)[:12],
            ]
        )
    columns = [
        "model",
        "architecture",
        "parameters",
        "vocabulary",
        "weights → scored in",
        "window",
        "documents",
        "manifest",
    ]
    return Table(title="Models", note="", columns=columns, rows=rows, numeric=0, plot=[])


def task_table(models: Sequence[LoadedResults]) -> Table:
    """The headline: each task's primary metric with its interval, and the mean of all tasks."""
    names = sorted({name for model in models for name in model.tasks})
    rows, plot = [], []
    for name in names:
        cells, points = [], []
        entry = next(model.tasks[name] for model in models if name in model.tasks)
        primary = entry["primary_metric"]
        for model in models:
            if name not in model.tasks:
                cells.append(_ABSENT)
                continue
            metric = model.tasks[name]["metrics"][primary]
            cells.append(shown(metric["value"], metric["stderr"], metric["n"], primary))
            limits = interval(primary, metric["value"], metric["stderr"], metric["n"])
            low, high = limits or (metric["value"],) * 2
            points.append((model.label, 100 * metric["value"], 100 * low, 100 * high))
        rows.append([name, primary, str(entry["items"]), f"{100 / entry['choices_mean']:.1f}", *cells])
        plot.append((name, points))
    if len(names) > 1:
        rows.append(["mean", "", "", "", *(_mean_cell(model, names) for model in models)])
    note = (
        "Zero-shot, per cent, with 95 % intervals (Wilson; the mean's from the tasks' standard errors, √Σs² / K). "
        "`chance` is 1 / mean number of choices."
    )
    columns = ["task", "metric", "items", "chance", *(model.label for model in models)]
    return Table(title="Tasks", note=note, columns=columns, rows=rows, numeric=len(models) + 2, plot=plot)


def _mean_cell(model: LoadedResults, names: Sequence[str]) -> str:
    """A mean over all tasks, or nothing when one is missing: no silent mean of fewer."""
    if any(name not in model.tasks for name in names):
        return _ABSENT
    entries = [model.tasks[name]["metrics"][model.tasks[name]["primary_metric"]] for name in names]
    mean = math.fsum(entry["value"] for entry in entries) / len(entries)
    if any(entry["stderr"] is None for entry in entries):
        return f"{100 * mean:.1f}"
    half = Z95 * math.sqrt(math.fsum(entry["stderr"] ** 2 for entry in entries)) / len(entries)
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"


def metric_tables(models: Sequence[LoadedResults]) -> list[Table]:
    """Every metric of every task, a table a model."""
    tables = []
    for model in models:
        rows = []
        for name, task in model.tasks.items():
            cells = []
            for metric in METRICS:
                entry = task["metrics"].get(metric)
                scale, digits = (100, 1) if metric.startswith("acc_") else (1, 4)
                cells.append(_ABSENT if entry is None else f"{entry['value'] * scale:.{digits}f}")
            notes = model.details.get("tasks", {}).get(name, {})
            cells += [str(notes.get(key, _ABSENT)) for key in ("truncated_contexts", "border_crossings")]
            rows.append([name, *cells])
        note = (
            "Accuracies in per cent under each normalisation. A probability mass near 0: the model expects none of the "
            "choices. `cut` counts contexts cut to fit the window, `crossings` choices whose first token began in the "
            "context."
        )
        columns = ["task", *METRICS, "cut", "crossings"]
        title = f"All metrics: {model.label}"
        if rows:
            tables.append(Table(title=title, note=note, columns=columns, rows=rows, numeric=len(columns) - 1, plot=[]))
    return tables


def source_table(models: Sequence[LoadedResults]) -> Table:
    """Bits per byte pooled over each source, with intervals where the documents' own sums are there."""
    sources = sorted({source for model in models for source, _ in model.domains})
    rows, plot = [], []
    for source in sources:
        cells, points = [], []
        for model in models:
            domains = [domain for key, domain in model.domains.items() if key[0] == source]
            size_bytes = sum(domain["bytes"] for domain in domains)
            if not size_bytes:
                cells.append(_ABSENT)
                continue
            value = math.fsum(domain["nll_nats"] for domain in domains) / (size_bytes * math.log(2))
            stderr = _pooled_stderr([one for one in model.documents if one.source == source])
            cells.append(shown(value, stderr, 0, "bits_per_byte"))
            half = Z95 * (stderr or 0.0)
            points.append((model.label, value, value - half, value + half))
        counted = [domain for key, domain in _any_domains(models).items() if key[0] == source]
        counts = [
            str(len(counted)),
            f"{sum(one['documents'] for one in counted):,}",
            f"{sum(one['bytes'] for one in counted):,}",
        ]
        rows.append([source or "(none)", *counts, *cells])
        plot.append((source or "(none)", points))
    columns = ["source", "domains", "documents", "bytes", *(model.label for model in models)]
    note = "Bits per byte, pooled over the source's documents, with 95 % intervals (delta method over documents)."
    note += _differing(models)
    return Table(
        title="Perplexity by source", note=note, columns=columns, rows=rows, numeric=len(columns) - 1, plot=plot
    )


def _differing(models: Sequence[LoadedResults]) -> str:
    """A warning where models were scored in different ways, so that their numbers do not compare."""
    found = []
    for name in ("split", "windowing", "max_length_tokens", "prefix"):
        values = [model.results["inference"].get(name) for model in models if model.domains]
        if len(set(values)) > 1:
            found.append(f"{name} ({', '.join(str(value) for value in dict.fromkeys(values))})")
    return f" The models were scored with different {', '.join(found)}: do not compare them." if found else ""


def _any_domains(models: Sequence[LoadedResults]) -> dict[tuple[str, str], dict[str, float]]:
    """Every domain, described by the first model that has it."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for model in models:
        for key, domain in model.domains.items():
            found.setdefault(key, domain)
    return found


def _pooled_stderr(documents: Sequence[DocumentScore]) -> float | None:
    bits = [document.nll_nats / math.log(2) for document in documents]
    return ratio_stderr(bits, [float(document.bytes) for document in documents])


def domain_table(models: Sequence[LoadedResults]) -> Table:
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
            cells.append(shown(ratio["value"], ratio["stderr"], ratio["n"], "bits_per_byte"))
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
    return Table(title="Perplexity by domain", note=note, columns=columns, rows=rows, numeric=len(columns) - 2, plot=[])


def _perplexity(nll_nats: float, tokens: int) -> str:
    if not tokens:
        return _ABSENT
    exponent = nll_nats / tokens
    return f"{math.exp(exponent):,.1f}" if exponent < 50 else f"e^{exponent:.1f}"
