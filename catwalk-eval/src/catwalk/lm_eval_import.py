"""`catwalk import`: results of lm-evaluation-harness as our artifact, so that old runs can join a report.

With its `samples_*.jsonl` next to the file, the artifact has the rows that the numbers follow from; a metric that no
formula here derives from them, and every metric without samples, is stored as the file has it, and says so
(`summed_by`). What the file does not say is listed in `imported.unknown`, and not invented.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.aggregates import AGGREGATES
from catwalk.formats.contract import ConfigError, FormatError, read_object, read_rows
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest
from catwalk.lm_eval_groups import GroupRule, group_row
from catwalk.metrics import round_significant
from catwalk.results import ScoredTask, task_entry, write_results
from catwalk.tasks import HARNESS
from catwalk.types import TaskPart

__all__ = ["import_results"]

log = logging.getLogger(__name__)

_HARNESS = "lm-evaluation-harness"
_TOLERANCE = 1e-6  # of a sum in another order
_NEVER_SAID = (
    *("inference.prefix", "inference.windowing"),
    *("model.architecture", "model.manifest_sha256", "model.tokenizer_sha256", "model.vocab_size"),
)


@dataclass(frozen=True, kw_only=True)
class _Imported:
    """A task as the artifact describes it."""

    name: str
    split: str
    primary_metric: str
    num_shots: int
    items: list[dict[str, Any]]

    def texts(self) -> list[dict[str, Any]]:
        """Rows of items.jsonl.gz."""
        return self.items


def import_results(file: Path, output: Path, name: str | None) -> None:
    """Write the artifact of a `results_*.json`, with the samples next to it.

    Raises:
        ConfigError: the file has no tasks or no name, or `output` is another artifact. FormatError: it is damaged, or
            the samples are those of another run.
    """
    data = read_object(file)
    config: dict[str, Any] = data.get("config") or {}
    names = [task for task in data.get("configs", {}) if task in data.get("results", {})]
    if not names:
        problem = f'import: {file} has no tasks in "results" and "configs"; expected the JSON of {_HARNESS} 0.4'
        raise ConfigError(problem, hint="pass results_*.json, as lm_eval --output_path writes it")
    name = name or data.get("model_name") or _pretrained(config.get("model_args"))
    if not name:
        raise ConfigError(f"import: {file} does not name its model", hint="--name NAME")
    if (output / MANIFEST).is_file() and "imported" not in read_manifest(output).config:
        problem = f"output_dir: {output} contains another artifact; expected imported results or an empty directory"
        raise ConfigError(problem, hint="choose another --output-dir")
    prefix = "" if "catwalk_eval_version" in data else HARNESS
    samples = {task: _samples_file(file, task) for task in names}
    tasks = [_task(task, prefix, data, path, file) for task, path in sorted(samples.items())]
    found = [path for path in samples.values() if path is not None]
    if len(found) < len(names):
        log.warning(
            "%d of %d tasks have no samples: their numbers are those of the file", len(names) - len(found), len(names)
        )
    tasks.sort(key=lambda one: one.questions.name)
    model, inference, unknown = _about(data, config, name)
    inputs = [entry for path in (file, *found) for entry in describe_input("lm-eval", path, output)]
    output.mkdir(parents=True, exist_ok=True)
    write_results(
        output,
        model=model,
        inference=inference,
        tasks=tasks,
        groups=_groups(data, prefix, tasks),
        documents=[],
        documents_found=0,
        config={"imported": file.name, "name": name},
        inputs=sorted(inputs, key=lambda entry: (entry["role"], entry["path"])),
        imported={"from": _HARNESS, "version": str(data.get("lm_eval_version", "unknown")), "unknown": unknown},
    )


def _pretrained(arguments: Any) -> str | None:
    """The name in `model_args`, as text or as a mapping."""
    if isinstance(arguments, dict):
        return arguments.get("pretrained") or arguments.get("model")
    pairs = dict(part.partition("=")[::2] for part in str(arguments or "").split(","))
    return pairs.get("pretrained") or pairs.get("model")


def _samples_file(file: Path, task: str) -> Path | None:
    """`samples_TASK_DATE.jsonl` of the same date as `results_DATE.json`."""
    path = file.with_name(f"samples_{task}_{file.stem.rpartition('_')[2]}.jsonl")
    return path if path.is_file() else None


def _about(data: dict[str, Any], config: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """`model` and `inference` of results.json, and which of their fields stand for something unknown."""
    parameters, length = config.get("model_num_parameters"), data.get("max_length") or config.get("max_length")
    dtype = str(config.get("model_dtype") or "unknown").removeprefix("torch.")
    known = {
        "model.parameters": isinstance(parameters, int) and parameters > 0,
        "model.dtype": dtype != "unknown",
        "inference.dtype": dtype != "unknown",
        "inference.max_length_tokens": isinstance(length, int) and length > 0,
    }
    model: dict[str, Any] = {"name": name, "architecture": "unknown", "vocab_size": 0, "dtype": dtype}
    model |= {"parameters": parameters if known["model.parameters"] else 0}
    model |= {"tokenizer_sha256": None, "manifest_sha256": None}
    inference: dict[str, Any] = {"dtype": dtype, "windowing": "strict-disjoint", "prefix": "eos"}
    inference |= {"max_length_tokens": length if known["inference.max_length_tokens"] else 1}
    unknown = [field for field, is_known in known.items() if not is_known] + [*_NEVER_SAID]
    return model, inference, sorted(unknown)


# ---- tasks


def _task(task: str, prefix: str, data: dict[str, Any], samples: Path | None, file: Path) -> ScoredTask:
    config, reported = data["configs"][task], data["results"][task]
    counts = data.get("n-samples", {}).get(task, {})
    n = counts.get("effective", reported.get("sample_len"))
    if type(n) is not int or n < 1:
        message = f"has {n} as the number of items of {task}; expected a positive number"
        raise FormatError("invalid_value", file, message, field=f"n-samples.{task}")
    metrics = _metrics(reported, n)
    if not prefix and "acc" in metrics:  # an export of ours; its other accuracies have no name here
        metrics = {"acc_raw" if name == "acc" else name: entry for name, entry in metrics.items()}
    if not metrics:
        raise FormatError("missing_field", file, f"has no metric of {task}", field=f"results.{task}")
    primary = next(iter(metrics))
    rows: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    if samples is not None:
        by_item = _by_item(samples)
        if len(by_item) != n:
            message = f"has {len(by_item)} items; {file.name} has {n} of {task}"
            raise FormatError("invalid_value", samples, message, hint="keep the files of one run together")
        kinds = {name: _kind(name, entry["value"], by_item) for name, entry in metrics.items()}
        derived = {name: kind for name, kind in kinds.items() if kind is not None}
        if not derived:
            log.warning("%s: no metric follows from its samples; its numbers are those of the file", task)
        for id, found in by_item.items():
            rows.append(_row(id, found, config.get("output_type"), derived))
            items.append({"task": f"{prefix}{task}", **_text(id, found[0], config.get("output_type"))})
        metrics = {name: entry for name, entry in metrics.items() if name not in derived}
    description = _Imported(
        name=f"{prefix}{task}",
        split=str(config.get("test_split") or config.get("validation_split") or config.get("training_split") or "test"),
        primary_metric=primary,
        num_shots=int(data.get("n-shot", {}).get(task) or config.get("num_fewshot") or 0),
        items=items,
    )
    available = counts.get("original", n)
    return ScoredTask(
        questions=description, items_available=available, part=TaskPart(rows=rows, counts={}, sums=metrics)
    )


def _groups(data: dict[str, Any], prefix: str, tasks: Sequence[ScoredTask]) -> list[GroupRule]:
    """The groups whose numbers follow from their tasks, by items or by tasks; the file does not say which."""
    entries = {one.questions.name: task_entry(one) for one in tasks}
    children, rules = data.get("group_subtasks", {}), []
    for name, reported in data.get("groups", {}).items():
        leaves = tuple(f"{prefix}{leaf}" for leaf in _leaves(name, children))
        by_items = {}
        for metric, entry in _metrics(reported, 1).items():
            for guess in (True, False):
                row = group_row(GroupRule(name=name, tasks=leaves, by_items={metric: guess}), entries)
                if row is not None and _near(row["metrics"][metric]["value"], entry["value"]):
                    by_items[metric] = guess
                    break
            else:
                log.warning("group %s: %s does not follow from its tasks, and is left out", name, metric)
        if by_items:
            rules.append(GroupRule(name=f"{prefix}{name}", tasks=leaves, by_items=by_items))
    return rules


def _leaves(name: str, children: dict[str, list[str]]) -> list[str]:
    """The tasks below a group."""
    return [leaf for child in children[name] for leaf in _leaves(child, children)] if name in children else [name]


def _metrics(reported: dict[str, Any], n: int) -> dict[str, dict[str, Any]]:
    """Entries of the metrics, under our names: `acc`, or `exact_match,strict-match` for a filter."""
    found = {}
    for key, value in reported.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        stderr = reported.get(f"{metric}_stderr,{chosen}")
        found[metric if chosen == "none" else key] = {
            "value": round_significant(float(value)),
            "stderr": round_significant(float(stderr)) if isinstance(stderr, (int, float)) else None,  # or "N/A"
            "n": n,
            "summed_by": _HARNESS,
        }
    return found


def _by_item(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The samples of each item, one for each filter, in the order of the file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line, sample in read_rows(path):
        if "doc_id" not in sample or not isinstance(sample.get("metrics"), list):
            message = f"has no doc_id with metrics; expected a sample of {_HARNESS}"
            raise FormatError("missing_field", path, message, line=line)
        found.setdefault(str(sample["doc_id"]), []).append(sample)
    return dict(sorted(found.items(), key=lambda one: (len(one[0]), one[0])))


def _value(name: str, samples: Sequence[dict[str, Any]]) -> Any:
    """What one item adds to a metric; None if it is not stored."""
    metric, comma, chosen = name.partition(",")
    wanted = chosen if comma else "none"
    return next((one.get(metric) for one in samples if one.get("filter", "none") == wanted), None)


def _kind(name: str, reported: float, by_item: dict[str, list[dict[str, Any]]]) -> str | None:
    """ "mean", or the name in `aggregates.py`, whose formula gives the reported number from the samples; else None."""
    parts = [part for samples in by_item.values() if (part := _part(_value(name, samples))) is not None]
    if len(parts) < len(by_item):
        return None
    if all(len(part) == 1 for part in parts) and _near(math.fsum(part[0] for part in parts) / len(parts), reported):
        return "mean"
    for kind, formula in AGGREGATES.items():
        try:
            value = formula(parts)
        except (IndexError, ValueError, ZeroDivisionError, OverflowError):
            continue  # of a metric with other parts
        if value is not None and _near(value, reported):
            return kind
    return None


def _part(value: Any) -> list[float] | None:
    """Numbers of an item: one, or a list of them."""
    values = value if isinstance(value, list) else [value]
    known = bool(values) and all(isinstance(one, (int, float)) for one in values)
    return [float(one) for one in values] if known else None


def _near(value: float, reported: float) -> bool:
    return math.isclose(value, reported, rel_tol=_TOLERANCE, abs_tol=1e-12)


def _row(id: str, samples: Sequence[dict[str, Any]], output_type: str | None, kinds: dict[str, str]) -> dict[str, Any]:
    """A row of predictions, as `lmeval:` writes it."""
    answers = [_response(one[0] if isinstance(one, list) else one, output_type) for one in samples[0].get("resps", [])]
    row: dict[str, Any] = {"id": id, "responses": answers}
    if output_type == "generate_until" and len(answers) == 1:
        row |= {"generation": str(answers[0]), "references": [str(samples[0].get("target"))]}
    parts = {name: _part(_value(name, samples)) or [] for name in kinds}
    row["scores"] = {name: parts[name][0] for name, kind in kinds.items() if kind == "mean"}
    summed = {name: [kind, *parts[name]] for name, kind in kinds.items() if kind != "mean"}
    return row | ({"parts": summed} if summed else {})


def _response(answer: Any, output_type: str | None) -> Any:
    """The harness stores numbers as text."""
    if output_type in ("multiple_choice", "loglikelihood") and isinstance(answer, list) and len(answer) == 2:
        return [float(answer[0]), str(answer[1]) == "True"]
    return float(answer) if output_type == "loglikelihood_rolling" else answer


def _text(id: str, sample: dict[str, Any], output_type: str | None) -> dict[str, Any]:
    """The text of an item, without its task."""
    arguments = sample.get("arguments") or {}
    pairs = [list(one.values()) if isinstance(one, dict) else list(one) for one in dict(arguments).values()]
    contexts = [str(one[0]) if output_type != "loglikelihood_rolling" else "" for one in pairs]
    texts = [str(one[-1]) for one in pairs if output_type != "generate_until"]
    context: Any = contexts[0] if len(set(contexts)) == 1 else contexts
    found = {"id": id, "context": context, "continuations": texts}
    return found | ({"references": [str(sample.get("target"))]} if output_type == "generate_until" else {})
