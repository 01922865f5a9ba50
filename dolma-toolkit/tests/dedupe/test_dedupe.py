"""``dolma dedupe``: the first copy stays, whatever the number of threads, and nothing fails in silence."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, read_rows, write_rows

import dolma
from dolma.errors import FormatError

FILTER = {"file": "filter.bin", "estimated_doc_count": 10_000, "desired_false_positive_rate": 1e-9}
DOCUMENTS = {"documents": {"attribute_name": "dup", "key": "$.text"}}
PARAGRAPHS = {"paragraphs": {"attribute_name": "dup"}}
NGRAMS = {
    "paragraphs": {"attribute_name": "dup", "by_ngram": {"ngram_length": 3, "overlap_threshold": 0.3}},
}


def config(dedupe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    bloom_filter = {**FILTER, **changes.pop("bloom_filter", {})}
    return {"documents": ["documents/**/*.gz"], "dedupe": dedupe, "bloom_filter": bloom_filter, **changes}


def configured(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "dedupe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of documents made of few sentences, so that much repeats."""
    monkeypatch.chdir(tmp_path)
    randomness = random.Random(1)
    words = "stone river light naïve 東京 the a of".split()
    sentences = [" ".join(randomness.choices(words, k=randomness.randrange(1, 9))) for _ in range(60)]
    for name in ("b.jsonl.gz", "a.jsonl.gz", "deep/c.jsonl.gz"):
        rows = []
        for number in range(200):
            text = "\n".join(randomness.choices(sentences, k=randomness.randrange(4)))
            rows.append({"id": f"{name}-{number}", "text": text, "metadata": {"url": f"u{randomness.randrange(150)}"}})
        write_rows(tmp_path / "documents" / name, rows)
    return tmp_path


def marks(folder: Path, name: str = "dup") -> list[Any]:
    """The attribute of each document, in the order of the input."""
    files = sorted((folder / "attributes" / name).rglob("*.gz"), key=lambda path: str(path))
    return [row["attributes"].get(name) for file in files for row in read_rows(file)]


def texts(folder: Path) -> list[str]:
    files = sorted((folder / "documents").rglob("*.gz"), key=lambda path: str(path))
    return [row["text"] for file in files for row in read_rows(file)]


def expected_documents(texts: list[str]) -> list[Any]:
    seen = set[str]()
    found: list[Any] = []
    for text in texts:
        found.append([[0, len(text.encode()), 1]] if text in seen else None)
        seen.add(text)
    return found


def expected_paragraphs(texts: list[str]) -> list[Any]:
    seen = set[str]()
    found: list[Any] = []
    for text in texts:
        spans, start = [], 0
        for paragraph in text.split("\n"):
            end = min(start + len(paragraph) + 1, len(text))
            if paragraph in seen:
                spans.append([start, end, 1])
            seen.add(paragraph)
            start = end
        found.append(spans if text else None)
    return found


def test_the_first_document_stays(folder: Path) -> None:
    dolma.deduper(config(DOCUMENTS))
    assert marks(folder) == expected_documents(texts(folder))


def test_the_first_paragraph_stays(folder: Path) -> None:
    dolma.deduper(config(PARAGRAPHS))
    assert marks(folder) == expected_paragraphs(texts(folder))


@pytest.mark.parametrize("unit", [DOCUMENTS, PARAGRAPHS, NGRAMS], ids=["documents", "paragraphs", "ngrams"])
def test_threads_change_nothing(folder: Path, unit: dict[str, Any]) -> None:
    found = []
    for processes in (1, 2, 4):
        (folder / "filter.bin").unlink(missing_ok=True)
        dolma.deduper(config(unit, processes=processes))
        found.append((artifact_hashes(folder / "attributes" / "dup"), (folder / "filter.bin").read_bytes()))
    assert found[0] == found[1] == found[2]
    assert any(marks(folder))


def test_a_second_run_does_nothing(folder: Path, dolma: Dolma) -> None:
    path = configured(folder, config(PARAGRAPHS))
    dolma("-c", path, "dedupe")
    before = artifact_hashes(folder / "attributes" / "dup")
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.gz")}
    assert "nothing to do" in dolma("-c", path, "dedup").err
    assert artifact_hashes(folder / "attributes" / "dup") == before
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.gz")} == times


