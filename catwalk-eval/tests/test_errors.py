"""Wrong requests and damaged inputs: the exit code, one clear message, no traceback, no half-written output."""

import dataclasses
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.config import RunConfig
from conftest import add_manifest, write_jsonl

Build = Callable[[str], Path]


@pytest.fixture
def checkpoint(build_checkpoint: Build, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(build_checkpoint("olmo"), tmp_path / "model"))


@pytest.fixture
def run(
    checkpoint: Path, data_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Exit code and stderr of a run of copa; `more` arguments override its own."""

    def call(*more: str, model: Path | None = None) -> tuple[int, str]:
        base = ["run", "--model", str(model or checkpoint), "--tasks", "copa", "--data", str(data_directory)]
        code = main([*base, "--output-dir", str(tmp_path / "out"), "--device", "cpu", *more])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        if code:
            assert captured.err.startswith("error: ") or "\nerror: " in captured.err
            assert not (tmp_path / "out" / "results.json").exists()
        return code, captured.err

    return call


Run = Callable[..., tuple[int, str]]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom catwalk.__main__ import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--batch-tokens" in done.stdout


def test_help_shows_every_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from catwalk.backends import huggingface, specs

    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(RunConfig):
        assert f"--{field.name.replace('_', '-')}" in text
        assert type(field.default) not in (int, str) or f"(default: {field.default})" in text
    sizes = huggingface._BATCH_TOKENS["cpu"], huggingface._BATCH_TOKENS_DEVICE
    assert "(default: {} on a CPU, {} elsewhere)".format(*sizes) in text
    assert f"{specs.DEFAULT_LENGTH} if it has no limit" in text


def test_formats_command_imports_no_torch() -> None:
    program = "import sys, catwalk.formats.__main__\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "scqi"], 'nearest: "sciq"'),
        (["--documents", "nowhere"], '"documents" is nowhere, which was not found'),
        (["--limit", "0"], '"limit" is 0; expected at least 1'),
        (["--dtype", "int8"], '"dtype" is "int8"; expected "float32" or "bfloat16"'),
        (["--windowing", "sliding"], '"windowing" is "sliding"; expected "paloma-reference"'),
        (["--device", "abacus"], 'device: unknown device "abacus"'),
        (["--max-length-tokens", "100000"], "is more than the model's 512 positions"),
        (["--data", "nowhere"], '"data" is nowhere, which was not found'),
        (["--batch-tokenz", "3"], "did you mean --batch-tokens?"),
        (["batch_tokenz=3"], 'hint: did you mean "batch_tokens"?'),
        (["limit=many"], '"limit" is "many"; expected an integer'),
        (["--config", "nowhere.yaml"], "nowhere.yaml: not found; expected a YAML file"),
        (["--tasks", "piqa"], "expected the rows of piqa"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_request_exits_2(run: Run, arguments: list[str], expected: str) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert expected in text


def test_every_problem_of_a_request_is_listed(run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("limits: 3\nseed: x\nprefix: [eos]\n", encoding="utf-8")
    code, text = run("--config", str(settings))
    assert code == 2
    assert text.count("error: ") == 3
    code, text = run("--limit", "-1", "--dtype", "x", "--documents", "a", "b")
    assert code == 2
    assert text.count("error: ") == 4


def test_former_names_are_accepted_with_a_note(run: Run) -> None:
    code, text = run("--max-length", "100000")
    assert (code, "hint: --max-length-tokens 512" in text) == (2, True)
    assert "--max-length is deprecated; use --max-length-tokens" in text
    code, text = run("max_length=100000")
    assert code == 2
    assert '"max_length" is deprecated; use "max_length_tokens"' in text


def test_missing_model_exits_2(run: Run, tmp_path: Path) -> None:
    code, text = run(model=tmp_path / "none")
    assert code == 2
    assert "expected a checkpoint directory" in text


def test_damaged_weights_exit_1(run: Run, with_manifest: Path) -> None:
    weights = with_manifest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    code, text = run(model=with_manifest)
    assert code == 1
    assert f"{weights}: has the sha256" in text


def test_truncated_weights_exit_1(run: Run, checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, text = run()
    assert code == 1
    assert "is not a complete safetensors file" in text


def test_missing_weights_exit_1(run: Run, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    code, text = run()
    assert code == 1
    assert "model.safetensors: not found; expected the weights" in text


def test_error_names_pickled_weights(run: Run, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    code, text = run()
    assert code == 1
    assert "but pytorch_model.bin exists; expected safetensors weights" in text
    assert "hint: python -c" in text


@pytest.mark.parametrize(
    ("kind", "expected"), [("olmo", "as config.json implies"), ("gpt2", 'tensor "lm_head.weight" not found')]
)
def test_missing_tensor_exits_1(run: Run, build_checkpoint: Build, tmp_path: Path, kind: str, expected: str) -> None:
    from safetensors.numpy import load_file, save_file

    model = Path(shutil.copytree(build_checkpoint(kind), tmp_path / kind))
    tensors = load_file(model / "model.safetensors")
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    code, text = run(model=model)
    assert code == 1
    assert expected in text


@pytest.mark.parametrize("other", [None, "qwen.tiktoken", "tekken.json"])
def test_missing_tokenizer_exits_1(run: Run, checkpoint: Path, other: str | None) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    if other is not None:
        (checkpoint / other).write_bytes(b"IQ== 0\n")
    code, text = run()
    assert code == 1
    assert "tokenizer.json: not found" in text
    assert other is None or f"but {other} exists" in text


def test_damaged_tokenizer_exits_1(run: Run, checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8")[:1000], encoding="utf-8")
    code, text = run()
    assert code == 1
    assert f"{path}: is not JSON" in text


def test_older_tokenizer_files_are_converted_with_a_warning(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    assert run()[0] == 0
    before = (tmp_path / "out" / "predictions.jsonl.gz").read_bytes()
    shutil.rmtree(tmp_path / "out")
    path = checkpoint / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    (checkpoint / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (checkpoint / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    path.unlink()
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|begin|>"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    code, text = run()
    assert code == 0
    assert "transformers builds the tokenizer from vocab.json" in text
    assert (tmp_path / "out" / "predictions.jsonl.gz").read_bytes() == before


def _change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("special", [True, False])
def test_token_without_embedding_fails_only_in_a_text(
    run: Run, checkpoint: Path, tmp_path: Path, special: bool
) -> None:
    token = {"id": 640, "content": "[NEW]", "special": special}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)

    def add(value: dict[str, Any]) -> None:
        vocabulary = value["model"]["vocab"]
        vocabulary |= {f"filler {id}": id for id in range(max(vocabulary.values()) + 1, 640)}
        value["added_tokens"].append(token)

    _change(checkpoint / "tokenizer.json", add)
    path = write_jsonl(tmp_path / "d" / "x.jsonl.gz", [{"id": "a", "text": "hen"}, {"id": "b", "text": "a [NEW] hen"}])
    code, text = run("--documents", str(path))
    assert "tokens beyond the embedding of 640 rows: 1, first '[NEW]' (640)" in text
    # a special token spelled out in a text is text
    assert code == (0 if special else 1)
    assert special or 'document "b" of source "": token 640 (\'[NEW]\') is beyond the embedding' in text


def test_overflow_error_names_the_text_and_the_remedy(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] *= 2e4
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    path = write_jsonl(tmp_path / "d" / "x.jsonl.gz", [{"id": "a", "text": "hen", "source": "s"}])
    code, text = run("--documents", str(path), "--dtype", "float16")
    assert code == 1
    assert "copa, item " in text  # tasks come first
    assert "log-probability is nan; expected a finite number" in text
    assert "the model overflows in float16: use --dtype bfloat16 or --dtype float32" in text
    arguments = ["--model", str(checkpoint), "--documents", str(path), "--device", "cpu"]
    arguments += ["--output-dir", str(tmp_path / "o")]
    assert main(["run", *arguments, "--dtype", "float16"]) == 1
    assert not (tmp_path / "o" / "results.json").exists()
    assert main(["run", *arguments]) == 0


def test_error_names_text_without_tokens(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    def drop_letters(value: dict[str, Any]) -> None:
        value["normalizer"] = {"type": "Replace", "pattern": {"Regex": "z+"}, "content": ""}

    _change(checkpoint / "tokenizer.json", drop_letters)
    path = write_jsonl(tmp_path / "d" / "x.jsonl.gz", [{"id": "a", "text": "zzz", "source": "s"}])
    code, text = run("--documents", str(path))
    assert code == 1
    assert 'document "a" of source "s": the tokenizer produces no tokens' in text


def test_unknown_tokens_are_counted(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    def know_no_umlauts(value: dict[str, Any]) -> None:
        value["model"]["unk_token"] = "<|begin|>"
        value["pre_tokenizer"] = None

    _change(checkpoint / "tokenizer.json", know_no_umlauts)
    _change(checkpoint / "tokenizer_config.json", lambda value: value.update(unk_token="<|begin|>"))
    path = write_jsonl(tmp_path / "d" / "x.jsonl.gz", [{"id": "a", "text": "東京東", "source": "s"}])
    code, text = run("--documents", str(path))
    assert code == 0
    assert "perplexity: the tokenizer has no token for 3 pieces of text (unk): bits per byte are too low" in text


@pytest.mark.parametrize("stated", ["bfloat16", "float32", "float16"])
def test_weights_of_mixed_dtypes_are_read(run: Run, tmp_path: Path, build_checkpoint: Build, stated: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(build_checkpoint("llama"), tmp_path / "mixed"))
    tensors = load_file(model / "model.safetensors")
    mixed = {name: tensor.bfloat16() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file(mixed, model / "model.safetensors", metadata={"format": "pt"})
    assert {tensor.dtype for tensor in mixed.values()} == {torch.bfloat16, torch.float32}
    add_manifest(model, stated)
    code, text = run(model=model)
    assert code == (1 if stated == "float16" else 0)
    assert stated != "float16" or 'is "float16"; expected bfloat16 or float32, as the weights are' in text
    if not code:
        value = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        assert value["model"]["dtype"] == "bfloat16/float32"


def test_task_without_rows_is_an_error(run: Run, data_directory: Path) -> None:
    write_jsonl(data_directory / "copa" / "validation.jsonl.gz", [])
    code, text = run()
    assert code == 1
    assert "validation.jsonl.gz: has no rows; expected the items of copa" in text


def test_bad_document_error_has_file_and_line(run: Run, tmp_path: Path) -> None:
    good = {"id": "1", "text": "hen"}
    path = write_jsonl(tmp_path / "bad" / "x.jsonl.gz", [good, {"id": "2", "text": 7}])
    code, text = run("--documents", str(path.parent))
    assert code == 1
    assert f'{path}:2: "text" is a number; expected a string' in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"id": "a", "text": "x", "metadata": {"n": NaN}}', "contains NaN"),
        (gzip.compress(b'{"id": "a", "text": "x"}'), "is gzip data"),
        (b"\n", "blank"),
        (b'{"id": "a", "text": x}', "not JSON (JSON is malformed"),
    ],
)
def test_error_explains_why_a_line_is_not_json(run: Run, tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    code, text = run("--documents", str(path))
    assert code == 1
    assert f"{path}:" in text
    assert expected in text


def test_truncated_documents_exit_1(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "hen"}\n' * 50)[:-12])
    code, text = run("--documents", str(path))
    assert code == 1
    assert f"{path}: ends early" in text


def test_missing_prefix_token_exits_2(run: Run, checkpoint: Path) -> None:
    path = checkpoint / "tokenizer_config.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["bos_token"] = None
    path.write_text(json.dumps(value), encoding="utf-8")
    code, text = run("--prefix", "bos")
    assert code == 2
    assert "the tokenizer has no bos token" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "nowhere"],
        ["verify", "nowhere"],
        ["show", "copaa"],
        ["documents", "--tasks", "x", "--output-dir", "y"],
        [],
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_other_commands_exit_2_on_wrong_requests(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_results_without_predictions_fail_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text('{"format": "results", "version": 1}', encoding="utf-8")
    assert main(["verify", str(tmp_path)]) == 1
    assert '"model" is missing' in capsys.readouterr().err


def test_formats_command_exits_2_for_unsupported_format(tmp_path: Path) -> None:
    from catwalk.formats.__main__ import main as formats_main

    with pytest.raises(SystemExit) as caught:
        formats_main(["validate", "chat", str(tmp_path)])
    assert caught.value.code == 2
    assert formats_main(["validate", "results", str(tmp_path / "none")]) == 2
