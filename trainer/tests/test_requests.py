"""Wrong requests and bad data, each with its message, hint and exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import settings, write_config
from olmo_trainer.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = REPOSITORY / "docs" / "formats" / "vectors" / "checkpoint" / "v1" / "invalid"
Made = Callable[[Path, Path], list[str]]


def trained(change: Callable[[dict[str, Any], Path], None]) -> Made:
    """A case that trains a config which `change` has spoilt; it may spoil a copy of the data too."""

    def make(made: Path, place: Path) -> list[str]:
        shutil.copytree(made, place / "made")
        config = settings(place / "made", place / "run")
        change(config, place / "made")
        return ["train", str(write_config(place / "c.yaml", config))]

    return make


def several_problems(config: dict[str, Any], made: Path) -> None:
    config["optimizer"]["learning_rte"] = 1
    config["model"]["hidden_size"] = "wide"
    config["model"]["family"] = "olmo9"
    config["model"]["preset"] = ["olmo2-1b"]
    config["optimizer"]["weight_decay"] = float("nan")
    config["data"]["sources"][0]["ratio"] = float("inf")
    del config["train"]["batch_windows"]


def contradictions(config: dict[str, Any], made: Path) -> None:
    config["model"].update(num_attention_heads=3, clip_qkv=8.0)
    config["train"].update(batch_windows=0, duration="1ep")
    config["data"]["sources"][0]["max_tokens"] = 3


def foreign(config: dict[str, Any], made: Path) -> None:
    (made / "tokens" / "manifest.json").unlink()


def foreign_with_another_dtype(config: dict[str, Any], made: Path) -> None:
    foreign(config, made)
    config["data"]["sources"][0].update(dtype="uint8", eos_token_id=0)


def foreign_without_tokenizer(config: dict[str, Any], made: Path) -> None:
    foreign(config, made)
    (made / "tokens" / "tokenizer.json").unlink()
    config["data"]["sources"][0].update(dtype="uint16", eos_token_id=0)


def odd_size(config: dict[str, Any], made: Path) -> None:
    foreign(config, made)
    (made / "tokens" / "a.csv.gz").unlink()
    path = made / "tokens" / "a.npy"
    path.write_bytes(path.read_bytes()[:-1])
    config["data"]["sources"][0].update(dtype="uint16", eos_token_id=0)


def missing_shard(config: dict[str, Any], made: Path) -> None:
    (made / "tokens" / "b.npy").unlink()


def short_shard(config: dict[str, Any], made: Path) -> None:
    path = made / "tokens" / "b.npy"
    path.write_bytes(path.read_bytes()[:-2])


def id_out_of_range(config: dict[str, Any], made: Path) -> None:
    path = made / "tokens" / "a.npy"
    np.full(path.stat().st_size // 2, 60000, dtype="<u2").tofile(path)


def bad_document(config: dict[str, Any], made: Path) -> None:
    (made / "held_out" / "documents" / "w.jsonl").write_text('{"id": "x", "text": "ok"}\n{"id": "y", "text": 5}\n')


def cut_document(config: dict[str, Any], made: Path) -> None:
    path = made / "held_out" / "documents" / "v.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])


def too_long(config: dict[str, Any], made: Path) -> None:
    config["data"]["sequence_length"] = 10**6


def no_directory(config: dict[str, Any], made: Path) -> None:
    config["data"]["sources"][0]["path"] = str(made / "nowhere")
    config["data"]["sources"].append({"path": str(made / "neither")})


def damaged_checkpoint(made: Path, place: Path) -> list[str]:
    return ["export", str(VECTORS / "damaged_weights" / "data"), str(place / "out")]


def missing_tensor(made: Path, place: Path) -> list[str]:
    return ["export", str(VECTORS / "missing_expert" / "data"), str(place / "out")]


CASES: dict[str, tuple[Made, int, list[str]]] = {
    "unknown keys and wrong types": (
        trained(several_problems),
        2,
        [
            '"optimizer.learning_rte" is an unknown key',
            'hint: did you mean "optimizer.learning_rate"?',
            '"model.hidden_size" is "wide"; expected an integer',
            '"model.preset" is a list; expected a string',
            '"optimizer.weight_decay" is nan; expected a number',
            '"data.sources.0.ratio" is inf; expected',
            '"model.family" is "olmo9"; expected "olmo" or "olmo2" or "olmo3"',
            '"train.batch_windows" is missing; expected an integer',
        ],
    ),
    "contradictions": (
        trained(contradictions),
        2,
        [
            '"model.num_attention_heads" is 3',
            '"model.clip_qkv" is 8.0',
            '"train.batch_windows" is 0; expected more than 0',
            '"train.steps" is given beside train.duration; expected one of',
            '"data.sources.0.max_tokens" is 3; expected data.sequence_length 16 or more',
        ],
    ),
    "no config": (lambda made, place: ["train", str(place / "none.yaml")], 2, ["is not there; expected a YAML file"]),
    "no setting": (
        lambda made, place: ["train", str(write_config(place / "c.yaml", settings(made, place))), "seed.x=1"],
        2,
        ['"seed" is 3; expected a group of settings'],
    ),
    "no flag": (lambda made, place: ["train", "c.yaml", "--steps", "3"], 2, ["unrecognized arguments: --steps"]),
    "no directory": (trained(no_directory), 2, ["nowhere, which is not there", "neither, which is not there"]),
    "foreign shards": (
        trained(foreign),
        2,
        ['"data.sources.0.dtype" is missing', '"data.sources.0.eos_token_id" is missing', "no manifest.json"],
    ),
    "wrong dtype": (trained(foreign_with_another_dtype), 1, ["not uint8", "hint: set the source's dtype"]),
    "odd size": (trained(odd_size), 1, ["a.npy: file is", "which is not a multiple of 2"]),
    "no tokenizer": (
        trained(foreign_without_tokenizer),
        2,
        ['"data.tokenizer" is missing', "hint: set data.tokenizer"],
    ),
    "missing shard": (trained(missing_shard), 1, ["b.npy: file is not there"]),
    "short shard": (trained(short_shard), 1, ["b.npy: file is", "bytes long; expected"]),
    "id out of range": (trained(id_out_of_range), 1, ["a.npy", "60000 at token", "below vocab_size"]),
    "bad document": (trained(bad_document), 1, ['w.jsonl:2: "text" is the number 5; expected a string']),
    "cut document": (trained(cut_document), 1, ["v.jsonl.gz: file is cut short or damaged"]),
    "no window": (trained(too_long), 2, ["expected a file with at least one window of 1000000 tokens"]),
    "damaged checkpoint": (damaged_checkpoint, 1, ["model.safetensors: file is damaged", "expected sha256"]),
    "missing tensor": (missing_tensor, 1, ["is missing; expected shape"]),
    "no run": (
        lambda made, place: ["inspect", str(place), "--step", "1"],
        2,
        ["has no order.json; expected the directory of a run"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_request_is_answered(name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected, messages = CASES[name]
    arguments = make(made, tmp_path)
    if name == "no flag":  # argparse ends the process itself
        command = [sys.executable, "-m", "olmo_trainer", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=280)
        status, out, err = answer.returncode, answer.stdout, answer.stderr
    else:
        capsys.readouterr()
        status = main(arguments)
        out, err = capsys.readouterr()
    assert (status, out) == (expected, ""), err
    for message in messages:
        assert message in err
    assert "Traceback" not in err
    assert "error: " in err
    allowed = {"made", "c.yaml"} | ({"run"} if name == "id out of range" else set())
    left = {path.name for path in tmp_path.iterdir()} - allowed | {path.name for path in tmp_path.rglob("*step-*")}
    assert left == set(), "something half-written is left"


def test_help_and_formats_do_not_import_torch(made: Path) -> None:
    code = (
        "import sys; from olmo_trainer.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "import olmo_trainer.formats.__main__, olmo_trainer.data.provenance\n"
        "assert not {'torch', 'transformers', 'wandb'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_shipped_configs_load_and_are_what_they_are_called() -> None:
    from olmo_trainer.config.load import load_config
    from olmo_trainer.model.architecture import architecture_of
    from olmo_trainer.model.flops import total_parameters

    sizes = {"tiny-cpu": 1.9e6, "olmo1-1b": 1.18e9, "olmo2-1b": 1.48e9, "llama2-7b": 6.74e9}
    vocabularies = {"tiny-cpu": 8192, "olmo1-1b": 50280, "olmo2-1b": 100278, "llama2-7b": 32000}
    paths = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))
    assert {path.stem for path in paths} == set(sizes)
    for path in paths:
        model = load_config(path, []).model
        found = total_parameters(architecture_of(model, vocabularies[path.stem]))
        assert found == pytest.approx(sizes[path.stem], rel=0.01), path.stem


DOLMA = Path(os.environ.get("DOLMA_ORACLE", REPOSITORY / ".venv-oracle" / "bin")) / "dolma"


@pytest.mark.processes
@pytest.mark.skipif(not DOLMA.is_file(), reason="dolma 1.2.1 is not there: make oracle, or set DOLMA_ORACLE")
def test_a_shard_of_dolma_1_2_1_trains(made: Path, tmp_path: Path) -> None:
    destination = tmp_path / "foreign"
    flags = {
        "documents": made / "held_out" / "documents" / "v.jsonl.gz",
        "tokenizer.name_or_path": made / "tokenizer.json",
        "tokenizer.eos_token_id": 0,
        "tokenizer.pad_token_id": 1,
        "destination": destination,
        "dtype": "uint16",
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    subprocess.run([str(DOLMA), "tokens", *arguments], check=True, capture_output=True, timeout=110)
    sources = [{"path": str(destination), "dtype": "uint16", "eos_token_id": 0, "pad_token_id": 1}]
    config = settings(made, tmp_path / "run", data__sources=sources, data__tokenizer=str(made / "tokenizer.json"))
    assert main(["train", str(write_config(tmp_path / "c.yaml", config)), "train.steps=4"]) == 0
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "step-4" / "manifest.json").read_text())
    assert {row["role"] for row in manifest["inputs"]} == {"tokens", "tokenizer", "validation"}
    assert main(["inspect", str(tmp_path / "run"), "--document", "v0"]) == 0