def test_a_filter_that_holds_the_inputs_is_refused(folder: Path, dolma: Dolma) -> None:
    dolma("-c", configured(folder, config(DOCUMENTS)), "dedupe")
    result = dolma("-c", configured(folder, config({**DOCUMENTS, "skip_empty": True})), "dedupe", code=2)
    assert "already has the keys of" in result.err
    assert "To start again, delete the filter. To compare only, set bloom_filter.read_only" in result.err
    (folder / "filter.bin").unlink()
    assert "replaced 3 attribute files" in dolma("-c", folder / "dedupe.yaml", "dedupe").err
    assert marks(folder).count([]) == texts(folder).count("")


def test_attributes_that_were_deleted_are_not_made_from_a_full_filter(folder: Path, dolma: Dolma) -> None:
    path = configured(folder, config(DOCUMENTS))
    dolma("-c", path, "dedupe")
    (folder / "attributes" / "dup" / "a.jsonl.gz").unlink()
    assert "attributes of that run are missing" in dolma("-c", path, "dedupe", code=2).err


def test_a_filter_grows_with_more_documents(folder: Path) -> None:
    dolma.deduper(config({**DOCUMENTS, "name": "dup"}))
    expected = marks(folder)
    (folder / "filter.bin").unlink()
    for name in ("a.jsonl.gz", "b.jsonl.gz", "deep/c.jsonl.gz"):
        dolma.deduper({**config({**DOCUMENTS, "name": "step"}), "documents": [f"documents/{name}"]})
    files = sorted((folder / "attributes" / "step").rglob("*.gz"), key=lambda path: str(path))
    assert [row["attributes"].get("dup") for file in files for row in read_rows(file)] == expected
    manifest = json.loads((folder / "attributes" / "step" / "manifest.json").read_text())
    assert [entry["path"] for entry in manifest["files"]] == ["a.jsonl.gz", "b.jsonl.gz", "deep/c.jsonl.gz"]
    assert manifest["counts"]["documents"] == 600
    before = [entry["path"] for entry in manifest["inputs"] if entry["role"] == "filter"]
    assert set(before) == {"../../filter.bin#before"}
    command = [sys.executable, "-m", "dolma.formats", "lineage", "attributes/step"]
    assert "filter.bin#before" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_evaluation_text_is_remembered_and_recognized(folder: Path) -> None:
    secret = "this paragraph stands in the test set"
    write_rows(folder / "held" / "documents" / "a.gz", [{"id": "1", "text": f"{secret}\n\nshort"}])
    remember = {**config({**PARAGRAPHS, "min_words": 4}), "documents": ["held/documents/*.gz"]}
    dolma.deduper(remember)
    write_rows(folder / "documents" / "z.gz", [{"id": "z", "text": f"é\n{secret}\nshort\n{secret}"}])
    before = (folder / "filter.bin").read_bytes()
    dolma.deduper(config({**PARAGRAPHS, "min_words": 4}, bloom_filter={"read_only": True}))
    assert marks(folder)[-1] == [[2, 40, 1], [46, 83, 1]]
    assert not any(marks(folder)[:-1])
    assert (folder / "filter.bin").read_bytes() == before


def test_a_read_only_filter_has_to_be_there(folder: Path, dolma: Dolma) -> None:
    path = configured(folder, config(DOCUMENTS, bloom_filter={"read_only": True}))
    assert 'filter.bin" not found' in dolma("-c", path, "dedupe", code=2).err
    assert not (folder / "attributes").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_partitions_share_the_keys(folder: Path, shared: bool) -> None:
    names = [f"dup_{index}" for index in range(3)]
    for index in range(3):
        unit = {**PARAGRAPHS, "num_partitions": 3, "partition_index": index}
        dolma.deduper(config(unit, bloom_filter={"file": "filter.bin" if shared else f"filter-{index}.bin"}))
    found = [marks(folder, name) for name in names]
    together = [
        None if parts[0] is None else sorted(span for part in parts for span in part)
        for parts in zip(*found, strict=True)
    ]
    assert together == expected_paragraphs(texts(folder))


