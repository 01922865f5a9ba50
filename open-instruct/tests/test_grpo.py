"""`open-instruct grpo` on a task that a program verifies: what a step does, and that it learns."""

import json
import random

import pytest
from conftest import read_metrics, trainer, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file

LETTERS = "ab"


def task_rows(numbers: range) -> list[dict]:
    """Questions that begin with a letter, which is the answer."""
    return [
        {
            "messages": [{"role": "user", "content": f"{LETTERS[number % 2]} {number}"}],
            "verifier": "exact_match",
            "ground_truth": LETTERS[number % 2],
        }
        for number in numbers
    ]


@pytest.fixture(scope="module")
def guesser(checkpoint, tmp_path_factory):
    """A model that answers one of the letters, whatever the question is."""
    folder = tmp_path_factory.mktemp("guesser")
    draw = random.Random(0)
    rows = [
        {"messages": [*row["messages"], {"role": "assistant", "content": draw.choice(LETTERS)}]}
        for row in task_rows(range(400))
    ]
    chats = write_rows(folder / "chats.jsonl", rows)
    options = ["training.max_steps=60", "training.batch_sequences=32", "training.micro_batch_sequences=32"]
    return trainer(folder, checkpoint)("sft", chats, *options, "training.log_every_steps=20")


@pytest.fixture
def tasks(tmp_path):
    return write_rows(tmp_path / "tasks.jsonl", task_rows(range(64)))


SMALL = [
    "answers.per_prompt=4",
    "answers.max_new_tokens=4",
    "sequence.max_length_tokens=64",
    "training.batch_sequences=32",
    "training.micro_batch_sequences=32",
]


def test_answers_improve_on_held_out_prompts(run, guesser, tmp_path):
    always = [row | {"ground_truth": LETTERS[0]} for row in task_rows(range(164))]
    data, held_out = (write_rows(tmp_path / f"{len(rows)}.jsonl", rows) for rows in (always[:64], always[64:]))
    learning = ["training.max_steps=12", "optimizer.learning_rate=3e-3", "training.eval_batch_sequences=100"]
    result = run("grpo", data, *SMALL, *learning, f"data.eval=[{held_out}]", model=guesser)
    rows = read_metrics(result)
    first, last = (row for row in rows if "eval/score" in row)
    assert first["eval/score_high"] < 0.7 < last["eval/score_low"]
    scores = [row["train/score"] for row in rows if "train/score" in row]
    assert scores[0] < 0.7 < scores[-1]
    assert formats(["validate", "checkpoint", str(result)]) == 0
    assert json.loads((result / "manifest.json").read_text())["details"]["stage"] == "grpo"


@pytest.mark.slow
def test_answers_learn_to_fit_the_question(run, guesser, tasks, tmp_path):
    held_out = write_rows(tmp_path / "held_out.jsonl", task_rows(range(400, 500)))
    learning = ["training.max_steps=60", "optimizer.learning_rate=2e-3", "training.eval_batch_sequences=100"]
    large = ["training.batch_sequences=64", "training.micro_batch_sequences=64"]
    result = run("grpo", tasks, *SMALL, *learning, *large, f"data.eval=[{held_out}]", model=guesser)
    first, last = (row for row in read_metrics(result) if "eval/score" in row)
    assert first["eval/score_high"] < 0.7 < last["eval/score_low"]  # measured: 0.47 (0.38 to 0.57), 0.99 (0.95 to 1.00)


def test_micro_batches_do_not_change_the_step(run, guesser, tasks):
    steps = [
        read_metrics(run("grpo", tasks, *SMALL, f"training.micro_batch_sequences={size}", model=guesser))[0]
        for size in (32, 8)
    ]
    assert steps[0]["train/score"] == steps[1]["train/score"]
    assert 0 < steps[0]["train/score"] < 1
    assert steps[0]["train/grad_norm"] == pytest.approx(steps[1]["train/grad_norm"], rel=1e-4)


def test_resumed_run_ends_in_the_same_bytes(run, guesser, tasks, tmp_path, monkeypatch):
    options = [*SMALL, "training.max_steps=4", "optimizer.learning_rate=1e-3", f"data.eval=[{tasks}]"]
    whole = run("grpo", tasks, *options, model=guesser)
    from open_instruct.metrics import MetricsCallback

    original, killed = MetricsCallback.on_step_end, []

    def stop(self, args, state, control, **keywords):
        if state.global_step == 3 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        original(self, args, state, control, **keywords)

    monkeypatch.setattr(MetricsCallback, "on_step_end", stop)
    output = tmp_path / "resumed"
    command = ["grpo", str(tmp_path / f"{whole.name}.yaml"), *options, f"output_dir={output}"]
    command.append("training.save_every_steps=2")
    assert main(command) == 1
    assert (tmp_path / "resumed.partial/trainer/checkpoint-2").exists()
    assert main(command) == 0
    assert sha256_file(output / "model.safetensors") == sha256_file(whole / "model.safetensors")
    assert main(command) == 0  # already done


def test_adapter_stays_near_its_base(run, guesser, tasks):
    options = [*SMALL, "lora.rank=4", "lora.dropout=0.0", "loss.beta=0.1", "training.max_steps=3"]
    rows = read_metrics(run("grpo", tasks, *options, model=guesser))
    distances = [row["train/kl"] for row in rows]
    assert distances[0] == pytest.approx(0, abs=1e-6)  # the reference is the model before its first step
    assert distances[-1] > 1e-6


def test_prompts_that_do_not_fit_are_counted(run, guesser, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = task_rows(range(8))
    rows[3]["messages"][0]["content"] = "b " * 100
    run("grpo", write_rows(tmp_path / "a.jsonl", rows), *SMALL, "training.batch_sequences=28", expect=2)
    small = ["training.batch_sequences=28", "training.micro_batch_sequences=28", "training.max_steps=1"]
    run("grpo", write_rows(tmp_path / "a.jsonl", rows), *SMALL, *small, model=guesser)
    assert "training prompts: 7 rows" in caplog.text
    assert "training prompts: 1 rows were left out: longer than sequence.max_length_tokens" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "code", "found"),
    [
        (["answers.per_prompt=1"], 2, '"answers.per_prompt" is 1; expected 2 or more'),
        (["answers.per_prompt=5"], 2, '"training.batch_sequences" is 32 with 5 answers to each prompt'),
        (["answers.temperature=0"], 2, '"answers.temperature" is 0.0; expected a number above 0'),
        (["answers.use_vllm=true"], 2, "vllm is not installed; expected the package"),
        (["training.batch_sequences=512"], 1, "data.train: 64 prompts are left; expected at least 128"),
    ],
)
def test_wrong_requests(run, guesser, tasks, capsys, overrides, code, found):
    run("grpo", tasks, *SMALL, *overrides, model=guesser, expect=code)
    assert found in capsys.readouterr().err


def test_rows_without_a_verifier_are_bad(run, chats, capsys):
    run("grpo", chats, *SMALL, expect=1)
    assert 'chats.jsonl:1: "verifier" is missing; expected one of gsm8k' in capsys.readouterr().err
