"""The attributes of dolma 1.2.1, row by row, on real documents; every difference is one of its defects, by name.

The defects are described in ``docs/guide/differences.md``.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from oracle import corpus, oracle, ours, read_rows, theirs, write_rows

pytestmark = pytest.mark.oracle

SOURCES = ("c4", "docs", "genesis", "science_abstracts", "wiki")


class Pair:
    """The same documents twice, and what each tool makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = {who: folder / who for who in ("reference", "ours")}

    def link(self, files: list[Path]) -> None:
        for root in self.roots.values():
            (root / "documents").mkdir(parents=True)
            for file in files:
                (root / "documents" / file.name).symlink_to(file)

    def write(self, rows: list[dict[str, Any]]) -> None:
        for root in self.roots.values():
            write_rows(root / "documents" / "a.jsonl.gz", rows)

    def dedupe(self, dedupe: dict[str, Any], keys: int) -> list[tuple[str, Any, Any]]:
        """Text, the reference's attribute and ours of each document (None where it is absent)."""
        for who, root in self.roots.items():
            config = {
                "documents": [f"{root}/documents/*.gz"],
                "dedupe": {"name": "dup", **dedupe},
                "bloom_filter": {
                    "file": f"{root}/filter.bin",
                    "read_only": False,
                    "estimated_doc_count": keys,
                    "desired_false_positive_rate": 1e-9,
                },
                "processes": 1,
            }
            done = (ours if who == "ours" else theirs)("dedupe", config, root)
            assert done.returncode == 0, done.stderr
        texts = [row["text"] for row in read_rows(self.roots["ours"] / "documents")]
        reference = list(read_rows(self.roots["reference"] / "attributes"))
        found = list(read_rows(self.roots["ours"] / "attributes"))
        assert [row["id"] for row in found] == [row["id"] for row in reference]
        values = [[row["attributes"].get("k") for row in rows] for rows in (reference, found)]
        return list(zip(texts, *values, strict=True))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    oracle()
    return Pair(tmp_path)


def test_documents(pair: Pair) -> None:
    pair.link(corpus(*SOURCES, "reddit"))
    settings = {"documents": {"attribute_name": "k", "key": "$.text"}, "skip_empty": True, "min_length": 40}
    rows = pair.dedupe(settings, 50_000)
    assert all(reference == found for _, reference, found in rows)
    assert Counter(str(found)[:4] for _, _, found in rows).keys() == {"None", "[]", "[[0,"}


def test_documents_by_a_nested_key(pair: Pair) -> None:
    urls = ["http://a", "http://b", "http://a", "", "é", "é"]
    pair.write([{"id": str(i), "text": "x", "metadata": {"url": url}} for i, url in enumerate(urls)])
    rows = pair.dedupe({"documents": {"attribute_name": "k", "key": "$.metadata.url"}}, 100)
    assert [found for _, _, found in rows] == [None, None, [[0, 8, 1]], None, None, [[0, 2, 1]]]
    assert all(reference == found for _, reference, found in rows)


def test_paragraphs(pair: Pair) -> None:
    pair.link(corpus(*SOURCES))
    seen = Counter[str]()
    for text, reference, found in pair.dedupe({"paragraphs": {"attribute_name": "k"}}, 200_000):
        assert reference == as_reference(text, found)
        if reference != found:
            # an ASCII text: its final newline belongs to no paragraph; any other: the last span goes past the end
            seen["final-newline" if text.isascii() else "last-span-past-end"] += 1
    assert min(seen["final-newline"], seen["last-span-past-end"]) > 10


def as_reference(text: str, found: Any) -> Any:
    """Our spans with the bounds that 1.2.1 gives these paragraphs: it compares characters with a number of bytes."""
    if found is None:
        return None
    size_bytes, offset, start = len(text.encode()), 0, 0
    bounds = {}
    for paragraph in text.split("\n"):
        reference_start = offset
        offset += len(paragraph)
        offset += offset < size_bytes - 1
        # of an empty last paragraph both bounds are those of the text
        end = min(start + len(paragraph) + 1, len(text))
        bounds.setdefault((start, end), (reference_start, offset))
        start = end
    return [[*bounds[span[0], span[1]], span[2]] for span in found]