def test_file_partitions_share_the_files(folder: Path) -> None:
    for index in range(2):
        unit = {**DOCUMENTS, "num_partitions": 2, "partition_index": index, "file_partition": True}
        dolma.deduper(config(unit, bloom_filter={"file": f"filter-{index}.bin"}))
    names = [path.name for index in range(2) for path in (folder / f"attributes/dup_{index}").rglob("*.gz")]
    assert sorted(names) == ["a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('{"id": "1"', "not_json", "the line is not JSON"),
        ('{"id": "1", "metadata": {}}', "missing_field", '"text" is missing'),
        ('{"id": "1", "text": "", "metadata": {}}', "missing_field", "the key $.metadata.url is missing"),
        (
            '{"id": "1", "text": "", "metadata": {"url": [3]}}',
            "wrong_type",
            "is an array; expected a string or a number",
        ),
        ("", "not_json", "blank"),
    ],
)
def test_bad_rows_are_told_with_their_place(folder: Path, line: str, code: str, words: str) -> None:
    path = folder / "documents" / "b.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + line.encode() + b"\n"))
    with pytest.raises(FormatError, match="expected") as caught:
        dolma.deduper(config({"documents": {"attribute_name": "dup", "key": "$.metadata.url"}}))
    assert (caught.value.path, caught.value.line, caught.value.code) == ("documents/b.jsonl.gz", 201, code)
    assert words in str(caught.value)
    assert not (folder / "filter.bin").exists()
    assert not (folder / "attributes/dup/manifest.json").exists()
    assert not (folder / "attributes/dup/b.jsonl.gz").exists()


def test_a_truncated_file_is_an_error(folder: Path, dolma: Dolma) -> None:
    path = folder / "documents" / "b.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    result = dolma("-c", configured(folder, config(DOCUMENTS)), "dedupe", code=1)
    assert "documents/b.jsonl.gz: the compressed file ends early" in result.err
    assert not (folder / "filter.bin").exists()


def test_all_mistakes_are_told_at_once(folder: Path, dolma: Dolma) -> None:
    settings = config({"min_words": -1, "num_partition": 2, "partition_index": 3}, processes=0)
    result = dolma("-c", configured(folder, settings), "dedupe", code=2)
    assert "dedupe.num_partition: unknown setting" in result.err
    del settings["dedupe"]["num_partition"]
    settings["bloom_filter"] = {"file": "f.bin"}
    result = dolma("-c", configured(folder, settings), "dedupe", code=2)
    for words in ("expected one of documents", "dedupe.min_words", "partition_index", "processes", "has no size"):
        assert words in result.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dedupe": {"documents": {"attribute_name": "d", "key": "text"}}}, "which is not a JSONPath"),
        ({"documents": ["nothing/documents/*.gz"]}, "matches no file"),
        ({"documents": ["filter/*.gz"]}, "matches no file"),
        ({"bloom_filter": {"file": "f", "estimated_doc_count": 10**13, "desired_false_positive_rate": 1e-9}}, "GiB"),
        ({"compression": {"output": "zst"}}, 'is "zst"; expected "gz"'),
        ({"is_s3_volume": True}, "cannot rename"),
        ({"bloom_filter": {**FILTER, "file": "documents"}}, "a directory; expected a file"),
    ],
)
def test_requests_that_cannot_be_met(folder: Path, dolma: Dolma, changes: dict[str, Any], words: str) -> None:
    result = dolma("-c", configured(folder, {**config(DOCUMENTS), **changes}), "dedupe", code=2)
    assert words in result.err
    assert not (folder / "attributes").exists()


def test_a_foreign_file_is_no_filter(folder: Path, dolma: Dolma) -> None:
    (folder / "filter.bin").write_bytes(b"something else entirely")
    result = dolma("-c", configured(folder, config(DOCUMENTS)), "dedupe", code=1)
    assert "a Bloom filter" in result.err


def test_dryrun_writes_nothing(folder: Path, dolma: Dolma) -> None:
    result = dolma("-c", configured(folder, config(DOCUMENTS)), "dedupe", "--dryrun")
    assert "# attributes/dup/deep/c.jsonl.gz" in result.out
    assert not (folder / "attributes").exists()


