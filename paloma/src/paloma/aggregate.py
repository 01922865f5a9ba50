"""`paloma aggregate`, the main path: results in; numbers per domain, per source and over all out.

Each submission is read, every number derived from its sums (`metrics`) and the run judged (`controls`). Then models are
compared if they may be. `aggregate.json`, two CSV tables and a manifest are written, and a Markdown table is printed.
"""

import logging
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations, count, pairwise
from pathlib import Path
from typing import Any

from paloma.bootstrap import Replicates, interval, resample
from paloma.formats.contract import ConfigError, FormatError, WorkError, canonical_json, read_object
from paloma.formats.manifest import describe_input
from paloma.formats.results import Domain
from paloma.metrics import summarize, summarize_domain
from paloma.output import csv_table, format_number, markdown_table, write_artifact
from paloma.pareto import efficiency
from paloma.reweight import read_shares, reweighted
from paloma.submission import Submission, document_rows, faults, read_submission
from paloma.suite import in_view
from paloma.tiers import judge
from paloma.token_types import describe_types

__all__ = [
    "RANKED_BY",
    "REASONS_SHOWN",
    "Options",
    "aggregate",
    "difference_text",
    "efficient_text",
    "obstacles",
    "read_aggregate",
]

log = logging.getLogger(__name__)

RANKED_BY = {"bpb": "bits_per_byte", "ppl": "perplexity"}
REASONS_SHOWN = 10  # for not comparing a metric; there is one for each pair of models
_AGGREGATE = "aggregate.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `paloma aggregate` computes besides the sums."""

    rank_by: str = "bpb"
    view: str = "all"
    reweight: tuple[Path, ...] = ()
    draws: int = 1000
    """of the bootstrap; 0 for no intervals"""
    seed: int = 0


def aggregate(paths: list[Path], output: Path, options: Options, *, controls: Path | None, overwrite: bool) -> str:
    """Aggregate results into `output`; returns the Markdown tables that the command prints.

    Raises:
        ConfigError: results listed twice, or a ranking that the results do not allow.
        FormatError: broken results, or results without perplexity.
        WorkError: a submission that contradicts itself.
    """
    # ---- read
    counts = Counter(path.resolve() for path in paths)
    repeated = [f"{path}: is listed {n} times; expected different results" for path, n in counts.items() if n > 1]
    if repeated:
        raise ConfigError(*repeated, hint="list each once")
    submissions = [read_submission(path, controls) for path in paths]
    for submission in submissions:
        if not _domains(submission, options.view):
            of_view = "" if options.view == "all" else f" of the view {options.view}"
            message = f'"perplexity" is empty; expected at least one domain{of_view}'
            if submission.results.domains:
                message = f'"perplexity" has no domain{of_view}; expected at least one'
            raise FormatError("invalid_value", submission.results.path, message, field="perplexity")

        if found := list(faults(submission)):
            raise WorkError(*[f"{submission.results.path}: {fault}" for fault in found], hint="score again")

    # ---- derive and compare
    shares = {path.stem: read_shares(path) for path in options.reweight}
    draws = [_draws(submission, options) for submission in submissions]
    models = [
        _model(label, submission, _domains(submission, options.view), drawn, shares)
        for label, submission, drawn in zip(_labels(submissions), submissions, draws, strict=True)
    ]
    reasons = {metric: obstacles(models, metric) for metric in RANKED_BY.values()}
    value = {
        "version": 1,
        "models": models,
        "comparable": {metric: {"allowed": not found, "reasons": found} for metric, found in reasons.items()},
        "ranking": _rank(models, draws, options.rank_by, reasons[RANKED_BY[options.rank_by]]),
        "pareto": _pareto(models, draws) if not reasons["bits_per_byte"] else {},
        "view": options.view,
    }

    # ---- write
    inputs = [entry for path in paths for entry in describe_input("results", path, output)]
    if controls is not None:
        inputs += describe_input("controls", controls, output)
    inputs += [entry for path in options.reweight for entry in describe_input("shares", path, output)]
    write_artifact(
        output,
        {
            _AGGREGATE: canonical_json(value).encode(),
            "domains.csv": csv_table(_domain_rows(value)),
            "sources.csv": csv_table(_source_rows(value)),
        },
        overwrite=overwrite,
        format="table",
        config={"draws": options.draws, "rank_by": options.rank_by, "seed": options.seed, "view": options.view},
        counts={
            "models": len(submissions),
            "domains": len({(d["source"], d["subdomain"]) for model in models for d in model["domains"]}),
        },
        details={"ranking": value["ranking"]},
        inputs=inputs,
    )
    return _overview(value)


# ---- one model


def _domains(submission: Submission, view: str) -> list[Domain]:
    contains = in_view(view)
    return [domain for domain in submission.results.domains if contains(domain.source, domain.subdomain)]


