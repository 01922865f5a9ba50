"""`paloma compare`: two models on the same documents, domain by domain: what improved, and how fast.

The scaling rate of a domain is D = [ln ln ppl(i) − ln ln ppl(f)] / [log₁₀ c(f) − log₁₀ c(i)], with the cost c: tokens
seen for two checkpoints of a run, parameters for two sizes of a model. Source: Paloma (arXiv:2312.10523).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paloma.aggregate import obstacles
from paloma.formats.contract import ConfigError
from paloma.formats.manifest import describe_input
from paloma.formats.results import Domain
from paloma.metrics import bits_per_byte, log_perplexity
from paloma.output import csv_table, format_number, markdown_table, write_artifact
from paloma.submission import Submission, read_submission
from paloma.token_types import improved, read_types

__all__ = ["compare", "scaling_rate"]

_COSTS = ("tokens_seen", "parameters")
_SHOWN = 5


def scaling_rate(earlier: float | None, later: float | None, costs: tuple[float, float] | None) -> float | None:
    """D from the nats per token of two models and their costs; None where a loss is 0 or the costs are equal."""
    if not earlier or not later or costs is None or costs[0] == costs[1]:
        return None
    return (math.log(earlier) - math.log(later)) / (math.log10(costs[1]) - math.log10(costs[0]))


def compare(
    paths: tuple[Path, Path],
    output: Path | None,
    cost: str | None,
    costs: tuple[float, float] | None,
    *,
    overwrite: bool,
) -> str:
    """Compare the first with the second; returns the Markdown that the command prints.

    Raises:
        ConfigError: models that were not scored on the same documents, or costs that are equal.
        FormatError: broken results.
    """
    earlier, later = (read_submission(path) for path in paths)
    models = [_plain(name, one) for name, one in zip(map(str, paths), (earlier, later), strict=True)]
    reasons = obstacles(models, "perplexity")
    if reasons:
        raise ConfigError(*[f"{paths[1]}: {reason}; expected one tokenizer and the same texts" for reason in reasons])
    name, pair = _costs(earlier, later, cost, costs)
    before = {(d.source, d.subdomain): d for d in earlier.results.domains}
    rows = [_row(before[d.source, d.subdomain], d, pair) for d in later.results.domains]
    if output is not None:
        write_artifact(
            output,
            {"comparison.csv": csv_table([row.plain() for row in rows])},
            overwrite=overwrite,
            format="table",
            config={"cost": name, "costs": list(pair) if pair else None},
            counts={"domains": len(rows)},
            details={},
            inputs=[entry for path in paths for entry in describe_input("results", path, output)],
        )
    return _text(earlier, later, rows, name, pair)


def _plain(label: str, submission: Submission) -> dict[str, Any]:
    """What `obstacles` looks at."""
    results = submission.results
    inference = {n: getattr(results.inference, n) for n in ("windowing", "max_length_tokens", "prefix", "split")}
    domains = [{n: getattr(d, n) for n in ("source", "subdomain", "documents", "bytes")} for d in results.domains]
    model = {"tokenizer_sha256": results.model.tokenizer_sha256}
    return {"label": label, "inference": inference, "domains": domains, "model": model}


def _costs(
    earlier: Submission, later: Submission, cost: str | None, costs: tuple[float, float] | None
) -> tuple[str, tuple[float, float] | None]:
    """The name of the cost and both values: as given, else the first of tokens and parameters that differs."""
    if costs is not None:
        if min(costs) <= 0 or costs[0] == costs[1]:
            raise ConfigError(f"--costs: {costs[0]:g} and {costs[1]:g}; expected two different positive numbers")
        return cost or "cost", costs
    known = {
        "tokens_seen": (earlier.tokens_seen, later.tokens_seen),
        "parameters": (earlier.results.model.parameters, later.results.model.parameters),
    }
    for name in [cost] if cost else _COSTS:
        first, second = known[name]
        if first and second and first != second:
            return name, (float(first), float(second))
    if cost:
        shown = " and ".join(map(str, known[cost]))
        raise ConfigError(f"--cost: {cost} is {shown}; expected two different numbers", hint="give them with --costs")
    return "cost", None


@dataclass(frozen=True, kw_only=True)
class _Row:
    source: str
    subdomain: str
    earlier: float | None
    later: float | None
    log_perplexities: tuple[float | None, float | None]
    rate: float | None

    @property
    def change(self) -> float:
        """Of the bits per byte."""
        return (self.later or 0.0) - (self.earlier or 0.0)

    def plain(self) -> dict[str, Any]:
        """A row of comparison.csv."""
        return {
            "source": self.source,
            "subdomain": self.subdomain,
            "bits_per_byte_earlier": self.earlier,
            "bits_per_byte_later": self.later,
            "log_perplexity_earlier": self.log_perplexities[0],
            "log_perplexity_later": self.log_perplexities[1],
            "scaling_rate": self.rate,
        }


def _row(earlier: Domain, later: Domain, costs: tuple[float, float] | None) -> _Row:
    nats = log_perplexity(earlier.nll_nats, earlier.tokens), log_perplexity(later.nll_nats, later.tokens)
    return _Row(
        source=later.source,
        subdomain=later.subdomain,
        earlier=bits_per_byte(earlier.nll_nats, earlier.bytes),
        later=bits_per_byte(later.nll_nats, later.bytes),
        log_perplexities=nats,
        rate=scaling_rate(*nats, costs),
    )


def _text(
    earlier: Submission, later: Submission, rows: list[_Row], cost: str, costs: tuple[float, float] | None
) -> str:
    ordered = sorted(rows, key=lambda row: (row.change, row.source, row.subdomain))
    fell = sum(row.change < 0 for row in rows)
    lines = [f"{fell:,} of {len(rows):,} domains improved."]
    if costs:
        rates = [row.rate for row in rows if row.rate is not None]
        mean = sum(rates) / len(rates) if rates else None
        lines.append(f"{cost}: {costs[0]:,.0f} and {costs[1]:,.0f}; mean scaling rate {format_number(mean)}.")
    head = ["domain", "earlier bpb", "later bpb", "change", "scaling rate"]
    chosen = ordered if len(ordered) <= 2 * _SHOWN else [*ordered[:_SHOWN], *ordered[-_SHOWN:]]
    if len(ordered) > len(chosen):
        lines.append(f"The {_SHOWN} most and the {_SHOWN} least improved domains:")
    lines.append(markdown_table(head, [_cells(row) for row in chosen]))
    before, after = read_types(earlier), read_types(later)
    if before and after:
        for source in sorted(before.keys() & after.keys()):
            found = improved(before[source], after[source])
            name = "all" if source == "*" else source
            share = found["rose_share"]
            lines.append(f"{name}: {found['rose']:,} of {found['types']:,} types got worse ({share or 0:.1%}).")
    return "\n".join(lines)


def _cells(row: _Row) -> list[str]:
    name = "/".join(filter(None, (row.source, row.subdomain)))
    return [name, format_number(row.earlier), format_number(row.later), f"{row.change:+.3f}", format_number(row.rate)]
