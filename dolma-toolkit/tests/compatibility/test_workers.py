"""With 1, 2 and 8 workers every output file of every command has the same sha256."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, make_rows, write_rows

pytestmark = pytest.mark.processes

# what tells of the run and not of the result: times, the number of processes, what was done in which order
OF_THE_RUN = {"metrics.ndjson", "config.yaml", "progress.ndjson"}
WORKERS = (1, 2, 8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve files of different lengths in a tree, plain and packed, with much that repeats."""
    monkeypatch.chdir(tmp_path)
    randomness = random.Random(9)
    for number in range(12):
        rows = make_rows(25 * number + 10, 37 * number)
        for row in rows:
            row["text"] += f"\ncall 206-555-{randomness.randrange(10_000):04d}, mail me@example.org now.\n" * (
                number % 3
            )
            row["id"] = f"{number}-{row['id']}"
            row["source"] = randomness.choice(["web", "books"])
            row["metadata"] = {"url": f"http://{'www.' * randomness.randrange(2)}x.org/{randomness.randrange(90)}"}
        place = f"{'deep/' * (number % 3)}{number:02d}.jsonl{'.gz' if number % 2 else ''}"
        write_rows(tmp_path / "documents" / place, rows)
    return tmp_path


def hashes(*places: Path) -> dict[str, str]:
    """sha256 of every file that is a result."""
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted(place.rglob("*")))
        if file.is_file()
    ]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name not in OF_THE_RUN}


def with_workers(dolma: Dolma, folder: Path, name: str, settings: dict[str, Any], *places: str) -> dict[str, str]:
    """Runs the command from nothing with each number of workers; the hashes, which are equal."""
    found = []
    for processes in WORKERS:
        for place in places:
            shutil.rmtree(folder / place, ignore_errors=True)
            (folder / place).unlink(missing_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**settings, "processes": processes}))
        dolma("-c", path, name)
        found.append(hashes(*(folder / place for place in places)))
    assert len(found[0]) > 1
    assert found[0] == found[1] == found[2]
    return found[0]


def tag(dolma: Dolma, taggers: list[str], experiment: str) -> None:
    dolma("tag", "--documents", "documents/**/*", "--taggers", *taggers, "--experiment", experiment)


TAGGERS = ["gopher_v2", "c4_v2", "pii_regex_with_counts_fast_v2", "repetitions_v1", "uniseg_length_paragraphs_v1"]
TAGGERS += ["random_number_v1", "fineweb_v1", "refinedweb_v1", "whitespace_tokenizer_v1"]


@pytest.mark.parametrize("experiment", [None, "all"])
def test_tag(dolma: Dolma, folder: Path, experiment: str | None) -> None:
    settings = {"documents": ["documents/**/*"], "taggers": TAGGERS, "experiment": experiment}
    found = with_workers(dolma, folder, "tag", settings, "attributes")
    assert len(found) == (12 + 1) * (1 if experiment else len(TAGGERS))


UNITS: dict[str, dict[str, Any]] = {
    "key": {"documents": {"attribute_name": "k", "key": "$.text"}, "skip_empty": True},
    "url": {"documents": {"attribute_name": "k", "key": "$.metadata.url", "normalize": "url"}},
    "paragraph": {"paragraphs": {"attribute_name": "k"}, "min_length": 3},
    "words": {"paragraphs": {"attribute_name": "k"}, "min_words": 4},
    "ngram": {"paragraphs": {"attribute_name": "k", "by_ngram": {"ngram_length": 5, "overlap_threshold": 0.1}}},
    "stride": {
        "paragraphs": {
            "attribute_name": "k",
            "by_ngram": {"ngram_length": 3, "stride": 2, "overlap_threshold": 0.4, "skip_short_paragraphs": True},
        }
    },
}


@pytest.mark.parametrize("partitioned", [False, True], ids=["whole", "partition"])
@pytest.mark.parametrize("unit", UNITS)
def test_dedupe(dolma: Dolma, folder: Path, unit: str, partitioned: bool) -> None:
    settings = {
        "documents": ["documents/**/*"],
        "dedupe": {"name": "d", **UNITS[unit]} | ({"num_partitions": 2, "partition_index": 1} if partitioned else {}),
        "bloom_filter": {"file": "f.bin", "estimated_doc_count": 50_000, "desired_false_positive_rate": 1e-6},
    }
    found = with_workers(dolma, folder, "dedupe", settings, "attributes", "f.bin")
    assert len(found) == 12 + 2