def _draws(submission: Submission, options: Options) -> Replicates | None:
    """The bootstrap's draws; None where the results have no sums of documents."""
    rows = document_rows(submission) if options.draws else None
    if rows is None:
        return None
    wanted = {(domain.source, domain.subdomain) for domain in _domains(submission, options.view)}
    return resample([row for row in rows if (row.source, row.subdomain) in wanted], options.draws, options.seed)


def _labels(submissions: list[Submission]) -> list[str]:
    """The models' names. Equal names get a number, and no label equals another model's name."""
    names = [submission.results.model.name for submission in submissions]
    labels: list[str] = []
    for name in names:
        label = name
        if names.count(name) > 1:
            numbered = (f"{name} ({number})" for number in count(1))
            label = next(one for one in numbered if one not in names and one not in labels)
        labels.append(label)
    return labels


def _model(
    label: str,
    submission: Submission,
    domains: list[Domain],
    draws: Replicates | None,
    shares: dict[str, dict[tuple[str, str], float]],
) -> dict[str, Any]:
    results, verdict = submission.results, judge(submission)
    by_source: dict[str, list[Domain]] = {}
    for domain in domains:
        by_source.setdefault(domain.source, []).append(domain)
    sources = [{"source": source} | summarize(found) for source, found in sorted(by_source.items())]
    every = summarize(domains)
    if draws is not None:
        _add_intervals(every, draws)
        for source in sources:
            _add_intervals(source, draws.of(lambda key, name=source["source"]: key[0] == name))  # type: ignore[misc]
    return {
        "label": label,
        "model": asdict(results.model),
        "tokens_seen": submission.tokens_seen,
        "draws": None if draws is None else {"count": draws.nll_nats.shape[1], "single_documents": draws.single},
        "inference": asdict(results.inference),
        "tier": verdict.tier,
        "findings": [asdict(finding) for finding in verdict.findings],
        "notes": list(verdict.notes),
        "domains": [
            {"source": domain.source, "subdomain": domain.subdomain} | summarize_domain(domain) for domain in domains
        ],
        "sources": sources,
        "all": every,
        "reweighted": {name: reweighted(domains, share, draws) for name, share in shares.items()},
        "types": describe_types(submission),
        "mean_over_sources": {
            name: _mean([source["pooled"][name]["value"] for source in sources])
            for name in (*RANKED_BY.values(), "log_perplexity")
        },
    }


def _add_intervals(group: dict[str, Any], draws: Replicates) -> None:
    """The bootstrap's interval of each estimate of a group."""
    for metric in (*RANKED_BY.values(), "log_perplexity"):
        if not len(draws.domains(metric)):
            continue
        group["pooled"][metric]["interval"] = interval(draws.pooled(metric))
        group["macro"][metric]["interval"] = interval(draws.macro(metric))
        group.setdefault("median_interval", {})[metric] = interval(draws.median(metric))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# ---- several models


def obstacles(models: list[dict[str, Any]], metric: str) -> list[str]:
    """Why a metric of models in `aggregate.json` must not be compared: a sentence for each pair and reason."""
    found = []
    for one, other in combinations(models, 2):
        pair = f"{one['label']} and {other['label']}"
        texts = [
            {(d["source"], d["subdomain"]): (d["documents"], d["bytes"]) for d in m["domains"]} for m in (one, other)
        ]
        different = sum(texts[0].get(key) != texts[1].get(key) for key in texts[0].keys() | texts[1].keys())
        if different:
            found.append(f"{pair} were scored on different texts in {different} domains")
        for name in ("windowing", "max_length_tokens", "prefix", "split"):
            first, second = one["inference"].get(name), other["inference"].get(name)
            if first != second:
                found.append(f"{pair} were scored with {name} {first} and {second}")
        hashes = one["model"]["tokenizer_sha256"], other["model"]["tokenizer_sha256"]
        if metric == "perplexity" and (None in hashes or hashes[0] != hashes[1]):
            found.append(f"{pair} have {'unknown' if None in hashes else 'different'} tokenizers")
    return found


def _pareto(models: list[dict[str, Any]], draws: list[Replicates | None]) -> dict[str, list[dict[str, Any]]]:
    """The models' efficiency by parameters, and by tokens seen if those of all are known."""
    losses = [model["all"]["macro"]["bits_per_byte"]["value"] for model in models]
    if len(models) < 2 or None in losses:
        return {}
    known = [drawn.macro("bits_per_byte") for drawn in draws if drawn is not None]
    domains = [
        {
            f"{d['source']}/{d['subdomain']}": d["bits_per_byte"]["value"]
            for d in model["domains"]
            if d["bits_per_byte"]["value"] is not None
        }
        for model in models
    ]
    labels = [model["label"] for model in models]
    costs = {
        "parameters": [model["model"]["parameters"] for model in models],
        "tokens_seen": [model["tokens_seen"] for model in models],
    }
    return {
        name: efficiency(labels, values, losses, known if len(known) == len(models) else None, domains)
        for name, values in costs.items()
        if None not in values
    }