def test_thirteen_grams(pair: Pair) -> None:
    pair.link(corpus("docs"))
    by_ngram = {"ngram_length": 13, "stride": 0, "overlap_threshold": 0.5, "skip_short_paragraphs": True}
    rows = pair.dedupe({"paragraphs": {"attribute_name": "k", "by_ngram": by_ngram}}, 3_000_000)
    marked = sum(len(found or []) for _, _, found in rows)
    self_matches = 0
    for text, reference, found in rows:
        # scores are fractions rounded to 32 bits there, and not rounded here
        mine = {tuple(span[:2]): span[2] for span in as_reference(text, found) or []}
        expected = {tuple(span[:2]): span[2] for span in reference or []}
        assert mine.keys() <= expected.keys()
        for (start, end), score in expected.items():
            if mine.get((start, end)) != pytest.approx(score, abs=1e-6):
                # self-match: n-grams that repeat within the paragraph count as seen there
                assert repeats(text[start:end], 13)
                assert mine.get((start, end), 0.0) < score
                self_matches += 1
    assert marked > 1000
    assert 0 < self_matches < marked / 100


def repeats(paragraph: str, length: int) -> bool:
    """Whether an n-gram of characters that an n-gram of words could be stands twice in the paragraph."""
    squeezed = "".join(paragraph.split())
    grams = Counter(squeezed[i : i + length] for i in range(len(squeezed) - length + 1))
    return max(grams.values(), default=0) > 1


def test_short_paragraphs_are_compared_whole(pair: Pair) -> None:
    lines = [
        "one two three",
        "one two three four five six",
        "one two three",
        "seven",
        "seven",
        "one two three four five six",
    ]
    pair.write([{"id": "1", "text": "\n".join(lines)}])
    by_ngram = {"ngram_length": 3, "stride": 0, "overlap_threshold": 0.0, "skip_short_paragraphs": False}
    [(_, reference, found)] = pair.dedupe({"paragraphs": {"attribute_name": "k", "by_ngram": by_ngram}}, 1000)
    assert reference == found
    assert [span[2] for span in found] == [0.0, 0.25, 1.0, 0.0, 1.0, 1.0]


def test_stride_defect(pair: Pair) -> None:
    # 1.2.1 takes n-grams at 0, 1, 1 + stride, …, since 0 also stands for "none yet"; here 0, stride, 2 · stride, …
    text = " ".join("abcdefghij")
    pair.write([{"id": "1", "text": text}, {"id": "2", "text": text[2:]}])
    by_ngram = {"ngram_length": 2, "stride": 4, "overlap_threshold": 0.0, "skip_short_paragraphs": False}
    rows = pair.dedupe({"paragraphs": {"attribute_name": "k", "by_ngram": by_ngram}}, 1000)
    # ours: ab ef ij, then bc fg; 1.2.1: ab bc fg, then bc cd gh
    assert [found[0][2] for _, _, found in rows] == [0.0, 0.0]
    assert [reference[0][2] for _, reference, _ in rows] == pytest.approx([0.0, 1 / 3])


def test_min_words_defect(pair: Pair) -> None:
    # 1.2.1 compares nothing at all when min_words is set
    pair.write([{"id": str(i), "text": text} for i, text in enumerate(["one two three"] * 2 + ["one"] * 2)])
    rows = pair.dedupe({"documents": {"attribute_name": "k", "key": "$.text"}, "min_words": 2}, 100)
    assert [found for _, _, found in rows] == [None, [[0, 13, 1]], [], []]
    assert [reference for _, reference, _ in rows] == [None, None, [], []]


def test_min_length_of_paragraphs(pair: Pair) -> None:
    pair.write([{"id": "1", "text": "ab\nab\nab\nabcd\nabcd\néé\néé\nx"}])
    [(_, reference, found)] = pair.dedupe({"paragraphs": {"attribute_name": "k"}, "min_length": 3}, 100)
    assert reference == found == [[14, 19, 1]]


def test_legacy_filter_answers_alike(pair: Pair) -> None:
    pair.link(corpus("wiki"))
    pair.dedupe({"paragraphs": {"attribute_name": "k"}}, 10_000)
    root = pair.roots["ours"]
    with gzip.open(next((root / "documents").glob("*.gz")), "rt") as file:
        lines = [line for line in file][:20]
    reader = pair.folder / "reader"
    texts = [json.loads(line)["text"] + "\nnever seen before" for line in lines]
    write_rows(reader / "documents" / "a.jsonl.gz", [{"id": str(i), "text": text} for i, text in enumerate(texts)])
    config = {
        "documents": [f"{reader}/documents/*.gz"],
        "dedupe": {"name": "dup", "paragraphs": {"attribute_name": "k"}},
        "bloom_filter": {"file": f"{pair.roots['reference']}/filter.bin", "read_only": True},
    }
    done = ours("dedupe", config, reader)
    assert done.returncode == 0, done.stderr
    for text, row in zip(texts, read_rows(reader / "attributes"), strict=True):
        paragraphs = text.split("\n")
        assert len(row["attributes"]["k"]) == len(paragraphs) - 1
