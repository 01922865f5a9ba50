"""`paloma report`: one self-contained HTML page of aggregates, without scripts or anything from the network."""

from pathlib import Path
from statistics import median
from typing import Any

from paloma.aggregate import REASONS_SHOWN, difference_text, obstacles, read_aggregate
from paloma.charts import heat_maps, pareto_charts, type_curves
from paloma.formats.contract import ConfigError
from paloma.formats.manifest import describe_input
from paloma.output import format_number, write_artifact
from paloma.page import Html, document, element, table

__all__ = ["report"]

_PAGE = "index.html"


def report(paths: list[Path], output: Path, title: str, *, overwrite: bool) -> str:
    """Write `index.html` about the models of the aggregates into `output`; returns its path.

    Raises:
        FormatError: a directory that is not an aggregate.
        ConfigError: a model in two aggregates, or an output that is not empty.
    """
    values = [read_aggregate(path) for path in paths]
    write_artifact(
        output,
        {_PAGE: _page(values, title).encode()},
        overwrite=overwrite,
        format="report",
        config={"title": title},
        counts={"models": sum(len(value["models"]) for value in values)},
        details={},
        inputs=[entry for path in paths for entry in describe_input("table", path, output)],
    )
    return str(output / _PAGE)


def _page(values: list[dict[str, Any]], title: str) -> str:
    models = [model for value in values for model in value["models"]]
    labels = [model["label"] for model in models]
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        problems = [f"{label}: is in more than one aggregate; expected each model once" for label in twice]
        raise ConfigError(*problems, hint="aggregate the results together")
    differences = [difference for value in values if value["ranking"] for difference in value["ranking"]["differences"]]
    compared = [element("p", difference_text(difference)) for difference in differences]
    return document(
        title,
        *_models(models),
        *_notes(models),
        *compared,
        *pareto_charts(values, models),
        *heat_maps(models),
        *_sources(models),
        *type_curves(models),
        *_domains(models),
    )


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    error = "" if estimate["stderr"] is None else f" ± {format_number(estimate['stderr'])}"
    return format_number(estimate["value"]) + error


def _models(models: list[dict[str, Any]]) -> list[str]:
    rows = []
    for model in models:
        inference, every = model["inference"], model["all"]
        held = ", ".join(f["guideline"] for f in model["findings"] if f["holds"]) or "none"
        windows = f"{inference['windowing']}, {inference['max_length_tokens']}, {inference['prefix']}"
        numbers = [model["model"]["parameters"], every["documents"], every["bytes"]]
        numbers += [_estimate(every[mean]["bits_per_byte"]) for mean in ("pooled", "macro")]
        interval = every["macro"]["bits_per_byte"].get("interval")
        numbers.append(" to ".join(map(format_number, interval)) if interval else "–")
        rows.append([model["label"], f"{model['tier']} ({held})", windows, *numbers])
    head = ["model", "tier (guidelines that hold)", "windows", "parameters", "documents", "bytes"]
    head += ["bpb", "macro bpb", "macro bpb, 95 %"]
    return [element("h2", "Models"), table(head, rows, text=3)]


def _notes(models: list[dict[str, Any]]) -> list[str]:
    texts = [
        "Bits per byte (bpb): −log₂ p of the texts over their UTF-8 bytes; lower is better. Pooled takes all documents "
        "of a source as one text, macro is the mean over its domains. ± is one standard error over documents, the "
        "domains being fixed."
    ]
    texts += [f"{model['label']}: {note}." for model in models for note in model["notes"]]
    for metric in ("bits_per_byte", "perplexity"):
        reasons = obstacles(models, metric)
        texts += [f"{metric} is not to be compared: {reason}." for reason in reasons[:REASONS_SHOWN]]
        if len(reasons) > REASONS_SHOWN:
            texts.append(f"{metric} is not to be compared: {len(reasons) - REASONS_SHOWN:,} more reasons.")
    return [element("p", text, "note") for text in texts]


def _sources(models: list[dict[str, Any]]) -> list[str]:
    by_model = [{source["source"]: source for source in model["sources"]} for model in models]
    names = sorted({name for sources in by_model for name in sources})
    head = ["source", "domains", "documents"]
    metrics = {"bits_per_byte": "bpb"}
    if not obstacles(models, "perplexity"):
        metrics["perplexity"] = "ppl"
    titles = [f"{mean}{title}" for title in metrics.values() for mean in ("", "macro ")]
    head += [f"{title} {model['label']}" for model in models for title in titles]
    rows = []
    for name in [*names, None]:
        groups = [
            model["all"] if name is None else sources.get(name) for model, sources in zip(models, by_model, strict=True)
        ]
        first = next(group for group in groups if group is not None)
        row = ["all" if name is None else name, first["domains"], first["documents"]]
        for group in groups:
            for metric in metrics:
                row += [_estimate(group[mean][metric] if group else None) for mean in ("pooled", "macro")]
        rows.append(row)
    return [element("h2", "Sources"), table(head, rows, total=True)]


def _domains(models: list[dict[str, Any]]) -> list[str]:
    """Domains from hard to easy by their median bits per byte over the models."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for model in models:
        for domain in model["domains"]:
            found.setdefault((domain["source"], domain["subdomain"]), {})[model["label"]] = domain

    def middle(key: tuple[str, str]) -> float:
        values = [d["bits_per_byte"]["value"] for d in found[key].values() if d["bits_per_byte"]["value"] is not None]
        return median(values) if values else 0.0

    ordered = sorted(found, key=lambda key: (-middle(key), key))
    largest = max((middle(key) for key in ordered), default=0.0) or 1.0
    head = ["domain", "", "documents", "bytes", *(f"bpb {model['label']}" for model in models)]
    rows = []
    for key in ordered:
        by_label = found[key]
        first = next(iter(by_label.values()))
        bar = Html(f'<span class="bar" style="width:{8 * middle(key) / largest:.2f}em"></span>')
        row = ["/".join(part for part in key if part), bar, first["documents"], first["bytes"]]
        rows.append(row + [_estimate((by_label.get(m["label"]) or {}).get("bits_per_byte")) for m in models])
    return [element("h2", f"Domains ({len(ordered):,}), hardest first"), table(head, rows, text=2)]
