"""`paloma aggregate`, the main path: results in; numbers per domain, source and over all out, and what may be ranked.

Read top to bottom: read the submissions, derive every number from their sums (`metrics`), judge each run (`controls`),
find out what may be compared with what, write `aggregate.json`, two CSV tables and a manifest, give the Markdown table.
"""

import logging
import math
import statistics
from collections import Counter
from dataclasses import asdict
from itertools import combinations, count, pairwise
from pathlib import Path
from typing import Any

from paloma import __version__
from paloma.artifact import staged
from paloma.configuration import ConfigError
from paloma.controls import Submission, judge, read_submission
from paloma.formats.errors import FormatError
from paloma.formats.json_lines import atomic_file, canonical_json, read_object
from paloma.formats.manifest import describe_input, write_manifest
from paloma.formats.results import Domain
from paloma.metrics import summarize, summarize_domain
from paloma.tables import csv_table, domain_rows, overview, source_rows

__all__ = ["AGGREGATE", "RANKED_BY", "aggregate", "combine", "obstacles", "read_aggregate"]

log = logging.getLogger(__name__)

AGGREGATE = "aggregate.json"
RANKED_BY = {"bpb": "bits_per_byte", "ppl": "perplexity"}
_METRICS = ("bits_per_byte", "perplexity")


def aggregate(paths: list[Path], output: Path, *, controls: Path | None, rank_by: str, overwrite: bool) -> str:
    """Aggregate results into `output`; gives the Markdown tables that the command prints.

    Raises:
        ConfigError: a ranking that the results do not allow.
        FormatError: broken results, or results without any perplexity.
    """
    counts = Counter(path.resolve() for path in paths)
    repeated = [f"{path}: is listed {n} times; expected different results" for path, n in counts.items() if n > 1]
    if repeated:
        raise ConfigError(repeated, "list each once")
    submissions = [read_submission(path, controls) for path in paths]
    for submission in submissions:
        if not submission.results.domains:
            message = '"perplexity" is empty; expected at least one domain'
            raise FormatError("invalid_value", submission.results.path, message, field="perplexity")
    value = combine(submissions, rank_by)
    with staged(output, overwrite=overwrite) as staging:
        contents = {
            AGGREGATE: canonical_json(value).encode(),
            "domains.csv": csv_table(domain_rows(value)),
            "sources.csv": csv_table(source_rows(value)),
        }
        for name, content in contents.items():
            with atomic_file(staging / name) as file:
                file.write(content)
        inputs = [entry for path in paths for entry in describe_input("results", path, output)]
        if controls is not None:
            inputs += describe_input("controls", controls, output)
        write_manifest(
            staging,
            format="table",
            files=[staging / name for name in contents],
            config={"rank_by": rank_by},
            counts={
                "models": len(submissions),
                "domains": len({(d.source, d.subdomain) for s in submissions for d in s.results.domains}),
            },
            details={"ranking": value["ranking"]},
            inputs=inputs,
            version=__version__,
        )
    return overview(value)


def combine(submissions: list[Submission], rank_by: str = "bpb") -> dict[str, Any]:
    """The object that `aggregate.json` holds, of one model or of several.

    Raises:
        ConfigError: `rank_by` is a metric that these results cannot be ranked by.
    """
    labels = _labels(submissions)
    models = [_model(label, submission) for label, submission in zip(labels, submissions, strict=True)]
    found = {metric: obstacles(models, metric) for metric in _METRICS}
    metric = RANKED_BY[rank_by]
    if rank_by != "bpb" and found[metric]:
        problems = [f"--rank-by: {metric} cannot be compared: {reason}" for reason in found[metric]]
        raise ConfigError(problems, "use --rank-by bpb, which does not depend on the vocabulary")
    order = None
    measured = all(model["all"]["macro"][metric]["value"] is not None for model in models)
    if len(models) > 1 and measured and not found[metric]:
        best_first = sorted(models, key=lambda model: (model["all"]["macro"][metric]["value"], model["label"]))
        order = {
            "by": f"macro {metric}",
            "models": [model["label"] for model in best_first],
            "differences": [_difference(better, worse, metric) for better, worse in pairwise(best_first)],
        }
    return {
        "version": 1,
        "models": models,
        "comparable": {name: {"allowed": not why, "reasons": why} for name, why in found.items()},
        "ranking": order,
    }


def _labels(submissions: list[Submission]) -> list[str]:
    """The models' names; equal ones get a number, and no label is another model's name."""
    names = [submission.results.model.name for submission in submissions]
    labels: list[str] = []
    for name in names:
        label = name
        if names.count(name) > 1:
            numbered = (f"{name} ({number})" for number in count(1))
            label = next(one for one in numbered if one not in names and one not in labels)
        labels.append(label)
    return labels


def _model(label: str, submission: Submission) -> dict[str, Any]:
    results, verdict = submission.results, judge(submission)
    by_source: dict[str, list[Domain]] = {}
    for domain in results.domains:
        by_source.setdefault(domain.source, []).append(domain)
    sources = [{"source": source} | summarize(domains) for source, domains in sorted(by_source.items())]
    return {
        "label": label,
        "model": asdict(results.model),
        "inference": asdict(results.inference),
        "tier": verdict.tier,
        "findings": [asdict(finding) for finding in verdict.findings],
        "notes": list(verdict.notes),
        "domains": [
            {"source": domain.source, "subdomain": domain.subdomain} | summarize_domain(domain)
            for domain in results.domains
        ],
        "sources": sources,
        "all": summarize(results.domains),
        "mean_over_sources": {
            name: _mean([source["pooled"][name]["value"] for source in sources])
            for name in (*_METRICS, "log_perplexity")
        },
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def obstacles(models: list[dict[str, Any]], metric: str) -> list[str]:
    """Why a metric of these models of `aggregate.json` must not be compared: a sentence for each pair and reason."""
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


def _difference(better: dict[str, Any], worse: dict[str, Any], metric: str) -> dict[str, Any]:
    """How much worse the second is, paired by domain; the error takes the domains as a sample of domains like them."""
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


def read_aggregate(path: Path) -> dict[str, Any]:
    """`aggregate.json` of a directory, or the file.

    Raises:
        FormatError: missing, not JSON, or not what `paloma aggregate` writes.
    """
    file = path / AGGREGATE if path.is_dir() else path
    value = read_object(file)
    for name in ("version", "models", "comparable", "ranking"):
        if name not in value:
            raise FormatError("missing_field", file, f'"{name}" is absent; expected an aggregate', field=name)
    if value["version"] != 1:
        message = f'"version" is {value["version"]}; expected 1, which this release reads'
        raise FormatError("unsupported_version", file, message, field="version", hint="upgrade paloma-eval")
    return value
