"""The settings files that production runs of dolma 1.x were made of: they run as they are, with the rows of 1.2.1.

Only paths, the number of processes and the size of the filter are those of a test.
"""

# ruff: noqa: E501 - the settings stand as they were released

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import IN_PROCESSES, corpus, here, oracle, read_rows, there, write_rows

pytestmark = pytest.mark.oracle

Command = Callable[[list[str]], subprocess.CompletedProcess[str]]

SETTINGS = {
    "tag": """
documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
experiment: gopher_rules
taggers: [gopher_v1, c4_v2]
processes: 2
""",
    "tag pii": """
documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
experiment: pii_detection
taggers: [pii_regex_with_counts_fast_v2]
processes: 1
work_dir: {input: "${oc.env:SIDE}/w/in", output: "${oc.env:SIDE}/w/out"}
""",
    "dedupe": """
documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
dedupe:
  name: dedupe_para
  skip_empty: true
  paragraphs:
    attribute_name: bff_duplicate_paragraph_spans
bloom_filter:
  file: ${oc.env:SIDE}/bloom.bin
  read_only: false
  estimated_doc_count: 300000
  desired_false_positive_rate: 1e-6
processes: 1
""",
    "mix": """
streams:
- name: cc_en_head
  documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
  attributes: [gopher_rules, dedupe_para, pii_detection]
  output: {path: "${oc.env:SIDE}/out/documents/cc_en_head", max_size_in_bytes: 4294967296, min_text_length: 1, discard_fields: [attributes]}
  filter:
    syntax: jq
    include: []
    exclude:
      - '.attributes.gopher_rules__gopher_v1__word_count | if type=="array" and length>0 then .[0][2] < 50 else false end'
  span_replacement:
    - {span: "$.attributes.bff_duplicate_paragraph_spans", min_score: 0.5, replacement: ""}
processes: 1
""",
    "mix jsonpath": """
streams:
- name: cc_en_middle
  documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
  attributes: [gopher_rules, pii_detection]
  output: {path: "${oc.env:SIDE}/v1_6/documents", max_size_in_bytes: 4294967296, discard_fields: [attributes]}
  filter:
    include: ["$.id"]
    exclude:
      - "$@.attributes[?(@.gopher_rules__gopher_v1__word_count && @.gopher_rules__gopher_v1__word_count[0] && @.gopher_rules__gopher_v1__word_count[0][2] > 100000)]"
      - "$@.attributes[?(@.gopher_rules__gopher_v1__median_word_length && @.gopher_rules__gopher_v1__median_word_length[0] && @.gopher_rules__gopher_v1__median_word_length[0][2] < 4.5)]"
      # as released: the tagger's name ends in 2grams
      - "$@.attributes[?(@.gopher_rules__gopher_v1__fraction_of_characters_in_most_common_2gram && @.gopher_rules__gopher_v1__fraction_of_characters_in_most_common_2gram[0][2] > 0.20)]"
      - "$@.attributes[?(@.pii_detection__pii_regex_with_counts_fast_v2__doc_count && @.pii_detection__pii_regex_with_counts_fast_v2__doc_count[0] && @.pii_detection__pii_regex_with_counts_fast_v2__doc_count[0][2] > 5)]"
  span_replacement:
    - &pii {span: $.attributes.pii_detection__pii_regex_with_counts_fast_v2__EMAIL_ADDRESS, min_score: 0.5, replacement: " |||EMAIL_ADDRESS||| "}
    - {<<: *pii, span: $.attributes.pii_detection__pii_regex_with_counts_fast_v2__PHONE_NUMBER, replacement: " |||PHONE_NUMBER||| "}
    - {<<: *pii, span: $.attributes.pii_detection__pii_regex_with_counts_fast_v2__IP_ADDRESS, replacement: " |||IP_ADDRESS||| "}
work_dir: {input: null, output: null}
processes: 1
""",
    "tokens": """
documents: ["${oc.env:SIDE}/src/documents/cc_en_head/*.gz"]
destination: ${oc.env:SIDE}/preprocessed/x/allenai/dolma2-tokenizer
dtype: uint32
max_size: 4_000_000
tokenizer: {name_or_path: "${oc.env:TOKENIZER}", bos_token_id: null, eos_token_id: 100257, pad_token_id: 100277, segment_before_tokenization: false, encode_special_tokens: true}
""",
}


