"""Tasks of lm-evaluation-harness through `lmeval:` and through `--model catwalk`: its samples and its metrics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from catwalk.__main__ import main
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.contract import read_object, read_rows
from catwalk.lm_eval_groups import GroupRule, group_row
from catwalk.results import load_all, read_rows_by_task
from hypothesis import given
from hypothesis import strategies as st

lm_eval = pytest.importorskip("lm_eval")

Build = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and datasets warn

_FACTS = [("ice", "cold"), ("fire", "hot"), ("salt", "white"), ("coal", "black"), ("grass", "green"), ("sea", "blue")]
_WORDS = [colour for _, colour in _FACTS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets keeps what it converts."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def _write(directory: Path, **configuration: Any) -> None:
    path = directory / f"{configuration.get('group') or configuration['task']}.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """One task of each kind of request, with a filter, a group, and sums that are no means."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    # no repetitions: HFLM mixes up windows of one document with the same tokens at other places
    rows = [
        {
            "thing": thing,
            "words": [*_WORDS[:3], word],
            "gold": 3,
            "word": word,
            "text": " ".join(f"The {thing} is {word} {number}." for number in range(20)),
        }
        for thing, word in _FACTS
    ]
    for index, row in enumerate(rows):
        row["gold"] = row["words"].index(row["word"]) if index < 3 else 3
    data = directory / "facts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(data)}}}
    source |= {"validation_split": "validation", "fewshot_split": "validation"}
    _write(
        directory,
        task="facts_choice",
        **source,
        output_type="multiple_choice",
        num_fewshot=2,
        doc_to_text="The {{thing}} is",
        doc_to_choice="words",
        doc_to_target="gold",
        metric_list=[{"metric": metric} for metric in ("acc", "acc_norm", "mcc")],
    )
    _write(
        directory,
        task="facts_word",
        **source,
        output_type="loglikelihood",
        doc_to_text="The {{thing}} is",
        doc_to_target=" {{word}}",
        metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
    )
    _write(
        directory,
        task="facts_text",
        **source,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    )
    _write(
        directory,
        task="facts_answer",
        **source,
        output_type="generate_until",
        doc_to_text="The {{thing}} is",
        doc_to_target="{{word}}",
        generation_kwargs={"until": ["\n", "."], "max_gen_toks": 8, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        filter_list=[
            {"name": "first", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]},
            {"name": "whole", "filter": [{"function": "take_first"}]},
        ],
    )
    _write(directory, group="facts", task=["facts_choice", "facts_word", "facts_text", "facts_answer"])
    for name, by_items in (("by_items", True), ("by_tasks", False)):
        rule = {"metric": "acc", "weight_by_size": by_items}
        _write(directory, group=name, task=["facts_choice", "facts_word"], aggregate_metric_list=[rule])
    return directory


def _theirs(directory: Path, tasks: Path, names: list[str], limit: int | None, length: int) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=4, max_length=length)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks)),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
    )
    return found


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    """Without standard errors, and by our names of filters."""
    return {
        name.removesuffix(",none"): value
        for name, value in found.items()
        if isinstance(value, float) and "_stderr" not in name
    }


def _compare(theirs: dict[str, Any], output: Path) -> None:
    """The artifact has the harness's samples and metrics."""
    (ours,) = load_all([output])
    assert sorted(ours.tasks) == sorted(f"lmeval:{name}" for name in theirs["samples"])
    for name, samples in theirs["samples"].items():
        assert {key: entry["value"] for key, entry in ours.tasks[f"lmeval:{name}"]["metrics"].items()} == pytest.approx(
            _metrics(theirs["results"][name]), rel=1e-4
        )
        rows = read_rows_by_task(output)[f"lmeval:{name}"]
        by_id = {str(sample["doc_id"]): sample for sample in samples}
        assert [row["id"] for row in rows] == [str(id) for id in sorted(map(int, by_id))]
        for row in rows:
            expected = [answer[0] for answer in by_id[row["id"]]["resps"]]
            for mine, answer in zip(row["responses"], expected, strict=True):
                if isinstance(answer, tuple):
                    # the harness adds up in float32, whose numbers are 1.2e-4 apart beyond 1,024
                    rounding = float(np.spacing(np.float32(abs(float(answer[0])))))
                    assert mine[0] == pytest.approx(float(answer[0]), abs=max(1e-4, 2 * rounding))
                    assert mine[1] == answer[1]
                elif isinstance(answer, str):
                    assert mine == answer
                else:
                    assert mine == pytest.approx(float(answer), abs=2e-3)


