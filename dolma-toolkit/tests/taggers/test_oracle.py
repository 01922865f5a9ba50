"""Every native tagger against dolma 1.2.1 on the same documents: equal rows, but for the differences listed here.

`DOLMA_ORACLE_BYTES=<n>` compares so many bytes of each source; 0 compares all (an hour).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from oracle import corpus, here, there

SOURCE_BYTES = int(os.environ.get("DOLMA_ORACLE_BYTES", "5000")) or sys.maxsize
# one novel must not be the whole sample of its source
DOCUMENT_CHARS = 4_000 if SOURCE_BYTES < sys.maxsize else sys.maxsize

TAGGERS = [
    "bytes_length_v1",
    "c4_v1",
    "c4_v2",
    "char_length_strip_ws_v1",
    "char_length_v1",
    "char_length_with_paragraphs_v1",
    "doc_count_v1",
    "gopher_v1",
    "gopher_v2",
    "not_alphanum_paragraph_v1",
    "olmo_pretokenizer_v1",
    "olmo_pretokenizer_with_paragraphs_v1",
    "paragraph_repetitions_v1",
    "pii_regex_v1",
    "pii_regex_v2",
    "pii_regex_with_counts_fast_v2",
    "pii_regex_with_counts_v2",
    "repetitions_v1",
    "uniseg_length_paragraphs_v1",
    "uniseg_length_paragraphs_with_doc_length_v1",
    "uniseg_length_paragraphs_with_empty_v1",
    "uniseg_length_v1",
    "whitespace_tokenizer_v1",
    "whitespace_tokenizer_with_paragraphs_v1",
]

# 1.2.1 divides by the number of words here and ends the run where there are none
DIVIDES_BY_WORDS = ["pii_regex_v1", "pii_regex_with_counts_v2"]

Row = dict[str, list[list[float]]]
Command = Callable[[list[str]], subprocess.CompletedProcess[str]]


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A difference that is right, with the one tagger and the texts that it concerns."""

    tagger: str
    reason: str
    concerns: str  # a character in every text concerned


DEFECTS = [
    Defect(
        tagger="c4_v2",
        reason="1.2.1 measures lines in the lower-cased text, where this letter is two code points",
        concerns="\u0130",
    ),
]

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.timeout(900 if SOURCE_BYTES < sys.maxsize else 7200),
]


def corpus_documents() -> list[dict[str, str]]:
    """The first documents of each source, so many bytes of them."""
    documents = []
    for path in corpus():
        size_bytes = 0
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                text = row["text"][:DOCUMENT_CHARS]
                size_bytes += len(text.encode())
                documents.append({"id": row["id"], "source": row["source"], "text": text})
                if size_bytes >= SOURCE_BYTES:
                    break
    return documents


# what the rules look for, and characters that implementations treat differently
PIECES = [
    *"the|be|and|a|b|ab|word|words words words words|Lorem ipsum|JavaScript|{|.|,|:|;|'|\"|!|?|*|-|#|@|(|)|_|$".split(
        "|"
    ),
    *"\u2026 \u00bd \u00b2 \u0130 \u212a \u03a3 \u00e9 e\u0301 \u200d \ufe0f \U0001f469 \U0001f1e6\U0001f1e7".split(
        " "
    ),
    *"\u05d0 \u30a2\u30ab \u6f22\u5b57 \u0663 \u24b6 \u00ad \b ==== hahahaha isbn doi jo@example.org".split(" "),
    *"ab ab ab ab|(@x.y |@@a.b |.@.c.d | 206-555-0100| (206) 555 0100|1.2.3.4|1.2.3.4.5|256.1.1.1".split("|"),
]
SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x1c", "\x85", "\xa0", "\u3000", "\u2028", "\x00", ""]


def made_documents() -> list[dict[str, str]]:
    """Short texts of such pieces, the same in each run."""
    generator = random.Random(1)
    texts = ["", " ", "\n", "word", "word\n", "\n\nword", "\ufeff"]
    for _ in range(150):
        parts = [generator.choice(PIECES) + generator.choice(SPACES) for _ in range(generator.randrange(30))]
        texts.append("".join(parts))
    return [{"id": f"made-{number}", "source": "made", "text": text} for number, text in enumerate(texts)]


def write(directory: Path, documents: list[dict[str, str]]) -> str:
    path = directory / "documents" / "part.jsonl.gz"
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(document) + "\n" for document in documents)
    return str(path)


def tag(command: Command, documents: list[dict[str, str]], taggers: list[str], directory: Path) -> list[Row]:
    """The attributes of each document, as that command's `tag` writes them."""
    arguments = ["tag", "--documents", write(directory, documents), "--experiment", "e", "--processes", "1", "--debug"]
    arguments += ["--taggers", *taggers]
    run = command(arguments)
    assert run.returncode == 0, run.stderr[-2000:]
    with gzip.open(directory / "attributes" / "e" / "part.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [document["id"] for document in documents]
    assert [row["source"] for row in rows] == [document["source"] for document in documents]
    return [row["attributes"] for row in rows]


def is_close(ours: list[list[float]] | None, theirs: list[list[float]] | None) -> bool:
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(a[:2] == b[:2] and abs(a[2] - b[2]) <= 1.0001e-5 for a, b in pairs)


def differing_taggers(ours: Row, theirs: Row) -> set[str]:
    keys = ours.keys() | theirs.keys()
    return {key.split("__")[1] for key in keys if not is_close(ours.get(key), theirs.get(key))}


@pytest.mark.parametrize("kind", ["corpus", "made", "wordless"])
def test_rows_equal_those_of_dolma_1_2_1(kind: str, tmp_path: Path) -> None:
    documents = corpus_documents() if kind == "corpus" else made_documents()
    documents = [document for document in documents if (kind == "wordless") != bool(document["text"].split())]
    taggers = [name for name in TAGGERS if kind != "wordless" or name not in DIVIDES_BY_WORDS]
    theirs = tag(there, documents, taggers, tmp_path / "theirs")
    ours = tag(here, documents, taggers, tmp_path / "ours")
    for document, our_row, their_row in zip(documents, ours, theirs, strict=True):
        known = {defect.tagger for defect in DEFECTS if defect.concerns in document["text"]}
        found = differing_taggers(our_row, their_row)
        assert found <= known, (document["id"], ascii(document["text"][:200]), found - known)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.tagger)
def test_a_listed_difference_is_still_one(defect: Defect, tmp_path: Path) -> None:
    documents = [{"id": "1", "source": "", "text": f"{defect.concerns}\nsecond line"}]
    theirs = tag(there, documents, [defect.tagger], tmp_path / "theirs")
    ours = tag(here, documents, [defect.tagger], tmp_path / "ours")
    assert differing_taggers(ours[0], theirs[0]) == {defect.tagger}


@pytest.mark.parametrize("name", DIVIDES_BY_WORDS)
def test_a_text_without_words_scores_minus_one_where_1_2_1_ends(name: str, tmp_path: Path) -> None:
    documents = [{"id": "1", "source": "", "text": " \n"}]
    ours = tag(here, documents, [name], tmp_path / "ours")
    assert ours[0][f"e__{name}__doc"] == [[0, 2, -1.0]]
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        tag(there, documents, [name], tmp_path / "theirs")
