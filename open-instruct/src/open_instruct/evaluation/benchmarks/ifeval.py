"""IFEval (Zhou et al. 2023, arXiv:2311.07911): prompts with instructions that a program can verify.

`ifeval` has a row for each prompt: whether all of its instructions are followed. `ifeval_instructions` has a row for
each instruction; those of one prompt are a cluster, and the kinds of instructions are groups.
"""

from pathlib import Path
from typing import Any

from ...formats.contract import Fields
from ..classifier import language_of
from ..items import Benchmark, Item, Loading, Row, Tools
from ..sources import find_files, read_records
from .instructions import INSTRUCTIONS, RELATIONS, follows, follows_loosely

__all__ = ["IFEVAL", "IFEVAL_INSTRUCTIONS"]


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    files = find_files(
        loading.directory, ("ifeval/*.jsonl", "input_data.jsonl", "ifeval*.jsonl"), "IFEval's input_data.jsonl"
    )
    items: list[Item] = []
    seen: set[str] = set()
    for path in files:
        for row in read_records(path):
            key = str(row.get("key", "a number"))
            if key in seen:
                raise row.error("invalid_value", "key", f"is {key} a second time; expected unique keys")
            seen.add(key)
            items.append(Item(id=key, question=row.string("prompt"), more={"instructions": _instructions(row)}))
    if any(name.startswith(("language:", "change_case:english")) for item in items for name, _ in _asked(item)):
        language_of("a")  # a missing package is an error before the work starts
    return items, files


def _instructions(row: Fields) -> list[tuple[str, dict[str, Any]]]:
    """The names and arguments of a row's instructions, checked. Arguments that are null are as if absent."""
    names, given = row.array("instruction_id_list"), row.objects("kwargs")
    if not names or len(names) != len(given):
        message = f"has {len(given)} objects for {len(names)} instructions; expected one for each, and at least one"
        raise row.error("invalid_value", "kwargs", message)
    found = []
    for index, (name, one) in enumerate(zip(names, given, strict=True)):
        if name not in INSTRUCTIONS:
            raise row.error("invalid_value", f"instruction_id_list.{index}", f'is "{name}"; expected one of the 25')
        arguments = {key: value for key, value in one.value.items() if value is not None}
        for key, kind in INSTRUCTIONS[name].arguments.items():
            value = Fields(arguments, one.path, one.line, one.prefix).get(key, f"the {key} of {name}")
            if kind is int and type(value) is float and value.is_integer():
                arguments[key] = int(value)  # some copies of the data have 3.0
            elif type(value) is not kind:
                raise one.wrong_type(key, {int: "an integer", list: "an array", str: "a string"}[kind])
            elif isinstance(value, list) and not all(isinstance(word, str) for word in value):
                raise one.error("wrong_type", key, "has an element that is not a string; expected strings")
            elif key.endswith("relation") and value not in RELATIONS:
                raise one.error("invalid_value", key, f'is "{value}"; expected {" or ".join(RELATIONS)}')
        found.append((name, arguments))
    return found


def _asked(item: Item) -> list[tuple[str, dict[str, Any]]]:
    asked: list[tuple[str, dict[str, Any]]] = item.more["instructions"]
    return asked


def _grade_prompt(item: Item, answer: str, tools: Tools) -> list[Row]:
    strict = all(follows(answer, *one) for one in _asked(item))
    loose = all(follows_loosely(answer, *one) for one in _asked(item))
    return [{"id": item.id, "scores": {"strict": float(strict), "loose": float(loose)}}]


def _grade_instructions(item: Item, answer: str, tools: Tools) -> list[Row]:
    return [
        {
            "id": f"{item.id}-{index}",
            "group": name,
            "cluster": item.id,
            "scores": {
                "strict": float(follows(answer, name, arguments)),
                "loose": float(follows_loosely(answer, name, arguments)),
            },
        }
        for index, (name, arguments) in enumerate(_asked(item))
    ]


IFEVAL = Benchmark(
    name="ifeval",
    summary="prompts with verifiable instructions; whether all of a prompt are followed",
    source="arXiv:2311.07911",
    files="ifeval/*.jsonl (key, prompt, instruction_id_list, kwargs)",
    primary_metric="strict",
    load=_load,
    grade=_grade_prompt,
    max_tokens=1280,
)
IFEVAL_INSTRUCTIONS = Benchmark(
    name="ifeval_instructions",
    summary="the same, each instruction by itself and by its kind",
    source="arXiv:2311.07911",
    files="as ifeval",
    primary_metric="strict",
    load=_load,
    grade=_grade_instructions,
    max_tokens=1280,
)
