"""Results in the JSON of lm-evaluation-harness 0.4, for tools that read it.

Its `acc_norm` divides by the characters of the choice without the leading space, its `acc_bytes` by the bytes. Both are
derived here by that rule, so they differ from our `acc_per_char` and `acc_per_byte`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from catwalk import __version__
from catwalk.results import LoadedResults
from catwalk.statistics import mean_and_stderr
from catwalk.types import ItemScore

__all__ = ["lm_eval_results"]

_LEADING_SPACE = 1  # every continuation begins with one


def _accuracy(scores: Sequence[ItemScore], length: Callable[[ItemScore, int], float]) -> tuple[float, float | None]:
    hits = []
    for score in scores:
        values = [value / length(score, index) for index, value in enumerate(score.sum_logprobs)]
        hits.append(float(values.index(max(values)) == score.label))
    return mean_and_stderr(hits)


def lm_eval_results(model: LoadedResults) -> dict[str, Any]:
    """The JSON object of one model's tasks."""
    results: dict[str, Any] = {}
    rules: dict[str, Callable[[ItemScore, int], float]] = {
        "acc": lambda score, index: 1.0,
        "acc_norm": lambda score, index: score.chars[index] - _LEADING_SPACE,
        "acc_bytes": lambda score, index: score.bytes[index] - _LEADING_SPACE,
    }
    for name, scores in model.items.items():
        entry: dict[str, Any] = {"alias": name, "sample_len": len(scores)}
        for metric, rule in rules.items():
            value, stderr = _accuracy(scores, rule)
            entry[f"{metric},none"] = value
            entry[f"{metric}_stderr,none"] = "N/A" if stderr is None else stderr
        results[name] = entry
    about, inference = model.results["model"], model.results["inference"]
    available = {name: details.get("items_available") for name, details in model.details.get("tasks", {}).items()}
    return {
        "results": results,
        "group_subtasks": {},
        "configs": {
            name: {"task": name, "output_type": "multiple_choice", "num_fewshot": 0, "validation_split": task["split"]}
            for name, task in model.tasks.items()
        },
        "versions": dict.fromkeys(results, 1),
        "n-shot": dict.fromkeys(results, 0),
        "higher_is_better": {name: dict.fromkeys(rules, True) for name in results},
        "n-samples": {
            name: {"original": available.get(name) or len(scores), "effective": len(scores)}
            for name, scores in model.items.items()
        },
        "config": {
            "model": "catwalk",
            "model_args": f"pretrained={about['name']},dtype={inference['dtype']}",
            "model_num_parameters": about["parameters"],
            "model_dtype": inference["dtype"],
            "model_sha": about["manifest_sha256"] or "",
            "max_length": inference["max_length_tokens"],
        },
        "catwalk_eval_version": __version__,
    }