def _rank(
    models: list[dict[str, Any]], draws: list[Replicates | None], rank_by: str, reasons: list[str]
) -> dict[str, Any] | None:
    """Models from best to worst with the differences of neighbours; None for one model, or if they do not compare.

    Raises:
        ConfigError: the requested metric cannot be compared.
    """
    metric = RANKED_BY[rank_by]
    if rank_by != "bpb" and reasons:
        problems = [f"--rank-by: {metric} cannot be compared: {reason}" for reason in reasons]
        raise ConfigError(*problems, hint="use --rank-by bpb, which does not depend on the vocabulary")
    measured = all(model["all"]["macro"][metric]["value"] is not None for model in models)
    if len(models) < 2 or not measured or reasons:
        return None
    pairs = sorted(
        zip(models, draws, strict=True), key=lambda pair: (pair[0]["all"]["macro"][metric]["value"], pair[0]["label"])
    )
    differences = []
    for (better, drawn_better), (worse, drawn_worse) in pairwise(pairs):
        difference = _difference(better, worse, metric)
        if drawn_better is not None and drawn_worse is not None:
            gaps = drawn_worse.macro(metric) - drawn_better.macro(metric)
            difference |= {"interval": interval(gaps), "probability": float((gaps > 0).mean())}
        differences.append(difference)
    return {"by": f"macro {metric}", "models": [model["label"] for model, _ in pairs], "differences": differences}


def _difference(better: dict[str, Any], worse: dict[str, Any], metric: str) -> dict[str, Any]:
    """How much worse the second is, paired by domain; the error treats the domains as a sample of similar domains."""
    values = [{(d["source"], d["subdomain"]): d[metric]["value"] for d in m["domains"]} for m in (better, worse)]
    gaps = [values[1][key] - value for key, value in values[0].items() if value is not None]
    return {
        "better": better["label"],
        "worse": worse["label"],
        "mean": sum(gaps) / len(gaps) if gaps else None,
        "stderr": statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None,
        "domains": len(gaps),
        "domains_better": sum(gap > 0 for gap in gaps),
    }


# ---- tables


def _domain_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A flat row for each model and domain."""
    return [
        {
            "model": model["label"],
            **{name: d[name] for name in ("source", "subdomain", "documents", "tokens", "bytes", "words", "nll_nats")},
            "bits_per_byte": d["bits_per_byte"]["value"],
            "bits_per_byte_stderr": d["bits_per_byte"]["stderr"],
            "perplexity": d["perplexity"]["value"],
            "perplexity_stderr": d["perplexity"]["stderr"],
            "log_perplexity": d["log_perplexity"]["value"],
        }
        for model in value["models"]
        for d in model["domains"]
    ]


def _source_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A flat row for each model and source, and one over all domains with the source `*`."""
    rows = []
    for model in value["models"]:
        for group in [*model["sources"], {"source": "*"} | model["all"]]:
            row = {"model": model["label"], "tier": model["tier"]}
            row |= {name: group[name] for name in ("source", "domains", "documents", "tokens", "bytes", "nll_nats")}
            for mean in ("pooled", "macro"):
                for metric, estimate in group[mean].items():
                    row |= {f"{mean}_{metric}": estimate["value"], f"{mean}_{metric}_stderr": estimate["stderr"]}
                    low, high = estimate.get("interval") or (None, None)
                    row |= {f"{mean}_{metric}_low": low, f"{mean}_{metric}_high": high}
            rows.append(row | {f"median_{metric}": number for metric, number in group["median"].items()})
    return rows


