"""Vectors of docs/formats/results.md."""

import copy
import math
from collections.abc import Callable
from typing import Any

from .cases import Case, gz, head, invalid, json_lines, manifest, pretty, sha256

__all__ = ["cases"]

_FILE = "results.json"
_PREDICTIONS = "predictions.jsonl.gz"
_Value = dict[str, Any]


def _score(value: float, stderr: float | None, n: int) -> _Value:
    return {"value": value, "stderr": stderr, "n": n}


def _domain(
    source: str, subdomain: str, documents: int, tokens: int, text: str, nll: float, stderr: float | None
) -> _Value:
    size = documents * len(text.encode())
    return {
        "source": source,
        "subdomain": subdomain,
        "documents": documents,
        "tokens": tokens,
        "bytes": size,
        "chars": documents * len(text),
        "words": documents * len(text.split()),
        "nll_nats": nll,
        "bits_per_byte": _score(nll / (size * math.log(2)), stderr, documents),
    }


def _task(name: str, items: int, **metrics: float) -> _Value:
    scores = {key: _score(value, math.sqrt(value * (1 - value) / items), items) for key, value in metrics.items()}
    return {
        "task": name,
        "split": "validation",
        "num_shots": 0,
        "items": items,
        "choices_mean": 2.0,
        "primary_metric": next(iter(metrics)),
        "metrics": scores,
    }


def _results(tasks: list[_Value], perplexity: list[_Value]) -> _Value:
    return {
        "format": "results",
        "version": 1,
        "model": {
            "name": "tiny",
            "architecture": "Olmo2ForCausalLM",
            "parameters": 6000,
            "vocab_size": 64,
            "dtype": "float32",
            "tokenizer_sha256": sha256(b"tokenizer"),
            "manifest_sha256": None,
        },
        "inference": {"dtype": "float32", "max_length_tokens": 64, "windowing": "strict-disjoint", "prefix": "eos"},
        "tasks": tasks,
        "perplexity": perplexity,
    }


def _prediction(id: str, label: int, *logprobs: float) -> _Value:
    choices = [
        {"sum_logprob": s, "tokens": 2, "chars": 9, "bytes": 10, "sum_logprob_unconditional": s - 0.5} for s in logprobs
    ]
    return {
        "task": "copa",
        "id": id,
        "label": label,
        "choices": choices,
        "predicted": {"acc_raw": logprobs.index(max(logprobs))},
    }


_TASKS = [_task("arc_easy", 4, acc_per_char=0.25, acc_raw=0.5), _task("copa", 2, acc_raw=0.5)]
_DOMAINS = [
    _domain("books", "", 2, 21, "ten bytes!", 60.5, 0.05),
    _domain("reddit", "AskScience", 3, 40, "é is not ascii", 140.25, 0.1),
    _domain("reddit", "日本", 1, 12, "東京 😀", 33.0, None),
]
_ROWS = [_prediction("copa-1", 0, -3.5, -4.0), _prediction("copa-2", 0, -9.0, -2.25)]


def _counts(value: _Value) -> dict[str, int]:
    tasks = value["tasks"]
    return {"tasks": len(tasks), "items": sum(t["items"] for t in tasks), "domains": len(value["perplexity"])}


def _dump(value: _Value) -> list[_Value]:
    return [head("results", _counts(value)), *value["tasks"], *value["perplexity"]]


def _changed(name: str, code: str, field: str | None, change: Callable[[_Value], Any]) -> Case:
    value = copy.deepcopy(_results(_TASKS, _DOMAINS))
    change(value)
    return invalid(name, {_FILE: pretty(value)}, code, _FILE, None, field)


def _set(path: str, value: Any) -> Callable[[_Value], None]:
    """A change that puts `value` at a dotted path."""

    def change(results: Any) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in way:
            results = results[part]
        results[last] = value

    return change


def _no_bits(value: Any) -> None:
    domain = value["perplexity"][0]
    domain["nll_nats"] = domain["bits_per_byte"]["value"] = 0.0


def _predicted(name: str, rows: bytes, code: str, line: int | None, field: str | None = None) -> Case:
    data = {_FILE: pretty(_results(_TASKS, _DOMAINS)), _PREDICTIONS: rows}
    return invalid(name, data, code, _PREDICTIONS, line, field)


