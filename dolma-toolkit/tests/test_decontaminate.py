"""`dolma decontaminate`: everything planted is found, nothing else; the certificate says what was done."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, write_rows

from dolma.formats.contract import read_rows
from dolma.formats.manifest import check_files, read_manifest

WORDS = [f"w{number}" for number in range(4000)]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """300 documents in three files; ten have the last 20 words of an item in other case and punctuation.

    Gives the items of each document that has some.
    """
    monkeypatch.chdir(tmp_path)
    rng = random.Random(5)
    items = [{"id": f"task-{number}", "text": _text(rng, 30)} for number in range(40)]
    items += [{"id": "task-short", "text": "w1 w2 w3"}, {"id": "task-nine", "text": _text(rng, 9)}]
    found: dict[str, list[str]] = {}
    for file in range(3):
        rows = []
        for number in range(100):
            id, text = f"{file}-{number}", _text(rng, 200)
            if number % 30 == 7:
                item = items[file * 4 + number // 30]
                part = re.sub(" ", " - ", item["text"].upper().split(" ", 10)[-1])
                text = f"{text[:300]} {part}! {text[300:]}"
                found[id] = [item["id"]]
            if id == "2-50":
                text += f"\n{items[41]['text']}"
                found[id] = ["task-nine"]
            rows.append({"id": id, "text": text, "source": "made"})
        write_rows(tmp_path / f"train/documents/{file}.jsonl.gz", rows)
    write_rows(tmp_path / "items/documents/items.jsonl.gz", [row | {"source": "items"} for row in items])
    return found


def _arguments(*more: object) -> list[object]:
    arguments: list[object] = ["decontaminate", "--documents", "train/documents/*", "--evaluation", "items/documents/*"]
    return [*arguments, "--destination", "found", *more]


def _rows(path: str) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(Path(path))]


def _tree(path: Path) -> dict[str, str]:
    files = (file for file in path.rglob("*") if file.is_file() and ".dolma" not in file.parts)
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_planted_items_are_found_and_nothing_else(dolma: Dolma, planted: dict[str, list[str]]) -> None:
    result = dolma(*_arguments("--output", "clean"))
    matches = _rows("found/matches.jsonl.gz")
    by_document = {
        row["document"]: [one["item"] for one in matches if one["document"] == row["document"]] for row in matches
    }
    assert by_document == planted
    texts = {row["id"]: row["text"] for path in sorted(Path("train/documents").iterdir()) for _, row in read_rows(path)}
    items = {row["id"]: row["text"] for row in _rows("items/documents/items.jsonl.gz")}
    for row in matches:
        part = re.findall("[a-z0-9]+", texts[row["document"]][row["start"] : row["end"]].lower())
        of_item = items[row["item"]].split()
        assert part == of_item[row["item_start"] : row["item_start"] + row["units"]]
        assert row["share"] == pytest.approx(len(part) / len(of_item), abs=1e-6)
    kept = [row["id"] for path in sorted(Path("clean").glob("*.gz")) for _, row in read_rows(path)]
    assert sorted(kept) == sorted(texts.keys() - planted.keys())
    certificate = json.loads(Path("found/certificate.json").read_text())
    assert certificate["documents_in"] == 300
    assert (certificate["documents_removed"], certificate["documents_out"]) == (len(planted), 300 - len(planted))
    counts = certificate["counts"]
    assert (counts["items"], counts["items_too_short"], counts["items_matched"]) == (42, 1, len(planted))
    assert (counts["items_clean"], counts["items_not_clean"]) == (41 - len(planted), len(planted))
    assert certificate["training_sha256"] == read_manifest(Path("clean")).identity
    assert "1 of 42 items are too short to be found, such as task-short" in result.err
    assert not list(check_files(read_manifest(Path("found")), checksums=True))
    shares = {row["id"]: row["share"] for row in _rows("found/items.jsonl.gz")}
    assert shares["task-nine"] == 1
    assert sum(share > 0 for share in shares.values()) == len(planted)


@pytest.mark.parametrize("processes", [2, 8])
def test_the_bytes_do_not_depend_on_the_number_of_threads(
    dolma: Dolma, planted: dict[str, list[str]], processes: int, tmp_path: Path
) -> None:
    dolma(*_arguments("--output", "clean"))
    expected = [_tree(tmp_path / name) for name in ("found", "clean", "train/attributes")]
    for name in ("train/attributes", "found", "clean"):
        for file in sorted((tmp_path / name).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    dolma(*_arguments("--output", "clean", "--processes", processes))
    assert [_tree(tmp_path / name) for name in ("found", "clean", "train/attributes")] == expected


def test_a_second_run_changes_nothing(dolma: Dolma, planted: dict[str, list[str]], tmp_path: Path) -> None:
    dolma(*_arguments())
    expected = _tree(tmp_path)
    dolma(*_arguments())
    assert _tree(tmp_path) == expected


@pytest.mark.parametrize(
    ("rule", "train", "is_found"),
    [
        ("ngrams", "x a b c d e f g h i j k l m y", True),
        ("ngrams", "x a b c d e f g h i j k l y", False),
        ("tokens", "x a b c d e f g h i j q q q q o y", True),  # the first ten equal, four differ, then one equal
        ("tokens", "x a b c d e f g h i j q q q q q p y", False),
        ("tokens", "x a b c d e f g h q j k l m n o p y", False),  # one of the first ten differs
        ("characters", "(abcd) efgh ijklmnop", True),
        ("characters", "abcdefghijklmno", False),
        ("paragraphs", "x\n  a b c d e f g h i j k l m n o p \ny", True),
        ("paragraphs", "a b c d e f g h i j k l m n o p q", False),
    ],
)
def test_rules(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, train: str, is_found: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "items/documents/items.jsonl", [{"id": "one", "text": "a b c d e f g h i j k l m n o p"}])
    write_rows(tmp_path / "train/documents/0.jsonl", [{"id": "x", "text": train}])
    more = ["--min_length", 16] if rule == "characters" else []
    dolma(*_arguments("--rule", rule, *more))
    assert len(_rows("found/matches.jsonl.gz")) == is_found


def test_items_of_catwalk_are_read(dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items/documents").mkdir(parents=True)
    item = {"task": "copa", "id": "7", "context": "a b c d e f g h because", "continuations": [" i j k l m", " n"]}
    with gzip.open("items/documents/items.jsonl.gz", "wt") as file:
        file.write(json.dumps(item) + "\n")
    write_rows(tmp_path / "train/documents/0.jsonl", [{"id": "x", "text": "a b c d e f g h because i j k l m"}])
    dolma(*_arguments())
    assert [row["item"] for row in _rows("found/matches.jsonl.gz")] == ["copa-7"]


def test_what_is_wrong_is_named(dolma: Dolma, planted: dict[str, list[str]], tmp_path: Path) -> None:
    assert 'rule: is "ngram"; expected ngrams' in dolma(*_arguments("--rule", "ngram"), code=2).err
    short = tmp_path / "items/documents/short.jsonl"
    write_rows(short, [{"id": "task-1", "text": "w"}])
    assert 'has the id "task-1" at' in dolma(*_arguments(), code=2).err
    (tmp_path / "items/documents/items.jsonl.gz").unlink()
    assert "has 1 items, all too short for the rule ngrams" in dolma(*_arguments(), code=2).err
    short.write_text("")
    assert "evaluation: has no items" in dolma(*_arguments(), code=2).err
    short.write_text('{"id": "a"}\n')
    error = dolma(*_arguments(), code=1).err
    assert "short.jsonl:1" in error
    assert '"text"' in error


def test_an_index_of_other_items_does_not_mix_with_old_attributes(
    dolma: Dolma, planted: dict[str, list[str]], tmp_path: Path
) -> None:
    dolma(*_arguments())
    write_rows(tmp_path / "items/documents/more.jsonl", [{"id": "more", "text": " ".join(WORDS[:20])}])
    result = dolma(*_arguments(), code=2)
    assert "other settings" in result.err or "resources" in result.err


def test_a_skipped_row_does_not_shift_the_lines(dolma: Dolma, planted: dict[str, list[str]], tmp_path: Path) -> None:
    path = tmp_path / "train/documents/0.jsonl.gz"
    rows = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join([*rows[:5], b"not JSON\n", b'{"id": "no text"}\n', *rows[5:]])))
    dolma(*_arguments("--skip_bad_rows", 2))
    matches = _rows("found/matches.jsonl.gz")
    assert {row["document"] for row in matches} == planted.keys()
    lines = gzip.decompress(path.read_bytes()).splitlines()
    for row in matches:
        if row["path"].endswith("/0.jsonl.gz"):
            assert json.loads(lines[row["line"] - 1])["id"] == row["document"]
