"""Results of lm-evaluation-harness as ours: its numbers, with their rows where there are samples."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.contract import read_object
from catwalk.lm_eval import lm_eval_results
from catwalk.results import load_all, read_rows_by_task
from conftest import write_task_data

Build = Callable[[str], Path]
_DATE = "2026-01-02T03-04-05.678901"


def _write(folder: Path, *, with_samples: bool) -> Path:
    """A run of two tasks, in the harness's layout: one with choices, one whose metric is no mean."""
    right = [1.0, 0.0, 1.0, 1.0]
    results = {
        "results": {
            "facts": {"alias": "facts", "sample_len": 4, "acc,none": 0.75, "acc_stderr,none": 0.25},
            "words": {"alias": "words", "word_perplexity,none": 2.0**0.5, "word_perplexity_stderr,none": "N/A"},
        },
        "configs": {
            "facts": {"task": "facts", "output_type": "multiple_choice", "test_split": "test", "num_fewshot": 2},
            "words": {"task": "words", "output_type": "loglikelihood_rolling", "validation_split": "valid"},
        },
        "n-shot": {"facts": 2, "words": 0},
        "n-samples": {"facts": {"original": 9, "effective": 4}, "words": {"original": 2, "effective": 2}},
        "config": {"model": "hf", "model_args": {"pretrained": "some/old-model"}, "model_dtype": "torch.bfloat16"},
        "groups": {"outer": {"alias": "outer", "acc,none": 0.75, "acc_stderr,none": 0.25}},
        "group_subtasks": {"outer": ["inner"], "inner": ["facts"]},
        "lm_eval_version": "0.4.13",
        "max_length": 2048,
    }
    file = folder / f"results_{_DATE}.json"
    file.write_text(json.dumps(results), encoding="utf-8")
    if with_samples:
        facts = [
            {
                "doc_id": n,
                "target": "0",
                "filter": "none",
                "metrics": ["acc"],
                "acc": value,
                "arguments": {
                    f"gen_args_{k}": {"arg_0": f"Fact {n}:", "arg_1": f" {word}"} for k, word in enumerate("ab")
                },
                "resps": [[[str(-2.0 + value), "False"]], [["-1.5", "True"]]],
            }
            for n, value in enumerate(right)
        ]
        words = [
            {
                "doc_id": n,
                "target": "t",
                "filter": "none",
                "metrics": ["word_perplexity"],
                "word_perplexity": [-0.34657359027997264 * count, count],
                "resps": [[str(-0.3)]],
                "arguments": {"gen_args_0": {"arg_0": "two words"}},
            }
            for n, count in enumerate((2, 6))
        ]
        for name, rows in (("facts", facts), ("words", words)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"samples_{name}_{_DATE}.jsonl").write_text(text, encoding="utf-8")
    return file


def test_results_with_samples_have_rows_that_verify(tmp_path: Path) -> None:
    file, output = _write(tmp_path, with_samples=True), tmp_path / "old"
    assert main(["import", str(file), "--output-dir", str(output)]) == 0
    assert formats_main(["validate", "results", str(output)]) == 0
    assert main(["verify", str(output)]) == 0
    (model,) = load_all([output])
    assert model.label == "some/old-model"
    facts, words = model.tasks["lmeval:facts"], model.tasks["lmeval:words"]
    assert facts["metrics"] == {"acc": {"value": 0.75, "stderr": 0.25, "n": 4}}
    assert (facts["num_shots"], facts["split"]) == (2, "test")
    assert words["metrics"]["word_perplexity"] == {"value": pytest.approx(2**0.5), "stderr": None, "n": 2}
    assert model.results["groups"] == [
        {
            "group": "lmeval:outer",
            "tasks": ["lmeval:facts"],
            "metrics": {"acc": {"value": 0.75, "stderr": 0.25, "n": 4, "by_items": True}},
        }
    ]
    rows = read_rows_by_task(output)
    assert rows["lmeval:facts"][1] == {
        "task": "lmeval:facts",
        "id": "1",
        "scores": {"acc": 0.0},
        "responses": [[-2.0, False], [-1.5, True]],
    }
    assert rows["lmeval:words"][0]["parts"]["word_perplexity"][0] == "weighted_perplexity"
    about = model.results["imported"]
    assert (about["from"], about["version"]) == ("lm-evaluation-harness", "0.4.13")
    assert "model.tokenizer_sha256" in about["unknown"]
    assert "model.parameters" in about["unknown"]
    assert "inference.max_length_tokens" not in about["unknown"]
    # again: the same bytes; over another artifact: never
    before = (output / "manifest.json").read_bytes()
    assert main(["import", str(file), "--output-dir", str(output)]) == 0
    assert (output / "manifest.json").read_bytes() == before


