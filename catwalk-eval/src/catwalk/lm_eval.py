"""Results in the JSON of lm-evaluation-harness 0.4, for tools that read it.

Its `acc_norm` divides by the characters of the choice without the leading space, its `acc_bytes` by the bytes. Both are
derived here by that rule, so they differ from our `acc_per_char` and `acc_per_byte`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from catwalk import __version__
from catwalk.columns import TaskRows
from catwalk.formats.results import PREDICTIONS
from catwalk.results import LoadedResults
from catwalk.rows import item_score
from catwalk.statistics import mean_and_stderr
from catwalk.tables import is_lower_better
from catwalk.types import ItemScore

__all__ = ["lm_eval_results"]

_LEADING_SPACE = 1  # every continuation begins with one


_RULES: dict[str, Callable[[ItemScore, int], float]] = {
    "acc": lambda score, index: 1.0,
    "acc_norm": lambda score, index: score.chars[index] - _LEADING_SPACE,
    "acc_bytes": lambda score, index: score.bytes[index] - _LEADING_SPACE,
}
_OUTPUT_TYPES = {"choices": "multiple_choice", "text": "loglikelihood", "generation": "generate_until"}


def lm_eval_results(model: LoadedResults) -> dict[str, Any]:
    """The JSON object of one model's tasks, under their own names."""
    results: dict[str, Any] = {}
    reader = TaskRows(model.directory / PREDICTIONS)
    for name, task in model.tasks.items():
        metrics = _accuracies(reader.take(name)) if task.get("kind", "choices") == "choices" else task["metrics"]
        entry: dict[str, Any] = {"alias": name, "sample_len": task["items"]}
        for metric, found in metrics.items():
            own, _, chosen = metric.partition(",")
            entry[f"{own},{chosen or 'none'}"] = found["value"]
            entry[f"{own}_stderr,{chosen or 'none'}"] = "N/A" if found["stderr"] is None else found["stderr"]
        results[name] = entry
    about, inference = model.results["model"], model.results["inference"]
    available = {name: details.get("items_available") for name, details in model.details.get("tasks", {}).items()}
    return {
        "results": results,
        "group_subtasks": {},
        "configs": {
            name: {
                "task": name,
                "output_type": _OUTPUT_TYPES.get(task.get("kind", "choices")),
                "num_fewshot": task["num_shots"],
                "validation_split": task["split"],
            }
            for name, task in model.tasks.items()
        },
        "versions": dict.fromkeys(results, 1),
        "n-shot": {name: task["num_shots"] for name, task in model.tasks.items()},
        "higher_is_better": {
            name: {
                key.partition(",")[0]: not is_lower_better(key) for key in entry if "," in key and "_stderr," not in key
            }
            for name, entry in results.items()
        },
        "n-samples": {
            name: {"original": available.get(name) or task["items"], "effective": task["items"]}
            for name, task in model.tasks.items()
        },
        "config": {
            "model": "catwalk",
            "model_args": f"pretrained={about['name']},dtype={inference['dtype']}",
            "model_num_parameters": about["parameters"],
            "model_dtype": inference["dtype"],
            "model_sha": about["manifest_sha256"] or "",
            "max_length": inference["max_length_tokens"],
        },
        "model_name": about["name"],
        "max_length": inference["max_length_tokens"],
        "catwalk_eval_version": __version__,
    }


def _accuracies(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The harness's accuracies of a task of choices."""
    scores = [item_score(row) for row in rows]
    return {name: _accuracy(scores, rule) for name, rule in _RULES.items()}


def _accuracy(scores: Sequence[ItemScore], length: Callable[[ItemScore, int], float]) -> dict[str, float | None]:
    hits = []
    for score in scores:
        values = [value / length(score, index) for index, value in enumerate(score.sum_logprobs)]
        hits.append(float(values.index(max(values)) == score.label))
    value, stderr = mean_and_stderr(hits)
    return {"value": value, "stderr": stderr}
