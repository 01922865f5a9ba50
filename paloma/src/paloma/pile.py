"""`paloma pile`: bits per byte on the components of The Pile, next to GPT-2 and GPT-3, and the table of Δ.

Δ_set = (L_set − L_owt2) − (R_set − R_owt2): how much harder a component is for a model than OpenWebText2, less the same
for a reference R that was trained on The Pile. Positive components are those that the model's training data lacks.

Published numbers (pile.csv): The Pile (Gao et al. 2020, arXiv:2101.00027), table 2 for GPT-2 and GPT-3 without training
on it, table 4 for the model of 1.3 B parameters that was trained on 40 GB of it, which serves as R. Figure 3 shows Δ
for the largest GPT-3. Table 2 is for a tenth of the test set, scored document by document.
"""

import csv
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from paloma.formats.contract import ConfigError
from paloma.formats.manifest import describe_input
from paloma.formats.results import Domain
from paloma.metrics import bits_per_byte
from paloma.output import csv_table, format_number, markdown_table, write_artifact
from paloma.submission import Submission, read_submission

__all__ = ["delta", "pile", "published"]

_OWT2 = "OpenWebText2"
_REFERENCE = "gpt2_pile"
_SHOWN = {"gpt2_xl": "GPT-2 XL", "gpt3_davinci": "GPT-3 davinci", _REFERENCE: "trained on The Pile"}


@cache
def published() -> dict[str, dict[str, float]]:
    """Bits per byte by component and model."""
    text = files("paloma").joinpath("pile.csv").read_text(encoding="utf-8")
    return {
        row["component"]: {name: float(value) for name, value in row.items() if name != "component"}
        for row in csv.DictReader(text.splitlines())
    }


def delta(losses: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """Δ of each component that both have; empty without OpenWebText2."""
    if _OWT2 not in losses or _OWT2 not in reference:
        return {}
    return {
        name: (loss - losses[_OWT2]) - (reference[name] - reference[_OWT2])
        for name, loss in losses.items()
        if name in reference
    }


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _components(submission: Submission, source: str) -> dict[str, Domain]:
    """The domains of The Pile by the names of its components, however they are spelled.

    Raises:
        ConfigError: none of them.
    """
    names = {_plain(name): name for name in published()}
    found = {
        names[_plain(domain.subdomain)]: domain
        for domain in submission.results.domains
        if domain.source == source and _plain(domain.subdomain) in names
    }
    if not found:
        problem = f'{submission.results.path}: no component of The Pile in the source "{source}"; expected at least one'
        raise ConfigError(problem, hint="name the source of The Pile's documents with --source")
    return found


def pile(paths: list[Path], output: Path | None, source: str, reference: Path | None, *, overwrite: bool) -> str:
    """The table; `reference` are results of a model that was trained on The Pile, in place of the published one.

    Raises:
        ConfigError: results without components of The Pile.
        FormatError: broken results.
    """
    models: dict[str, dict[str, float]] = {}
    for path in paths:
        submission = read_submission(path)
        name = submission.results.model.name
        models[name if name not in models else f"{name} ({path})"] = _losses(_components(submission, source))
    own = None if reference is None else _losses(_components(read_submission(reference), source))
    known = {name: {component: row[name] for component, row in published().items()} for name in _SHOWN}
    base = own or known[_REFERENCE]
    deltas = {name: delta(losses, base) for name, losses in models.items()}
    deltas["gpt3_davinci"] = delta(known["gpt3_davinci"], known[_REFERENCE])
    components = [name for name in published() if any(name in losses for losses in models.values())]
    if output is not None:
        rows = [
            {"component": component}
            | {f"bits_per_byte {name}": losses.get(component) for name, losses in (models | known).items()}
            | {f"delta {name}": found.get(component) for name, found in deltas.items()}
            for component in components
        ]
        inputs = [
            entry
            for path in [*paths, *([reference] if reference else [])]
            for entry in describe_input("results", path, output)
        ]
        write_artifact(
            output,
            {"pile.csv": csv_table(rows)},
            overwrite=overwrite,
            format="table",
            config={"source": source},
            counts={"components": len(components), "models": len(models)},
            details={},
            inputs=inputs,
        )
    return _text(models, known, deltas, components, "results" if own else "published")


def _losses(components: dict[str, Domain]) -> dict[str, float]:
    losses = {name: bits_per_byte(domain.nll_nats, domain.bytes) for name, domain in components.items()}
    return {name: loss for name, loss in losses.items() if loss is not None}


def _text(
    models: dict[str, dict[str, float]],
    known: dict[str, dict[str, float]],
    deltas: dict[str, dict[str, float]],
    components: list[str],
    reference: str,
) -> str:
    head = ["component", *models, *_SHOWN.values(), *(f"Δ {_SHOWN.get(name, name)}" for name in deltas)]
    rows = []
    for component in components:
        row = [component] + [format_number(losses.get(component)) for losses in (models | known).values()]
        rows.append(row + [_signed(found.get(component)) for found in deltas.values()])
    mean = ["mean"] + [_mean([losses.get(c) for c in components]) for losses in (models | known).values()]
    rows.append(mean + ["" for _ in deltas])
    lines = [
        markdown_table(head, rows),
        "Bits per byte. GPT-2, GPT-3: arXiv:2101.00027, tables 2 and 4, on other samples of the same components.",
        f"Δ: harder than OpenWebText2 by this much more than for the model that was trained on The Pile ({reference}).",
    ]
    if not any(deltas[name] for name in models):
        lines.append(f"No Δ: {_OWT2} was not scored.")
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return format_number(sum(known) / len(known)) if len(known) == len(values) else "–"