def _overview(value: dict[str, Any]) -> str:
    """A table of the sources, then the ranking, or why there is none."""
    models = value["models"]
    show_perplexity = value["comparable"]["perplexity"]["allowed"]
    head = ["source", "domains", "documents", "bytes"]
    marks = [model["label"] for model in models] if len(models) > 1 else [""]
    metrics = [("pooled", "bits_per_byte", "bpb"), ("macro", "bits_per_byte", "macro bpb")]
    if show_perplexity:
        metrics += [("pooled", "perplexity", "ppl"), ("macro", "perplexity", "macro ppl")]
    head += [f"{title} {mark}".strip() for _, _, title in metrics for mark in marks]
    names = sorted({source["source"] for model in models for source in model["sources"]})
    rows = []
    for name in [*names, "*"]:
        groups = [_group(model, name) for model in models]
        first = next(group for group in groups if group is not None)
        cells = ["**all**" if name == "*" else name, *(f"{first[key]:,}" for key in ("domains", "documents", "bytes"))]
        rows.append(cells + [_cell(g[mean][metric]) if g else "–" for mean, metric, _ in metrics for g in groups])
    lines = [
        markdown_table(head, rows),
        "± is one standard error over documents (docs/design/paloma.md has the formulas).",
    ]
    for model in models:
        held = ", ".join(f["guideline"] for f in model["findings"] if f["holds"]) or "none"
        notes = "".join(f"; {note}" for note in model["notes"])
        lines.append(f"{model['label']}: tier {model['tier']} (guidelines that hold: {held}){notes}.")
    lines += [text for model in models for text in _intervals(model)]
    lines += [f"Efficient by {name}: {efficient_text(rows)}." for name, rows in value["pareto"].items()]
    if len(models) > 1:
        for metric, verdict in value["comparable"].items():
            reasons = verdict["reasons"]
            lines += [f"{metric} is not compared: {reason}." for reason in reasons[:REASONS_SHOWN]]
            if len(reasons) > REASONS_SHOWN:
                lines.append(f"{metric} is not compared: {len(reasons) - REASONS_SHOWN:,} more reasons.")
        if value["ranking"]:
            lines.append(
                f"Ranked by {value['ranking']['by']}: " + " < ".join(value["ranking"]["models"]) + " (best first)."
            )
            lines += [difference_text(difference) for difference in value["ranking"]["differences"]]
        else:
            lines.append("No ranking: these results are not comparable.")
    return "\n".join(lines)


def _intervals(model: dict[str, Any]) -> list[str]:
    """Sentences about the bootstrap of the macro bits per byte, and about other mixtures of the domains."""
    lines = []
    found = model["all"]["macro"]["bits_per_byte"].get("interval")
    if found:
        single = model["draws"]["single_documents"]
        fixed = f"; {single:,} domains of one document are held fixed" if single else ""
        lines.append(f"{model['label']}: macro bpb {_between(found)} (95 %, bootstrap over documents{fixed}).")
    for name, estimates in model["reweighted"].items():
        text = f"{model['label']} on the mixture {name}: "
        parts = []
        for metric, title in (("bits_per_byte", "bpb"), ("perplexity", "ppl")):
            between = f" ({_between(estimates[metric]['interval'])})" if "interval" in estimates[metric] else ""
            parts.append(f"{title} {format_number(estimates[metric]['value'])}{between}")
        lines.append(text + ", ".join(parts) + ".")
    return lines


def _between(interval: list[float]) -> str:
    return " to ".join(map(format_number, interval))


def efficient_text(rows: list[dict[str, Any]]) -> str:
    """The efficient models of `pareto`, each with its probability if there is one."""
    return ", ".join(
        row["model"] + ("" if row["probability"] is None else f" ({row['probability']:.0%})")
        for row in sorted(rows, key=lambda row: row["cost"])
        if row["efficient"]
    )


def difference_text(difference: dict[str, Any]) -> str:
    """One sentence about a pair of neighbours in the ranking."""
    error = "" if difference["stderr"] is None else f" ± {difference['stderr']:.2g}"
    text = (
        f"{difference['worse']} is {difference['mean']:.3g}{error} above {difference['better']} (mean over domains, "
        "paired; one standard error over domains) and above it in "
        f"{difference['domains_better']:,} of {difference['domains']:,} domains."
    )
    if "interval" in difference:
        low, high = difference["interval"]
        text += f" Over documents: {low:.3g} to {high:.3g} (95 %, bootstrap)."
    return text


def _group(model: dict[str, Any], name: str) -> dict[str, Any] | None:
    if name == "*":
        group: dict[str, Any] = model["all"]
        return group
    return next((source for source in model["sources"] if source["source"] == name), None)


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["stderr"] is None:
        return format_number(estimate["value"])
    return f"{format_number(estimate['value'])} ± {format_number(estimate['stderr'])}"


# ---- read back


def read_aggregate(path: Path) -> dict[str, Any]:
    """`aggregate.json` of a directory, or the file.

    Raises:
        FormatError: missing, not JSON, or not written by `paloma aggregate`.
    """
    file = path / _AGGREGATE if path.is_dir() else path
    value = read_object(file)
    for name in ("version", "models", "comparable", "ranking"):
        if name not in value:
            raise FormatError("missing_field", file, f'"{name}" not found; expected an aggregate', field=name)
    if value["version"] != 1:
        message = f'"version" is {value["version"]}; expected 1, which this release reads'
        raise FormatError("unsupported_version", file, message, field="version", hint="upgrade paloma-eval")
    return value
