"""`open-instruct sft` against brute force: losses, weights, evaluation, packing, adapters, files."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import TINY, chat_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.chat.encode import IGNORED, ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from open_instruct.order import RowOrder
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def _load(directory: Path):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def _encode(directory: Path, rows: list[dict], template: str = "tulu"):
    encoder = ConversationEncoder(
        AutoTokenizer.from_pretrained(directory), ChatTemplate(template, read_shipped(template))
    )
    return encoder.encode([row["messages"] for row in rows])


def _brute_force(model, encoded) -> tuple[torch.Tensor, int]:
    """Sum of the cross entropy over trained tokens, row by row without padding; and how many tokens that is."""
    total, tokens = torch.zeros(()), 0
    for row in encoded:
        logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        tokens += int((labels != IGNORED).sum())
    return total, tokens


@pytest.mark.parametrize("family", ["olmo", "olmo2", "llama"])
def test_first_loss_and_gradient_norm_equal_masked_cross_entropy(run, chats, checkpoint, family):
    base = checkpoint(family)
    metrics = read_metrics(run("sft", chats, "training.max_steps=1", model=base))
    model = _load(base)
    total, tokens = _brute_force(model, _encode(base, chat_rows(8)))
    loss = total / tokens
    loss.backward()
    norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in model.parameters()))
    assert metrics[0]["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert metrics[0]["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize(("family", "tied"), [("olmo", True), ("olmo2", False), ("llama", True)])
def test_saved_model_is_the_trained_model(run, chats, checkpoint, family, tied):
    base = checkpoint(family, tied)
    one = run("sft", chats, "training.max_steps=1", "optimizer.schedule=constant", model=base)
    two = run("sft", chats, "training.max_steps=2", model=base)
    # the second run's second loss is that of its model after one step, which is what the first run saved
    total, tokens = _brute_force(_load(one), _encode(base, chat_rows(8)))
    assert read_metrics(two)[1]["train/loss"] == pytest.approx(total.item() / tokens, abs=1e-5)
    assert read_metrics(two)[1]["train/loss"] < read_metrics(two)[0]["train/loss"]
    names = set(load_file(one / "model.safetensors"))
    assert ("lm_head.weight" in names) == (not tied)
    assert formats(["validate", "checkpoint", str(one)]) == 0


def test_checkpoint_carries_what_inference_needs(run, chats, checkpoint):
    output = run("sft", chats)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["details"] | {"tokenizer_sha256": ""} == {
        "architecture": "OlmoForCausalLM",
        "dtype": "float32",
        "stage": "sft",
        "step": 2,
        "tokens_seen": 2 * sum(len(row.input_ids) for row in _encode(checkpoint(), chat_rows(8))),
        "tokenizer_sha256": "",
    }
    assert {entry["role"] for entry in manifest["inputs"]} == {"checkpoint", "chat"}
    listed = {entry["path"] for entry in manifest["files"]}
    assert {"config.json", "model.safetensors", "generation_config.json", "chat_template.jinja"} <= listed
    assert not listed & {"metrics.jsonl", "run.yaml"}
    assert str(output.parent) not in (output / "manifest.json").read_text()
    assert AutoTokenizer.from_pretrained(output).chat_template == read_shipped("tulu")
    assert GenerationConfig.from_pretrained(output).eos_token_id == 0
    assert not list(output.parent.glob("*.partial"))


def test_equal_runs_give_equal_bytes(run, chats):
    first, second = (
        run("sft", chats, "training.micro_batch_sequences=2", "training.batch_sequences=4") for _ in range(2)
    )
    for name in ("model.safetensors", "config.json", "tokenizer.json", "manifest.json"):
        assert sha256_file(first / name) == sha256_file(second / name), name
    other = run("sft", chats, "training.micro_batch_sequences=2", "training.batch_sequences=4", "seed=1")
    assert sha256_file(first / "model.safetensors") != sha256_file(other / "model.safetensors")


def test_loss_and_weights_do_not_depend_on_the_micro_batch(run, chats):
    whole = run("sft", chats)
    for size in (1, 2):
        parts = run("sft", chats, f"training.micro_batch_sequences={size}")
        for a, b in zip(read_metrics(whole), read_metrics(parts), strict=True):
            assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)
            assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=1e-3)


def test_packed_conversations_do_not_attend_to_each_other(run, chats):
    apart = read_metrics(run("sft", chats))
    packed = read_metrics(
        run("sft", chats, "sequence.packing=true", "training.batch_sequences=5", "training.micro_batch_sequences=5")
    )
    assert packed[0]["train/tokens_seen"] == apart[0]["train/tokens_seen"]  # five sequences hold all eight rows
    for a, b in zip(apart, packed, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)


def test_held_out_loss_is_per_token_and_per_byte(run, chats, checkpoint, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"é{i}?"}, {"role": "assistant", "content": "ü" * (i + 1)}]}
        for i in range(5)
    ]
    held_out = write_rows(tmp_path / "held.jsonl", rows)
    output = run(
        "sft", chats, f"data.eval=[{held_out}]", "training.eval_every_steps=1", "training.eval_batch_sequences=2"
    )
    evaluations = [row for row in read_metrics(output) if "eval/loss" in row]
    assert [row["step"] for row in evaluations] == [0, 1, 2]
    for row, directory in ((evaluations[0], checkpoint()), (evaluations[2], output)):
        total, tokens = _brute_force(_load(directory), _encode(checkpoint(), rows))
        answer_bytes = sum(2 * (i + 1) for i in range(5))
        assert row["eval/loss"] == pytest.approx(total.item() / tokens, abs=1e-5)
        assert row["eval/bits_per_byte"] == pytest.approx(total.item() / answer_bytes / math.log(2), abs=1e-5)
        assert (row["eval/tokens"], row["eval/bytes"], row["eval/rows"]) == (tokens, answer_bytes, 5)


def test_saved_dtype_and_mixed_precision(run, chats):
    output = run("sft", chats, "runtime.save_dtype=bfloat16", "runtime.dtype=bfloat16", "training.max_steps=1")
    assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {torch.bfloat16}
    assert formats(["validate", "checkpoint", str(output)]) == 0


def test_template_with_new_tokens_takes_padding_rows_first(run, chats, checkpoint, tmp_path):
    output = run("sft", chats, "template.name=chatml")
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = _load(output)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.encode("<|im_start|>", add_special_tokens=False) == [300]
    assert model.get_input_embeddings().num_embeddings == 320  # 20 padding rows were enough
    assert GenerationConfig.from_pretrained(output).eos_token_id == [0, end]
    assert json.loads((output / "config.json").read_text())["eos_token_id"] == 0
    # a third stage on top finds the tokens there
    again = run("sft", chats, model=output)
    assert AutoTokenizer.from_pretrained(again).chat_template == read_shipped("chatml")


def test_embedding_grows_when_there_is_no_padding_left(run, chats, checkpoint, tmp_path):
    base = tmp_path / "full"
    model = _load(checkpoint())
    model.resize_token_embeddings(300, mean_resizing=False)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(checkpoint()).save_pretrained(base)
    output = run(
        "sft", chats, "template.name=chatml", "training.max_steps=1", "optimizer.learning_rate=1e-9", model=base
    )
    grown = _load(output).get_input_embeddings().weight
    assert grown.shape[0] == 304
    mean = _load(base).get_input_embeddings().weight.mean(dim=0)
    assert torch.allclose(grown[300], mean, atol=1e-6)


def test_adapter_is_merged_and_merges_to_the_same_model(run, chats, checkpoint, tmp_path):
    lora = ["lora.rank=4", "lora.dropout=0.0", "lora.keep_adapter=true"]
    output = run("sft", chats, *lora)
    base, merged = load_file(checkpoint() / "model.safetensors"), load_file(output / "model.safetensors")
    assert base.keys() == merged.keys()
    assert torch.equal(base["model.embed_tokens.weight"], merged["model.embed_tokens.weight"])
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(base[changed], merged[changed])
    assert main(["merge", str(checkpoint()), str(output / "adapter"), str(tmp_path / "merged")]) == 0
    assert sha256_file(tmp_path / "merged" / "model.safetensors") == sha256_file(output / "model.safetensors")
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == read_shipped("tulu")
    assert formats(["validate", "checkpoint", str(tmp_path / "merged")]) == 0
    assert str(tmp_path) not in (output / "adapter" / "adapter_config.json").read_text()


def test_truncated_and_unusable_rows_are_counted(run, checkpoint, tmp_path, caplog):
    long = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "long answer " * 40}]}
    drowned = {"messages": [{"role": "user", "content": "q " * 200}, {"role": "assistant", "content": "a"}]}
    data = write_rows(tmp_path / "rows.jsonl", [*chat_rows(4), long, drowned])
    caplog.set_level("INFO")
    run("sft", data, "training.max_steps=1")
    assert "training rows: 5 rows" in caplog.text
    assert "1 rows were longer than sequence.max_length_tokens and were truncated" in caplog.text
    assert "1 rows were left out: nothing of the answer is left" in caplog.text


def _broken(checkpoint, directory: Path, number: float) -> Path:
    model = _load(checkpoint())
    with torch.no_grad():
        model.lm_head.weight[5] = number
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(checkpoint()).save_pretrained(directory)
    return directory


def test_weights_that_are_not_finite_are_refused_before_training(run, chats, checkpoint, tmp_path, capsys):
    output = run("sft", chats, model=_broken(checkpoint, tmp_path / "nan", float("nan")), expect=1)
    assert '"lm_head.weight" has 32 weights that are NaN or infinite' in capsys.readouterr().err
    assert not output.exists()


def test_batches_of_similar_length_are_not_sorted_by_length():
    lengths = [10 + (number * 7919) % 311 for number in range(1603)]
    sampler = RowOrder(lengths, 3, batch_size=16)
    rows = list(sampler)
    assert sorted(rows) == list(range(1603))
    assert rows == list(sampler)
    sampler.set_epoch(1)
    assert rows != list(sampler)
    batches = [[lengths[row] for row in rows[start : start + 16]] for start in range(0, len(rows), 16)]
    assert max(batches[0]) == max(lengths)
    assert len(batches[-1]) == 3
    # similar lengths within a batch, and means of neighbouring batches that do not follow each other
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 30
    means = torch.tensor([sum(batch) / len(batch) for batch in batches[1:-1]])
    assert abs(torch.corrcoef(torch.stack([means[:-1], means[1:]]))[0, 1]) < 0.3


def test_loss_that_is_not_finite_ends_the_run_and_names_the_rows(run, chats, checkpoint, tmp_path, capsys):
    broken = _broken(checkpoint, tmp_path / "huge", 3e38)
    options = ["training.log_every_steps=50", "training.batch_sequences=2", "training.micro_batch_sequences=1"]
    output = run("sft", chats, *options, model=broken, expect=1)
    error = capsys.readouterr().err
    assert re.search(rf"step 1: the loss is (nan|inf); expected a finite number \(rows {chats}:\d\)", error)
    assert not output.exists()
    held_out = run("sft", chats, f"data.eval=[{chats}]", model=broken, expect=1)
    assert f"error: {chats}:1 and 7 more: the log-probability of the answer is not finite" in capsys.readouterr().err
    assert "NaN" not in (held_out.with_name(held_out.name + ".partial") / "metrics.jsonl").read_text()


def _mixture(family: str, directory: Path, tokenizer, wanted: bool) -> Path:
    import transformers

    experts = {"mixtral": "num_local_experts", "olmoe": "num_experts"}[family]
    config = transformers.AutoConfig.for_model(
        family,
        **TINY,
        num_experts_per_tok=2,
        output_router_logits=wanted,
        router_aux_loss_coef=0.5,
        **{experts: 4},
    )
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize(("family", "wanted"), [("mixtral", True), ("olmoe", True), ("olmoe", False)])
def test_mixture_of_experts_does_not_depend_on_the_micro_batch(run, chats, tokenizer, tmp_path, family, wanted):
    base = _mixture(family, tmp_path / "moe", tokenizer, wanted)
    one_step = ["training.max_steps=1", "optimizer.epsilon=1e-3"]
    whole = run("sft", chats, *one_step, model=base)
    weights, metrics = load_file(whole / "model.safetensors"), read_metrics(whole)[0]
    total, tokens = _brute_force(_load(base), _encode(base, chat_rows(8)))
    assert metrics["train/loss"] == pytest.approx(total.item() / tokens, abs=1e-5)  # without the routers' loss
    assert ("train/router_loss" in metrics) == wanted
    if wanted:
        rows = [torch.tensor(row.input_ids) for row in _encode(base, chat_rows(8))]
        batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
        mask = (torch.arange(batch.shape[1]) < torch.tensor([[len(row)] for row in rows])).long()
        expected = _load(base)(batch, attention_mask=mask, output_router_logits=True).aux_loss
        assert metrics["train/router_loss"] == pytest.approx(expected.item(), abs=1e-5)
    for size in (1, 4):
        parts = run("sft", chats, *one_step, f"training.micro_batch_sequences={size}", model=base)
        for name, tensor in load_file(parts / "model.safetensors").items():
            assert torch.allclose(tensor, weights[name], atol=1e-5), (size, name)
    settings = json.loads((whole / "config.json").read_text())
    assert (settings["output_router_logits"], settings["router_aux_loss_coef"]) == (wanted, 0.5)
