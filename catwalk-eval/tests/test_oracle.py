"""Models whose answers are known, and the names of models."""

import json
import math
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.backends.opening import open_model
from catwalk.backends.specs import parse_spec
from catwalk.formats.contract import ConfigError, read_object, read_rows
from catwalk.types import Pair, Prompt
from conftest import write_jsonl

_TEXTS = ["Salt water.", "Größe 東京", "one two three four five " * 20]


def _documents(path: Path) -> Path:
    rows = [{"id": str(index), "text": text, "source": "made"} for index, text in enumerate(_TEXTS)]
    write_jsonl(path / "made.jsonl.gz", rows)
    return path


@pytest.mark.parametrize("window", [7, 2048])
def test_bits_per_byte_of_a_uniform_model_are_its_entropy(
    tokenizer_directory: Path, tmp_path: Path, window: int
) -> None:
    documents = _documents(tmp_path / "documents")
    spec = f"oracle:uniform,vocab_size=50304,tokenizer={tokenizer_directory}"
    arguments = ["run", "--model", spec, "--documents", str(documents), "--max-length-tokens", str(window)]
    assert main([*arguments, "--output-dir", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
    (row,) = read_object(tmp_path / "out" / "results.json")["perplexity"]
    assert row["bytes"] == sum(len(text.encode()) for text in _TEXTS)
    expected = math.log2(50304) * row["tokens"] / row["bytes"]
    assert row["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-7)


def test_tokens_are_bytes_without_a_tokenizer() -> None:
    backend = open_model("oracle:uniform")
    assert [one.tokens for one in backend.documents(_TEXTS)] == [len(text.encode()) for text in _TEXTS]
    (one,) = backend.score([Pair(context="A", continuation=" bcd")])
    assert (one.tokens, one.sum_logprob, one.greedy) == (4, pytest.approx(-4 * math.log(256)), False)
    assert backend.generate([Prompt(text="A", stop=(), max_tokens=3)]) == [""]


def test_tasks_are_scored_by_a_uniform_model(data_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks = ["--tasks", "sciq", "copa", "--data", str(data_directory)]
    models = ["oracle:uniform", "small=oracle:uniform,vocab_size=2"]
    assert main(["run", "--models", *models, *tasks, "--output-dir", str(out)]) == 0
    for name, size in (("oracle-uniform", 256), ("small", 2)):
        results = read_object(out / name / "results.json")
        assert results["model"]["vocab_size"] == size
        (row, *_) = (row for _, row in read_rows(out / name / "predictions.jsonl.gz"))
        for choice in row["choices"]:
            assert choice["sum_logprob"] == pytest.approx(-choice["bytes"] * math.log(size), abs=1e-6)


def test_scripted_answers(tmp_path: Path) -> None:
    rows = [
        {"context": "Is ice cold?", "continuation": " yes", "logprob": -0.5, "tokens": 2, "greedy": True},
        {"continuation": " yes", "logprob": -3.0},
        {"document": "All of it.", "logprob": -12.25, "tokens": 4},
        {"prompt": "2+2=", "text": "4"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    backend = open_model(f"oracle:{path}")
    pairs = [Pair(context="Is ice cold?", continuation=" yes"), Pair(context="Is it?", continuation=" yes")]
    backend.check(pairs)
    assert [(one.sum_logprob, one.tokens, one.greedy) for one in backend.score(pairs)] == [
        (-0.5, 2, True),
        (-3.0, 1, False),
    ]
    assert backend.documents(["All of it."])[0].sum_logprob == -12.25
    assert backend.generate([Prompt(text="2+2=", stop=(), max_tokens=1)]) == ["4"]
    with pytest.raises(ValueError, match=r"has no answer for ' no'; expected a row with it"):
        backend.check([Pair(context="Is it?", continuation=" no")])
    path.write_text('{"continuation": " yes", "logprob": 0.5}\n')
    with pytest.raises(ValueError, match="a log-probability is at most 0"):
        open_model(f"oracle:{path}")


def test_names_of_models(tmp_path: Path) -> None:
    odd = tmp_path / "a,b=c"
    odd.mkdir()
    assert parse_spec(str(odd)).target == str(odd)
    assert parse_spec("oracle:uniform,vocab_size=9").options == {"vocab_size": "9"}
    for spec, message in (
        ("oracle:uniform,vocab=9", 'unknown option "vocab"'),
        ("oracle:uniform,vocab_size=x", 'vocab_size is "x"'),
        ("oracle:unifrm", 'neither "oracle:uniform" nor a file'),
    ):
        with pytest.raises(ConfigError, match=message):
            open_model(spec)


def test_a_wrong_model_is_found_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--model", "oracle:uniform,vocab=9", "--tasks", "sciq", "--output-dir", str(tmp_path)]
    assert main(arguments) == 2
    assert 'unknown option "vocab" of oracle:uniform' in capsys.readouterr().err


def test_boundary_decides_the_tokens_and_is_part_of_a_cells_name(
    tokenizer_directory: Path, data_directory: Path, tmp_path: Path
) -> None:
    spec = f"oracle:uniform,tokenizer={tokenizer_directory}"
    pair = Pair(context="sea T", continuation="he")
    assert open_model(spec).score([pair])[0].crossing
    assert not open_model(spec, boundary="catwalk").score([pair])[0].crossing
    arguments = ["run", "--models", spec, "--tasks", "copa", "--data", str(data_directory)]
    arguments += ["--output-dir", str(tmp_path)]
    for number, boundary in enumerate(("whole", "catwalk", "whole"), start=1):
        assert main([*arguments, "--boundary", boundary]) == 0
        assert len(list((tmp_path / "cells").iterdir())) == min(number, 2)
    assert main([*arguments, "--boundary", "half"]) == 2