def _same_files(theirs: dict[str, Any], output: Path) -> None:
    """The files of `lm_eval run` have the metrics and the prompts of `theirs`."""
    (path,) = output.rglob("results_*.json")
    ours = read_object(path)
    for name in theirs["samples"]:
        assert _metrics(ours["results"][name]) == pytest.approx(_metrics(theirs["results"][name]), rel=1e-4)
        (samples,) = output.rglob(f"samples_{name}_*.jsonl")
        mine = {row["doc_id"]: row for _, row in read_rows(samples)}
        for sample in theirs["samples"][name]:
            assert mine[sample["doc_id"]]["prompt_hash"] == sample["prompt_hash"]


def _run(directory: Path, tasks: Path, names: list[str], output: Path, *more: str) -> int:
    arguments = ["run", "--model", str(directory), "--lm-eval-include", str(tasks), "--device", "cpu"]
    named = [f"lmeval:{name}" for name in names]
    return main([*arguments, "--tasks", *named, "--output-dir", str(output), "--prefix", "bos", *more])


@pytest.mark.slow
def test_a_group_gives_the_metrics_of_lm_eval(build_checkpoint: Build, tasks: Path, tmp_path: Path) -> None:
    directory, output = build_checkpoint("llama"), tmp_path / "out"
    theirs = _theirs(directory, tasks, ["facts"], 5, 64)
    assert _run(directory, tasks, ["facts"], output, "--limit", "5", "--max-length-tokens", "64") == 0
    _compare(theirs, output)
    assert main(["verify", str(output)]) == 0
    for name, count in (("lmeval:facts_choice", 2), ("lmeval:facts_word", 0)):
        assert load_all([output])[0].tasks[name]["num_shots"] == count


@pytest.mark.slow
def test_numbers_of_groups_are_those_of_lm_eval(build_checkpoint: Build, tasks: Path, tmp_path: Path) -> None:
    directory, names = build_checkpoint("llama"), ["by_items", "by_tasks"]
    # it takes no two groups with the same task at once
    theirs = {name: _theirs(directory, tasks, [name], 5, 64)["groups"][name] for name in names}
    arguments = ["--limit", "5", "--max-length-tokens", "64"]
    assert _run(directory, tasks, names, tmp_path / "out", *arguments) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
    groups = load_all([tmp_path / "out"])[0].results["groups"]
    assert [group["group"] for group in groups] == ["lmeval:by_items", "lmeval:by_tasks"]
    for group, name in zip(groups, names, strict=True):
        entry = group["metrics"]["acc"]
        assert entry["value"] == pytest.approx(theirs[name]["acc,none"])
        assert group["tasks"] == ["lmeval:facts_choice", "lmeval:facts_word"]


@given(
    st.lists(st.tuples(st.integers(2, 50), st.floats(0, 1), st.floats(0, 0.5)), min_size=1, max_size=5), st.booleans()
)
def test_sums_of_groups_follow_the_formulas_of_lm_eval(tasks: list[tuple[int, float, float]], by_items: bool) -> None:
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr

    sizes, values, errors = (list(column) for column in zip(*tasks, strict=True))
    rule = GroupRule(name="g", tasks=tuple(map(str, range(len(tasks)))), by_items={"acc": by_items})
    entries = {
        str(k): {"items": n, "metrics": {"acc": {"value": value, "stderr": error, "n": n}}}
        for k, (n, value, error) in enumerate(tasks)
    }
    row = group_row(rule, entries)
    assert row is not None
    found = row["metrics"]["acc"]
    assert found["value"] == pytest.approx(aggregate_subtask_metrics(values, sizes, by_items), abs=1e-9)
    expected = pooled_sample_stderr(errors, sizes) if by_items else unweighted_mean_stderr(errors)
    assert found["stderr"] == pytest.approx(float(expected), abs=1e-9)
    assert group_row(rule, {"0": {"items": 1, "metrics": {}}}) is None


