"""Several models on several tasks: what fails is named and the rest is written, and nothing is scored twice."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.backends.huggingface import HuggingFace
from catwalk.formats.__main__ import main as formats_main
from conftest import write_jsonl, write_task_data

Build = Callable[[str], Path]
_KINDS = ("olmo2", "llama", "gptneox")
_TWELVE = (
    *("arc_easy", "boolq", "commonsense_qa", "copa", "mrpc", "openbookqa"),
    *("piqa", "rte", "sciq", "social_i_qa", "sst2", "winogrande"),
)


def _write_twelve_tasks(root: Path) -> Path:
    """Six rows of each of twelve tasks; the second row of sst2 is damaged."""
    write_task_data(root)
    words = ("egg", "hen", "sea", "clay", "wood", "nail")
    for name in set(_TWELVE) - {"copa", "sciq", "winogrande"}:
        rows: list[dict[str, Any]] = []
        for n, word in enumerate(words):
            other, label = words[n - 1], n % 2
            lettered = {"choices": {"text": [word, other], "label": ["A", "B"]}, "answerKey": "AB"[label], "id": str(n)}
            rows.append(
                {
                    "arc_easy": {"question": f"What is like {word}?", **lettered},
                    "boolq": {"question": f"is {word} salt", "answer": bool(label), "passage": f"{word} is salt."},
                    "commonsense_qa": {"question": f"Where is the {word}?", **lettered},
                    "mrpc": {"sentence1": f"A {word}.", "sentence2": f"The {other}.", "label": label},
                    "openbookqa": {"question_stem": f"The {word} met the", **lettered},
                    "piqa": {"goal": f"find {word}", "sol1": f"look at {other}", "sol2": "look", "label": label},
                    "rte": {"sentence1": f"A {word}.", "sentence2": f"The {other}.", "label": label},
                    "social_i_qa": {
                        "context": f"Ada saw the {word}.",
                        "question": "Why?",
                        "label": str(1 + n % 3),
                        "answerA": word,
                        "answerB": other,
                        "answerC": "for salt",
                    },
                    "sst2": {"sentence": f"a good {word}", **({} if n == 1 else {"label": label})},
                }[name]
            )
        write_jsonl(root / name / "validation.jsonl.gz", rows)
    return root


def _without_finite_weights(checkpoint: Path, directory: Path) -> Path:
    """A copy whose first weights are NaN."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, directory)
    weights = load_file(directory / "model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture
def models(build_checkpoint: Build, tmp_path: Path) -> list[str]:
    """Three models, and a directory without weights."""
    broken = Path(shutil.copytree(build_checkpoint("olmo"), tmp_path / "broken"))
    (broken / "model.safetensors").unlink()
    return [*(f"{kind}={build_checkpoint(kind)}" for kind in _KINDS), str(broken)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three tasks, and a fourth whose second row is damaged."""
    root = write_task_data(tmp_path / "tasks")
    row = {"sentence": "a good film", "label": 1}
    write_jsonl(root / "sst2" / "validation.jsonl.gz", [row, {"sentence": "a bad film"}])
    return root


def _arguments(models: list[str], data: Path, output: Path, *tasks: str) -> list[str]:
    found = tasks or ("copa", "sciq", "sst2", "winogrande")
    return [
        *("run", "--models", *models, "--tasks", *found, "--data", str(data)),
        *("--output-dir", str(output), "--device", "cpu", "limit=6"),
    ]


def _content(output: Path) -> dict[str, bytes]:
    """Every artifact's files by path."""
    files = [file for kind in _KINDS for file in (output / kind).iterdir() if file.name != "metrics.jsonl"]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the pairs of each call of `HuggingFace.score`."""
    calls: list[int] = []
    score = HuggingFace.score
    monkeypatch.setattr(HuggingFace, "score", lambda self, pairs: (calls.append(len(pairs)), score(self, pairs))[1])
    return calls


def test_failing_models_and_tasks_are_named_and_the_rest_is_written(
    models: list[str], data: Path, tmp_path: Path, scored: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    assert main(_arguments(models, data, output)) == 1
    text = capsys.readouterr().err
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "sst2" in errors[0]
    assert "broken" in errors[1]
    assert errors[2] == "error: 2 of the models and tasks failed; what could be scored is kept"
    assert len(scored) == 9
    for kind in _KINDS:
        assert formats_main(["validate", "results", str(output / kind)]) == 0
    assert main(["verify", *(str(output / kind) for kind in _KINDS)]) == 0
    before = _content(output)
    # once repaired, only what failed is scored
    write_jsonl(data / "sst2" / "validation.jsonl.gz", [{"sentence": "a good film", "label": 1}])
    scored.clear()
    assert main(_arguments(models[:3], data, output)) == 0
    assert scored == [4, 4, 4]
    tasks = json.loads((output / "llama" / "results.json").read_text(encoding="utf-8"))["tasks"]
    assert [task["task"] for task in tasks] == ["copa", "sciq", "sst2", "winogrande"]
    # fewer tasks again: made from the cells
    scored.clear()
    assert main(_arguments(models[:3], data, output, "copa", "sciq", "winogrande")) == 0
    assert scored == []
    assert _content(output) == before


def test_four_models_on_twelve_tasks_in_two_settings(
    build_checkpoint: Build,
    tmp_path: Path,
    scored: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = _write_twelve_tasks(tmp_path / "tasks")
    broken = _without_finite_weights(build_checkpoint("olmo"), tmp_path / "broken")
    models = [*(f"{kind}={build_checkpoint(kind)}" for kind in _KINDS), str(broken)]
    names = [task for name in _TWELVE for task in (name, f"{name}@3")]
    output = tmp_path / "runs"
    assert main(_arguments(models, data, output, *names)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [line for line in errors if not re.match("error: (sst2|broken, )", line)] == [errors[-1]]
    assert {line.split(":")[1].strip() for line in errors if "sst2" in line} == {"sst2", "sst2@3"}
    assert 'error: broken, copa@3, item "0": the model\'s log-probability is nan; expected a finite number' in errors
    assert len(errors) == 2 + 22 + 1
    assert len(_content(output)) == 3 * 4
    complete = sorted(set(names) - {"sst2", "sst2@3"})
    for kind in _KINDS:
        tasks = json.loads((output / kind / "results.json").read_text(encoding="utf-8"))["tasks"]
        assert [task["task"] for task in tasks] == complete
        assert {task["num_shots"] for task in tasks} == {0, 3}
    assert main(["verify", *(str(output / kind) for kind in _KINDS)]) == 0
    # the second command scores nothing again but what failed, and changes nothing
    before = _content(output)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("cells/*")}
    scored.clear()
    capsys.readouterr()
    assert main(_arguments(models[:3], data, output, *complete)) == 0
    assert scored == []
    assert main(_arguments(models, data, output, *names)) == 1
    assert "broken" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in output.glob("cells/*")} == kept
    assert len(kept) == 3 * 22
    assert _content(output) == before
    assert main(["report", str(output), "--output-dir", str(tmp_path / "pages")]) == 0
    assert len(list((tmp_path / "pages" / "items").iterdir())) == 22


def test_one_model_and_several_give_the_same_rows(models: list[str], data: Path, tmp_path: Path) -> None:
    assert main(_arguments(models[:2], data, tmp_path / "runs", "copa", "sciq")) == 0
    name, _, directory = models[0].partition("=")
    one = ["run", "--model", directory, "--name", name, *_arguments([], data, tmp_path / "one", "copa", "sciq")[2:]]
    assert main(one) == 0
    for file in ("results.json", "predictions.jsonl.gz", "items.jsonl.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "runs" / name / file).read_bytes()


def test_dry_run_prints_the_cells(
    models: list[str], data: Path, tmp_path: Path, scored: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    arguments = _arguments(models[:2], data, output, "copa", "sciq")
    assert main([*arguments, "--dry-run"]) == 0
    assert not output.exists()
    assert "| llama | 19 | 40 |" in capsys.readouterr().out
    assert main(_arguments(models[:1], data, output, "copa")) == 0
    capsys.readouterr()
    assert main([*arguments, "--dry-run"]) == 0
    assert "| olmo2 | finished | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--models", "a/m", "b/m"], 'two models named "m"'),
        (["--models", "a=x", "a=y"], 'two models named "a"'),
        (["--models", "a", "--model", "."], "both given"),
        ([], '"model" is missing'),
        (["--models", "cells=x"], 'a model named "cells"'),
    ],
)
def test_wrong_lists_of_models_exit_2(
    more: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *more, "--tasks", "copa", "--output-dir", str(tmp_path / "runs")]) == 2
    assert expected in capsys.readouterr().err


def test_full_disk_keeps_finished_cells(
    models: list[str],
    data: Path,
    tmp_path: Path,
    scored: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "runs"
    rename = os.replace

    def full_after_two(source: Path, target: Path) -> None:
        if len(list(output.glob("cells/*.json"))) == 2 and Path(target).parent.name == "cells":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_after_two)
        assert main(_arguments(models[:3], data, output, "copa", "sciq", "winogrande")) == 1
    assert "No space left" in capsys.readouterr().err
    scored.clear()
    assert main(_arguments(models[:3], data, output, "copa", "sciq", "winogrande")) == 0
    assert len(scored) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_ten_points_nothing_is_scored_again(
    models: list[str], data: Path, tmp_path: Path, scored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ("copa", "sciq", "winogrande", "copa@3", "sciq@3", "winogrande@3")
    assert main(_arguments(models[:3], data, tmp_path / "whole", *tasks)) == 0
    output = tmp_path / "runs"
    arguments = _arguments(models[:3], data, output, *tasks)
    rename = os.replace

    def finished() -> list[str]:
        return sorted(path.name for path in output.glob("cells/*.json"))

    for point in range(10):
        before = finished()
        count: list[Any] = []

        def killed_at_its_third_file(source: Path, target: Path, count: list[Any] = count) -> None:
            count.append(target)
            if len(count) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed_at_its_third_file)
            process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
            process.start()
            process.join()
        assert process.exitcode == (-signal.SIGKILL)
        assert set(before) <= set(finished()), f"at point {point}"
    unfinished = 18 - len(finished())
    scored.clear()
    assert main(arguments) == 0
    assert len(scored) == unfinished
    assert _content(output) == _content(tmp_path / "whole")
