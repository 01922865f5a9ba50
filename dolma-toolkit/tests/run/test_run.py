"""``dolma run``: what it writes is what the commands write one after the other."""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, find_shared_data, make_rows, read_rows, write_rows

DOCUMENTS = ["documents/**/*.jsonl*"]

TAG = {
    "experiment": "q",
    "taggers": ["gopher_v2", "c4_v2", "pii_regex_with_counts_fast_v2", "random_number_v1", "ft_lang_id_en_doc_v2"],
}
DEDUPE = {
    "dedupe": {"name": "dup", "paragraphs": {"attribute_name": "dup"}, "skip_empty": True},
    "bloom_filter": {"file": "filter.bin", "estimated_doc_count": 10_000, "desired_false_positive_rate": 1e-6},
}
STREAM: dict[str, Any] = {
    "name": "all",
    "attributes": ["q", "dup"],
    "filter": {"exclude": ["$.attributes[?(@.q__gopher_v2__word_count[0][2] < 6)]"]},
    "span_replacement": [{"span": "$.attributes.dup", "min_score": 0.5, "replacement": ""}],
    "output": {"path": "mixed", "max_size_in_bytes": 4_000},
}


def tokens(path: Path) -> dict[str, Any]:
    return {"destination": "tokens", "tokenizer": {"name_or_path": str(path), "eos_token_id": 0, "pad_token_id": 1}}