def test_the_manifest_names_what_the_marks_depend_on(folder: Path) -> None:
    dolma.deduper(config(DOCUMENTS))
    manifest = json.loads((folder / "attributes/dup/manifest.json").read_text())
    assert manifest["details"]["byte_length_keys"] == ["dup"]
    assert manifest["details"]["keys"] == ["dup"]
    assert {entry["role"] for entry in manifest["inputs"]} == {"documents"}
    dolma.deduper(config({**DOCUMENTS, "name": "again"}, bloom_filter={"read_only": True}))
    manifest = json.loads((folder / "attributes/again/manifest.json").read_text())
    assert [entry["path"] for entry in manifest["inputs"] if entry["role"] == "filter"] == ["../../filter.bin"]
    rows = [row for file in (folder / "attributes/again").rglob("*.gz") for row in read_rows(file)]
    assert all(row["attributes"]["dup"] for row in rows)


@pytest.mark.processes
@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_killed_and_continued(folder: Path, delay_s: float) -> None:
    for number in range(12):
        source = folder / "documents" / "a.jsonl.gz"
        (folder / "documents" / f"more-{number:02d}.jsonl.gz").write_bytes(source.read_bytes())
    path = configured(folder, config(NGRAMS, processes=2))
    command = [sys.executable, "-m", "dolma", "-c", str(path), "dedupe"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / "attributes").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    found = artifact_hashes(folder / "attributes" / "dup"), (folder / "filter.bin").read_bytes()
    assert [file.name for file in folder.rglob(".*") if file.is_file()] == []
    (folder / "filter.bin").unlink()
    for file in (folder / "attributes").rglob("*.gz"):
        file.unlink()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    assert found == (artifact_hashes(folder / "attributes" / "dup"), (folder / "filter.bin").read_bytes())


def test_spellings_of_one_address_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    urls = ["http://www.x.org/a/", "https://x.org/a?utm_source=mail", "https://x.org/A", "x.org/a#part"]
    rows = [{"id": str(n), "text": "", "metadata": {"url": url}} for n, url in enumerate(urls)]
    write_rows(tmp_path / "documents" / "a.jsonl.gz", rows)
    unit = {"attribute_name": "dup", "key": "$.metadata.url", "normalize": "url"}
    dolma.deduper(config({"documents": unit}))
    assert marks(tmp_path) == [None, [[0, len(urls[1]), 1]], None, [[0, len(urls[3]), 1]]]
    manifest = json.loads((tmp_path / "attributes/dup/manifest.json").read_text())
    assert manifest["config"]["dedupe"]["unit"]["documents"]["normalize"] == "url"


def test_an_unknown_normalization_is_refused(folder: Path, dolma: Dolma) -> None:
    path = configured(folder, config({"documents": {**DOCUMENTS["documents"], "normalize": "urls"}}))
    assert 'dedupe.documents.normalize: is "urls"; expected url' in dolma("-c", path, "dedupe", code=2).err


def test_wrong_rows_are_listed(folder: Path, dolma: Dolma) -> None:
    source = folder / "documents" / "a.jsonl.gz"
    rows = read_rows(source)
    write_rows(source, [*rows[:3], {"id": "x", "text": 5}, {"id": "y"}])
    path = configured(folder, config(DOCUMENTS))
    dolma("-c", path, "dedupe", code=1)
    listed = read_rows(folder / "attributes/dup/.dolma/errors.ndjson")
    assert [(row["code"], row["line"]) for row in listed] == [("wrong_type", 4), ("missing_field", 5)]
    assert all(row["path"].endswith("a.jsonl.gz") for row in listed)
    write_rows(source, rows)
    dolma("-c", path, "dedupe")
    assert not (folder / "attributes/dup/.dolma/errors.ndjson").exists()


def test_a_leftover_temporary_file_hides_nothing(folder: Path) -> None:
    """dolma 1.2.1 skips a file whose output has a ``.tmp`` beside it, with exit code 0."""
    for name in ("a.jsonl.gz.tmp", ".a.jsonl.gz.partial"):
        path = folder / "attributes" / "dup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    dolma.deduper(config(DOCUMENTS))
    assert marks(folder) == expected_documents(texts(folder))


