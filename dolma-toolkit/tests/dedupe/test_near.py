"""``dolma dedupe`` with an index: near-duplicates are found, clusters do not depend on how the work was divided."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, find_shared_data, read_rows, write_rows

from dolma.lsh import Banding, banding

MINHASH = {"minhash": {"attribute_name": "near"}}


def config(unit: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"documents": ["documents/*"], "dedupe": unit or MINHASH, "index": "index", **changes}


def write_config(folder: Path, settings: dict[str, Any], name: str = "dedupe.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path


def planted(seed: int = 0, documents: int = 150) -> list[str]:
    """Texts of 60 to 400 words, with copies in which up to 3 % of the words are others, in random order."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(3000)]
    texts = []
    for _ in range(documents):
        text = draw.choices(vocabulary, k=draw.randrange(60, 400))
        texts.append(" ".join(text))
        for _ in range(draw.randrange(3)):
            copy = list(text)
            for position in draw.sample(range(len(copy)), k=draw.randrange(1 + len(copy) * 3 // 100)):
                copy[position] = draw.choice(vocabulary)
            texts.append(" ".join(copy))
    draw.shuffle(texts)
    return texts


def ngrams(text: str, length: int = 5) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[start : start + length]) for start in range(max(1, len(words) - length + 1))}


def similarities(sets: list[set[Any]]) -> dict[tuple[int, int], float]:
    """By definition, of all pairs that share anything."""
    owners = defaultdict(list)
    for number, grams in enumerate(sets):
        for gram in grams:
            owners[gram].append(number)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for numbers in owners.values():
        for pair in itertools.combinations(numbers, 2):
            shared[pair] += 1
    return {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in shared.items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five files of planted near-duplicates, below a directory of their own."""
    root = tmp_path / "corpus"
    texts = planted()
    for number in range(5):
        rows = [{"id": f"{number}-{k}", "text": text} for k, text in enumerate(texts[number::5])]
        write_rows(root / "documents" / f"{number}.jsonl.gz", rows)
    monkeypatch.chdir(root)
    return root


def texts_of(folder: Path) -> list[str]:
    return [row["text"] for file in sorted((folder / "documents").iterdir()) for row in read_rows(file)]


def found(folder: Path, name: str = "near") -> list[dict[str, Any]]:
    """The attributes of each document, in the order of the input."""
    files = sorted((folder / "attributes" / name).glob("*.gz"))
    return [row["attributes"] for file in files for row in read_rows(file)]


def cluster_of(attributes: list[dict[str, Any]], name: str = "near") -> list[int | None]:
    clusters = [row.get(f"{name}__cluster") for row in attributes]
    return [None if spans is None else spans[0][2] for spans in clusters]


def written(folder: Path) -> tuple[dict[str, str], str]:
    return artifact_hashes(folder / "attributes" / "near"), (folder / "index" / "index.json").read_text("utf-8")


def clean(folder: Path) -> None:
    shutil.rmtree(folder / "index")
    shutil.rmtree(folder / "attributes")


def recall_and_precision(clusters: list[int | None], pairs: dict[tuple[int, int], float]) -> tuple[float, float, float]:
    """Share of the pairs of similarity 0.85 that are found; shares of the found pairs that have 0.85, and 0.5."""
    similar = [pair for pair, similarity in pairs.items() if similarity >= 0.85]
    together = [(a, b) for a, b in similar if clusters[a] is not None and clusters[a] == clusters[b]]
    members = defaultdict(list)
    for document, cluster in enumerate(clusters):
        if cluster is not None:
            members[cluster].append(document)
    joined = [pair for documents in members.values() for pair in itertools.combinations(documents, 2)]
    precise = [sum(pairs.get(pair, 0.0) >= least for pair in joined) / len(joined) for least in (0.85, 0.5)]
    return len(together) / len(similar), precise[0], precise[1]


def test_planted_near_duplicates_are_found(folder: Path, dolma: Dolma) -> None:
    said = dolma("-c", write_config(folder, config()), "dedupe").err
    assert "22 bands of 10 rows" in said
    rows = found(folder)
    recall, precision, loose = recall_and_precision(cluster_of(rows), similarities([*map(ngrams, texts_of(folder))]))
    assert recall >= 0.98
    assert precision >= 0.5  # with as many pairs planted at 0.7 to 0.85, of which half are found
    assert loose == 1.0


def test_attributes_say_what_the_clusters_are(folder: Path, dolma: Dolma) -> None:
    dolma("-c", write_config(folder, config()), "dedupe")
    texts, rows = texts_of(folder), found(folder)
    clusters = cluster_of(rows)
    members = defaultdict(list)
    for number, cluster in enumerate(clusters):
        members[cluster].append(number)
    assert len(members) > 50
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        cluster = clusters[number]
        if cluster is None:
            assert row == {}
            continue
        first, size, length = members[cluster][0], len(members[cluster]), len(text.encode())
        assert cluster == first  # its number in the index
        mark = {"near": [[0, length, 1]]} if number != first else {}
        assert row == {**mark, "near__cluster": [[0, length, cluster]], "near__size": [[0, length, size]]}
    manifest = json.loads((folder / "attributes/near/manifest.json").read_text("utf-8"))
    keys = ["near", "near__cluster", "near__size"]
    assert manifest["details"]["keys"] == manifest["details"]["byte_length_keys"] == keys
    assert manifest["config"]["dedupe"]["unit"]["minhash"]["bands"] == 22


def test_threads_change_nothing(folder: Path, dolma: Dolma) -> None:
    results = []
    for processes in (1, 2, 8):
        dolma("-c", write_config(folder, config(processes=processes)), "dedupe")
        results.append(written(folder))
        clean(folder)
    assert results[0] == results[1] == results[2]


def test_a_second_run_does_nothing(folder: Path, dolma: Dolma) -> None:
    path = write_config(folder, config())
    dolma("-c", path, "dedupe")
    files = [file for file in folder.rglob("*") if file.is_file() and ".dolma" not in str(file)]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert "nothing to do" in dolma("-c", path, "dedupe").err
    assert before == {file: file.stat().st_mtime_ns for file in before}


@pytest.mark.parametrize("parts", [[2, 3], [1, 1, 3]])
def test_a_later_run_finds_the_clusters_of_one_run(folder: Path, dolma: Dolma, parts: list[int]) -> None:
    dolma("-c", write_config(folder, config()), "dedupe")
    expected = found(folder)
    at_once = {file.name: file.read_bytes() for file in (folder / "attributes/near").glob("*.gz")}
    clean(folder)
    start = 0
    for part in parts:
        files = [f"documents/{number}.jsonl.gz" for number in range(start, start + part)]
        dolma("-c", write_config(folder, config(documents=files)), "dedupe")
        start += part
    rows = found(folder)
    last = sum(len(read_rows(folder / f"documents/{number}.jsonl.gz")) for number in range(5 - parts[-1]))
    assert rows[last:] == expected[last:]  # those of the last run know all documents
    # what was written before may be read again from the index
    dolma("-c", write_config(folder, config()), "dedupe")
    assert {file.name: file.read_bytes() for file in (folder / "attributes/near").glob("*.gz")} == at_once
    assert len(json.loads((folder / "index/index.json").read_text("utf-8"))["runs"]) == len(parts)


def test_an_earlier_run_has_the_copy_that_stays(folder: Path, dolma: Dolma) -> None:
    longest = {"minhash": {"attribute_name": "near", "keep": "longest"}}
    text = " ".join(f"w{number}" for number in range(100))
    for name, texts in {"a": [f"{text} x", text], "b": [f"{text} y z", text]}.items():
        write_rows(folder / f"more/documents/{name}.jsonl.gz", [{"id": str(n), "text": t} for n, t in enumerate(texts)])
        settings = config(longest, documents=[f"more/documents/{name}.jsonl.gz"])
        dolma("-c", write_config(folder, settings), "dedupe")
    rows = found(folder / "more")
    assert ["near" in row for row in rows] == [False, True, True, True]
    assert [row["near__size"][0][2] for row in rows] == [2, 2, 4, 4]


@pytest.mark.parametrize(("keep", "kept"), [("first", 0), ("longest", 1), ("highest", 2)])
def test_which_copy_stays(folder: Path, dolma: Dolma, keep: str, kept: int) -> None:
    text = " ".join(f"w{number}" for number in range(100))
    rows = [{"id": str(n), "text": text + " x" * (n == 1), "metadata": {"q": q}} for n, q in enumerate([0.1, 0.2, 0.3])]
    write_rows(folder / "more/documents/a.jsonl.gz", rows)
    unit = {"attribute_name": "near", "keep": keep} | ({"score": "$.metadata.q"} if keep == "highest" else {})
    dolma("-c", write_config(folder, config({"minhash": unit}, documents=["more/documents/*"])), "dedupe")
    assert [n for n, row in enumerate(found(folder / "more")) if "near" not in row] == [kept]


def test_a_tagger_decides_which_copy_stays(folder: Path, dolma: Dolma) -> None:
    """In one run: the attributes are written before documents are compared."""
    score = {"keep": "highest", "score": "$.attributes.q__random_number_v1__random[0][2]", "attributes": ["q"]}
    stages = [
        {"tag": {"experiment": "q", "taggers": ["random_number_v1"]}},
        {"dedupe": {"dedupe": {"minhash": {"attribute_name": "near", **score}}, "index": "index"}},
        {
            "mix": {
                "streams": [
                    {
                        "name": "all",
                        "attributes": ["near", "q"],
                        "filter": {"exclude": ["$.attributes[?(@.near && @.near[0])]"]},
                        "output": {"path": "mixed", "max_size_in_bytes": 1_000_000},
                    }
                ]
            }
        },
    ]
    settings = {"documents": ["documents/*"], "stages": [{**stage, "keep": True} for stage in stages[:2]] + stages[2:]}
    dolma("run", write_config(folder, settings))
    best: dict[Any, float] = {}
    scores = [row["q__random_number_v1__random"][0][2] for row in found(folder, "q")]
    for number, (cluster, score_of) in enumerate(zip(cluster_of(found(folder)), scores, strict=True)):
        key = ("alone", number) if cluster is None else cluster
        best[key] = max(best.get(key, 0.0), score_of)
    kept = [row for file in sorted((folder / "mixed").rglob("*.gz")) for row in read_rows(file)]
    assert sorted(row["attributes"]["q__random_number_v1__random"][0][2] for row in kept) == sorted(best.values())


def test_a_document_without_the_score_is_an_error(folder: Path, dolma: Dolma) -> None:
    unit = {"minhash": {"attribute_name": "near", "keep": "highest", "score": "$.metadata.q"}}
    said = dolma("-c", write_config(folder, config(unit)), "dedupe", code=1).err
    assert "the score $.metadata.q is missing; expected a number" in said


def test_short_documents_are_not_compared(folder: Path, dolma: Dolma) -> None:
    texts = ["one two three", "one two three", "", "  …  ", "One, two: THREE four", "one two three four"]
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    write_rows(folder / "more/documents/a.jsonl.gz", rows)
    settings = config({**MINHASH, "min_words": 4}, documents=["more/documents/*"])
    dolma("-c", write_config(folder, settings), "dedupe")
    rows = found(folder / "more")
    assert rows[:4] == [{"near": []}] * 4
    assert cluster_of(rows) == [None, None, None, None, 4, 4]


def test_an_index_with_other_parameters_is_refused(folder: Path, dolma: Dolma) -> None:
    dolma("-c", write_config(folder, config()), "dedupe")
    before = written(folder)
    other = {"minhash": {"attribute_name": "near", "similarity": 0.7, "ngram_length": 3}}
    said = dolma("-c", write_config(folder, config(other)), "dedupe", code=2).err
    assert 'index: is "index", which was made with other parameters' in said
    for difference in ("ngram_length 5 (here 3)", "rows 10 (here 6)"):
        assert difference in said
    assert written(folder) == before


def test_a_file_that_changed_is_refused(folder: Path, dolma: Dolma) -> None:
    path = write_config(folder, config())
    dolma("-c", path, "dedupe")
    write_rows(folder / "documents" / "3.jsonl.gz", [{"id": "x", "text": "another text"}])
    said = dolma("-c", path, "dedupe", code=2).err
    assert 'documents: has "corpus/documents/3.jsonl.gz" with other content than "index" knows it with' in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": None}, "index: is missing"),
        ({"bloom_filter": {"file": "x", "read_only": True}}, "bloom_filter: is given; expected index alone"),
        ({"dedupe": {"minhash": {"attribute_name": "a", "keep": "best"}}}, 'keep: is "best"; expected first'),
        ({"dedupe": {"minhash": {"attribute_name": "a", "bands": 3}}}, "bands and dedupe.minhash.rows: are 3 and 0"),
        ({"dedupe": {"minhash": {"attribute_name": "a", "similarity": 1.0}}}, "similarity: is 1.0; expected more than"),
        ({"dedupe": {"minhash": {"attribute_name": "a", "keep": "highest"}}}, "score: decides if keep is highest"),
        ({"dedupe": {**MINHASH, "paragraphs": {"attribute_name": "b"}}}, "are both given; expected one of documents"),
        ({"dedupe": {**MINHASH, "num_partitions": 2}}, "num_partitions: has no use for an index"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, dolma: Dolma, changes: dict[str, Any], message: str) -> None:
    assert message in dolma("-c", write_config(folder, config() | changes), "dedupe", code=2).err


@pytest.mark.processes
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2])
def test_killed_and_continued(folder: Path, delay_s: float) -> None:
    for number in range(5, 20):
        write_rows(
            folder / "documents" / f"{number}.jsonl.gz",
            [{"id": str(k), "text": text} for k, text in enumerate(planted(number))],
        )
    path = write_config(folder, config(processes=2))
    command = [sys.executable, "-m", "dolma", "-c", str(path), "dedupe"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / "index").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    killed = written(folder)
    assert not list(folder.glob("index/found-*"))
    clean(folder)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    assert written(folder) == killed


def test_shards_write_what_one_run_writes(folder: Path, dolma: Dolma) -> None:
    stages = [{"dedupe": {"dedupe": MINHASH, "index": "index"}}]
    path = write_config(folder, {"documents": ["documents/*"], "stages": stages}, "run.yaml")
    dolma("run", path)
    expected = written(folder)
    clean(folder)
    waits = True
    while waits:
        said = [dolma("run", path, "--shard", f"{index}/3").err for index in (2, 0, 1)]
        waits = any("waits to begin" in text for text in said)
    dolma("run", path, "--merge", "3")
    assert written(folder) == expected


SUBSTRING = {"substring": {"attribute_name": "near", "length_bytes": 20}}


def earlier_stretches(texts: list[str], length: int) -> list[list[list[int]]]:
    """By definition: the characters of all stretches of bytes that stand earlier."""
    seen: set[bytes] = set()
    spans: list[list[list[int]]] = []
    for text in texts:
        data = text.encode()
        marked = bytearray(len(data))
        for start in range(len(data) - length + 1):
            stretch = data[start : start + length]
            if stretch in seen:
                marked[start : start + length] = b"\1" * length
            seen.add(stretch)
        of_text: list[list[int]] = []
        byte = 0
        for position, character in enumerate(text):
            size = len(character.encode())
            if all(marked[byte : byte + size]):
                if of_text and of_text[-1][1] == position:
                    of_text[-1][1] = position + 1
                else:
                    of_text.append([position, position + 1, 1])
            byte += size
        spans.append(of_text)
    return spans


def stretches(seed: int) -> list[str]:
    """Texts with pieces of other texts at any byte, repeated letters, and characters of several bytes."""
    draw = random.Random(seed)
    alphabet = "abcde é東😀\n"
    texts: list[str] = ["", "x" * 90, "ab" * 40]
    for _ in range(60):
        text = "".join(draw.choices(alphabet, k=draw.randrange(120)))
        for _ in range(draw.randrange(4)):
            other = draw.choice(texts)
            start = draw.randrange(len(other) + 1)
            at = draw.randrange(len(text) + 1)
            text = text[:at] + other[start : start + draw.randrange(60)] + text[at:]
        texts.append(text)
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_all_stretches_are_found_and_none_invented(folder: Path, dolma: Dolma, seed: int) -> None:
    texts = stretches(seed)
    for part in range(3):
        rows = [{"id": f"{part}-{n}", "text": text} for n, text in enumerate(texts[part * 21 : part * 21 + 21])]
        write_rows(folder / f"more/documents/{part}.jsonl.gz", rows)
    settings = config(SUBSTRING, documents=["more/documents/*"], processes=1 + seed)
    dolma("-c", write_config(folder, settings), "dedupe")
    expected = earlier_stretches(texts, 20)
    assert [row["near"] for row in found(folder / "more")] == expected
    assert sum(map(bool, expected)) > 20


def test_mix_removes_stretches(folder: Path, dolma: Dolma) -> None:
    shared = "This sentence is on every page of the site, word for word. "
    rows = [{"id": str(n), "text": f"{n} begins. {shared}{n} ends here.", "source": "s"} for n in range(3)]
    write_rows(folder / "more/documents/a.jsonl.gz", rows)
    stages = [
        {"dedupe": {"dedupe": {"substring": {"attribute_name": "near", "length_bytes": 40}}, "index": "index"}},
        {
            "mix": {
                "streams": [
                    {
                        "name": "all",
                        "attributes": ["near"],
                        "span_replacement": [{"span": "$.attributes.near", "min_score": 0.5, "replacement": ""}],
                        "output": {"path": "mixed", "discard_fields": ["attributes"]},
                    }
                ]
            }
        },
    ]
    dolma("run", write_config(folder, {"documents": ["more/documents/*"], "stages": stages}))
    [mixed] = (folder / "mixed").rglob("*.gz")
    begin = " begins. " + shared
    kept = [row["text"] for row in read_rows(mixed)]
    assert kept == [rows[0]["text"]] + [row["text"].replace(begin, "") for row in rows[1:]]


def test_substrings_need_all_documents_of_the_index(folder: Path, dolma: Dolma) -> None:
    dolma("-c", write_config(folder, config(SUBSTRING, documents=["documents/0*"])), "dedupe")
    said = dolma("-c", write_config(folder, config(SUBSTRING, documents=["documents/1*"])), "dedupe", code=2).err
    assert "index: has corpus/documents/0.jsonl.gz, which is not among `documents`" in said
    dolma("-c", write_config(folder, config(SUBSTRING)), "dedupe")
    assert [row["near"] for row in found(folder)] == earlier_stretches(texts_of(folder), 20)


LINES = [
    "Read more",
    "About us",
    "A line of 2019!",
    "a LINE of 2020",
    "",
    "…",
    "One. Two is here. Three? Four.",
    "Two is here. Three? Four. Five.",
]


def counted(texts: list[str], least: int, keep_first: bool) -> list[list[list[int]]]:
    """By definition: lines that are found so often, without case, digits and punctuation."""

    def compared(line: str) -> str:
        words = ["".join("0" if c.isdigit() else c.lower() for c in word if c.isalnum()) for word in line.split()]
        return " ".join(filter(None, words))

    counts: dict[str, int] = defaultdict(int)
    for text in texts:
        for line in text.split("\n"):
            counts[compared(line)] += 1
    seen, spans = set(), []
    for text in texts:
        of_text, start = [], 0
        for line in text.split("\n"):
            key, end = compared(line), min(start + len(line) + 1, len(text))
            if key and counts[key] >= least and (key in seen or not keep_first):
                of_text.append([start, end, counts[key]])
            seen.add(key)
            start = end
        spans.append(of_text)
    return spans


@pytest.mark.parametrize(("least", "keep_first"), [(2, True), (4, False)])
def test_lines_are_counted(folder: Path, dolma: Dolma, least: int, keep_first: bool) -> None:
    draw = random.Random(least)
    texts = ["\n".join(draw.choices(LINES, k=draw.randrange(4))) for _ in range(20)]
    for part in range(2):
        rows = [{"id": str(n), "text": text} for n, text in enumerate(texts[part * 10 : part * 10 + 10])]
        write_rows(folder / f"more/documents/{part}.jsonl.gz", rows)
    unit = {"repeats": {"attribute_name": "near", "least": least, "keep_first": keep_first}}
    # in two runs: the second knows the lines of the first
    for documents in (["more/documents/0*"], ["more/documents/*"]):
        dolma("-c", write_config(folder, config(unit, documents=documents)), "dedupe")
    assert [row["near"] for row in found(folder / "more")] == counted(texts, least, keep_first)


def test_three_sentences_in_a_row(folder: Path, dolma: Dolma) -> None:
    """As C4: those of a window that is found twice go, the first time they stay."""
    write_rows(
        folder / "more/documents/a.jsonl.gz", [{"id": str(n), "text": text} for n, text in enumerate(LINES[-2:])]
    )
    unit = {"repeats": {"attribute_name": "near", "piece": "sentence", "window": 3}}
    dolma("-c", write_config(folder, config(unit, documents=["more/documents/*"])), "dedupe")
    assert [row["near"] for row in found(folder / "more")] == [[], [[0, 13, 2], [13, 20, 2], [20, 26, 2]]]


@pytest.mark.parametrize("unit", [SUBSTRING, {"repeats": {"attribute_name": "near"}}])
def test_threads_change_nothing_in_spans(folder: Path, dolma: Dolma, unit: dict[str, Any]) -> None:
    results = []
    for processes in (1, 8):
        dolma("-c", write_config(folder, config(unit, processes=processes)), "dedupe")
        results.append(written(folder))
        clean(folder)
    assert results[0] == results[1]


def test_bands_are_the_steepest_that_find_the_similarity() -> None:
    for similarity in (0.5, 0.7, 0.85, 0.95):
        found = banding(similarity)
        assert found.bands * found.rows <= 256
        assert found.probability(similarity) >= 0.99
        steeper = Banding(256 // (found.rows + 1), found.rows + 1)
        assert steeper.probability(similarity) < 0.99
    assert banding(0.85) == Banding(22, 10)


def test_real_documents(tmp_path: Path, dolma: Dolma, monkeypatch: pytest.MonkeyPatch) -> None:
    """Web pages, papers and posts with copies in which some words are others: beside Jaccard by definition."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    texts = []
    for path in sorted((find_shared_data() / "corpus").glob("*/documents/*")):
        rows = [row["text"] for row in read_rows(path)]
        texts += [text for text in rows[:400] if 40 <= len(text.split()) <= 2000]
    for text in draw.sample(texts, k=300):
        words = text.split()
        for position in draw.sample(range(len(words)), k=draw.randrange(1 + len(words) // 30)):
            words[position] = "stone"
        texts.append(" ".join(words))
    write_rows(tmp_path / "documents/a.jsonl.gz", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    dolma("-c", write_config(tmp_path, config()), "dedupe")
    # nearly the words of the toolkit: runs of letters and digits, some joined by one sign
    words_of = [" ".join(re.findall(r"\w+(?:['.:]\w+)*", text.lower())) for text in texts]
    recall, precision, loose = recall_and_precision(cluster_of(found(tmp_path)), similarities([*map(ngrams, words_of)]))
    assert recall >= 0.98
    assert precision >= 0.5  # as above: copies are planted from 0.7 on
    assert loose >= 0.98
