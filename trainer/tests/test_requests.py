"""Wrong requests and bad data, each with its message, hint and exit status."""

from __future__ import annotations

import gzip
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
from olmo_trainer.formats.document import document_files

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


def with_bytes(name: str, content: bytes) -> Made:
    """A case whose held-out documents are in a file of this name."""

    def change(config: dict[str, Any], made: Path) -> None:
        (made / "held_out" / "documents" / name).write_bytes(content)

    return trained(change)


ROW = b'{"id": "a", "text": "one"}'


def piped_document(config: dict[str, Any], made: Path) -> None:
    os.mkfifo(made / "held_out" / "documents" / "w.jsonl")


def piped_config(made: Path, place: Path) -> list[str]:
    os.mkfifo(place / "c.yaml")
    return ["train", str(place / "c.yaml")]


def of_bytes(content: bytes) -> Made:
    """A case whose config is these bytes."""

    def make(made: Path, place: Path) -> list[str]:
        (place / "c.yaml").write_bytes(content)
        return ["train", str(place / "c.yaml")]

    return make


def quantities(config: dict[str, Any], made: Path) -> None:
    config["train"].update(stop_at=20, steps=None, duration=5, batch_windows=4.0)
    config["optimizer"]["learning_rate"] = "0.001"
    config["data"]["sequence_length"] = "16T"
    config["model"].update(num_hidden_layers=10**20, hidden_size=10**50)


def far_too_large(config: dict[str, Any], made: Path) -> None:
    config["model"].update(num_hidden_layers=10**9, intermediate_size=2**40)
    config["train"]["batch_windows"] = 2**40