def test_attributes_that_something_else_made_are_not_replaced(folder: Path, dolma: Dolma) -> None:
    dolma("tag", "--documents", "documents/**/*.gz", "--taggers", "char_length_v1", "--experiment", "lengths")
    theirs = folder / "attributes" / "other" / "a.jsonl.gz"
    write_rows(theirs, [{"id": "1", "attributes": {}}])
    for name, other in (("lengths", "a.jsonl.gz"), ("other", "a.jsonl.gz")):
        before = {file: file.read_bytes() for file in (folder / "attributes" / name).rglob("*") if file.is_file()}
        path = configured(folder, config({**DOCUMENTS, "name": name}))
        result = dolma("-c", path, "dedupe", code=2)
        assert f"holds {other}, which another command or tool made" in result.err
        assert {file: file.read_bytes() for file in before} == before
    assert not (folder / "filter.bin").exists()


def test_an_oversized_filter_is_refused_before_it_is_made(folder: Path, dolma: Dolma) -> None:
    """dolma 1.2.1 allocates whatever a mistyped number asks for."""
    path = configured(folder, config(DOCUMENTS, bloom_filter={"estimated_doc_count": 10**15}))
    assert "expected at most the" in dolma("-c", path, "dedupe", code=2).err
    assert not (folder / "filter.bin").exists()


def distinct(folder: Path, count: int, name: str = "documents/many.jsonl") -> None:
    for old in (folder / "documents").rglob("*.gz"):
        old.unlink()
    lines = [f"line {number} of a corpus in which no line stands twice" for number in range(count)]
    rows = [{"id": str(n), "text": "\n".join(lines[n : n + 10])} for n in range(0, count, 10)]
    write_rows(folder / name, rows)


@pytest.mark.parametrize("unit", ["paragraphs", "ngrams", "documents"])
def test_a_filter_for_too_few_keys_grows(folder: Path, unit: str, caplog: pytest.LogCaptureFixture) -> None:
    distinct(folder, 20_000)
    dedupe = {"paragraphs": PARAGRAPHS, "ngrams": NGRAMS, "documents": DOCUMENTS}[unit]
    few = {
        "bloom_filter": {"estimated_doc_count": 20, "desired_false_positive_rate": 1e-3},
        "documents": ["documents/*"],
    }
    dolma.deduper(config(dedupe, **few))
    marked = [
        mark
        for mark in (row["attributes"].get("dup") for row in read_rows(folder / "attributes/dup/many.jsonl"))
        if mark
    ]
    if unit != "ngrams":  # n-grams do repeat: "of a corpus"
        assert sum(map(len, marked)) <= {"paragraphs": 60, "documents": 6}[unit]
    assert "estimated_doc_count is 20, but there are more keys" in caplog.text
    # the filter and the attributes are the same as with the larger estimate
    first = artifact_hashes(folder / "attributes/dup"), (folder / "filter.bin").read_bytes()
    (folder / "filter.bin").unlink()
    dolma.deduper(config(dedupe, processes=3, **few))
    assert first == (artifact_hashes(folder / "attributes/dup"), (folder / "filter.bin").read_bytes())


def test_a_filter_that_cannot_grow_stops_the_run(folder: Path, dolma: Dolma) -> None:
    distinct(folder, 20_000)
    by_size = config(PARAGRAPHS, documents=["documents/*"])
    by_size["bloom_filter"] = {"file": "filter.bin", "size_in_bytes": 1000}
    result = dolma("-c", configured(folder, by_size), "dedupe", code=1)
    assert "of new keys as seen; expected at most 1.00 %" in result.err
    assert not (folder / "filter.bin").exists()
    assert not (folder / "attributes/dup/manifest.json").exists()
    # a filter with keys of another run keeps its size
    distinct(folder, 100)
    rate = {"estimated_doc_count": 100, "desired_false_positive_rate": 1e-3}
    dolma("-c", configured(folder, config(PARAGRAPHS, bloom_filter=rate, documents=["documents/*"])), "dedupe")
    before = (folder / "filter.bin").read_bytes()
    (folder / "documents/many.jsonl").unlink()
    distinct(folder, 20_000, "documents/more.jsonl")
    more = config({**PARAGRAPHS, "name": "more"}, bloom_filter=rate, documents=["documents/more.jsonl"])
    assert "expected at most 0.10 %" in dolma("-c", configured(folder, more), "dedupe", code=1).err
    assert (folder / "filter.bin").read_bytes() == before