def cases() -> list[Case]:
    """Valid: everything, only perplexity, only tasks, extremes. Invalid: one case per rule."""
    full = _results(_TASKS, _DOMAINS)
    data = {_FILE: pretty(full), _PREDICTIONS: gz(json_lines(_ROWS))}
    inputs = [{"role": "checkpoint", "path": "../checkpoint", "manifest_sha256": sha256(b"checkpoint")}]
    alone = _results([], _DOMAINS[:1])
    empty_text = _domain("blank", "", 1, 1, "x", 4.0, None)
    empty_text |= {"bytes": 0, "chars": 0, "words": 0, "bits_per_byte": _score(0.0, None, 1) | {"value": None}}
    # 1e-7 relative from the true ratio: within the tolerance, and kept as it is written
    near = _domain("close", "", 2, 9, "words here", 31.0, 0.25)
    near["bits_per_byte"]["value"] *= 1 + 1e-7
    extremes = _results([], [empty_text, near]) | {"a_later_field": {"x": 1}}
    extremes["inference"]["windowing"] = "paloma-reference"
    long = gz(json_lines([_prediction(f"copa-{n**4}", 1, -float(n), -float(n * n)) for n in range(60)]))
    return [
        Case(
            name="full",
            data={**data, "manifest.json": pretty(manifest("results", data, _counts(full), inputs=inputs))},
            dump=_dump(full),
        ),
        Case(name="perplexity_alone", data={_FILE: pretty(alone)}, dump=_dump(alone)),
        Case(name="tasks_alone", data={_FILE: pretty(_results(_TASKS, []))}, dump=_dump(_results(_TASKS, []))),
        Case(name="extremes", data={_FILE: pretty(extremes)}, dump=_dump(extremes)),
        invalid("not_json", {_FILE: b"{'format': 'results'}\n"}, "not_json", _FILE),
        invalid("not_object", {_FILE: b'"results"\n'}, "not_object", _FILE),
        invalid("missing_file", {_PREDICTIONS: data[_PREDICTIONS]}, "missing_file", _FILE),
        _changed(
            "missing_nll",
            "missing_field",
            "perplexity.1.nll_nats",
            lambda value: value["perplexity"][1].pop("nll_nats"),
        ),
        _changed("tokens_is_float", "wrong_type", "perplexity.0.tokens", _set("perplexity.0.tokens", 21.0)),
        _changed("negative_count", "invalid_value", "tasks.0.items", _set("tasks.0.items", -4)),
        _changed(
            "ratio_is_wrong",
            "invalid_value",
            "perplexity.0.bits_per_byte.value",
            _set("perplexity.0.bits_per_byte.value", 4.0),
        ),
        _changed("no_bits_for_tokens", "invalid_value", "perplexity.0.nll_nats", _no_bits),
        invalid("infinite_nll", {_FILE: pretty(full).replace(b"60.5", b"Infinity")}, "not_json", _FILE),
        _changed("not_sorted", "invalid_value", "perplexity.1", lambda value: value["perplexity"].reverse()),
        _changed("repeated_domain", "invalid_value", "perplexity.1", _set("perplexity.1", _DOMAINS[0])),
        _changed("unknown_windowing", "invalid_value", "inference.windowing", _set("inference.windowing", "sliding")),
        _changed(
            "primary_is_no_metric", "invalid_value", "tasks.1.primary_metric", _set("tasks.1.primary_metric", "f1")
        ),
        _changed("unknown_format", "unknown_format", "format", _set("format", "scores")),
        _changed("newer_version", "unsupported_version", "version", _set("version", 2)),
        _predicted("truncated", long[:-40], "truncated", None),
        _predicted("prediction_not_json", gz(json_lines(_ROWS[:1]) + b"{\n"), "not_json", 2),
        _predicted(
            "label_out_of_range",
            gz(json_lines([_ROWS[0], _prediction("copa-3", 2, -1.0, -2.0)])),
            "out_of_range",
            2,
            "label",
        ),
        _predicted(
            "log_probability_above_zero",
            gz(json_lines([_ROWS[0], _prediction("copa-3", 1, 0.5, -2.0)])),
            "invalid_value",
            2,
            "choices.0.sum_logprob",
        ),
    ]