@pytest.mark.slow
def test_one_name_that_cannot_be_loaded_does_not_stop_the_others(
    build_checkpoint: Build, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tasks, task="facts_lost", dataset_path="json", dataset_kwargs={"data_files": {"test": "absent.jsonl"}})
    output, directory = tmp_path / "runs", build_checkpoint("llama")
    arguments = ["run", "--models", f"a={directory}", "--lm-eval-include", str(tasks), "--device", "cpu"]
    names = ["lmeval:facts_lost", "lmeval:facts_word"]
    assert main([*arguments, "--tasks", *names, "--output-dir", str(output)]) == 1
    assert "lm-eval cannot load facts_lost" in capsys.readouterr().err
    assert list(load_all([output])[0].tasks) == ["lmeval:facts_word"]
    # unknown names are found before any work
    unknown = ["lmeval:facts_wrd", "lmeval:facts_chioce", "lmeval:facts_word"]
    assert main([*arguments, "--tasks", *unknown, "--output-dir", str(tmp_path / "none")]) == 2
    errors = capsys.readouterr().err
    assert 'no task or group "facts_wrd"' in errors
    assert "did you mean lmeval:facts_choice?" in errors
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_of_lm_eval_with_our_model(build_checkpoint: Build, tasks: Path, tmp_path: Path) -> None:
    directory = build_checkpoint("llama")
    names = ("facts_word", "facts_text", "facts_answer")  # the harness draws 100,000 samples for the error of mcc
    theirs = _theirs(directory, tasks, list(names), None, 64)
    arguments = ["lm-eval", "run", "--model", "catwalk", "--model_args", f"pretrained={directory},max_length=64"]
    arguments += ["--tasks", *names, "--include_path", str(tasks), "--output_path", str(tmp_path / "out")]
    assert main([*arguments, "--log_samples", "--device", "cpu"]) == 0
    _same_files(theirs, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("with_samples", [True, False])
def test_its_own_results_can_be_imported(
    build_checkpoint: Build, tasks: Path, tmp_path: Path, with_samples: bool
) -> None:
    """The files that the harness writes give its numbers, and the rows of the same run by us."""
    from lm_eval.loggers import EvaluationTracker

    directory = build_checkpoint("llama")
    theirs = _theirs(directory, tasks, ["facts"], 5, 64)
    expected = {name: _metrics(theirs["results"][name]) for name in theirs["samples"]}
    tracker = EvaluationTracker(output_path=str(tmp_path / "theirs"))
    tracker.general_config_tracker.log_experiment_args("hf", f"pretrained={directory}", None, None, None)
    samples = theirs.pop("samples")
    tracker.save_results_aggregated(theirs, samples)
    for name in samples if with_samples else ():
        tracker.save_results_samples(name, samples[name])
    (file,) = (tmp_path / "theirs").rglob("results_*.json")
    assert main(["import", str(file), "--output-dir", str(tmp_path / "old"), "--name", "old"]) == 0
    assert formats_main(["validate", "results", str(tmp_path / "old")]) == 0
    assert main(["verify", str(tmp_path / "old")]) == 0
    (old,) = load_all([tmp_path / "old"])
    assert sorted(old.tasks) == [f"lmeval:{name}" for name in sorted(expected)]
    for name, metrics in expected.items():
        found = old.tasks[f"lmeval:{name}"]["metrics"]
        assert {metric: entry["value"] for metric, entry in found.items()} == pytest.approx(metrics, rel=1e-6)
        assert {("summed_by" in entry) for entry in found.values()} == {not with_samples}
    # the same run by us: the same tasks, shots, rows and texts
    arguments = ["--limit", "5", "--max-length-tokens", "64", "--name", "new"]
    assert _run(directory, tasks, ["facts"], tmp_path / "new", *arguments) == 0
    assert main(["report", str(tmp_path / "old"), str(tmp_path / "new"), "--output-dir", str(tmp_path / "page")]) == 0
    (new,) = load_all([tmp_path / "new"])
    for name, entry in new.tasks.items():
        same = ("items", "num_shots", "primary_metric", "split")
        assert {key: old.tasks[name][key] for key in same} == {key: entry[key] for key in same}
    if with_samples:
        ours, mine = read_rows_by_task(tmp_path / "new"), read_rows_by_task(tmp_path / "old")
        for name in new.tasks:
            for a, b in zip(ours[name], mine[name], strict=True):
                assert (a["id"], list(a), sorted(a["scores"])) == (b["id"], list(b), sorted(b["scores"]))
        texts = [[row for _, row in read_rows(tmp_path / one / "items.jsonl.gz")] for one in ("old", "new")]
        for a, b in zip(*texts, strict=True):
            assert {key: b[key] for key in b} == {key: a[key] for key in b}


@pytest.mark.slow
def test_shots_are_those_of_lm_eval(build_checkpoint: Build, tasks: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert _run(build_checkpoint("llama"), tasks, ["facts_word@3"], output) == 0
    (entry,) = load_all([output])[0].tasks.values()
    assert (entry["task"], entry["num_shots"]) == ("lmeval:facts_word@3", 3)
    texts = [row["context"] for _, row in read_rows(output / "items.jsonl.gz")]
    assert all(text.count(" is") == 4 for text in texts)


@pytest.mark.slow
def test_wrong_names(build_checkpoint: Build, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(build_checkpoint("llama"), tasks, ["facts_wrd"], tmp_path / "out") == 2
    assert 'lm-eval has no task or group "facts_wrd"' in capsys.readouterr().err
    (tasks / "facts.jsonl").unlink()
    assert _run(build_checkpoint("llama"), tasks, ["facts_word"], tmp_path / "out") == 2
    assert "lm-eval cannot load facts_word" in capsys.readouterr().err


# ---- the harness's own files on real data

# the harness's file and our folder of rows; a changed row where its data set has another field
_OWN: dict[str, tuple[str, str]] = {
    "arc_challenge": ("arc/arc_challenge", "arc_challenge"),
    "arc_easy": ("arc/arc_easy", "arc_easy"),
    "boolq": ("super_glue/boolq/default", "boolq"),
    "cb": ("super_glue/cb/default", "commitment_bank"),
    "commonsense_qa": ("commonsense_qa/default", "commonsense_qa"),
    "copa": ("super_glue/copa/default", "copa"),
    "gsm8k": ("gsm8k/gsm8k", "gsm8k"),
    "lambada_openai": ("lambada/lambada_openai", "lambada"),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy", "mmlu"),
    "openbookqa": ("openbookqa/openbookqa", "openbookqa"),
    "piqa": ("piqa/piqa", "piqa"),
    "rte": ("glue/rte/default", "rte"),
    "sciq": ("sciq/sciq", "sciq"),
    "social_iqa": ("siqa/siqa", "social_i_qa"),
    "sst2": ("glue/sst2/default", "sst2"),
    "winogrande": ("winogrande/default", "winogrande"),
}
_CHANGED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "boolq": lambda row: {**row, "label": int(row["answer"])},
    "lambada_openai": lambda row: {"text": row["context"] + row["continuation"]},
}


def _own_files(data: Path, directory: Path, rows: int) -> list[str]:
    """A file for each task that includes the harness's own, with a local file as its data set."""
    directory.mkdir()
    for name, (file, folder) in _OWN.items():
        found = [row for path in sorted((data / folder).glob("[tv]*.jsonl.gz")) for _, row in read_rows(path)]
        if name == "mmlu_anatomy":
            found = [row for row in found if row["subject"] == "anatomy"]
        local = directory / f"{name}.jsonl"
        change = _CHANGED.get(name, dict)
        local.write_text("".join(json.dumps(change(row)) + "\n" for row in found[:rows]))
        own = Path(lm_eval.__file__).parent / f"tasks/{file}.yaml"
        splits = {"training_split": None, "validation_split": None, "test_split": "test", "fewshot_split": "test"}
        source = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(local)}}}
        changes = {"include": str(own), "task": name, **source, **splits, "num_fewshot": 2}
        if name == "gsm8k":
            changes["generation_kwargs"] = {"until": ["Question:"], "do_sample": False, "max_gen_toks": 24}
        _write(directory, **changes)
    return list(_OWN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["olmo2", "gptneox"])