def streams(**changes: Any) -> dict[str, Any]:
    return {"streams": [{**copy.deepcopy(STREAM), **changes}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents with repeated paragraphs, in files of several sizes."""
    for index, (name, count) in enumerate(
        [("a.jsonl.gz", 150), ("web/b.jsonl.gz", 250), ("web/c.jsonl", 3), ("z.jsonl.gz", 90)]
    ):
        rows = make_rows(count, 500 * index)
        for row in rows[::5]:
            row["text"] = f"{rows[0]['text']}\n{row['text']}\nthe same line in many documents"
        write_rows(tmp_path / "one" / "corpus" / "documents" / name, rows)
    monkeypatch.chdir(tmp_path / "one" / "corpus")
    return tmp_path / "one" / "corpus"


def other(folder: Path) -> Path:
    """Another place with the same documents; the filter notes the name of the directory."""
    place = folder.parents[1] / "two" / folder.name
    shutil.copytree(folder / "documents", place / "documents")
    return place


def write(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path


def pipeline(*stages: dict[str, Any], **settings: Any) -> Path:
    return write(Path("run.yaml"), {"documents": DOCUMENTS, "stages": list(stages), **settings})


def one_by_one(dolma: Dolma, place: Path, monkeypatch: pytest.MonkeyPatch, *stages: tuple[str, dict[str, Any]]) -> None:
    """Runs the commands; the documents of a stage are those of the last mix."""
    documents = DOCUMENTS
    with monkeypatch.context() as patch:
        patch.chdir(place)
        for command, settings in stages:
            given = copy.deepcopy(settings)
            for target in given["streams"] if command == "mix" else [given]:
                target.setdefault("documents", documents)
            dolma("-c", write(Path(f"{command}.yaml"), given), command)
            if command == "mix":
                documents = [f"{stream['output']['path']}/**/*.jsonl*" for stream in given["streams"]]


def results(place: Path, *names: str) -> dict[str, Any]:
    return {name: artifact_hashes(place / name) for name in names}


def data_hashes(directory: Path) -> dict[str, str]:
    return {name: hash for name, hash in artifact_hashes(directory).items() if name != "manifest.json"}


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_four_commands_and_one_run_give_the_same(
    dolma: Dolma, folder: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    stages = [("tag", TAG), ("dedupe", DEDUPE), ("mix", streams()), ("tokens", tokens(tokenizer_path))]
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, *stages)
    names = ("attributes/q", "attributes/dup", "mixed", "tokens")

    kept = [{command: settings, "keep": True} for command, settings in stages]
    dolma("run", pipeline(*kept), "--processes", processes)
    assert results(folder, *names) == results(expected, *names)
    assert (folder / "filter.bin").read_bytes() == (expected / "filter.bin").read_bytes()
    assert len(list((folder / "mixed").glob("*.gz"))) > 1

    for path in ("attributes", "mixed", "tokens", "filter.bin"):
        shutil.rmtree(folder / path) if path != "filter.bin" else (folder / path).unlink()
    said = dolma("run", pipeline(*[{command: settings} for command, settings in stages]), "--processes", processes).err
    assert not (folder / "attributes").exists()
    assert not (folder / "mixed").exists()
    assert data_hashes(folder / "tokens") == data_hashes(expected / "tokens")
    assert (folder / "filter.bin").read_bytes() == (expected / "filter.bin").read_bytes()
    assert "of 493 documents kept" in said
    manifest = json.loads((folder / "tokens" / "manifest.json").read_text())
    assert manifest["details"]["pipeline"]["tag"][0]["taggers"] == TAG["taggers"]
    assert [entry["role"] for entry in manifest["inputs"]] == ["documents"] * 4 + ["tokenizer"]

    assert "nothing to do" in dolma("run", "run.yaml").err


@pytest.mark.parametrize(
    "mix",
    [
        streams(filter=None, span_replacement=[], sample={"rate": 1.7, "seed": 3}),
        streams(split={"attribute": "q__random_number_v1__random", "ranges": [0.3, 0.6]}),
        streams(output={"path": "mixed", "keep_dropped": "dropped", "discard_fields": ["metadata"]}),
        {**streams(), "shuffle": False},
        {**streams(), "shuffle_documents": {"seed": 5}},
        streams(budget={"documents": 100}),
        streams(split={"attribute": "q__random_number_v1__random", "percentiles": [50]}, budget={"bytes": 20_000}),
    ],
    ids=["copies", "parts", "dropped", "own names", "shuffled", "budget", "percentiles"],
)
@pytest.mark.parametrize("keep", [True, False])
def test_every_kind_of_mix(
    dolma: Dolma, folder: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, mix: dict[str, Any], keep: bool
) -> None:
    stages = [("tag", TAG), ("dedupe", DEDUPE), ("mix", mix), ("tokens", tokens(tokenizer_path))]
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, *stages)
    dolma("run", pipeline(*[{command: settings, "keep": keep} for command, settings in stages]), "--processes", 2)
    if keep:
        mixed = [path.parent.relative_to(expected) for path in expected.glob("mixed/**/manifest.json")]
        names = ["attributes/q", "attributes/dup", "tokens", *map(str, mixed)]
        assert results(folder, *names) == results(expected, *names)
    else:
        assert data_hashes(folder / "tokens") == data_hashes(expected / "tokens")
        assert not (folder / "mixed").exists()
        assert not (folder / "attributes").exists()
    if "keep_dropped" in mix["streams"][0]["output"]:
        assert data_hashes(folder / "dropped") == data_hashes(expected / "dropped")


def test_streams_that_share_and_interleave_documents(
    dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = streams(), streams(name="web", documents=["documents/web/*"], attributes=["q"], span_replacement=[])
    mix = {"streams": [*one["streams"], *two["streams"]]}
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, ("tag", TAG), ("dedupe", DEDUPE), ("mix", mix))
    dolma("run", pipeline({"tag": TAG}, {"dedupe": DEDUPE}, {"mix": mix}), "--processes", 8)
    assert data_hashes(folder / "mixed") == data_hashes(expected / "mixed")
    funnels = [read_rows(place / "mixed" / ".dolma" / "funnel.ndjson") for place in (folder, expected)]
    assert funnels[0] == funnels[1]


def test_stages_after_a_mix(dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = streams(
        attributes=["q"], span_replacement=[], output={"path": "first/documents", "max_size_in_bytes": 4_000}
    )
    second = streams(name="end", attributes=["dup"], filter=None)
    stages = [("tag", TAG), ("mix", first), ("dedupe", DEDUPE), ("mix", second)]
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, *stages)
    dolma("run", pipeline(*[{command: settings} for command, settings in stages]), "--processes", 2)
    assert data_hashes(folder / "mixed") == data_hashes(expected / "mixed")
    assert not (folder / "first" / "documents").exists()
    assert not (folder / "attributes").exists()
    assert "nothing to do" in dolma("run", "run.yaml").err


def test_a_filter_that_a_later_stage_asks(dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = {
        "dedupe": {"name": "seen", "paragraphs": {"attribute_name": "seen"}},
        "bloom_filter": {"file": "filter.bin", "read_only": True},
    }
    mix = streams(
        attributes=["q", "seen"], filter=None, span_replacement=[{"span": "$.attributes.seen", "min_score": 0.5}]
    )
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, ("tag", TAG), ("dedupe", DEDUPE), ("dedupe", again), ("mix", mix))
    dolma("run", pipeline({"tag": TAG}, {"dedupe": DEDUPE}, {"dedupe": again}, {"mix": mix}))
    assert data_hashes(folder / "mixed") == data_hashes(expected / "mixed")


def test_a_filter_that_is_too_small_grows(dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = copy.deepcopy(DEDUPE)
    small["bloom_filter"]["estimated_doc_count"] = 20
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, ("tag", TAG), ("dedupe", small), ("mix", streams()))
    said = dolma("run", pipeline({"tag": TAG}, {"dedupe": small}, {"mix": streams()}), "--processes", 2).err
    assert "the filter was rebuilt for" in said
    assert data_hashes(folder / "mixed") == data_hashes(expected / "mixed")
    assert (folder / "filter.bin").read_bytes() == (expected / "filter.bin").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "filter": {
                "syntax": "jq",
                "exclude": [".attributes.q__c4_v2__line_count[0][2] > 1", ".attributes.dup != []"],
            }
        },
        {"filter": {"include": ["$.attributes[?(@.q__random_number_v1__random[0][2] < 0.5)]"]}, "attributes": ["q"]},
        {"sample": {"rate": 0.4, "seed": 2}, "filter": None},
    ],
    ids=["words", "jq", "included", "drawn"],
)
def test_lazy_tagging_gives_the_same_documents(dolma: Dolma, folder: Path, changes: dict[str, Any]) -> None:
    mix = streams(**changes)
    if "dup" not in mix["streams"][0]["attributes"]:
        mix["streams"][0]["span_replacement"] = []
    names = [{"tag": TAG, "keep": True}, {"mix": mix}]
    names[1:1] = [{"dedupe": DEDUPE}] if "dup" in mix["streams"][0]["attributes"] else []
    dolma("run", pipeline(*names))
    expected, full = data_hashes(folder / "mixed"), read_rows(folder / "attributes" / "q" / "a.jsonl.gz")
    [funnel] = read_rows(folder / "mixed" / ".dolma" / "funnel.ndjson")
    for path in ("attributes", "mixed"):
        shutil.rmtree(folder / path)
    (folder / "filter.bin").unlink(missing_ok=True)
    dolma("run", pipeline(*names, lazy=True))
    assert data_hashes(folder / "mixed") == expected
    [lazy] = read_rows(folder / "mixed" / ".dolma" / "funnel.ndjson")
    counts = ("documents_in", "documents_out", "bytes_in", "bytes_out", "sources")
    assert [lazy[name] for name in counts] == [funnel[name] for name in counts]
    manifest = json.loads((folder / "attributes" / "q" / "manifest.json").read_text())
    rows = read_rows(folder / "attributes" / "q" / "a.jsonl.gz")
    partial = [len(row["attributes"]) < len(whole["attributes"]) for row, whole in zip(rows, full, strict=True)]
    assert manifest["config"]["lazy"] is True
    assert 0 < sum(partial) <= manifest["counts"]["documents_partial"]
    assert [row for row, is_partial in zip(rows, partial, strict=True) if not is_partial] == [
        row for row, is_partial in zip(full, partial, strict=True) if not is_partial
    ]


def test_lazy_tagging_spares_taggers_in_python(dolma: Dolma, folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import dolma\n\n\n"
        "@dolma.add_tagger('vowels')\n"
        "class Vowels(dolma.BaseTagger):\n"
        "    def predict(self, doc):\n"
        "        open('calls', 'a').write('x')\n"
        "        count = sum(doc.text.count(vowel) for vowel in 'aeiou')\n"
        "        return dolma.DocResult(doc, [dolma.Span(0, len(doc.text), 'count', count)])\n"
    )
    taggers = [*TAG["taggers"], "vowels"]
    tagged = {"tag": {**TAG, "taggers": taggers, "tagger_modules": ["mine.py"]}}
    rules = ["$.attributes[?(@.q__random_number_v1__random[0][2] < 0.5)]"]
    rules += ["$.attributes[?(@.q__vowels__count[0][2] < 5)]"]
    mix = streams(filter={"exclude": rules}, attributes=["q"], span_replacement=[])
    calls, hashes = [], []
    for lazy in (False, True):
        dolma("run", pipeline(tagged, {"mix": mix}, lazy=lazy), "--processes", 2)
        calls.append((folder / "calls").stat().st_size)
        hashes.append(data_hashes(folder / "mixed"))
        shutil.rmtree(folder / "mixed")
        (folder / "calls").unlink()
    assert hashes[0] == hashes[1]
    assert 0.3 * calls[0] < calls[1] < 0.7 * calls[0]


def test_only_what_changed_is_redone(dolma: Dolma, folder: Path, tokenizer_path: Path) -> None:
    stages = [{"tag": TAG, "keep": True}, {"mix": streams(attributes=["q"], span_replacement=[])}]
    dolma("run", pipeline(*stages))
    before = artifact_hashes(folder / "attributes" / "q")
    stages[1]["mix"]["streams"][0]["filter"] = None
    said = dolma("run", pipeline(*stages)).err
    assert "0 documents in 0 files (4 were finished before)" in said
    assert "493 of 493 documents kept" in said
    assert artifact_hashes(folder / "attributes" / "q") == before


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: is empty"),
        ([{"tag": TAG, "mix": streams()}], "stages.0: is tag and mix"),
        ([{"keep": True}], "stages.0: is none of"),
        ([{"tag": {**TAG, "documents": ["x"]}}], "stages.0.tag.documents: is a setting of the run"),
        ([{"tag": {**TAG, "processes": 4}}], "stages.0.tag.processes: is a setting of the run"),
        ([{"tag": {**TAG, "taggers": ["gopher"]}}], 'stages.0.tag.taggers.0: is "gopher", which is not a tagger'),
        ([{"mix": streams()}], 'stages.0.mix.streams.0.attributes.0: is "q", but'),
        ([{"tag": TAG}, {"mix": streams()}], 'stages.1.mix.streams.0.attributes.1: is "dup", but'),
        ([{"tag": TAG}, {"mix": streams(attributes=[], filter=None, span_replacement=[])}], "which no stage reads"),
        ([{"tag": TAG}, {"tokens": {"destination": "t"}}], "stages.0.tag: makes attributes that no later stage reads"),
        ([{"dedupe": {"dedupe": DEDUPE["dedupe"]}}, {"mix": streams()}], "stages.0.dedupe.bloom_filter: is missing"),
        ([{"tokens": {"destination": "t"}}, {"tag": TAG}], "stages.0.tokens: is followed by another stage"),
        (
            [{"tag": TAG}, {"mix": streams(attributes=["q"], filter={"exclude": ["$.attributes.q__gopher_v3__x"]})}],
            'names the attribute "q__gopher_v3__x", which no loaded set of attributes has',
        ),
        ([{"tag": TAG}, {"mix": streams(attributes=["q"], documents=["documents/y*"])}], "matches no document"),
    ],
)
def test_stages_that_do_not_fit_together(dolma: Dolma, folder: Path, stages: list[Any], message: str) -> None:
    assert message in dolma("run", pipeline(*stages), code=2).err
    assert [path.name for path in folder.iterdir() if path.suffix != ".yaml"] == ["documents"]


def test_a_stage_that_fails_leaves_nothing_that_looks_complete(
    dolma: Dolma, folder: Path, tokenizer_path: Path
) -> None:
    too_large = {**tokens(tokenizer_path), "max_size": 64}
    stages = [{"tag": TAG}, {"dedupe": DEDUPE}, {"mix": streams()}, {"tokens": too_large}]
    said = dolma("run", pipeline(*stages), code=1).err
    assert "max_size" in said
    assert not list(folder.glob("**/manifest.json")) or not (folder / "tokens" / "manifest.json").exists()
    # the filter has the keys of a pass that was finished; the shards are made of what it left
    stages[3] = {"tokens": tokens(tokenizer_path)}
    dolma("run", pipeline(*stages))


def test_a_bad_row_names_its_file_and_line(dolma: Dolma, folder: Path) -> None:
    path = folder / "documents" / "web" / "c.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "x"}\n')
    stages = [{"tag": TAG}, {"dedupe": DEDUPE}, {"mix": streams()}]
    said = dolma("run", pipeline(*stages), code=1).err
    assert 'documents/web/c.jsonl:4: "text" is missing' in said
    assert not list(folder.glob("**/manifest.json"))
    assert not (folder / "filter.bin").exists()
    assert "493 documents kept" in dolma("run", pipeline(*stages, skip_bad_rows=1)).err


def test_a_dry_run_shows_passes_and_writes_nothing(dolma: Dolma, folder: Path, tokenizer_path: Path) -> None:
    stages = [
        {"tag": TAG},
        {"dedupe": DEDUPE},
        {"mix": streams(budget={"documents": 9})},
        {"tokens": tokens(tokenizer_path)},
    ]
    shown = dolma("run", pipeline(*stages), "--dry-run").out
    assert "# barrier: a budget or percentiles" in shown
    assert "# pass 1 of 2" in shown
    assert "# pass 2 of 2" in shown
    assert "reads 4 files" in shown
    assert "memory about" in shown
    assert "time about" in shown
    assert yaml.safe_load(shown)["stages"][0]["tag"]["taggers"] == TAG["taggers"]
    assert [path.name for path in folder.iterdir() if path.suffix != ".yaml"] == ["documents"]


def test_a_plan_for_other_sizes(dolma: Dolma, folder: Path, tokenizer_path: Path) -> None:
    stages = [{"tag": TAG}, {"dedupe": DEDUPE}, {"mix": streams()}, {"tokens": tokens(tokenizer_path)}]
    head, small, large = dolma("run", pipeline(*stages), "--plan", "1TB", "10TB").out.splitlines()
    assert head.split()[:2] == ["text", "CPU-hours"]
    hours = [float(line.split()[2].replace(",", "")) for line in (small, large)]
    assert hours[1] == pytest.approx(10 * hours[0], rel=0.05)
    # a key for 250 bytes of text and 33.5 bits a key, as docs/formats/filter.md says of 1e-6
    assert small.split()[4:6] == ["16.8", "GB"]
    assert 'plan.0: is "much"; expected a size of text' in dolma("run", "run.yaml", "--plan", "much", code=2).err


@pytest.mark.parametrize(("keys", "rate"), [(1, 0.3), (1000, 1e-2), (50_000, 1e-5), (777, 1e-6), (123, 1e-18)])
def test_a_filter_has_the_size_that_was_planned(dolma: Dolma, folder: Path, keys: int, rate: float) -> None:
    from dolma.estimate import filter_bytes

    settings = {"file": "f.bin", "estimated_doc_count": keys, "desired_false_positive_rate": rate}
    Path("empty/documents").mkdir(parents=True)
    Path("empty/documents/a.jsonl").touch()
    dedupe = {"documents": ["empty/documents/*"], "dedupe": DEDUPE["dedupe"], "bloom_filter": settings}
    Path("dedupe.yaml").write_text(yaml.safe_dump(dedupe))
    dolma("-c", "dedupe.yaml", "dedupe")
    [words] = struct.unpack_from("<Q", Path("f.bin").read_bytes(), 16)
    assert filter_bytes(settings) == 8 * words


def test_a_tagger_in_python(dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own.py").write_text(
        "from dolma import add_tagger, BaseTagger\n"
        "from dolma.core.data_types import DocResult, Document, Span\n"
        "@add_tagger('own_v1')\n"
        "class Own(BaseTagger):\n"
        "    def predict(self, doc: Document) -> DocResult:\n"
        "        return DocResult(doc=doc, spans=[Span(0, len(doc.text), 'length', len(doc.text))])\n"
    )
    tag = {"experiment": "q", "taggers": ["gopher_v2", "own_v1"], "tagger_modules": [str(folder / "own.py")]}
    mix = streams(
        attributes=["q"], span_replacement=[], filter={"exclude": ["$.attributes[?(@.q__own_v1__length[0][2] < 80)]"]}
    )
    expected = other(folder)
    one_by_one(dolma, expected, monkeypatch, ("tag", tag), ("mix", mix))
    dolma("run", pipeline({"tag": tag}, {"mix": mix}))
    assert data_hashes(folder / "mixed") == data_hashes(expected / "mixed")


def killed_at_random_points(command: list[str], place: Path, kills: int, whole_s: float, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.2, 1.0) * whole_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=place, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_killed_twenty_times(
    dolma: Dolma, folder: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    for path in [*(find_shared_data() / "corpus").glob("[cw]*/documents/*.gz")]:
        shutil.copy(path, folder / "documents" / path.name)
    stages = [
        ("tag", TAG),
        ("dedupe", DEDUPE),
        ("mix", streams(output={"path": "mixed", "max_size_in_bytes": 2_000_000})),
    ]
    stages.append(("tokens", tokens(tokenizer_path)))
    expected = other(folder)
    file = pipeline(*[{command: settings, "keep": keep} for command, settings in stages])
    shutil.copy(file, expected / "run.yaml")
    command = [sys.executable, "-m", "dolma", "run", "run.yaml", "--processes", "2"]
    start = time.monotonic()
    subprocess.run(command, cwd=expected, check=True, capture_output=True)
    whole_s = time.monotonic() - start
    killed_at_random_points(command, folder, 20, whole_s, seed=1)
    names = ("attributes/q", "attributes/dup", "mixed", "tokens") if keep else ("tokens",)
    assert results(folder, *names) == results(expected, *names)
    assert (folder / "filter.bin").read_bytes() == (expected / "filter.bin").read_bytes()
    assert not list(folder.glob("**/*.partial"))
