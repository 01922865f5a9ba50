"""Rows and attributes of other tools: any JSON as attribute, null, JSON text, repeated fields, numeric keys."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, read_rows, write_rows

import dolma
from dolma.errors import ConfigError, FormatError, ProblemsError
from dolma.formats.__main__ import main as formats

FILTER = {"file": "f.bin", "estimated_doc_count": 100, "desired_false_positive_rate": 1e-6}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mixed(
    *, attributes: list[str] | None = None, output: dict[str, Any] | None = None, **stream: Any
) -> list[dict[str, Any]]:
    settings = {"name": "s", "documents": ["documents/*"], "attributes": attributes or [], **stream}
    dolma.mixer({"streams": [settings | {"output": {"path": "out", **(output or {})}}]})
    return [row for file in sorted(Path("out").glob("*.gz")) for row in read_rows(file)]


def write_attributes(*attributes: dict[str, Any]) -> None:
    rows = [{"id": str(number), "text": "write to me@x.org now", "source": "s"} for number in range(len(attributes))]
    write_rows(Path("documents/a.jsonl"), rows)
    found = [{"id": str(number), "attributes": found} for number, found in enumerate(attributes)]
    write_rows(Path("attributes/e/a.jsonl"), found)


FREE: tuple[dict[str, Any], ...] = (
    {"toxicity": 0.1, "pii": {"email": [[9, 17, 0.9]], "too_much": False}, "label": "好评", "none": None},
    {"toxicity": 0.9, "pii": {"email": []}, "vector": [[0.5, 1.5], [2.5]], "four": [[0, 5, 0.7, "VERB"]]},
    {"pii": {"email": [[0, 5, 0.2], [9, 17, 0.8]], "too_much": True}, "pair": [[1, 2]], "backwards": [[2, 1, 1]]},
)


def test_attributes_of_any_kind_pass_through(folder: Path) -> None:
    write_attributes(*FREE)
    assert [row["attributes"] for row in mixed(attributes=["e"])] == list(FREE)
    # and once more, from the documents themselves
    again = mixed(documents=["out/*.gz"], output={"path": "again"})
    assert [row["attributes"] for row in again] == list(FREE)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"exclude": ["$.attributes[?(@.toxicity > 0.8)]"]}, ["0", "2"]),
        ({"exclude": ["$.attributes[?(@.pii.too_much == true)]"]}, ["0", "1"]),
        ({"include": ["$.attributes[?(@.label == '好评')]"]}, ["0"]),
        ({"include": [".attributes.toxicity != null and .attributes.toxicity > 0.5"], "syntax": "jq"}, ["1"]),
        ({"include": ['.attributes.four[0][3]? == "VERB"'], "syntax": "jq"}, ["1"]),
    ],
)
def test_rules_read_attributes_of_any_kind(folder: Path, rules: dict[str, Any], kept: list[str]) -> None:
    write_attributes(*FREE)
    assert [row["id"] for row in mixed(attributes=["e"], filter=rules)] == kept


@pytest.mark.parametrize(
    ("span", "syntax"), [("$.attributes.pii.email", "jsonpath"), (".attributes?.pii?.email?", "jq")]
)
def test_spans_are_replaced_by_nested_path(folder: Path, span: str, syntax: str) -> None:
    write_attributes(*FREE)
    rule = {"span": span, "syntax": syntax, "min_score": 0.5, "replacement": "[{}]"}
    texts = [row["text"] for row in mixed(attributes=["e"], span_replacement=[rule])]
    assert texts == ["write to [me@x.org] now", "write to me@x.org now", "write to [me@x.org] now"]


def test_a_span_may_have_more_parts(folder: Path) -> None:
    write_attributes({"four": [[0, 5, 0.7, "VERB", [1]]]})
    rule = {"span": "$.attributes.four", "min_score": 0.5, "replacement": "-"}
    assert mixed(attributes=["e"], span_replacement=[rule])[0]["text"] == "- to me@x.org now"


@pytest.mark.parametrize("value", [0.7, "text", {"a": 1}, [[0, 1]], [[2, 1, 1]], [[0, 1, True]], [[0.5, 1, 1]]])
def test_selected_spans_must_be_spans(folder: Path, value: Any) -> None:
    write_attributes({"k": [[0, 1, 1]]}, {"k": value})
    rule = {"span": "$.attributes.k", "min_score": 0.5, "replacement": ""}
    with pytest.raises((FormatError, ProblemsError), match=r"a\.jsonl:2: .*attributes\.k"):
        mixed(attributes=["e"], span_replacement=[rule])


def test_a_number_is_a_score(folder: Path) -> None:
    write_attributes({"q": 0.1, "n": 7}, {"q": 0.9, "n": [[0, 21, 3.0]]})
    mixed(attributes=["e"], split={"attribute": "q", "ranges": [0.5]}, budget={"tokens": 10, "attribute": "n"})
    parts = [read_rows(next(Path("out", part).glob("*.gz"))) for part in ("part-00", "part-01")]
    assert [[row["id"] for row in rows] for rows in parts] == [["0"], ["1"]]


def test_a_number_beyond_all_floats_is_refused(folder: Path) -> None:
    write_attributes({})
    Path("attributes/e/a.jsonl").write_text('{"id": "0", "attributes": {"k": {"deep": [1e999]}}}\n')
    with pytest.raises((FormatError, ProblemsError), match=r"a\.jsonl:1: .*number out of range"):
        mixed(attributes=["e"])


def test_stat_counts_numbers_and_warns_about_the_rest(folder: Path, dolma: Dolma) -> None:
    write_attributes(*FREE)
    result = dolma("stat", "--attributes", "attributes/e/*", "--total")
    assert "toxicity/score\n  values 2  sum 1" in result.out
    assert "toxicity/length" not in result.out
    assert '1 values of "label" are neither spans nor numbers' in result.err


def test_a_guarded_rule_is_valid_where_nothing_has_the_attribute(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_attributes({"k": 1}, {"k": 2})
    for syntax, rule in [
        ("jsonpath", "$.attributes[?(@.dummy && @.dummy[0] && @.dummy[0][2] > 0.5)]"),
        ("jq", ".attributes.dummy? and .attributes.dummy[0][2] > 0.5"),
        ("jq", '(.attributes | has("dummy")) and .attributes.dummy[0][2] > 0.5'),
        ("jq", "(.attributes.dummy[0][2] // 0) > 0.5"),
    ]:
        caplog.clear()
        assert len(mixed(attributes=["e"], filter={"exclude": [rule], "syntax": syntax})) == 2, rule
        assert 'no document has the attribute "dummy"' in caplog.text


@pytest.mark.parametrize(
    ("syntax", "rule"),
    [
        ("jsonpath", "$.attributes[?(@.dummy[0][2] > 0.5)]"),
        ("jsonpath", "$.attributes[?(@.k && @.dummy[0][2] > 0.5)]"),
        ("jq", ".attributes.dummy[0][2] > 0.5"),
        ("jq", ".attributes.dummy.deep != null"),
    ],
)
def test_an_unguarded_unknown_attribute_is_an_error(folder: Path, syntax: str, rule: str) -> None:
    write_attributes({"k": 1})
    with pytest.raises(ConfigError, match="no loaded set of attributes has"):
        mixed(attributes=["e"], filter={"exclude": [rule], "syntax": syntax})


@pytest.mark.parametrize("field", ["source", "added", "created", "version", "metadata", "attributes", "subdomain"])
def test_null_in_an_optional_field_counts_as_missing(folder: Path, dolma: Dolma, field: str) -> None:
    write_rows(Path("documents/a.jsonl"), [{"id": "1", "text": "a b", field: None}])
    assert [row["text"] for row in mixed()] == ["a b"]
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e")


def test_metadata_may_be_json_text(folder: Path, dolma: Dolma) -> None:
    text = '{\n  "url": "https://x.org", "n": 1.10\n}'
    write_rows(Path("documents/a.jsonl"), [{"id": "1", "text": "a", "metadata": text}, {"id": "2", "text": "b"}])
    rows = mixed(filter={"include": ["$.metadata[?(@.url == 'https://x.org')]"]})
    assert [row["metadata"] for row in rows] == [{"url": "https://x.org", "n": 1.1, "provenance": "a.jsonl:1"}]
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e")
    write_rows(
        Path("documents/a.jsonl"),
        [{"id": "1", "text": "a", "metadata": text}, {"id": "2", "text": "b", "metadata": text}],
    )
    dedupe = {"documents": {"attribute_name": "d", "key": "$.metadata.url"}}
    settings = {"documents": ["documents/*"], "dedupe": dedupe, "bloom_filter": FILTER}
    Path("dedupe.json").write_text(json.dumps(settings))
    dolma("-c", "dedupe.json", "dedupe")
    assert [row["attributes"] for row in read_rows(Path("attributes/d/a.jsonl"))] == [{}, {"d": [[0, 13, 1]]}]


def test_of_a_repeated_field_the_last_counts_everywhere(
    folder: Path, dolma: Dolma, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("documents").mkdir()
    Path("documents/a.jsonl").write_text('{"id":"1","text":"first","source":"s","text":"second one"}\n')
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e")
    assert read_rows(Path("attributes/e/a.jsonl"))[0]["attributes"] == {"e__char_length_v1__length": [[0, 10, 10.0]]}
    assert [row["text"] for row in mixed()] == ["second one"]
    assert formats(["dump", "document", "documents"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["text"] == "second one"


def test_numbers_are_keys(folder: Path) -> None:
    keys: list[Any] = [7, 7.0, "7", 8, 18446744073709551615, 18446744073709551614, True]
    write_rows(
        Path("documents/a.jsonl"), [{"id": str(n), "text": "", "metadata": {"k": key}} for n, key in enumerate(keys)]
    )
    dedupe = {"documents": {"attribute_name": "d", "key": "$.metadata.k"}}
    dolma.deduper({"documents": ["documents/*"], "dedupe": dedupe, "bloom_filter": FILTER})
    marked = [bool(row["attributes"]) for row in read_rows(Path("attributes/d/a.jsonl"))]
    assert marked == [False, True, True, False, False, False, False]


@pytest.mark.parametrize("key", ["1e300", "123456789012345678901234567890", "null", "[1]", '{"a":1}'])
def test_what_cannot_be_compared_is_refused_as_key(folder: Path, key: str) -> None:
    Path("documents").mkdir()
    Path("documents/a.jsonl").write_text(f'{{"id":"1","text":"","metadata":{{"k":{key}}}}}\n')
    dedupe = {"documents": {"attribute_name": "d", "key": "$.metadata.k"}}
    with pytest.raises((FormatError, ProblemsError), match=r"a\.jsonl:1: the key \$\.metadata\.k"):
        dolma.deduper({"documents": ["documents/*"], "dedupe": dedupe, "bloom_filter": FILTER})


@pytest.mark.parametrize(
    ("syntax", "rule", "warning"),
    [
        ("jq", ".metadata.quality < 0.5", "2 of the 2 documents that it drops have no metadata.quality"),
        ("jq", ".metadata.deep.quality <= 0.5", "2 of the 2 documents that it drops have no metadata.deep.quality"),
        ("jq", '.metadata.lang < "m" and .id != "x"', "drops have no metadata.lang"),
        ("jq", ".metadata.n > 1 and .metadata.qualty > 3", "metadata.qualty is missing or null"),
        ("jsonpath", "$.metadata[?(@.qualty < 0.5)]", "metadata.qualty is missing or null"),
        ("jsonpath", "$.metadata[?(@.n < 0.5)]", None),
        ("jq", ".metadata.quality != null and .metadata.quality < 0.5", None),
        ("jq", ".metadata.n < 1", None),
    ],
)
def test_a_rule_about_a_missing_field_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture, syntax: str, rule: str, warning: str | None
) -> None:
    rows = [{"id": str(n), "text": "a", "metadata": {"n": n + 1}} for n in range(2)]
    write_rows(Path("documents/a.jsonl"), rows)
    with caplog.at_level(logging.WARNING):
        mixed(filter={"exclude": [rule], "syntax": syntax})
    assert (warning in caplog.text) if warning else caplog.text == ""


def test_bad_rows_are_skipped_and_ids_are_given(folder: Path, dolma: Dolma) -> None:
    lines = ['{"text": "a"}', "no json", '{"id": "x", "text": "b"}', '{"id": "y"}', '{"text": "c"}']
    Path("documents").mkdir()
    Path("documents/a.jsonl").write_text("".join(f"{line}\n" for line in lines))
    rules = ["--generate_ids", "--skip_bad_rows", "2"]
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e", *rules)
    settings = {
        "streams": [{"name": "s", "documents": ["documents/*"], "attributes": ["e"], "output": {"path": "out"}}]
    }
    Path("mix.json").write_text(json.dumps(settings))
    result = dolma("-c", "mix.json", "mix", *rules)
    assert "2 rows could not be read and were skipped" in result.err
    rows = read_rows(next(Path("out").glob("*.gz")))
    found = [(row["id"], row["text"], row["metadata"]["provenance"]) for row in rows]
    assert found == [("a.jsonl:1", "a", "a.jsonl:1"), ("x", "b", "a.jsonl:3"), ("a.jsonl:5", "c", "a.jsonl:5")]
    assert [row["line"] for row in read_rows(Path("out/.dolma/skipped.ndjson"))] == [2, 4]


def test_no_pattern_for_data_matches_side_files(folder: Path, dolma: Dolma, tokenizer_path: Path) -> None:
    write_rows(Path("documents/a.jsonl"), [{"id": "1", "text": "a b c"}, {"id": "2", "text": "a b c"}])
    dolma("tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e")
    mixed(attributes=["e"])
    dedupe = {"documents": {"attribute_name": "d", "key": "$.text"}}
    Path("dedupe.json").write_text(json.dumps({"documents": ["documents/*"], "dedupe": dedupe, "bloom_filter": FILTER}))
    dolma("-c", "dedupe.json", "dedupe")
    tokens = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", "0", "--destination", "tokens"]
    dolma("tokens", "--documents", "documents/*", *tokens)
    for place, data in [
        ("attributes/e", "a.jsonl"),
        ("attributes/d", "a.jsonl"),
        ("out", "s-0000.jsonl.gz"),
        ("tokens", None),
    ]:
        files = [path for path in Path(place).rglob("*") if path.is_file()]
        assert any(path.name == "metrics.ndjson" for path in files), place
        assert any(path.name == "config.yaml" for path in files), place
        # as in `pathlib`, which also matches hidden files, and as in a shell
        assert [path.name for path in files if ".json" in path.name and path.name not in LISTED] == (
            [data] if data else []
        ), place
        assert {path.name for path in Path(place).glob("[!.]*")} <= {
            data,
            "manifest.json",
            "tokenizer.json",
            *TOKENS,
        }, place


LISTED = ("manifest.json", "tokenizer.json")
TOKENS = ("part-00-00000.npy", "part-00-00000.csv.gz", "part-0-00000.npy", "part-0-00000.csv.gz")


def test_side_files_of_an_earlier_release_are_found_and_moved(folder: Path, dolma: Dolma) -> None:
    write_rows(Path("documents/a.jsonl"), [{"id": "1", "text": "a b c"}])
    tag = ["tag", "--documents", "documents/*", "--taggers", "char_length_v1", "--experiment", "e"]
    dolma(*tag)
    mixed(attributes=["e"])
    Path("attributes/e/.dolma/progress.ndjson").rename("attributes/e/.progress.jsonl")
    funnel = read_rows(Path("out/.dolma/funnel.ndjson"))
    Path("out/funnel.json").write_text(json.dumps({"streams": funnel}))
    Path("out/.dolma/funnel.ndjson").unlink()
    assert "1 were finished before" in dolma(*tag).err
    assert not Path("attributes/e/.progress.jsonl").exists()
    settings = {
        "streams": [{"name": "s", "documents": ["documents/*"], "attributes": ["e"], "output": {"path": "out"}}]
    }
    Path("mix.json").write_text(json.dumps(settings))
    assert "nothing to do" in dolma("-c", "mix.json", "mix").err
    assert not Path("out/funnel.json").exists()
