"""BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261): 27 tasks with three worked examples each."""

import re
from pathlib import Path

from ...formats.contract import ConfigError, Fields, FormatError, decode_object
from ..items import Benchmark, Item, Loading, Row, Tools
from ..sources import find_files, read_text, stem

__all__ = ["BBH", "stated_answer"]

_CUE = "\nA: Let's think step by step.\n"
_INSTRUCTION = 'Answer the question step by step, and end with: "So the answer is …."\n\n'
_ANSWER_CHARS = 1000


def stated_answer(text: str) -> str:
    """What follows the last "the answer is", up to the end of its sentence or line; empty if there is none."""
    ends = [found.end() for found in re.finditer(r"\bthe answer is\b:?", text, re.IGNORECASE)]
    if not ends:
        return ""
    line = text[ends[-1] : ends[-1] + _ANSWER_CHARS].lstrip(" *\n").partition("\n")[0]
    return re.split(r"\.(?=\s|\**$)", line, maxsplit=1)[0].strip(" \t*\"'`$")


def _matches(stated: str, target: str) -> bool:
    """Equal but for case and white space; an option may be followed by its text, `(A) red`."""
    stated, target = (" ".join(text.lower().split()) for text in (stated, target))
    return stated == target or (re.fullmatch(r"\([a-z]\)", target) is not None and stated.startswith(target))


def _examples(path: Path) -> tuple[str, tuple[str, ...]]:
    """The description and the worked examples of a file of `cot-prompts`."""
    text = read_text(path)
    _, mark, body = text.partition("-----\n")
    description, *worked = (body if mark else text).strip().split("\n\nQ: ")
    if not worked:
        message = 'has no example; expected a description, then "Q: …" and "A: …" after empty lines'
        raise FormatError("invalid_value", path, message)
    return f"{description}\n\n", tuple(f"Q: {one.strip()}\n\n" for one in worked)


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    wanted = "the task files of BIG-Bench Hard"
    files = find_files(loading.directory, ("bbh/bbh/*.json", "bbh/*.json"), wanted)
    names = ("bbh/cot-prompts/*.txt", "bbh/*.txt")
    prompts = {stem(path): path for path in find_files(loading.directory, names, wanted, optional=True)}
    items, used = [], []
    for path in files:
        task = stem(path)
        preamble, examples = _INSTRUCTION, tuple[str, ...]()
        if task in prompts and loading.shots != 0:
            preamble, examples = _examples(prompts[task])
            used.append(prompts[task])
            examples = examples[: loading.shots]
        if loading.shots is not None and len(examples) < loading.shots:
            raise ConfigError(
                f"bbh: {len(examples)} examples of {task}; expected {loading.shots}", hint="use fewer --shots"
            )
        record = Fields(decode_object(read_text(path).encode(), path), path)
        for index, row in enumerate(record.objects("examples")):
            items.append(
                Item(
                    id=f"{task}-{index}",
                    preamble=preamble,
                    examples=examples,
                    question=f"Q: {row.string('input', not_empty=True)}{_CUE}",
                    references=(row.string("target", not_empty=True).strip(),),
                    group=task,
                )
            )
    return items, files + used


def _grade(item: Item, answer: str, tools: Tools) -> list[Row]:
    matched = _matches(stated_answer(answer), item.references[0])
    return [{"id": item.id, "scores": {"exact_match": float(matched)}}]


BBH = Benchmark(
    name="bbh",
    summary="27 hard tasks, worked out in steps; what follows “the answer is”",
    source="arXiv:2210.09261",
    files="bbh/bbh/*.json (examples: input, target); bbh/cot-prompts/*.txt for the examples",
    primary_metric="exact_match",
    load=_load,
    grade=_grade,
    stop=("\nQ:", "\n\n\n"),
)
