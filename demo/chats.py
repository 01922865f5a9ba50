"""Chats and preferences from documents: a question about a function, answered by its docstring.

`python demo/chats.py OUTPUT TRAINING_DOCUMENTS HELD_OUT_DOCUMENTS` writes four artifacts below OUTPUT:
`chats/{train,heldout}` (docs/formats/chat.md) and `preferences/{train,heldout}` (docs/formats/preference.md), the
held-out ones from documents that the model has not seen. The two answers of a preference differ only in form: the
chosen one is in triple quotes, ready to paste below the signature; the rejected one is plain text, as in the chats. A
model of this size can learn that, but not which of two contents is right.

For documents without functions (a corpus of prose), the questions ask how a text continues.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from artifact import Artifact, read_directory

MAX_CHATS = {"train": 1600, "heldout": 200}
MAX_PREFERENCES = {"train": 640, "heldout": 160}
MAX_QUESTION_CHARS = 300
ANSWER_CHARS = (30, 320)
MIN_FUNCTIONS = 200
"""A corpus with fewer functions in the training documents is treated as prose."""

Pair = tuple[str, str, str]
"""(id, question, answer)"""


def function_pairs(document: dict) -> Iterator[Pair]:
    """Yield a question for each documented function of a Python module; nothing for text that is not Python."""
    try:
        tree = ast.parse(document["text"])
    except (SyntaxError, ValueError):
        return
    package = document.get("subdomain") or document.get("metadata", {}).get("subdomain", "")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            continue
        answer = re.sub(r"\s+", " ", docstring.split("\n\n")[0]).strip()
        signature = f"def {node.name}({ast.unparse(node.args)})"
        question = (
            f"What does this function of {package} do?\n\n{signature}"
            if package
            else f"What does this function do?\n\n{signature}"
        )
        if ANSWER_CHARS[0] <= len(answer) <= ANSWER_CHARS[1] and len(question) <= MAX_QUESTION_CHARS:
            yield f"{document['id']}:{node.name}:{node.lineno}", question, answer


def continuation_pairs(document: dict) -> Iterator[Pair]:
    """Yield questions about how a text continues: a paragraph's first sentence, answered by the rest of it."""
    for index, paragraph in enumerate(document["text"].split("\n\n")):
        first, separator, rest = re.sub(r"\s+", " ", paragraph).strip().partition(". ")
        rest = rest[: ANSWER_CHARS[1]].strip()
        if separator and 30 <= len(first) <= MAX_QUESTION_CHARS - 60 and len(rest) >= ANSWER_CHARS[0]:
            yield f"{document['id']}:{index}", f"How does this text go on?\n\n{first}.", rest


def pairs_of(directory: Path, extract: Callable[[dict], Iterator[Pair]]) -> list[Pair]:
    """All pairs of a document directory in the order of their hashes, without repeated answers or questions."""
    found: dict[str, Pair] = {}
    questions = set()
    for document in read_directory(directory):
        for pair in extract(document):
            if pair[1] not in questions and pair[2] not in found:
                questions.add(pair[1])
                found[pair[2]] = pair
    return sorted(found.values(), key=lambda pair: hashlib.sha256(pair[0].encode()).hexdigest())


def write_split(output: Path, split: str, pairs: list[Pair], documents: Path) -> None:
    """Write the chats and preferences of one split; preferences use other pairs than the chats if there are enough."""
    chats = pairs[: MAX_CHATS[split]]
    rest = pairs[len(chats) :]
    contrast = (rest if len(rest) >= MAX_PREFERENCES[split] else pairs)[: MAX_PREFERENCES[split]]
    source = documents.name
    rows = [
        {"id": name, "source": source, "messages": [message("user", question), message("assistant", answer)]}
        for name, question, answer in chats
    ]
    artifact = Artifact(output / "chats" / split, "chat")
    artifact.add_artifact("documents", documents)
    artifact.write_lines("chats.jsonl", rows)
    artifact.finish(config={"max": MAX_CHATS[split]}, counts={"conversations": len(rows), "messages": 2 * len(rows)})

    rows = []
    for name, question, answer in contrast:
        user = message("user", question)
        rows.append(
            {
                "id": name,
                "source": source,
                "chosen": [user, message("assistant", f'"""{answer}"""')],
                "rejected": [user, message("assistant", answer)],
            }
        )
    artifact = Artifact(output / "preferences" / split, "preference")
    artifact.add_artifact("documents", documents)
    artifact.write_lines("preferences.jsonl", rows)
    artifact.finish(config={"max": MAX_PREFERENCES[split]}, counts={"pairs": len(rows)})


def message(role: str, content: str) -> dict:
    """One message of a conversation."""
    return {"role": role, "content": content}


def main(output: Path, training: Path, held_out: Path) -> None:
    """Write the four artifacts.

    Raises SystemExit: the documents contain too few questions.
    """
    extract = function_pairs
    train = pairs_of(training, extract)
    if len(train) < MIN_FUNCTIONS:
        extract = continuation_pairs
        train = pairs_of(training, extract)
    seen = {answer for _, _, answer in train}
    heldout = [pair for pair in pairs_of(held_out, extract) if pair[2] not in seen]
    if len(train) < 2 or len(heldout) < 2:
        raise SystemExit(
            f"error: {training}: {len(train)} questions, {len(heldout)} held-out questions; expected at least 2 of each"
        )
    write_split(output, "train", train, training)
    write_split(output, "heldout", heldout, held_out)
    sys.stderr.write(f"{len(train):,} questions from training documents, {len(heldout):,} from held-out ones\n")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
