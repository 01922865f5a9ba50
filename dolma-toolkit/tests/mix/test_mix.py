"""``dolma mix``: what is kept, what is replaced, what is counted, and what is refused before the work."""

from __future__ import annotations

import gzip
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
from dolma.errors import ConfigError, FormatError


def stream(**changes: Any) -> dict[str, Any]:
    output = {"path": "out", **changes.pop("output", {})}
    return {"name": "s", "documents": ["documents/*.gz"], "attributes": ["e"], "output": output, **changes}


def mix(*streams: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """The rows of the first stream's output."""
    dolma.mixer({"streams": list(streams), **changes})
    return rows_of(Path(streams[0]["output"]["path"]))


def rows_of(directory: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(directory.rglob("*.gz")) for row in read_rows(file)]


def configured(folder: Path, *streams: dict[str, Any], **changes: Any) -> Path:
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"streams": list(streams), **changes}))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of documents with a score each, and spans in half of them."""
    monkeypatch.chdir(tmp_path)
    randomness = random.Random(2)
    for name in ("a", "b", "c"):
        documents, attributes = [], []
        for number in range(100):
            text = " ".join(randomness.choices(["stone", "naïve", "東京", "light"], k=randomness.randrange(1, 9)))
            score = round(randomness.random(), 5)
            found: dict[str, Any] = {"e__t__score": [[0, len(text), score]]}
            if number % 2:
                found["e__t__name"] = [[0, 5, 1.0]]
            source = randomness.choice(["web", "books"])
            documents.append({"id": f"{name}{number}", "text": text, "source": source, "big": 12345678901234567890})
            attributes.append({"id": f"{name}{number}", "attributes": found})
        write_rows(tmp_path / "documents" / f"{name}.jsonl.gz", documents)
        write_rows(tmp_path / "attributes" / "e" / f"{name}.jsonl.gz", attributes)
    return tmp_path


LOW = "$.attributes[?(@.e__t__score && @.e__t__score[0] && @.e__t__score[0][2] < 0.5)]"


def test_a_filter_drops_what_it_matches(folder: Path) -> None:
    rows = mix(stream(filter={"exclude": [LOW]}))
    scores = [row["attributes"]["e__t__score"][0][2] for row in rows]
    assert 100 < len(rows) < 200
    assert min(scores) >= 0.5
    assert rows[0]["metadata"]["provenance"].startswith("a.jsonl.gz:")


def test_without_a_filter_documents_and_attributes_are_joined(folder: Path) -> None:
    rows = mix(stream())
    expected = [row for name in "abc" for row in read_rows(folder / "documents" / f"{name}.jsonl.gz")]
    assert [(row["id"], row["text"], row["big"]) for row in rows] == [
        (row["id"], row["text"], 12345678901234567890) for row in expected
    ]
    assert rows[1]["attributes"].keys() == {"e__t__score", "e__t__name"}
    line = gzip.decompress((folder / "out" / "s-0000.jsonl.gz").read_bytes()).splitlines()[0]
    assert list(json.loads(line)) == sorted(json.loads(line))


def test_spans_are_replaced(folder: Path) -> None:
    spans = {"span": "$.attributes.e__t__name", "min_score": 0.5, "replacement": "|||{}|||"}
    rows = mix(stream(span_replacement=[spans], output={"discard_fields": ["attributes", "big"]}))
    before = [row["text"] for name in "abc" for row in read_rows(folder / "documents" / f"{name}.jsonl.gz")]
    for number, (row, text) in enumerate(zip(rows, before, strict=True)):
        assert row["text"] == (f"|||{text[:5]}|||{text[5:]}" if number % 2 else text)
        assert row.keys() == {"id", "text", "source", "metadata"}


@pytest.mark.parametrize("max_size", [1, 10**9])
@pytest.mark.parametrize("shuffle", [True, False])
def test_threads_change_nothing(folder: Path, max_size: int, shuffle: bool) -> None:
    found = []
    spans = {"span": "$.attributes.e__t__name", "max_score": 2, "replacement": "X"}
    for processes in (1, 2, 4):
        output = {"path": f"out{processes}/documents", "max_size_in_bytes": max_size}
        part = stream(filter={"exclude": [LOW]}, span_replacement=[spans], output=output)
        mix(part, processes=processes, shuffle=shuffle)
        root = folder / output["path"] / ("" if shuffle else "documents")
        found.append((artifact_hashes(root), (root / ".dolma/funnel.ndjson").read_bytes()))
    assert found[0] == found[1] == found[2]
    names = {"s-0000.jsonl.gz"} if max_size > 1 else {f"s-000{index}.jsonl.gz" for index in range(3)}
    expected = names if shuffle else {"a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz"}
    assert found[0][0].keys() == expected | {"manifest.json"}


def test_the_funnel_adds_up(folder: Path, dolma: Dolma) -> None:
    exclude = [LOW, "$.attributes[?(@.e__t__name)]"]
    span = {"span": "$.attributes.e__t__score", "max_score": 0.9, "replacement": "{}{}"}
    part = stream(
        filter={"exclude": exclude, "include": ["$.id"]},
        span_replacement=[span],
        output={"min_text_length": 20, "keep_dropped": "dropped"},
    )
    table = dolma("-c", configured(folder, part), "mix").err
    [funnel] = read_rows(folder / "out/.dolma/funnel.ndjson")
    kept, dropped = rows_of(folder / "out"), rows_of(folder / "dropped")
    assert (funnel["documents_in"], funnel["documents_out"]) == (300, len(kept))
    assert len(kept) + len(dropped) == 300
    assert funnel["bytes_out"] == sum(len(row["text"].encode()) for row in kept)
    assert [rule["kind"] for rule in funnel["rules"]] == ["include", "exclude", "exclude", "min_text_length"]
    assert [rule["documents_alone"] for rule in funnel["rules"]][:3] == [0, alone(folder, low=True), 150]
    assert sum(rule["documents_in_order"] for rule in funnel["rules"]) == len(dropped)
    assert sum(rule["bytes_in_order"] for rule in funnel["rules"]) == sum(len(r["text"].encode()) for r in dropped)
    reasons = [row["metadata"]["dropped_by"] for row in dropped]
    for rule, prefix in zip(funnel["rules"], ("not included", "excluded", "excluded", "too short"), strict=True):
        assert reasons.count(f"{prefix}: {rule['rule']}") == rule["documents_in_order"]
    assert funnel["sources"].keys() == {"web", "books"}
    for key in ("documents_in", "documents_out", "bytes_in", "bytes_out"):
        assert sum(source[key] for source in funnel["sources"].values()) == funnel[key]
    assert funnel["span_replacements"][0]["spans"] > 0
    assert f"kept {len(kept)}" in table
    assert artifact_hashes(folder / "dropped").keys() == {"manifest.json", "s-0000.jsonl.gz"}


def alone(folder: Path, low: bool) -> int:
    rows = [row for name in "abc" for row in read_rows(folder / "attributes" / "e" / f"{name}.jsonl.gz")]
    return sum((row["attributes"]["e__t__score"][0][2] < 0.5) == low for row in rows)


def test_a_second_run_does_nothing(folder: Path, dolma: Dolma) -> None:
    path = configured(folder, stream(filter={"exclude": [LOW]}))
    dolma("-c", path, "mix")
    before = (folder / "out" / "s-0000.jsonl.gz").stat().st_mtime_ns
    result = dolma("-c", path, "mix")
    assert "nothing to do" in result.err
    assert "kept " in result.err
    assert (folder / "out" / "s-0000.jsonl.gz").stat().st_mtime_ns == before


def test_another_filter_replaces_the_output(folder: Path, dolma: Dolma) -> None:
    mix(stream(output={"max_size_in_bytes": 1}))
    assert len(list((folder / "out").glob("*.gz"))) == 3
    result = dolma("-c", configured(folder, stream(filter={"exclude": [LOW]})), "mix")
    assert "removed 3 files of an earlier run" in result.err
    assert [path.name for path in (folder / "out").glob("*.gz")] == ["s-0000.jsonl.gz"]
    assert len(rows_of(folder / "out")) == alone(folder, low=False)


def test_an_output_with_other_documents_is_refused(folder: Path, dolma: Dolma) -> None:
    mix(stream())
    other = configured(folder, {**stream(), "name": "t"})
    assert "holds the output of other work (s)" in dolma("-c", other, "mix", code=2).err
    write_rows(folder / "old" / "t-0000.json.gz", [{"id": "1", "text": ""}])
    old = configured(folder, stream(output={"path": "old"}))
    assert "holds t-0000.json.gz, which this run does not write" in dolma("-c", old, "mix", code=2).err
    assert len(rows_of(folder / "out")) == 300


@pytest.mark.processes
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15])
def test_killed_and_continued(folder: Path, delay_s: float) -> None:
    for number in range(8):
        for kind in ("documents", "attributes/e"):
            data = (folder / kind / "a.jsonl.gz").read_bytes()
            (folder / kind / f"more-{number}.jsonl.gz").write_bytes(data)
    part = stream(filter={"exclude": [LOW], "syntax": "jsonpath"}, output={"max_size_in_bytes": 1})
    command = [sys.executable, "-m", "dolma", "-c", str(configured(folder, part, processes=2)), "mix"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / "out").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    found = artifact_hashes(folder / "out"), (folder / "out" / ".dolma/funnel.ndjson").read_bytes()
    assert [file.name for file in folder.rglob(".*") if file.is_file()] == []
    mix(stream(filter={"exclude": [LOW]}, output={"path": "once", "max_size_in_bytes": 1}))
    assert found == (artifact_hashes(folder / "once"), (folder / "once" / ".dolma/funnel.ndjson").read_bytes())


def refused(folder: Path, dolma: Dolma, part: dict[str, Any]) -> str:
    """The message of a request that is wrong; nothing was written."""
    result = dolma("-c", configured(folder, part), "mix", code=2)
    assert not (folder / "out").exists()
    return str(result.err)


def test_attributes_have_to_be_there(folder: Path, dolma: Dolma) -> None:
    write_rows(folder / "attributes" / "gopher_rules" / "a.jsonl.gz", [])
    message = refused(folder, dolma, stream(attributes=["e", "gopher_rule"]))
    assert 'is "gopher_rule", but attributes/gopher_rule was not found' in message
    assert 'did you mean "gopher_rules"?' in message
    message = refused(folder, dolma, stream(attributes=["gopher_rules"]))
    assert "attributes/gopher_rules/b.jsonl.gz was not found" in message


@pytest.mark.parametrize(
    "part",
    [
        {"filter": {"exclude": ["$.attributes[?(@.f__t__score[0][2] < 0.5)]"]}},
        {"filter": {"exclude": ["$@.attributes.f__t__score"]}},
        {"filter": {"exclude": [".attributes.f__t__score[0][2] < 0.5"], "syntax": "jq"}},
        {"filter": {"exclude": ['.attributes["f__t__score"][0][2] > 0'], "syntax": "jq"}},
        {"span_replacement": [{"span": "$.attributes.f__t__score", "min_score": 0}]},
    ],
)
def test_a_name_that_no_set_has_is_refused(folder: Path, dolma: Dolma, part: dict[str, Any]) -> None:
    message = refused(folder, dolma, stream(**part))
    assert 'names the attribute "f__t__score", which no loaded set of attributes has' in message
    assert 'did you mean "e__t__score"?' in message


def test_a_span_type_that_never_occurs_is_a_warning(folder: Path, dolma: Dolma) -> None:
    part = stream(filter={"exclude": ["$.attributes[?(@.e__t__scores)]"]})
    result = dolma("-c", configured(folder, part), "mix")
    assert 'no document has the attribute "e__t__scores"' in result.err
    assert 'did you mean "e__t__score"?' in result.err
    assert len(rows_of(folder / "out")) == 300


def test_a_key_that_occurs_late_is_found(folder: Path, dolma: Dolma) -> None:
    rows = [row for _ in range(10) for row in read_rows(folder / "attributes" / "e" / "c.jsonl.gz")]
    documents = read_rows(folder / "documents" / "c.jsonl.gz") * 10
    rows[-1]["attributes"]["late__t__x"] = [[0, 1, 1.0]]
    write_rows(folder / "attributes" / "e" / "c.jsonl.gz", rows)
    write_rows(folder / "documents" / "c.jsonl.gz", documents)
    part = stream(filter={"include": ["$.attributes.late__t__x"]})
    assert "no document has" not in dolma("-c", configured(folder, part), "mix").err
    assert len(rows_of(folder / "out")) == 1


def test_attributes_in_the_documents_count(folder: Path) -> None:
    row = {"id": "1", "text": "abc", "attributes": {"inline": [[0, 1, 1]], "both": [[0, 1, 1]]}}
    write_rows(folder / "documents" / "a.jsonl.gz", [row])
    write_rows(folder / "attributes" / "e" / "a.jsonl.gz", [{"id": "1", "attributes": {"both": [[0, 2, 2]]}}])
    part = stream(documents=["documents/a.jsonl.gz"], filter={"include": ["$.attributes.inline"]})
    assert mix(part)[0]["attributes"] == {"inline": [[0, 1, 1]], "both": [[0, 2, 2]]}


@pytest.mark.parametrize(
    ("change", "code", "path", "line"),
    [
        (lambda rows: rows.pop(), "misaligned", "attributes/e/b.jsonl.gz", 100),
        (lambda rows: rows.append(rows[0]), "misaligned", "attributes/e/b.jsonl.gz", 101),
        (lambda rows: rows.insert(3, rows.pop()), "misaligned", "attributes/e/b.jsonl.gz", 4),
        (lambda rows: rows[5].pop("attributes"), "missing_field", "attributes/e/b.jsonl.gz", 6),
        (lambda rows: rows[5].update(attributes=[[3, 4, 1]]), "wrong_type", "attributes/e/b.jsonl.gz", 6),
    ],
)
def test_rows_that_do_not_belong_together(folder: Path, change: Any, code: str, path: str, line: int) -> None:
    file = folder / "attributes" / "e" / "b.jsonl.gz"
    rows = read_rows(file)
    change(rows)
    write_rows(file, rows)
    with pytest.raises(FormatError, match="expected") as caught:
        mix(stream())
    assert (caught.value.code, caught.value.path, caught.value.line) == (code, path, line)
    left = sorted(str(file.relative_to(folder / "out")) for file in (folder / "out").rglob("*") if file.is_file())
    assert left == [".dolma/errors.ndjson", ".dolma/progress.ndjson"]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"id": 1, "text": ""}, "wrong_type"),
        ({"id": "1"}, "missing_field"),
        ({"id": "1", "text": None}, "wrong_type"),
        ({"id": "1", "text": "", "metadata": []}, "wrong_type"),
        ({"id": "", "text": ""}, "invalid_value"),
        ({"id": "1", "text": "", "attributes": [[1]]}, "wrong_type"),
    ],
)
def test_bad_documents(folder: Path, row: dict[str, Any], code: str) -> None:
    write_rows(folder / "documents" / "d.jsonl.gz", [{"id": "0", "text": ""}, row])
    with pytest.raises(FormatError, match="expected") as caught:
        mix(stream(attributes=[], documents=["documents/d.jsonl.gz"]))
    assert (caught.value.code, caught.value.path, caught.value.line) == (code, "documents/d.jsonl.gz", 2)


def test_a_truncated_file_is_an_error(folder: Path) -> None:
    file = folder / "attributes" / "e" / "b.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match="ends early"):
        mix(stream())


def test_a_rule_that_fails_on_a_document_says_where(folder: Path, dolma: Dolma) -> None:
    part = stream(filter={"exclude": [".text | tonumber > 3"], "syntax": "jq"})
    result = dolma("-c", configured(folder, part), "mix", code=1)
    assert "documents/a.jsonl.gz:1: the rule `.text | tonumber > 3` fails on this document" in result.err


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            {"filter": {"exclude": ["$.a[?(@.b > .5)]"]}},
            "0.filter.exclude.0: is `$.a[?(@.b > .5)]`, which is not a JSONPath",
        ),
        ({"filter": {"include": [".a |"], "syntax": "jq"}}, "expected term at character 5"),
        ({"filter": {"include": ["$.id"], "syntax": "xpath"}}, 'is "xpath"; expected jsonpath or jq'),
        ({"span_replacement": [{"span": "$.attributes.e__t__name"}]}, "has neither min_score nor max_score"),
        ({"span_replacement": [{"span": "$.a", "min_score": 0, "replacement": "$.|"}]}, "which is not a jq selection"),
        ({"output": {"discard_fields": ["text"]}}, "which every document has to have"),
        ({"output": {"max_size_in_byte": 3}}, 'did you mean "max_size_in_bytes"?'),
        ({"documents": ["documents/*.zst"]}, "matches no file"),
        ({"attributes": ["attributes/e"]}, "give the name of a directory below `attributes`"),
        ({"documents": ["documents/*.gz", "./documents/a.jsonl.gz"]}, "lists one file twice"),
        ({"compression": {"output": "rar"}}, 'is "rar"'),
    ],
)
def test_requests_that_cannot_be_met(folder: Path, dolma: Dolma, part: dict[str, Any], words: str) -> None:
    assert words in refused(folder, dolma, stream(**part))


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    first = stream(filter={"exclude": ["$.", "$.["]})
    with pytest.raises(ConfigError) as caught:
        mix(first, {**first, "name": "t"})
    assert [problem.key for problem in caught.value.problems] == [
        f"streams.{stream}.filter.exclude.{rule}" for stream in (0, 1) for rule in (0, 1)
    ]


def test_what_is_dropped_lies_apart(folder: Path) -> None:
    dropping = {"path": "out", "keep_dropped": "other"}
    with pytest.raises(ConfigError, match=r"keep_dropped: is \"other\", the output.path of streams.1; expected"):
        mix(stream(output=dropping), stream(output={"path": "other"}))
    with pytest.raises(ConfigError, match=r"keep_dropped: is \"other\", as in streams.0, which has the same name"):
        mix(stream(output=dropping), stream(output={**dropping, "path": "more"}))
    part = stream(filter={"exclude": [LOW]}, output=dropping)
    mix(part, {**part, "name": "t", "output": {**dropping, "path": "more"}})
    assert artifact_hashes(folder / "other").keys() == {"manifest.json", "s-0000.jsonl.gz", "t-0000.jsonl.gz"}
    assert len(rows_of(folder / "other")) + 2 * len(rows_of(folder / "out")) == 600


def test_the_manifest_leads_back_to_documents_and_attributes(folder: Path) -> None:
    mix(stream(filter={"exclude": [LOW]}))
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["format"] == "document"
    assert manifest["counts"]["documents"] == alone(folder, low=False)
    roles = [(entry["role"], entry["path"]) for entry in manifest["inputs"]]
    names = ["a", "b", "c"]
    assert roles == [
        *(("attributes", f"../attributes/e/{name}.jsonl.gz") for name in names),
        *(("documents", f"../documents/{name}.jsonl.gz") for name in names),
    ]


def test_compression_of_the_output(folder: Path) -> None:
    mix(stream(output={"path": "plain"}, compression={"output": ""}))
    assert len((folder / "plain" / "s-0000.jsonl").read_text().splitlines()) == 300
    mix(stream(output={"path": "none"}, compression={"output": "none"}))
    assert (folder / "none" / "s-0000.jsonl").read_bytes() == (folder / "plain" / "s-0000.jsonl").read_bytes()
    mix(stream(output={"path": "z"}, compression={"output": "zst"}))
    assert (folder / "z" / "s-0000.jsonl.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"


def test_wrong_rows_are_listed(folder: Path, dolma: Dolma) -> None:
    file = folder / "attributes/e/b.jsonl.gz"
    rows = read_rows(file)
    write_rows(file, rows[:50])
    path = configured(folder, stream())
    dolma("-c", path, "mix", code=1)
    [listed] = read_rows(folder / "out/.dolma/errors.ndjson")
    assert (listed["code"], listed["line"]) == ("misaligned", 51)
    write_rows(file, rows)
    dolma("-c", path, "mix")
    assert not (folder / "out/.dolma/errors.ndjson").exists()


def test_a_rule_in_the_other_language_gets_a_hint(folder: Path, dolma: Dolma) -> None:
    for syntax, rule, hint in [
        ("jsonpath", ".metadata.n >= 1", "syntax: jq"),
        ("jq", "$.metadata[?(@.n >= 1)]", "syntax: jsonpath"),
    ]:
        path = configured(folder, stream(filter={"include": [rule], "syntax": syntax}))
        assert f"set `{hint}` next to it" in dolma("-c", path, "mix", code=2).err


def test_help_lists_every_setting_of_a_stream(dolma: Dolma) -> None:
    text = dolma("mix", "--help").out
    for key in (
        "name",
        "documents",
        "attributes",
        "output.path",
        "output.max_size_in_bytes",
        "filter.syntax",
        "compression.input",
    ):
        assert f"streams[].{key}" in text, key
    assert "streams[].span_replacement[].min_score" in text
    assert "bytes of compressed input" in text


def test_jq_regular_expressions_support_unicode(folder: Path) -> None:
    rules = [
        r'.text | test("na\\w+ve\\b")',
        r'.text | test("NAÏVE"; "i")',
        r'.text | test("東京\\b")',
        r'.text | test("\\p{Han}(?!x)")',
    ]
    texts = [str(row["text"]) for row in mix(stream(filter={"include": [rules[0]], "syntax": "jq"}))]
    assert texts
    assert all("naïve" in text for text in texts)
    for number, rule in enumerate(rules[1:], 1):
        output = {"path": f"out{number}"}
        kept = mix(stream(filter={"include": [rule], "syntax": "jq"}, output=output))
        assert kept, rule
        assert all(("naïve" if number == 1 else "東京") in row["text"] for row in kept), rule


def test_two_sets_that_share_a_key_are_refused(folder: Path, dolma: Dolma) -> None:
    rows = {path: read_rows(path) for path in sorted((folder / "attributes/e").glob("*.gz"))}
    for path, some in rows.items():
        write_rows(folder / "attributes/other" / path.name, some)
    error = dolma("-c", configured(folder, stream(attributes=["e", "other"])), "mix", code=1).err
    assert 'a.jsonl.gz also has the attribute "e__t__score"; expected each key in only one set of a stream' in error
    for directory in ("x", "y"):
        settings = ("--documents", "documents/*.gz", "--taggers", "char_length_v1", "--experiment", "same")
        dolma("tag", *settings, "--destination", directory)
        (folder / directory).rename(folder / "attributes" / directory)
    error = dolma("-c", configured(folder, stream(attributes=["x", "y"])), "mix", code=2).err
    assert 'streams.0.attributes: has the attribute "same__char_length_v1__length" in' in error


@pytest.mark.parametrize("extra", [{}, {"shuffle": False}, {"shuffle_documents": {"seed": 1}, "processes": 2}])
def test_mix_skips_the_rows_that_tag_and_dedupe_skipped(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ['{"text":"one"}', "no row", '{"id":"own","text":"two"}', '{"id":3,"text":""}', '{"text":"three"}']
    (tmp_path / "documents").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"documents/{name}.jsonl").write_text("\n".join(lines) + "\n")
    rules = ["--generate_ids", "--skip_bad_rows", 4]
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e", *rules)
    filter = ["--bloom_filter.file", "f.bin", "--bloom_filter.size_in_bytes", 100_000]
    keys = ["--dedupe.documents.attribute_name", "d", "--dedupe.documents.key", "$.text"]
    assert "4 rows could not be read" in dolma("dedupe", "--documents", "documents/*", *keys, *filter, *rules).err
    stream = {
        "name": "s", "documents": ["documents/*"], "attributes": ["e", "d"], "output": {"path": "out"},
        "filter": {"exclude": ["$.attributes[?(@.d)]"]}, "sample": {"rate": 1.0},
    }  # fmt: skip
    config = tmp_path / "mix.json"
    config.write_text(json.dumps({"streams": [stream], **extra, "generate_ids": True}))
    assert "a.jsonl:2: the line is not JSON" in dolma("-c", config, "mix", code=1).err
    assert (
        "more than the 3 rows that skip_bad_rows allows" in dolma("-c", config, "mix", "--skip_bad_rows", 3, code=1).err
    )
    assert "4 rows could not be read" in dolma("-c", config, "mix", "--skip_bad_rows", 4).err
    (manifest,) = tmp_path.glob("out/**/manifest.json")
    listed = [file["path"] for file in json.loads(manifest.read_text())["files"]]
    found = [row for name in listed for row in read_rows(manifest.parent / name)]
    # of equal texts in two files the first is kept, with its own attributes
    assert sorted((row["id"], row["text"]) for row in found) == [
        ("a.jsonl:1", "one"), ("a.jsonl:5", "three"), ("own", "two")]  # fmt: skip
    lengths = {row["id"]: row["attributes"]["e__char_length_v1__length"][0][2] for row in found}
    assert lengths == {"a.jsonl:1": 3, "own": 3, "a.jsonl:5": 5}
    assert {row["metadata"]["provenance"] for row in found} == {"a.jsonl:1", "a.jsonl:3", "a.jsonl:5"}
    (skipped,) = (path for path in tmp_path.rglob("skipped.ndjson") if "out" in path.parts)
    assert sorted((row["path"][-7:], row["line"]) for row in read_rows(skipped)) == [
        ("a.jsonl", 2), ("a.jsonl", 4), ("b.jsonl", 2), ("b.jsonl", 4)]  # fmt: skip
