"""`open-instruct reward` against brute force: loss, margins, schedule, calibration, adapters, resumed runs."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import pair_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.chat.encode import ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.evaluation.statistics import wilson
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from open_instruct.reward.calibration import calibrate
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


def _rewards(directory: Path, tokenizer_home: Path, rows: list[dict]) -> torch.Tensor:
    """Rewards of shape (2, rows), chosen then rejected: each text alone, without padding, read at its last token."""
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    encoder = ConversationEncoder(
        AutoTokenizer.from_pretrained(tokenizer_home), ChatTemplate("t", read_shipped("tulu"))
    )
    found = torch.zeros(2, len(rows), dtype=torch.float64)
    for index, row in enumerate(rows):
        for side, name in enumerate(("chosen", "rejected")):
            ids = encoder.encode_one(row[name]).input_ids
            ids = ids[: len(ids) - ids[::-1].index(encoder.stop_id)]
            with torch.no_grad():
                hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
                found[side, index] = float(model.score(hidden))
    return found


@pytest.mark.parametrize("family", ["olmo", "llama"])
def test_loss_is_the_formula(run, pairs, checkpoint, family):
    base = checkpoint(family)
    options = ["optimizer.learning_rate=1e-3", f"data.eval=[{pairs}]"]
    one = run("reward", pairs, *options, "training.max_steps=1", model=base)
    two = run("reward", pairs, *options, "training.micro_batch_sequences=2", model=base)
    rewards = _rewards(one, base, pair_rows(8))
    expected = -float(logsigmoid(rewards[0] - rewards[1]).mean())
    metrics = read_metrics(two)
    assert next(row["train/loss"] for row in metrics if row.get("step") == 2) == pytest.approx(expected, abs=1e-6)

    # the same pairs held out, scored by our own code
    last = read_metrics(one)[-1]
    assert last["eval/loss"] == pytest.approx(expected, abs=1e-6)
    right = int((rewards[0] > rewards[1]).sum())
    assert last["eval/accuracy"] == right / 8
    assert (last["eval/accuracy_low"], last["eval/accuracy_high"]) == wilson(right / 8, 8)
    assert last["eval/rewards/margins"] == pytest.approx(float((rewards[0] - rewards[1]).mean()), abs=1e-5)
    table = json.loads((one / "calibration.json").read_text())
    brute = calibrate((rewards[0] - rewards[1]).tolist())
    assert (table["pairs"], table["accuracy"]) == (8, right / 8)
    assert table["expected_error"] == pytest.approx(brute.expected_error, abs=1e-5)
    assert [one["pairs"] for one in table["bins"]] == [one.pairs for one in brute.bins]


def test_result_is_a_checkpoint_that_transformers_loads(run, pairs, checkpoint):
    first, second = (run("reward", pairs) for _ in range(2))
    assert formats(["validate", "checkpoint", str(first)]) == 0
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["details"]["stage"] == "reward"
    assert manifest["details"]["architecture"] == "OlmoForSequenceClassification"
    assert not (first / "generation_config.json").exists()
    for name in ("model.safetensors", "manifest.json"):
        assert sha256_file(first / name) == sha256_file(second / name)
    model, loading = AutoModelForSequenceClassification.from_pretrained(first, output_loading_info=True)
    assert model.config.num_labels == 1
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]


def test_margins_of_rows_are_in_the_loss(run, tmp_path, checkpoint, caplog):
    caplog.set_level("INFO")
    rows = [row | ({"margin": index / 4} if index % 2 else {}) for index, row in enumerate(pair_rows(8))]
    data = write_rows(tmp_path / "margins.jsonl", rows)
    still = "optimizer.learning_rate=1e-12"
    one = run("reward", data, still, "training.max_steps=1")
    rewards = _rewards(one, checkpoint(), rows)
    margins = torch.tensor([row.get("margin", 0.0) for row in rows], dtype=torch.float64)
    expected = -float(logsigmoid(rewards[0] - rewards[1] - margins).mean())
    assert read_metrics(one)[0]["train/loss"] == pytest.approx(expected, abs=1e-6)
    assert "4 of 8 training pairs have a margin" in caplog.text
    assert "have the field margin, which is not used" not in caplog.text

    without = run("reward", data, still, "training.max_steps=1", "loss.use_margins=false")
    expected = -float(logsigmoid(rewards[0] - rewards[1]).mean())
    assert read_metrics(without)[0]["train/loss"] == pytest.approx(expected, abs=1e-6)
    assert "data.train: 4 rows have the field margin, which is not used" in caplog.text

    centered = run("reward", data, still, "training.max_steps=1", "loss.use_margins=false", "loss.center_coefficient=2")
    expected += 2 * float(((rewards[0] + rewards[1]) ** 2).mean())
    assert read_metrics(centered)[0]["train/loss"] == pytest.approx(expected, abs=1e-5)

    bad = write_rows(tmp_path / "bad.jsonl", [pair_rows(1)[0] | {"margin": -1}])
    run("reward", bad, expect=1)


def test_learning_rate_reaches_zero_after_all_epochs(run, pairs):
    options = ["training.max_steps=null", "training.num_epochs=3", "training.batch_sequences=4"]
    metrics = read_metrics(
        run("reward", pairs, *options, "training.micro_batch_sequences=4", "optimizer.schedule=linear")
    )
    rates = [row["train/lr"] for row in metrics]
    assert len(rates) == 6
    assert rates == pytest.approx([0.01 * (6 - step) / 6 for step in range(6)])


def test_padding_is_not_the_end_of_an_answer(run, pairs, checkpoint, tmp_path):
    # a tokenizer that pads with its end of text, as many do: the reward would be read before the end of an answer
    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    result = run("reward", pairs, f"data.eval=[{pairs}]", model=base)
    loaded = AutoTokenizer.from_pretrained(result)
    assert loaded.pad_token_id != loaded.eos_token_id
    rewards = _rewards(result, base, pair_rows(8))
    expected = -float(logsigmoid(rewards[0] - rewards[1]).mean())
    assert read_metrics(result)[-1]["eval/loss"] == pytest.approx(expected, abs=1e-6)
    # padded by the saved tokenizer, in one batch, as others would use the result
    reward = AutoModelForSequenceClassification.from_pretrained(result).eval()
    texts = [loaded.apply_chat_template(row["chosen"], tokenize=False).rstrip("\n") for row in pair_rows(8)]
    with torch.no_grad():
        together = reward(**loaded(texts, padding=True, add_special_tokens=False, return_tensors="pt")).logits[:, 0]
    assert together.double().tolist() == pytest.approx(rewards[0].tolist(), abs=1e-5)


def test_adapter_trains_the_score_and_is_merged(run, pairs, checkpoint):
    lora = ["lora.rank=4", "lora.dropout=0.0", "training.max_steps=4", f"data.eval=[{pairs}]", "lora.keep_adapter=true"]
    result = run("reward", pairs, *lora)
    rewards = _rewards(result, checkpoint(), pair_rows(8))
    rows = [row for row in read_metrics(result) if "eval/loss" in row]
    expected = -float(logsigmoid(rewards[0] - rewards[1]).mean())
    assert rows[-1]["eval/loss"] == pytest.approx(expected, abs=1e-5)
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] - 0.05
    assert (result / "adapter/adapter_model.safetensors").exists()
    assert formats(["validate", "checkpoint", str(result)]) == 0


def test_resumed_run_ends_in_the_same_bytes(run, pairs, tmp_path, monkeypatch):
    options = ["training.max_steps=4", "training.batch_sequences=4", "training.micro_batch_sequences=2"]
    whole = run("reward", pairs, *options)
    from open_instruct.metrics import MetricsCallback

    original, killed = MetricsCallback.on_step_end, []

    def stop(self, args, state, control, **keywords):
        if state.global_step == 3 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        original(self, args, state, control, **keywords)

    monkeypatch.setattr(MetricsCallback, "on_step_end", stop)
    config = tmp_path / f"{whole.name}.yaml"
    output = tmp_path / "resumed"
    command = ["reward", str(config), *options, f"output_dir={output}", "training.save_every_steps=2"]
    assert main(command) == 1
    assert (tmp_path / "resumed.partial/trainer/checkpoint-2").exists()
    assert main(command) == 0
    assert sha256_file(output / "model.safetensors") == sha256_file(whole / "model.safetensors")
    assert [row["step"] for row in read_metrics(output)] == [1, 2, 3, 4]
    assert main(command) == 0  # already done


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("sequence.packing=true", '"sequence.packing" is true; expected false'),
        ("loss.center_coefficient=-1", '"loss.center_coefficient" is -1.0; expected 0 or more'),
        ("loss.beta=1", 'unknown setting "loss.beta"'),
    ],
)
def test_wrong_settings_are_refused(run, pairs, capsys, override, found):
    run("reward", pairs, override, expect=2)
    assert found in capsys.readouterr().err


def test_a_reward_model_is_no_language_model(run, pairs, chats, capsys):
    reward = run("reward", pairs)
    run("sft", chats, model=reward, expect=2)
    assert "is a reward model (OlmoForSequenceClassification); expected a language model" in capsys.readouterr().err


def test_calibration_of_known_margins():
    # 0.8 sure and right 3 times of 4; a tie is half right and 0.5 sure
    margin = math.log(4)
    found = calibrate([margin, margin, margin, -margin, 0.0])
    assert found.accuracy == pytest.approx(3.5 / 5)
    assert [(one.pairs, one.accuracy) for one in found.bins] == [(1, 0.5), (4, 0.75)]
    assert found.bins[1].confidence == pytest.approx(0.8)
    assert found.expected_error == pytest.approx(4 / 5 * 0.05)
    assert calibrate([1e9, -1e9]).bins[0].confidence == 1.0


def test_wilson_interval_of_published_values():
    # Newcombe 1998 (Statistics in Medicine 17), table I: 81/263 -> 0.2553 to 0.3662; 0/20 -> 0 to 0.1611
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
