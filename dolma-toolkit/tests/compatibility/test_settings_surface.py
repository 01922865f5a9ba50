"""Every key and flag of dolma 1.2.1, from a file and from the command line."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma
from oracle import theirs, there

from dolma.config import load, to_yaml

DIRS = {"work_dir.input": "w/in", "work_dir.output": "w/out"}
# what 1.2.1 lets one set, with a value that is not its default
KEYS: dict[str, dict[str, Any]] = {
    "tag": {
        "documents": ["documents/**/*"],
        "destination": ["out"],
        "taggers": ["c4_v2"],
        "tagger_modules": [],
        "experiment": "e",
        "processes": 2,
        "ignore_existing": True,
        "debug": True,
        "profile.enable": False,
        "profile.output": "p.txt",
        "profile.sort_key": "cumtime",
        "profile.lines": 7,
        **DIRS,
    },
    "dedupe": {
        "documents": ["documents/**/*"],
        "dedupe.name": "d",
        "dedupe.paragraphs.attribute_name": "d",
        "dedupe.paragraphs.paragraph_separator": "\n\n",
        "dedupe.paragraphs.by_ngram.ngram_length": 13,
        "dedupe.paragraphs.by_ngram.stride": 2,
        "dedupe.paragraphs.by_ngram.overlap_threshold": 0.5,
        "dedupe.paragraphs.by_ngram.skip_short_paragraphs": True,
        "dedupe.skip_empty": True,
        "dedupe.min_length": 3,
        "dedupe.min_words": 4,
        "dedupe.num_partitions": 5,
        "dedupe.partition_index": 1,
        "dedupe.file_partition": True,
        "dedupe.document_dir": "documents",
        "bloom_filter.file": "f.bin",
        "bloom_filter.read_only": False,
        "bloom_filter.size_in_bytes": 4096,
        "bloom_filter.estimated_doc_count": 100,
        "bloom_filter.desired_false_positive_rate": 1e-4,
        "compression.input": "gz",
        "compression.output": None,
        "processes": 2,
        "is_s3_volume": False,
        **DIRS,
    },
    "mix": {"processes": 2, "shuffle": False, **DIRS},
    "tokens": {
        "documents": ["documents/**/*"],
        "destination": "out",
        "tokenizer.name_or_path": "t.json",
        "tokenizer.bos_token_id": 1,
        "tokenizer.eos_token_id": 2,
        "tokenizer.pad_token_id": 3,
        "tokenizer.segment_before_tokenization": True,
        "tokenizer.refresh": 4,
        "tokenizer.fast": True,
        "tokenizer.encode_special_tokens": True,
        "processes": 2,
        "files_per_process": 5,
        "batch_size": 6,
        "ring_size": 7,
        "sample_ring_prop": True,
        "max_size": 4_000_000,
        "dtype": "uint32",
        "fields.text_field_name": "t",
        "fields.text_field_type": "str",
        "fields.id_field_name": "i",
        "fields.id_field_type": "str",
        "seed": 8,
        "debug": True,
        **DIRS,
    },
    "stat": {
        "attributes": ["attributes/e/*", "attributes/f/*"],
        "report": "r",
        "bins": 10,
        "processes": 2,
        "seed": 1,
        "total": True,
        "regex": "x",
        "debug": True,
        **DIRS,
    },
    "list": {"tagger_modules": []},
}
STREAM = {
    "name": "s",
    "documents": ["documents/**/*"],
    "attributes": ["e"],
    "output": {"path": "out", "max_size_in_bytes": 1000, "discard_fields": ["added"], "min_text_length": 3},
    "filter": {"include": [".id"], "exclude": [".x"], "syntax": "jq"},
    "span_replacement": [
        {"span": "$.attributes.e", "min_score": 0.1, "max_score": 0.9, "replacement": "{}", "syntax": "jsonpath"}
    ],
    "compression": {"input": "gz", "output": "zst"},
}


def nested(keys: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dotted, value in keys.items():
        *parents, last = dotted.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return found


def value_at(settings: dict[str, Any], dotted: str) -> Any:
    found: Any = settings
    for part in dotted.split("."):
        found = found[part]
    return found


def resolved(command: str, file: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    config = importlib.import_module(f"dolma.commands.{command}").Config
    settings: dict[str, Any] = yaml.safe_load(to_yaml(load(config, file, overrides)))
    return settings


@pytest.mark.parametrize("command", KEYS)
def test_every_key_may_stand_in_a_file(command: str) -> None:
    streams = {"streams": [STREAM]} if command == "mix" else {}
    settings = resolved(command, {**nested(KEYS[command]), **streams}, {})
    assert {key: value_at(settings, key) for key in KEYS[command]} == KEYS[command]
    for key, value in STREAM.items() if streams else ():
        found = settings["streams"][0][key]
        assert found | value == found if isinstance(value, dict) else found == value


@pytest.mark.parametrize("command", [name for name in KEYS if name != "mix"])
def test_every_key_is_an_option(dolma: Dolma, corpus: Path, command: str) -> None:
    """As ``--key value``; what is true also as ``--key`` and what is false as ``--no-key``."""
    help = dolma(command, "--help").out
    for key in KEYS[command]:
        assert f"--{key} " in help or f"--{key}\n" in help
    if command not in ("tag", "dedupe"):
        return
    arguments: list[object] = []
    for key, value in KEYS[command].items():
        if isinstance(value, bool):
            arguments += [f"--{key}" if value else f"--no-{key}"]
        elif value not in (None, []):
            arguments += [f"--{key}", *(value if isinstance(value, list) else [value])]
    out = dolma(command, *arguments, "--dryrun").out
    settings = yaml.safe_load("\n".join(line for line in out.splitlines() if not line.startswith("#")))
    assert {key: value_at(settings, key) for key in KEYS[command]} == KEYS[command]
    assert [path.name for path in corpus.iterdir()] == ["documents"]


@pytest.mark.oracle
def test_these_are_the_keys_of_1_2_1() -> None:
    """Its help names no option that the lists here leave out."""
    known = {"help", "dryrun", "profile.steps", "streams", "tokenizer_name_or_path", "is_s3_volume"}
    known |= {"dedupe.documents.attribute_name", "dedupe.documents.key"}
    for command, keys in KEYS.items():
        done = there([command, "--help"])
        assert done.returncode == 0, done.stderr
        options = {name.removeprefix("no-") for name in re.findall(r"--([a-z_.0-9-]+)", done.stdout)}
        assert options <= known | keys.keys(), command
        assert keys.keys() - {"compression.input"} <= options | {"is_s3_volume"} or command == "tag"


@pytest.mark.oracle
def test_an_unknown_key_is_refused_as_in_1_2_1(dolma: Dolma, corpus: Path) -> None:
    settings = {"documents": [f"{corpus}/documents/*"], "taggers": ["c4_v2"], "tagers": ["c4_v1"]}
    done = theirs("tag", settings, corpus)
    assert done.returncode == 1
    assert "ConfigKeyError" in done.stderr
    (corpus / "mine.json").write_text(json.dumps(settings))
    assert 'did you mean "taggers"?' in dolma("-c", "mine.json", "tag", code=2).err


def test_references_of_1_2_1(dolma: Dolma, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``oc.env``, ``d.glob``, ``d.processes``, ``d.cache`` and other keys, in a file after or before the command."""
    monkeypatch.setenv("HERE", str(corpus))
    (corpus / "c.yaml").write_text(
        "documents: ['${d.glob:${oc.env:HERE}/documents/*.gz}']\n"
        "taggers: &names [c4_v2]\n"
        "experiment: e${processes}\n"
        "processes: ${d.processes:100000}\n"
        "profile: {output: '${d.cache:documents/a.jsonl.gz}'}\n"
    )
    for arguments in (["-c", "c.yaml", "tag", "--dryrun"], ["tag", "--dryrun", "-c", "c.yaml"]):
        settings = yaml.safe_load(dolma(*arguments).out)
        assert settings["documents"] == [f"{corpus}/documents/a.jsonl.gz"]
        assert (settings["experiment"], settings["processes"]) == ("e1", 1)
        assert settings["profile"]["output"] == "documents/a.jsonl.gz"