def test_results_without_samples_keep_the_numbers_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = _write(tmp_path, with_samples=False), tmp_path / "old"
    assert main(["import", str(file), "--output-dir", str(output), "--name", "old"]) == 0
    assert "2 of 2 tasks have no samples" in capsys.readouterr().err
    assert formats_main(["validate", "results", str(output)]) == 0
    assert main(["verify", str(output)]) == 0
    (model,) = load_all([output])
    expected = {"value": 0.75, "stderr": 0.25, "n": 4, "summed_by": "lm-evaluation-harness"}
    assert model.tasks["lmeval:facts"]["metrics"] == {"acc": expected}
    assert main(["report", str(output), "--output-dir", str(tmp_path / "page")]) == 0
    text = capsys.readouterr().out
    assert "| lmeval:facts | acc | 4 | – | 75.0 [" in text
    assert "| old | – | – | – | bfloat16 → bfloat16 | 2,048 | – | – |" in text
    assert "old: imported from lm-evaluation-harness 0.4.13" in text


def test_an_imported_run_joins_the_leaderboard(build_checkpoint: Build, tmp_path: Path) -> None:
    """An export of ours, imported again under another name, has the same values as the run."""
    output, data = tmp_path / "new", write_task_data(tmp_path / "data")
    arguments = ["run", "--model", str(build_checkpoint("llama")), "--device", "cpu", "--data", str(data)]
    assert main([*arguments, "--tasks", "copa", "sciq", "--output-dir", str(output)]) == 0
    file = tmp_path / "results.json"
    assert main(["report", str(output), "--lm-eval-json", str(file)]) == 0
    assert main(["import", str(file), "--output-dir", str(tmp_path / "old"), "--name", "old"]) == 0
    new, old = load_all([output, tmp_path / "old"])
    assert sorted(old.tasks) == ["copa", "sciq"]
    for name in old.tasks:
        exported = lm_eval_results(new)["results"][name]
        stored = {key: entry["value"] for key, entry in old.tasks[name]["metrics"].items()}
        expected = {key: exported[f"{key.replace('acc_raw', 'acc')},none"] for key in stored}
        assert set(stored) == {"acc_raw", "acc_norm", "acc_bytes"}
        assert stored == pytest.approx(expected)
        assert stored["acc_raw"] == new.tasks[name]["metrics"]["acc_raw"]["value"]
    assert main(["report", str(output), str(tmp_path / "old"), "--output-dir", str(tmp_path / "page")]) == 0
    rows = list(csv.DictReader((tmp_path / "page" / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    values = {(row["model"], row["task"]): (row["value"], row["low"]) for row in rows}
    assert len(values) == 4
    assert all(values["old", task] == values[new.label, task] for task in old.tasks)


def test_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path, with_samples=True)
    samples = tmp_path / f"samples_facts_{_DATE}.jsonl"
    samples.write_text(samples.read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    arguments = ["import", str(file), "--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert f"has 1 items; results_{_DATE}.json has 4 of facts" in capsys.readouterr().err
    value = read_object(file)
    file.write_text(json.dumps(value | {"config": {"model": "hf"}}), encoding="utf-8")
    assert main(arguments) == 2
    assert "does not name its model" in capsys.readouterr().err
    file.write_text(json.dumps({"results": {}}), encoding="utf-8")
    assert main(arguments) == 2
    assert 'has no tasks in "results" and "configs"' in capsys.readouterr().err
    assert main(["import", str(tmp_path / "absent.json"), "--output-dir", str(tmp_path / "out")]) == 1


def test_a_number_that_the_samples_do_not_give_is_that_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, with_samples=True)
    value: dict[str, Any] = read_object(file)
    value["results"]["facts"]["acc,none"] = 0.8
    file.write_text(json.dumps(value), encoding="utf-8")
    assert main(["import", str(file), "--output-dir", str(tmp_path / "out")]) == 0
    assert "facts: no metric follows from its samples" in capsys.readouterr().err
    (model,) = load_all([tmp_path / "out"])
    assert model.tasks["lmeval:facts"]["metrics"]["acc"]["summed_by"] == "lm-evaluation-harness"
    assert main(["verify", str(tmp_path / "out")]) == 0
