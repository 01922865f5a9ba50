"""The ways in which other post-training code has gone wrong, one by one: here each is right, or an error says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import chat_rows, pair_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.chat.encode import ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.config import DpoConfig, SftConfig, load_config
from open_instruct.formats.contract import sha256_file
from open_instruct.metrics import MetricsCallback
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# peft asks transformers under an old name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def _talk(question: str, *answers: str) -> dict:
    return {
        "messages": [
            {"role": "user", "content": question},
            *({"role": "assistant", "content": answer} for answer in answers),
        ]
    }


def _interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the run as Ctrl-C does, after a step whose checkpoint was saved."""
    finish = MetricsCallback.on_save

    def stop(self, args, state, control, **more):
        finish(self, args, state, control, **more)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsCallback, "on_save", stop)


def test_1_a_token_weighs_the_same_in_a_short_and_in_a_long_micro_batch(run, tmp_path):
    rows = [_talk("?", "a" * length) for length in (1, 90, 2, 80, 1, 70, 3, 1)]
    data = write_rows(tmp_path / "skewed.jsonl", rows)
    whole, parts = (
        read_metrics(run("sft", data, "training.max_steps=1", f"training.micro_batch_sequences={size}"))
        for size in (8, 1)
    )
    assert parts[0]["train/loss"] == pytest.approx(whole[0]["train/loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("sft", ["sequence.packing=true", "sequence.max_length_tokens=80"]),
        ("dpo", ["lora.rank=2", "lora.dropout=0.2", "training.group_by_length=true"]),
    ],
)
def test_2_a_run_resumes_where_it_was_and_skips_no_rows_in_later_epochs(checkpoint, tmp_path, monkeypatch, stage, more):
    data = write_rows(tmp_path / "d.jsonl", chat_rows(9) if stage == "sft" else pair_rows(9))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"model: {checkpoint()}\noutput_dir: x\ndata: {{train: [{data}]}}\n"
        "sequence: {max_length_tokens: 128}\noptimizer: {learning_rate: 0.01}\n"
        "training: {num_epochs: 3, batch_sequences: 2, micro_batch_sequences: 1, log_every_steps: 1,\n"
        "  save_every_steps: 1}\nruntime: {device: cpu, num_threads: 1}\n"
    )
    straight, resumed = ([stage, str(config), f"output_dir={tmp_path / name}", *more] for name in "ab")
    assert main(straight) == 0
    with monkeypatch.context() as patch:
        _interrupt(patch, 2)  # within the first epoch
        assert main(resumed) == 1
    assert (tmp_path / "b.partial").exists()
    assert main(resumed) == 0
    for name in ("model.safetensors", "manifest.json"):
        assert sha256_file(tmp_path / "a" / name) == sha256_file(tmp_path / "b" / name)
    rows = [[(row["step"], row["train/loss"]) for row in read_metrics(tmp_path / name)] for name in "ab"]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*-[sd][fp][to].yaml")), ids=lambda path: path.stem)
def test_3_every_shipped_recipe_can_be_run(path):
    kind = DpoConfig if path.stem.endswith("dpo") else SftConfig
    assert load_config(kind, path, []).problems() == []


def test_4_an_edit_of_the_same_length_is_other_data(run, chats, checkpoint, capsys):
    output = run("sft", chats, "training.max_steps=1")
    chats.write_text(chats.read_text().replace("items", "itema", 1))
    arguments = ["sft", str(output.parent / f"{output.name}.yaml"), "training.max_steps=1"]
    assert main(arguments) == 2
    assert "contains another result (made from other inputs)" in capsys.readouterr().err
    other = [*arguments, f"output_dir={output}-edited"]
    assert main(other) == 0
    edited = output.with_name(output.name + "-edited")
    assert read_metrics(edited)[0]["train/loss"] != read_metrics(output)[0]["train/loss"]


def test_5_the_reference_is_the_model_that_is_given_not_one_that_had_its_path(run, pairs, checkpoint, tmp_path):
    model = Path(shutil.copytree(checkpoint(), tmp_path / "model"))
    outputs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        loaded = AutoModelForCausalLM.from_pretrained(model)
        with torch.no_grad():
            loaded.lm_head.weight.add_(torch.randn_like(loaded.lm_head.weight) * 0.1)
        loaded.save_pretrained(model)  # as if sft had been run again into the same directory
        outputs.append(run("dpo", pairs, "training.max_steps=2", "training.save_every_steps=1", model=model))
    for output in outputs:
        assert read_metrics(output)[0]["train/loss"] == pytest.approx(0.693147, abs=1e-5)
    # that a resumed run keeps the reference, with adapters too, is test 2: its losses are those of a run at one go


def test_6_a_loss_that_is_not_implemented_is_refused(run, pairs, capsys):
    run("dpo", pairs, "loss.kind=wpo", expect=2)
    assert "loss.kind" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_7_the_learning_rate_falls_to_zero_over_all_epochs(run, chats, pairs, stage):
    data = chats if stage == "sft" else pairs
    more = ["optimizer.schedule=linear", "training.max_steps=null", "training.num_epochs=3", "lora.rank=2"]
    batch = ["training.batch_sequences=4", "training.micro_batch_sequences=4"]
    rates = [row["train/lr"] for row in read_metrics(run(stage, data, *more, *batch)) if "train/lr" in row]
    assert len(rates) == 6
    assert rates == pytest.approx([0.01 * (1 - step / 6) for step in range(6)])