def mail(number: int) -> str:
    return f"Write to reader{number}@example.org , or call us at (206) 555-01{number % 90 + 10} or look at 10.1.2.{number % 250} today."


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same documents for both: ASCII and without a newline at the end, where 1.2.1's last paragraph is right."""
    oracle()
    folder = tmp_path_factory.mktemp("canonical")
    rows = []
    for source in ("c4", "reddit"):
        [file] = corpus(source)
        wanted = (row for row in read_rows(file.parent) if row["text"].isascii() and row["text"].strip())
        for number, row in zip(range(160), wanted, strict=False):
            text = row["text"].rstrip("\n")
            rows.append({**row, "text": f"{text}\n{mail(number % 40)}" if number % 4 == 0 else text})
    for side in ("ours", "theirs"):
        for index in range(2):
            write_rows(folder / side / f"src/documents/cc_en_head/cc_en_head-{index:04d}.json.gz", rows[index::2])
    return {side: folder / side for side in ("ours", "theirs")}


def run_all(side: Path, tokenizer: Path, command: Command) -> dict[str, str]:
    """Runs every settings file in turn. Returns the stderr of each."""
    stderr = {}
    environment = {"SIDE": str(side), "TOKENIZER": str(tokenizer), "TOKENIZERS_PARALLELISM": "false"}
    for name, text in SETTINGS.items():
        path = side / f"{name.replace(' ', '_')}.yaml"
        path.write_text(text)
        arguments = ["-c", str(path), name.split()[0]]
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            done = command([*arguments, "--debug"] if name.split()[0] in IN_PROCESSES else arguments)
        assert done.returncode == 0, (name, done.stderr[-2000:])
        stderr[name] = done.stderr
    return stderr


@pytest.fixture(scope="module")
def stderr(sides: dict[str, Path], shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Both have run; what ours said."""
    tokenizer = shared_data / "tokenizers" / "allenai_dolma2.json"
    content = json.loads(tokenizer.read_text())
    if isinstance(content["model"]["merges"][0], list):
        # as the older ``tokenizers`` of 1.2.1 reads them
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
        tokenizer = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
        tokenizer.write_text(json.dumps(content))
    run_all(sides["theirs"], tokenizer, there)
    return run_all(sides["ours"], tokenizer, here)


def rounded(rows: Any) -> list[Any]:
    """Scores to four decimals: the fifth is that of rounding."""
    return [
        {**row, "attributes": {key: [[*s[:2], round(s[2], 4)] for s in v] for key, v in row["attributes"].items()}}
        for row in rows
    ]


@pytest.mark.parametrize("name", ["gopher_rules", "pii_detection", "dedupe_para"])
def test_attributes(sides: dict[str, Path], stderr: dict[str, str], name: str) -> None:
    found = [rounded(read_rows(side / "src/attributes" / name)) for side in sides.values()]
    assert len(found[0]) == 320
    assert found[0] == found[1]
    assert sum(len(spans) for row in found[0] for spans in row["attributes"].values()) > 30


@pytest.mark.parametrize(("place", "most"), [("out", 319), ("v1_6", 319)])
def test_documents(sides: dict[str, Path], stderr: dict[str, str], place: str, most: int) -> None:
    found = [list(read_rows(side / place)) for side in sides.values()]
    assert found[0] == found[1]
    assert 50 < len(found[0]) <= most
    assert any("|||EMAIL_ADDRESS|||" in row["text"] for row in found[0]) == (place == "v1_6")


def test_a_misspelt_rule_of_the_released_settings_is_told(stderr: dict[str, str]) -> None:
    """1.2.1 keeps silent, and v1.5 and v1.6 were mixed without these rules."""
    assert "fraction_of_characters_in_most_common_2gram" in stderr["mix jsonpath"]
    assert "did you mean" in stderr["mix jsonpath"]
    assert "did you mean" not in stderr["mix"]


def test_tokens(sides: dict[str, Path], stderr: dict[str, str]) -> None:
    """The same tokens for each document; the order is seeded here and is not in 1.2.1."""
    found = []
    for side in sides.values():
        documents = {}
        for path in (side / "preprocessed/x/allenai/dolma2-tokenizer").glob("*.npy"):
            ids = np.memmap(path, dtype="uint32", mode="r")
            with gzip.open(path.with_suffix(".csv.gz"), "rt", newline="") as table:
                for start, end, id, source, line in csv.reader(table):
                    documents[id, os.path.basename(source), line] = ids[int(start) : int(end)].tolist()
        found.append(documents)
    assert len(found[0]) == 320
    assert found[0] == found[1]
    assert all(ids[-1] == 100257 for ids in found[0].values())
