"""A row of predictions.jsonl.gz: what is stored of one answer, and every number that follows from it.

A row of a choice has `choices` and `label`. A row of a text has one choice, and `greedy`: whether greedy decoding would
produce it. Any other row has `scores` by metric, and may have the `generation` and its `references`. `parts` are what
the item adds to metrics that are not means, with the name of their aggregate (aggregates.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from catwalk.aggregates import AGGREGATES
from catwalk.bias import bias_scores
from catwalk.metrics import item_metrics, predicted, round_significant
from catwalk.statistics import clustered_stderr, mean_and_stderr
from catwalk.types import ItemScore

__all__ = [
    "CONSTANT_FROM",
    "alarms",
    "choice_row",
    "derived_row",
    "item_score",
    "row_metrics",
    "task_row",
    "warnings",
]

_CHOICE_FIELDS = {  # of a choice in a row, and of an ItemScore
    "sum_logprob": "sum_logprobs",
    "tokens": "tokens",
    "chars": "chars",
    "bytes": "bytes",
    "sum_logprob_unconditional": "sum_logprobs_unconditional",
}
CONSTANT_FROM = 20  # items, from which one prediction for all is no chance
_LOW_MASS = 0.05  # below it, the model expects something other than any of the choices


_ALARMS = {  # counts of a task's cell, in words
    "truncated_contexts": "contexts cut on the left to fit the window",
    "border_crossings": "continuations that begin within a token of the context",
    "windowed_choices": "continuations longer than one window, scored in several",
    "missing_bos": "contexts without the BOS token that the tokenizer begins a text with",
    "doubled_bos": "contexts that begin with two BOS tokens",
    "repeated_items": "items that repeat another",
}


def alarms(counts: Mapping[str, Any]) -> list[str]:
    """What a run counted that may change the meaning of a number."""
    return [f"{counts[name]} {text}" for name, text in _ALARMS.items() if counts.get(name)]


def choice_row(score: ItemScore) -> dict[str, Any]:
    """The row of an item's choices, without its task. What the item does not have is null."""
    absent = (None,) * len(score.sum_logprobs)
    choices = zip(*(getattr(score, name) or absent for name in _CHOICE_FIELDS.values()), strict=True)
    return {
        "id": score.id,
        "label": score.label,
        "choices": [dict(zip(_CHOICE_FIELDS, choice, strict=True)) for choice in choices],
        "predicted": predicted(score),
    }


def item_score(row: dict[str, Any]) -> ItemScore:
    """The scores of a row with choices."""
    columns = {key: tuple(choice[key] for choice in row["choices"]) for key in _CHOICE_FIELDS}
    found: dict[str, Any] = {
        name: None if None in columns[key] else columns[key] for key, name in _CHOICE_FIELDS.items()
    }
    return ItemScore(id=row["id"], label=row["label"], **found)


def derived_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row, with what follows from its stored numbers derived again."""
    return row | {"predicted": predicted(item_score(row))} if "choices" in row else row


def row_metrics(row: dict[str, Any]) -> dict[str, float]:
    """Every metric of one row; a task's metric is their mean."""
    if "choices" not in row:
        return {name: float(value) for name, value in row["scores"].items()}
    score = item_score(row)
    values = item_metrics(score)
    if "greedy" in row:  # one continuation: nothing is chosen
        nats = -score.sum_logprobs[score.label] / score.tokens[score.label]
        values = {"greedy_match": float(row["greedy"]), "nats_per_token": nats, **_only(values, "bits_per_byte_gold")}
    return values


def _only(values: dict[str, float], *names: str) -> dict[str, float]:
    return {name: values[name] for name in names}


def task_row(
    name: str,
    split: str,
    primary_metric: str,
    rows: Sequence[dict[str, Any]],
    num_shots: int = 0,
    sums: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """An entry of `tasks` in results.json. Items of one cluster count as one observation in the standard errors.

    `sums` are finished entries of metrics that do not follow from the rows.
    """
    counts = [len(row.get("choices", ())) for row in rows]
    entry: dict[str, Any] = {
        "task": name,
        "split": split,
        "num_shots": num_shots,
        "items": len(rows),
        "choices_mean": round_significant(sum(counts) / len(counts)),
        "primary_metric": primary_metric,
        "metrics": _means(rows) | (sums or {}),
    }
    if "choices" not in rows[0]:
        entry["kind"] = "generation" if "generation" in rows[0] else "scores"
    elif "greedy" in rows[0]:
        entry["kind"] = "text"
    bias = _bias(rows, primary_metric)
    if bias:
        entry["bias"] = bias
    groups = sorted({row["group"] for row in rows if row.get("group")})
    if groups:
        members = {group: [row for row in rows if row.get("group") == group] for group in groups}
        subtotals = {group: _means(found)[primary_metric] for group, found in members.items()}
        macro = sum(one["value"] for one in subtotals.values()) / len(groups)
        entry["groups"] = {"subtotals": subtotals, "macro_mean": round_significant(macro)}
    return entry


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`{name: {value, stderr, n}}` of each metric that every row has."""
    values = [row_metrics(row) for row in rows]
    clusters = [row.get("cluster") or f"item {row['id']}" for row in rows]
    grouped = any(row.get("cluster") for row in rows)
    metrics: dict[str, dict[str, Any]] = {}
    for name in _common(values):
        column = [one[name] for one in values]
        mean, stderr = mean_and_stderr(column)
        stderr = clustered_stderr(column, clusters) if grouped else stderr
        shown = None if stderr is None else round_significant(stderr)
        metrics[name] = {"value": round_significant(mean), "stderr": shown, "n": len(rows)}
    for name, (kind, *_) in rows[0].get("parts", {}).items():
        value = AGGREGATES[kind]([row["parts"][name][1:] for row in rows])
        if value is not None:
            metrics[name] = {"value": round_significant(value), "stderr": None, "n": len(rows)}
    return metrics


def _bias(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    scored = [(row, item_score(row)) for row in rows if row.get("roles")]
    scores = bias_scores(scored, metric) if len(scored) == len(rows) else {}
    return {name: {"value": round_significant(value), "stderr": None, "n": len(rows)} for name, value in scores.items()}


def _common(mappings: Sequence[dict[str, Any]]) -> list[str]:
    """The keys that all have."""
    return [key for key in mappings[0] if all(key in one for one in mappings)]


def warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What in the rows themselves suggests that a number means something else than it says."""
    found = []
    chosen = [row for row in rows if "choices" in row and len(row["choices"]) > 1]
    if len(chosen) >= CONSTANT_FROM:
        for metric in _common([row["predicted"] for row in chosen]):
            index, times = Counter(row["predicted"][metric] for row in chosen).most_common(1)[0]
            if times == len(chosen):
                found.append(f"{metric}: choice {index} is predicted for every item")
    masses = [row_metrics(row)["probability_mass"] for row in chosen]
    if masses and sum(masses) / len(masses) < _LOW_MASS:
        text = f"the choices have a probability of {sum(masses) / len(masses):.2g} together; expected at least"
        found.append(f"probability_mass: {text} {_LOW_MASS}")
    repeated = sum(times - 1 for times in Counter(row["id"] for row in rows).values())
    if repeated:
        found.append(f"{repeated} items repeat the id of another")
    return found
