"""MMLU (Hendrycks et al. 2021, arXiv:2009.03300): four choices in 57 subjects; the likeliest letter is the answer."""

from collections.abc import Iterator
from pathlib import Path

from ...formats.contract import ConfigError, Fields
from ..items import Benchmark, Item, Loading
from ..sources import find_files, read_records, read_table, stem

__all__ = ["MMLU"]

_LETTERS = ("A", "B", "C", "D")


def _rows(path: Path) -> Iterator[Fields]:
    """Rows of JSON Lines, or of the authors' CSV, which has no header and its subject in the file's name."""
    if ".csv" not in path.suffixes:
        yield from read_records(path)
        return
    subject = stem(path).rpartition("_")[0] or stem(path)
    for line, cells in read_table(path):
        row = Fields({"question": cells[0], "subject": subject, "choices": cells[1:5], "answer": cells[-1]}, path, line)
        if len(cells) != 6:
            raise row.error("invalid_value", "question", f"is in a row of {len(cells)} fields; expected 6")
        yield row


def _read(row: Fields) -> tuple[str, str, list[str], int]:
    """Subject, question, choices and the right one's index."""
    choices = row.array("choices")
    if len(choices) != len(_LETTERS) or not all(isinstance(choice, str) for choice in choices):
        raise row.error("invalid_value", "choices", "is not a list of 4 texts; expected A, B, C and D")
    answer = row.get("answer", "the index of the right choice, or its letter")
    label = _LETTERS.index(answer) if answer in _LETTERS else answer
    if type(label) is not int or not 0 <= label < len(_LETTERS):
        raise row.error("invalid_value", "answer", f"is {answer!r}; expected 0 to 3 or A to D")
    return row.string("subject"), row.string("question").strip(), [choice.strip() for choice in choices], label


def _question(question: str, choices: list[str]) -> str:
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True))
    return question + listed


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    names = [
        f"{folder}{split}{rest}"
        for split in ("test", "validation", "val")
        for folder in ("mmlu/", "")
        for rest in ("*.jsonl", "/*.csv")
    ]
    files = find_files(loading.directory, names, "MMLU's test or validation split")
    shots = loading.shots or 0
    examples: dict[str, list[str]] = {}
    development: list[Path] = []
    if shots:
        wanted = "the development split, for examples"
        names = ["mmlu/dev*.jsonl", "mmlu/dev/*.csv", "dev*.jsonl", "dev/*.csv"]
        development = find_files(loading.directory, names, wanted)
        for path in development:
            for row in _rows(path):
                subject, question, choices, label = _read(row)
                examples.setdefault(subject, []).append(
                    f"{_question(question, choices)}\nAnswer: {_LETTERS[label]}\n\n"
                )
    items: list[Item] = []
    for path in files:
        for row in _rows(path):
            subject, question, choices, label = _read(row)
            if len(examples.get(subject, ())) < shots:
                found = len(examples.get(subject, ()))
                raise ConfigError(f'mmlu: {found} examples of "{subject}"; expected {shots}', hint="use fewer --shots")
            title = subject.replace("_", " ")
            items.append(
                Item(
                    id=str(len(items)),
                    preamble=f"The following are multiple choice questions (with answers) about {title}.\n\n",
                    examples=tuple(examples.get(subject, ())[:shots]),
                    question=_question(question, choices),
                    text_cue="\nAnswer:",
                    chat_cue="The answer is:",
                    choices=tuple(f" {letter}" for letter in _LETTERS),
                    label=label,
                    group=subject,
                )
            )
    return items, files + development


MMLU = Benchmark(
    name="mmlu",
    summary="four choices in 57 subjects; the likeliest letter",
    source="arXiv:2009.03300",
    files="mmlu/test*.jsonl or mmlu/test/*.csv (or validation, val); mmlu/dev* for the examples",
    primary_metric="acc_raw",
    load=_load,
)
