"""`open-instruct dpo` against brute force: both losses, smoothing, references, evaluation."""

import math
from pathlib import Path

import pytest
import torch
from conftest import pair_rows, read_metrics, write_rows
from open_instruct.chat.encode import ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer


def _log_probs(directory: Path, tokenizer_home: Path, rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of ln p of each answer with the end of its turn, and its length: shapes (2, rows); chosen, then rejected."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    encoder = ConversationEncoder(
        AutoTokenizer.from_pretrained(tokenizer_home), ChatTemplate("t", read_shipped("tulu"))
    )
    sums, lengths = torch.zeros(2, len(rows)), torch.zeros(2, len(rows))
    for index, row in enumerate(rows):
        for side, name in enumerate(("chosen", "rejected")):
            prompt = encoder.encode_prompt(row[name][:-1])
            answer = encoder.encode_answer(row[name][:-1], row[name][-1]["content"])
            with torch.no_grad():
                log_probs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            picked = [log_probs[len(prompt) + i - 1, token] for i, token in enumerate(answer)]
            sums[side, index], lengths[side, index] = sum(picked), len(answer)
    return sums, lengths


def _loss(
    policy: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, *, kind: str, beta: float, smooth: float
):
    gains = policy - reference
    if kind == "sigmoid_norm":
        gains = gains / lengths
    logits = beta * (gains[0] - gains[1])
    return float((-(1 - smooth) * logsigmoid(logits) - smooth * logsigmoid(-logits)).mean())


@pytest.mark.parametrize(
    ("kind", "beta", "smooth"), [("sigmoid", 0.1, 0.0), ("sigmoid", 0.3, 0.2), ("sigmoid_norm", 5.0, 0.0)]
)
def test_losses_are_ln_2_and_then_the_formula(run, pairs, checkpoint, kind, beta, smooth):
    options = [
        f"loss.kind={kind}",
        f"loss.beta={beta}",
        f"loss.label_smoothing={smooth}",
        "optimizer.learning_rate=1e-3",
    ]
    one = run("dpo", pairs, *options, "training.max_steps=1", f"data.eval=[{pairs}]")
    two = run("dpo", pairs, *options)
    metrics = read_metrics(two)
    assert metrics[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
    reference, lengths = _log_probs(checkpoint(), checkpoint(), pair_rows(8))
    policy, _ = _log_probs(one, checkpoint(), pair_rows(8))
    expected = _loss(policy, reference, lengths, kind=kind, beta=beta, smooth=smooth)
    assert metrics[1]["train/loss"] == pytest.approx(expected, abs=1e-5)
    assert expected < math.log(2)
    rewards = beta * (policy - reference)
    assert metrics[1]["train/rewards/chosen"] == pytest.approx(float(rewards[0].mean()), abs=1e-4)
    assert metrics[1]["train/rewards/margins"] == pytest.approx(float((rewards[0] - rewards[1]).mean()), abs=1e-4)
    accuracy = float((rewards[0] > rewards[1]).float().mean())
    assert metrics[1]["train/rewards/accuracies"] == pytest.approx(accuracy)

    # the same pairs held out, scored by our own code
    first, last = (row for row in read_metrics(one) if "eval/loss" in row)
    assert (first["step"], last["step"]) == (0, 1)
    assert first["eval/loss"] == pytest.approx(math.log(2), abs=1e-9)
    assert first["eval/rewards/accuracies"] == 0.5
    assert first["eval/logps/accuracies"] == float((reference[0] > reference[1]).float().mean())
    assert last["eval/loss"] == pytest.approx(expected, abs=1e-5)
    assert last["eval/rewards/accuracies"] == pytest.approx(accuracy)
    assert last["eval/rewards/margins"] == pytest.approx(float((rewards[0] - rewards[1]).mean()), abs=1e-4)


def test_second_model_and_precomputed_reference_agree(run, pairs):
    precomputed = read_metrics(run("dpo", pairs))
    second_model = read_metrics(run("dpo", pairs, "loss.precompute_reference=false"))
    for a, b in zip(precomputed, second_model, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)
        assert a["train/rewards/margins"] == pytest.approx(b["train/rewards/margins"], abs=1e-4)


def test_adapter_has_the_base_model_as_its_reference(run, pairs, checkpoint):
    lora = ["lora.rank=4", "lora.dropout=0.0", "lora.alpha=64", "optimizer.learning_rate=0.01"]
    one = run("dpo", pairs, *lora, "training.max_steps=1")
    losses = []
    for mode in ("true", "false"):
        metrics = read_metrics(run("dpo", pairs, *lora, f"loss.precompute_reference={mode}"))
        assert metrics[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
        losses.append(metrics[1]["train/loss"])
    reference, lengths = _log_probs(checkpoint(), checkpoint(), pair_rows(8))
    policy, _ = _log_probs(one, checkpoint(), pair_rows(8))
    expected = _loss(policy, reference, lengths, kind="sigmoid", beta=0.1, smooth=0.0)
    assert losses == [pytest.approx(expected, abs=1e-5)] * 2


def test_micro_batches_do_not_change_the_step(run, pairs):
    whole, parts = read_metrics(run("dpo", pairs)), read_metrics(run("dpo", pairs, "training.micro_batch_sequences=2"))
    for a, b in zip(whole, parts, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)


def test_equal_runs_give_equal_bytes_and_a_valid_checkpoint(run, pairs):
    first, second = (
        run("dpo", pairs, "training.micro_batch_sequences=4", "training.group_by_length=true") for _ in range(2)
    )
    for name in ("model.safetensors", "manifest.json"):
        assert sha256_file(first / name) == sha256_file(second / name)
    assert formats(["validate", "checkpoint", str(first)]) == 0


def test_pairs_that_do_not_fit_are_counted(run, tmp_path, caplog):
    user = {"role": "user", "content": "q " * 200}
    drowned = {name: [user, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    short = {"role": "user", "content": "q"}
    cut = {
        name: [short, {"role": "assistant", "content": ("same " * 100) + name}] for name in ("chosen", "rejected")
    }  # equal up to the limit: nothing to prefer
    longer = {name: [short, {"role": "assistant", "content": name + " word" * 100}] for name in ("chosen", "rejected")}
    data = write_rows(tmp_path / "pairs.jsonl", [*pair_rows(4), drowned, cut, longer])
    caplog.set_level("INFO")
    run("dpo", data, "training.max_steps=1")
    assert "training pairs: 5 rows" in caplog.text
    assert "training pairs: 1 rows were longer" in caplog.text
    assert "training pairs: 2 rows were left out: nothing of the answer is left" in caplog.text