def test_8_answers_in_a_row_and_reasoning_are_trained(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    encoder = ConversationEncoder(tokenizer, ChatTemplate("tulu", read_shipped("tulu")))
    row = encoder.encode_one(_talk("Why?", "<think>\nHm.\n</think>\nBecause.", "It is so.")["messages"])
    trained = tokenizer.decode([id for id, is_trained in zip(row.input_ids, row.trained, strict=True) if is_trained])
    assert trained == "<think>\nHm.\n</think>\nBecause.<|endoftext|>It is so.<|endoftext|>"


def test_9_a_setting_on_the_command_line_may_contain_an_equals_sign_and_has_its_type(run, chats, checkpoint, tmp_path):
    output = tmp_path / "out=2"
    changes = [f"output_dir={output}", "training.max_steps=1", "optimizer.learning_rate=1e-3", f"data.train=[{chats}]"]
    run("sft", tmp_path / "absent", *changes, "lora={rank: 2, dropout: 0.0}", "seed=3")
    config = json.loads((output / "manifest.json").read_text())["config"]
    assert (config["lora"]["rank"], config["seed"], config["data"]["train"]) == (2, 3, ["chats.jsonl"])


# ---- the same care for adapters


def test_adapter_and_merged_model_have_the_same_logits(run, chats, checkpoint):
    import peft

    output = run("sft", chats, "lora.rank=4", "lora.alpha=64", "lora.keep_adapter=true")
    base = AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, output / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 80, 17, 33, 250, 9]])
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32)(ids).logits
        assert (adapted(ids).logits - merged(ids).logits).abs().max() <= 1e-5
        assert (merged(ids).logits - before).abs().max() > 1e-2


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_are_trained_with_adapters_and_merged(run, chats, checkpoint, tmp_path, tied):
    base = checkpoint("llama", tied)
    lora = ["lora.rank=2", "lora.dropout=0.0", "lora.keep_adapter=true", "template.name=chatml"]
    output = run("sft", chats, *lora, "optimizer.weight_decay=0.5", "training.save_every_steps=1", model=base)
    before, after = (load_file(directory / "model.safetensors") for directory in (base, output))
    tokenizer = AutoTokenizer.from_pretrained(output)
    new = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for name in ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"]):
        changed = (before[name] != after[name]).any(dim=1).nonzero().flatten().tolist()
        assert changed == new, name
        mean = before[name][:300].mean(dim=0)
        assert not torch.allclose(after[name][new[1]], mean, atol=1e-4), name  # trained beyond its first value
    # the losses are those of the saved model: the second step's loss is that of the model after one step
    one = run("sft", chats, *lora, "optimizer.weight_decay=0.5", "training.max_steps=1", model=base)
    encoder = ConversationEncoder(
        tokenizer, ChatTemplate("chatml", read_shipped("chatml"), ("<|im_start|>", "<|im_end|>"))
    )
    model, total, tokens = AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).eval(), 0.0, 0
    for row in encoder.encode([row["messages"] for row in chat_rows(8)]):
        labels = torch.tensor(row.labels[1:])
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        tokens += int((labels != -100).sum())
    assert read_metrics(output)[1]["train/loss"] == pytest.approx(total / tokens, abs=1e-5)
    # the kept adapter has the rows, so that merging it gives the same model
    assert main(["merge", str(base), str(output / "adapter"), str(tmp_path / "merged")]) == 0
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        assert torch.allclose(tensor, after[name], atol=1e-6), name


def test_rows_added_to_an_embedding_start_at_the_mean(run, chats, checkpoint, tmp_path):
    base = tmp_path / "full"
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32)
    model.resize_token_embeddings(300, mean_resizing=False)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(checkpoint()).save_pretrained(base)
    rate = "optimizer.learning_rate=1e-12"
    output = run("sft", chats, "template.name=chatml", "training.max_steps=1", rate, model=base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = load_file(output / "model.safetensors")[name]
        assert rows.shape[0] == 304  # a multiple of 8
        mean = load_file(base / "model.safetensors")[name].mean(dim=0)
        assert torch.allclose(rows[300:], mean.expand(4, -1), atol=1e-6)


def test_neftune_adds_noise_in_training_only(run, chats):
    noisy, same = (run("sft", chats, "training.neftune_alpha=5", f"data.eval=[{chats}]") for _ in range(2))
    plain = run("sft", chats, f"data.eval=[{chats}]")
    assert sha256_file(noisy / "model.safetensors") == sha256_file(same / "model.safetensors")
    first, second = (read_metrics(output) for output in (noisy, plain))
    assert first[0]["eval/loss"] == second[0]["eval/loss"]
    assert first[1]["train/loss"] != second[1]["train/loss"]