def test_dedupe_against_a_filter(dolma: Dolma, folder: Path) -> None:
    settings: dict[str, Any] = {
        "documents": ["documents/0*"],
        "dedupe": {"name": "d", "paragraphs": {"attribute_name": "k"}},
        "bloom_filter": {"file": "f.bin", "estimated_doc_count": 50_000, "desired_false_positive_rate": 1e-6},
    }
    (folder / "make.yaml").write_text(yaml.safe_dump(settings))
    dolma("-c", folder / "make.yaml", "dedupe")
    settings |= {"documents": ["documents/**/*"], "dedupe": {**settings["dedupe"], "name": "compared"}}
    settings["bloom_filter"]["read_only"] = True
    with_workers(dolma, folder, "dedupe", settings, "attributes/compared")


LENGTH = "all__whitespace_tokenizer_v1__length"
WORD_COUNT = "all__gopher_v2__word_count"
STREAMS: dict[str, dict[str, Any]] = {
    "join": {},
    "jsonpath": {"filter": {"exclude": [f"$.attributes[?(@.{WORD_COUNT} && @.{WORD_COUNT}[0][2] < 9)]"]}},
    "jq": {
        "filter": {"syntax": "jq", "include": ['.source == "web"'], "exclude": [f".attributes.{WORD_COUNT}[0][2] < 4"]}
    },
    "spans": {
        "span_replacement": [
            {"span": "$.attributes.all__pii_regex_v2__EMAIL_ADDRESS", "min_score": 0.5, "replacement": "|MAIL|"},
            {"span": "$.attributes.all__pii_regex_v2__PHONE_NUMBER", "max_score": 2, "replacement": "$.source"},
        ],
        "output": {"min_text_length": 30, "discard_fields": ["attributes"], "keep_dropped": "dropped"},
    },
    "sample": {"sample": {"rate": 1.7, "seed": 3}},
    "bytes": {"sample": {"rate": 0.6, "seed": 1}, "budget": {"bytes": 20_000, "seed": 2}},
    "tokens": {"budget": {"tokens": 2_000, "attribute": LENGTH, "seed": 2}},
    "documents": {"budget": {"documents": 100}},
    "ranges": {"split": {"attribute": LENGTH, "ranges": [20, 60]}},
    "percentiles": {"split": {"attribute": LENGTH, "percentiles": [30, 80], "weight": LENGTH}},
    "everything": {
        "filter": {"exclude": [f"$.attributes[?(@.{WORD_COUNT} && @.{WORD_COUNT}[0][2] < 2)]"]},
        "sample": {"rate": 2.4, "seed": 5},
        "budget": {"bytes": 60_000},
        "split": {"attribute": LENGTH, "percentiles": [50]},
        "output": {"max_size_in_bytes": 9_000, "keep_dropped": "dropped"},
        "compression": {"output": "zst"},
    },
}


@pytest.mark.parametrize("order", ["packed", "unpacked", "random"])
def test_mix(dolma: Dolma, folder: Path, order: str) -> None:
    tag(dolma, ["gopher_v2", "pii_regex_v2", "whitespace_tokenizer_v1"], "all")
    streams = []
    for name, stream in STREAMS.items():
        output = {"max_size_in_bytes": 30_000, **stream.get("output", {}), "path": f"out/{name}"}
        if "keep_dropped" in output:
            output["keep_dropped"] = f"dropped/{name}"
        streams.append(
            {"name": name, "documents": ["documents/**/*"], "attributes": ["all"], **stream, "output": output}
        )
    more: dict[str, Any] = {"packed": {}, "unpacked": {"shuffle": False}, "random": {"shuffle_documents": {"seed": 4}}}[
        order
    ]
    found = with_workers(dolma, folder, "mix", {"streams": streams, **more}, "out", "dropped")
    assert {Path(name).relative_to(folder).parts[1] for name in found} >= STREAMS.keys()
    assert any(name.endswith("funnel.ndjson") for name in found)


def test_stat(dolma: Dolma, folder: Path) -> None:
    tag(dolma, ["gopher_v2", "whitespace_tokenizer_v1"], "all")
    tables = []
    for processes in WORKERS:
        more = ["--report", f"report{processes}", "--total", "--processes", processes]
        table = dolma("stat", "--attributes", "attributes/**/*.jsonl*", *more, code=None)
        assert table.code == 0, table.err
        tables.append((table.out, (folder / f"report{processes}/summaries.jsonl.gz").read_bytes()))
    assert tables[0] == tables[1] == tables[2]