def test_an_overfull_filter_is_not_used(folder: Path, dolma: Dolma) -> None:
    distinct(folder, 1000)
    rate = {"estimated_doc_count": 1000, "desired_false_positive_rate": 1e-2}
    dolma("-c", configured(folder, config(PARAGRAPHS, bloom_filter=rate, documents=["documents/*"])), "dedupe")
    asked = config({**PARAGRAPHS, "name": "asked"}, documents=["documents/*"])
    asked["bloom_filter"] = {"file": "filter.bin", "read_only": True, "desired_false_positive_rate": 1e-6}
    assert "of new keys as seen; expected at most" in dolma("-c", configured(folder, asked), "dedupe", code=1).err
    asked["bloom_filter"] = {"file": "filter.bin", "read_only": True}
    dolma("-c", configured(folder, asked), "dedupe")


def test_a_separator_from_the_command_line(folder: Path, dolma: Dolma) -> None:
    distinct(folder, 10)
    write_rows(folder / "documents/many.jsonl", [{"id": str(n), "text": f"same\n\n{n}"} for n in range(2)])
    arguments = ["dedupe", "--documents", "documents/*", "--dedupe.paragraphs.attribute_name"]
    size = ["--bloom_filter.estimated_doc_count", "10", "--bloom_filter.desired_false_positive_rate", "1e-6"]
    found = dolma(
        *arguments, "dup", "--dedupe.paragraphs.paragraph_separator", r"\n\n", "--bloom_filter.file", "f.bin", *size
    )
    assert "1 of 4 paragraphs marked" in found.err
    never = ["--dedupe.paragraphs.paragraph_separator", "|", "--bloom_filter.file", "g.bin"]
    assert 'the paragraph_separator "|" never occurs' in dolma(*arguments, "other", *never, *size).err


def test_the_hint_for_a_growing_directory_works(folder: Path, dolma: Dolma) -> None:
    distinct(folder, 10)
    dolma("-c", configured(folder, config(PARAGRAPHS, documents=["documents/*"])), "dedupe")
    write_rows(
        folder / "documents/new.jsonl", [{"id": "n", "text": "line 3 of a corpus in which no line stands twice"}]
    )
    result = dolma("-c", configured(folder, config(PARAGRAPHS, documents=["documents/*"])), "dedupe", code=2)
    assert "list only the new files" in result.err
    dolma("-c", configured(folder, config(PARAGRAPHS, documents=["documents/new.jsonl"])), "dedupe")
    assert read_rows(folder / "attributes/dup/new.jsonl")[0]["attributes"]["dup"]


def test_a_filter_of_version_2_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`filter_v2.bin` and the hashes are of the release before version 3, which made them from these documents."""
    monkeypatch.chdir(tmp_path)
    filter_file = tmp_path / "filter.bin"
    filter_file.write_bytes((Path(__file__).parent / "filter_v2.bin").read_bytes())
    words = "stone river light naïve 東京 the a of it's 3.5".split()
    randomness = random.Random(40)
    rows = []
    for number in range(40, 80):
        lines = [" ".join(randomness.choices(words, k=randomness.randrange(1, 12))) for _ in range(3)]
        rows.append({"id": str(number), "text": "\n".join(lines), "source": "s"})
    documents = tmp_path / "corpus/documents/new.jsonl"
    documents.parent.mkdir(parents=True)
    documents.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    by_ngram = {"ngram_length": 3, "overlap_threshold": 0.5}
    dolma.deduper(
        {
            "documents": ["corpus/documents/new.jsonl"],
            "dedupe": {"name": "new", "paragraphs": {"attribute_name": "dup", "by_ngram": by_ngram}},
            "bloom_filter": {
                "file": "filter.bin",
                "read_only": False,
                "estimated_doc_count": 1000,
                "desired_false_positive_rate": 1e-4,
            },
        }
    )
    attributes = tmp_path / "corpus/attributes/new/new.jsonl"
    found = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (attributes, filter_file)]
    assert found == [
        "ef239245243177ccd442555cf1ada12d668fe57789bec12b63eeeb08392fc327",
        "573c4b005c9ffaa64704466c2fec03a1c061bfe0d717f82d554b5eb48680076e",
    ]