def test_own_tasks_on_real_data(build_checkpoint: Build, shared_data: Path, tmp_path: Path, kind: str) -> None:
    directory, include, output = build_checkpoint(kind), tmp_path / "tasks", tmp_path / "out"
    names = _own_files(shared_data / "eval", include, 20)
    theirs = _theirs(directory, include, names, 12, 512)
    assert _run(directory, include, names, output, "--limit", "12", "--max-length-tokens", "512") == 0
    _compare(theirs, output)
    assert main(["verify", str(output)]) == 0
    f1 = load_all([output])[0].tasks["lmeval:cb"]["metrics"]["f1"]
    assert f1["summed_by"].endswith("cb_multi_fi")


@pytest.mark.slow
def test_own_tasks_by_the_command_of_lm_eval(build_checkpoint: Build, shared_data: Path, tmp_path: Path) -> None:
    directory, include = build_checkpoint("olmo2"), tmp_path / "tasks"
    names = _own_files(shared_data / "eval", include, 20)
    theirs = _theirs(directory, include, names, 12, 512)
    arguments = ["lm-eval", "run", "--model", "catwalk", "--model_args", f"pretrained={directory},max_length=512"]
    arguments += ["--tasks", *names, "--include_path", str(include), "--output_path", str(tmp_path / "out")]
    assert main([*arguments, "--limit", "12", "--log_samples", "--device", "cpu"]) == 0
    _same_files(theirs, tmp_path / "out")


@pytest.mark.slow
def test_list_and_show_take_tasks_of_the_harness(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    include = ["--lm-eval-include", str(tasks)]
    assert main(["list", "lmeval:facts_choice", *include]) == 0
    assert "| lmeval:facts_choice | choices | 6 | validation | 2 | acc |" in capsys.readouterr().out
    assert main(["show", "lmeval:facts_choice@0", "--item", "1", "--whitespace", *include]) == 0
    shown = capsys.readouterr().out
    assert "  |The·fire·is\n  choice 0: ' cold'\n" in shown
    assert main(["show", "lmeval:facts_nothing", *include]) == 2
    assert 'no task or group "facts_nothing"' in capsys.readouterr().err