def begun_from(**changes: Any) -> Made:
    """A case that begins from a checkpoint whose config.json is changed."""

    def change(config: dict[str, Any], made: Path) -> None:
        described = {"architectures": ["Olmo3ForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "vocab_size": 400}
        described |= {"num_hidden_layers": 1, "num_attention_heads": 2, **changes}
        (made / "model").mkdir()
        (made / "model" / "config.json").write_text(json.dumps(described))
        config["init_from"] = str(made / "model")
        del config["model"]

    return trained(change)


def row_error(content: bytes, message: str, name: str = "w.jsonl") -> tuple[Made, int, list[str]]:
    """A held-out file with this content, and the error it must cause."""
    return with_bytes(name, content), 1, [f"{name}:1: line is {message}"]


def config_error(content: bytes, message: str) -> tuple[Made, int, list[str]]:
    """A config of these bytes, and the error it must cause."""
    return of_bytes(content), 2, [message]


def rows_in(run: Path, *rows: str) -> Path:
    """A run's directory with these rows of metrics."""
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return run


CASES: dict[str, tuple[Made, int, list[str]]] = {
    "unknown keys and wrong types": (
        trained(several_problems),
        2,
        [
            'unknown setting "optimizer.learning_rte"',
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
            '"train.steps" is set as well as train.duration; expected one of',
            '"data.sources.0.max_tokens" is 3; expected data.sequence_length 16 or more',
        ],
    ),
    "no config": (lambda made, place: ["train", str(place / "none.yaml")], 2, ["not found; expected a YAML file"]),
    "no setting": (
        lambda made, place: ["train", str(write_config(place / "c.yaml", settings(made, place))), "seed.x=1"],
        2,
        ['"seed" is 3; expected a group of settings'],
    ),
    "no flag": (lambda made, place: ["train", "c.yaml", "--steps", "3"], 2, ["unrecognized arguments: --steps"]),
    "no directory": (trained(no_directory), 2, ["nowhere, which was not found", "neither, which was not found"]),
    "foreign shards": (
        trained(foreign),
        2,
        ['"data.sources.0.dtype" is missing', '"data.sources.0.eos_token_id" is missing', "no manifest.json"],
    ),
    "wrong dtype": (trained(foreign_with_another_dtype), 1, ["not uint8", "hint: set the source's dtype"]),
    "odd size": (trained(odd_size), 1, ["a.npy: is", "which is not a multiple of 2"]),
    "no tokenizer": (
        trained(foreign_without_tokenizer),
        2,
        ['"data.tokenizer" is missing', "hint: set data.tokenizer"],
    ),
    "missing shard": (trained(missing_shard), 1, ["b.npy: not found, but manifest.json lists it"]),
    "short shard": (trained(short_shard), 1, ["b.npy: has", "bytes; expected"]),
    "id out of range": (trained(id_out_of_range), 1, ["a.npy", "60000 at token", "below vocab_size"]),
    "bad document": (trained(bad_document), 1, ['w.jsonl:2: "text" is a number; expected a string']),
    "cut document": (trained(cut_document), 1, ["v.jsonl.gz: ends early; expected a complete .gz file"]),
    "no window": (trained(too_long), 2, ["expected a file with at least one window of 1000000 tokens"]),
    "damaged checkpoint": (damaged_checkpoint, 1, ["model.safetensors: has the sha256"]),
    "missing tensor": (missing_tensor, 1, ["not found; expected it with shape"]),
    "gzip by another name": (with_bytes("w.jsonl", gzip.compress(ROW)), 1, ["w.jsonl: is gzip data"]),
    "nan in a row": (with_bytes("w.jsonl", ROW[:-1] + b', "metadata": {"x": NaN}}'), 1, ["w.jsonl:1: contains NaN"]),
    "brotli": (with_bytes("w.jsonl.br", b"\x0b"), 1, ["w.jsonl.br: .br files are not supported"]),
    "named pipe": (trained(piped_document), 1, ["w.jsonl: is a named pipe; expected a file"]),
    "config is a pipe": (piped_config, 2, ["c.yaml: is a named pipe"]),
    "config in gzip": config_error(gzip.compress(b"seed: 1"), "is gzip data; expected YAML in UTF-8"),
    "config in utf-16": config_error("seed: 1".encode("utf-16"), "is UTF-16 text; expected YAML in UTF-8"),
    "config not utf-8": config_error(b"run_directory: caf\xe9", "is not YAML ("),
    "config with no date": config_error(b"seed: 2020-13-45", "is not YAML ("),
    "config with a list as key": config_error(b"? [a]\n: 1", "is not YAML ("),
    "config with a key twice": config_error(b"seed: 1\nseed: 2", 'c.yaml:2: is not YAML (the key "seed" appears'),
    "quantities": (
        trained(quantities),
        2,
        [
            '"train.stop_at" is 20; expected a duration such as "1000 steps", "2e12T"',
            'hint: write "20 steps"',
            '"train.duration" is 5; expected a duration',
            '"train.batch_windows" is 4.0; expected an integer\nhint: write 4\n',
            '"optimizer.learning_rate" is "0.001"; expected a number\nhint: write 0.001, without quotes or unit',
            '"data.sequence_length" is "16T"; expected an integer\nhint: write 16, without',
            '"model.num_hidden_layers" is 100000000000000000000; expected an integer below',
            '"model.hidden_size" is a number of more than 40 digits; expected',
        ],
    ),
    "far too large": (
        trained(far_too_large),
        2,
        [
            '"model.num_hidden_layers" is 1000000000; expected 10000 or less',
            '"model.intermediate_size" is 1099511627776; expected 16777216 or less',
            '"train.batch_windows" is 1099511627776; expected',
        ],
    ),
    "no heads": (begun_from(num_attention_heads=0), 2, ['"num_attention_heads" is 0; expected an integer']),
    "too many layers": (begun_from(num_hidden_layers=10**20), 2, ['"num_hidden_layers" is 10000000000']),
    "quantized": (begun_from(quantization_config={"bits": 4}), 2, ['config" is {"bits": 4}; expected null']),
    "pattern as run": (
        trained(lambda config, made: config.update(output_dir=f"{made.parent}/run-*")),
        2,
        ["run-*; expected one directory, not a pattern"],
    ),
    "pattern as destination": (
        lambda made, place: [
            "export",
            str(VECTORS.parent / "valid" / "llama_tied_after_sft" / "data"),
            f"{place}/out*",
        ],
        2,
        ["out*: is a pattern; expected the name of one directory"],
    ),
    "more ranks than work": (
        lambda made, place: ["launch", str(write_config(place / "c.yaml", settings(made, place))), "--nproc=10000"],
        2,
        ['"train.batch_windows" is 4; expected a multiple of the 10000 ranks'],
    ),
    "prompt that is no text": (
        lambda made, place: ["generate", str(made), "--prompt", "a\udc80", "--temperature=inf"],
        2,
        ["--prompt: is not UTF-8 at character 1", "--temperature: is inf; expected a finite number, 0 or more"],
    ),
    "report of no steps": (
        lambda made, place: ["report", str(rows_in(place / "made", '{"step": 1, "a": "x"}'))],
        1,
        ["metrics.jsonl:1: is damaged; expected the row of a step"],
    ),
    "endless pace": (
        lambda made, place: ["train", str(place / "c.yaml"), "--dry-run", "--tokens-per-second=nan", "--ranks=0"],
        2,
        ["--tokens-per-second: is nan; expected a finite number above 0", "--ranks: is 0; expected 1 or more"],
    ),
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


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A link inside the tree must not duplicate files, and a link out of it must be followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "a").mkdir(parents=True)
    for place in ("elsewhere/x.jsonl", "root/a/y.jsonl"):
        (tmp_path / place).write_text("")
    for name, target in (("up", "root"), ("beside", "root/a"), ("out", "elsewhere"), ("again", "elsewhere")):
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    found = document_files(tmp_path / "root")
    assert [path.relative_to(tmp_path / "root").as_posix() for path in found] == ["a/y.jsonl", "again/x.jsonl"]


def test_home_is_found_in_settings_and_arguments(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell expands `~` neither in YAML nor in `--output=~/page.html`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "made")
    config = settings(Path("~/made"), Path("~/run"), train__steps=1, schedule__warmup=0)
    assert main(["train", str(write_config(tmp_path / "c.yaml", config))]) == 0
    assert main(["report", "~/run", "--output=~/page.html"]) == 0
    assert main(["export", "~/run", "~/out"]) == 0
    capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "made", "out", "page.html", "run"]


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
    from olmo_trainer.model.architecture import architecture_of, total_parameters

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
@pytest.mark.skipif(not DOLMA.is_file(), reason="dolma 1.2.1 not found: make oracle, or set DOLMA_ORACLE")
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
