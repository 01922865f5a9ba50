"""What a result keeps of its checkpoint: tokenizer, settings, dtypes, template; and inputs that do not fit."""

import json
import resource
import shutil
import signal
from pathlib import Path

import peft
import pytest
import torch
import transformers
from conftest import chat_rows, pair_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.chat.answer import Chatter
from open_instruct.config import RuntimeSettings, TemplateSettings
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.checkpoint import inspect_checkpoint
from open_instruct.formats.contract import sha256_file
from open_instruct.model.load import load_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

# peft asks transformers under an old name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:Setting `save_embedding_layers`"
)
BARE = (  # an instruct model's own template, without {% generation %}
    "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def _edit(path: Path, **values: object) -> None:
    value = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({key: item for key, item in (value | values).items() if item is not ...}))


@pytest.fixture
def model(checkpoint, tmp_path) -> Path:
    """A copy of the tiny Llama, to be changed."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))


def _retype(directory: Path, dtype_of) -> None:
    weights = load_file(directory / "model.safetensors")
    save_file(
        {name: tensor.to(dtype_of(name)) for name, tensor in weights.items()},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )


def _adapter(base: Path, directory: Path, rows: int | None = None, **settings: object) -> Path:
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows is not None:
        loaded.resize_token_embeddings(rows, mean_resizing=False)
    torch.manual_seed(3)
    values = {"task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"], "init_lora_weights": False} | settings
    peft.get_peft_model(loaded, peft.LoraConfig(**values)).save_pretrained(directory)
    return directory


def _merge(base: Path, adapter: Path, output: Path, *more: str) -> Path:
    assert main(["merge", str(base), str(adapter), str(output), *more]) == 0
    assert formats(["validate", "checkpoint", str(output)]) == 0
    return output


# ---- the tokenizer


def _digits_apart(directory: Path) -> Tokenizer:
    """Give tokenizer.json its own pre-tokenizer, and a class that would restore GPT-2's."""
    backend = Tokenizer.from_file(str(directory / "tokenizer.json"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"[a-z]{1,2}|\d|\n"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.save(str(directory / "tokenizer.json"))
    _edit(directory / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    return backend


def test_tokenizer_json_is_used_unchanged_whatever_the_class(run, chats, model):
    raw = _digits_apart(model)
    text = "sequence of items 12345\n\n\nreturn"
    want = raw.encode(text, add_special_tokens=False).ids
    assert AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"] != want  # replaced
    assert load_tokenizer(model)(text, add_special_tokens=False)["input_ids"] == want
    output = run("sft", chats, "training.max_steps=1", model=model)
    assert AutoTokenizer.from_pretrained(output)(text, add_special_tokens=False)["input_ids"] == want
    assert sha256_file(output / "tokenizer.json") == sha256_file(model / "tokenizer.json")
    grown = run("sft", chats, "training.max_steps=1", "template.name=chatml", model=model)
    ids = AutoTokenizer.from_pretrained(grown)(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
    assert ids == [*want, 301]
    merged = _merge(model, _adapter(model, model.with_name("adapter")), model.with_name("merged"))
    assert AutoTokenizer.from_pretrained(merged)(text, add_special_tokens=False)["input_ids"] == want


def test_end_of_sequence_is_found_in_generation_config(run, chats, model):
    _edit(model / "tokenizer_config.json", eos_token=..., pad_token=...)
    _edit(model / "config.json", eos_token_id=None)
    _edit(model / "generation_config.json", eos_token_id=0)
    output = run("sft", chats, "training.max_steps=1", model=model)
    assert AutoTokenizer.from_pretrained(output).eos_token == "<|endoftext|>"  # the template names it
    assert json.loads((output / "config.json").read_text())["eos_token_id"] == 0


def test_weights_and_tokenizers_of_other_kinds_get_a_command_that_converts_them(model, chats, capsys):
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").rename(model / "aside")
    assert main(["inspect", str(chats), "--checkpoint", str(model)]) == 1
    error = capsys.readouterr().err
    assert "not found, but pytorch_model.bin exists; expected safetensors weights" in error
    assert "hint: python -c" in error
    (model / "aside").rename(model / "model.safetensors")
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    assert main(["inspect", str(chats), "--checkpoint", str(model)]) == 1
    assert "not found, but tokenizer.model exists; expected the tokenizer" in capsys.readouterr().err


# ---- settings that stay


def test_training_keeps_sampling_settings_and_stop_ids(run, chats, pairs, model):
    _edit(model / "generation_config.json", eos_token_id=[0, 5], do_sample=True, temperature=0.6, top_p=0.9)
    for stage, data in (("sft", chats), ("dpo", pairs)):
        output = run(stage, data, "training.max_steps=1", model=model)
        saved = json.loads((output / "generation_config.json").read_text())
        assert (saved["eos_token_id"], saved["temperature"], saved["top_p"]) == ([0, 5], 0.6, 0.9)
        assert saved["do_sample"] is True


def test_merge_keeps_what_the_base_had(model, tmp_path):
    _edit(model / "generation_config.json", eos_token_id=[0, 5], do_sample=True, temperature=0.6)
    _edit(model / "config.json", dtype="bfloat16")
    _retype(model, lambda name: torch.float32 if "norm" in name else torch.bfloat16)
    merged = _merge(model, _adapter(model, tmp_path / "adapter"), tmp_path / "merged")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert sha256_file(merged / name) == sha256_file(model / name), name
    assert not (merged / "chat_template.jinja").exists()
    before, after = load_file(model / "model.safetensors"), load_file(merged / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in before.items()} == {n: tensor.dtype for n, tensor in after.items()}
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    manifest = json.loads((merged / "manifest.json").read_text())
    assert manifest["details"]["dtype"] == "bfloat16"
    single = _merge(model, tmp_path / "adapter", tmp_path / "single", "--dtype", "float32")
    assert inspect_checkpoint(single).dtypes == ("float32",)


def test_merge_and_chat_accept_a_template_without_marks(model, tmp_path, capsys):
    (model / "chat_template.jinja").write_text(BARE)
    merged = _merge(model, _adapter(model, tmp_path / "adapter"), tmp_path / "merged")
    assert (merged / "chat_template.jinja").read_text() == BARE
    data = write_rows(tmp_path / "q.jsonl", chat_rows(1))
    assert main(["chat", str(merged), "--input", str(data), "--output", "-", "--max-new-tokens", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["answer_tokens"] >= 1


def test_merge_uses_the_template_and_tokens_next_to_the_adapter(model, tmp_path):
    home = _adapter(model, tmp_path / "adapter", rows=328, modules_to_save=["embed_tokens", "lm_head"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<|new{number}|>" for number in range(25)], special_tokens=True)
    tokenizer.chat_template = BARE
    tokenizer.save_pretrained(home)
    merged = _merge(model, home, tmp_path / "merged")
    assert inspect_checkpoint(merged).embedding_rows == 328
    assert json.loads((merged / "config.json").read_text())["vocab_size"] == 328
    assert AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids("<|new24|>") == 324
    assert (merged / "chat_template.jinja").read_text() == BARE
    AutoModelForCausalLM.from_pretrained(merged)(torch.tensor([[324]]))


def test_merge_adds_single_trained_tokens(model, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], trainable_token_indices=[7, 9])
    adapted = peft.get_peft_model(loaded, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.fill_(0.25)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = _merge(model, tmp_path / "adapter", tmp_path / "merged")
    rows = load_file(merged / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(rows[[7, 9]], torch.full((2, 32), 0.25))
    assert torch.equal(rows[8], load_file(model / "model.safetensors")["model.embed_tokens.weight"][8])


def test_untied_output_matrix_is_kept_if_the_configuration_says_tied(run, chats, model, tmp_path):
    _edit(model / "config.json", tie_word_embeddings=True)
    head = load_file(model / "model.safetensors")["lm_head.weight"]
    merged = _merge(model, _adapter(model, tmp_path / "adapter"), tmp_path / "merged")
    trained = run("sft", chats, "training.max_steps=1", "optimizer.learning_rate=1e-9", model=model)
    for output in (merged, trained):
        assert json.loads((output / "config.json").read_text())["tie_word_embeddings"] is False
        assert torch.allclose(load_file(output / "model.safetensors")["lm_head.weight"], head, atol=1e-6)


def test_merge_that_fails_leaves_nothing(model, checkpoint, tmp_path, capsys):
    other = _adapter(checkpoint("olmo2"), tmp_path / "adapter", target_modules=["q_proj"], r=2)
    weights = load_file(other / "adapter_model.safetensors")
    dropped = {name: tensor for name, tensor in weights.items() if "layers.1" not in name}
    save_file(dropped, other / "adapter_model.safetensors")
    assert main(["merge", str(model), str(other), str(tmp_path / "out")]) == 1
    assert "expected all weights of its adapter" in capsys.readouterr().err
    _edit(other / "adapter_config.json", target_modules=["c_attn"])
    assert main(["merge", str(model), str(other), str(tmp_path / "out")]) == 1
    assert "expected its adapter" in capsys.readouterr().err
    (other / "adapter_config.json").write_text("{")
    assert main(["merge", str(model), str(other), str(tmp_path / "out")]) == 1
    assert f"error: {other}/adapter_config.json: is not JSON" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_chat_stops_at_every_id_that_the_checkpoint_names(model):
    (model / "chat_template.jinja").write_text(BARE.replace("eos_token", "'<|padding|>'"))
    _edit(model / "generation_config.json", eos_token_id=[0, 5, 7])
    chatter = Chatter(model, RuntimeSettings(device="cpu"), TemplateSettings())
    assert chatter.stops == [0, 1, 5, 7]


# ---- what does not fit


def _gpt2(directory: Path, tokenizer) -> Path:
    config = transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=64, eos_token_id=0)
    torch.manual_seed(1)
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_rows_longer_than_the_model_allows_are_truncated_with_a_warning(run, chats, pairs, tokenizer, tmp_path, caplog):
    base = _gpt2(tmp_path / "gpt2", tokenizer)
    rows = chat_rows(4)
    rows[0]["messages"][1]["content"] = "word " * 200
    long = write_rows(tmp_path / "long.jsonl", rows)
    run("sft", long, "sequence.max_length_tokens=2048", "training.max_steps=1", model=base)
    assert "sequence.max_length_tokens: lowered from 2048 to 64, the model's maximum" in caplog.text
    assert "were truncated" in caplog.text
    run("dpo", pairs, "sequence.max_length_tokens=2048", "training.max_steps=1", model=base)
    assert main(["chat", str(base), "--input", str(chats), "--output", str(tmp_path / "o"), "--temperature", "0"]) == 0


def test_adapters_cover_the_linear_layers_of_any_family(run, chats, tokenizer, tmp_path, capsys):
    base = _gpt2(tmp_path / "gpt2", tokenizer)
    output = run("sft", chats, "lora.rank=2", "lora.keep_adapter=true", "training.max_steps=1", model=base)
    names = json.loads((output / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert {name.rpartition(".")[2] for name in names} == {"c_attn", "c_fc", "c_proj"}
    assert names == sorted(names)  # equal bytes, whatever the seed of Python's hashes
    run("sft", chats, "lora.target_modules=[q_proj,c_fc]", model=base, expect=2)
    error = capsys.readouterr().err
    assert "lora.target_modules: the model has no q_proj; expected some of wte, wpe, c_attn, c_proj, c_fc" in error


def test_tokens_beyond_the_embedding_get_rows_or_an_error(run, chats, pairs, model, capsys, caplog):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<|pad{n}|>" for n in range(20)] + ["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    output = run("sft", chats, "template.name=chatml", "training.max_steps=1", model=model)
    assert inspect_checkpoint(output).embedding_rows == 328
    assert "the embedding has 320 rows; added rows for 2 more tokens (<|im_start|>, <|im_end|>)" in caplog.text
    assert inspect_checkpoint(run("sft", chats, "training.max_steps=1", model=model)).embedding_rows == 320
    run("sft", chats, "template.name=chatml", "training.max_steps=1", "lora.rank=2", model=model)
    run("dpo", pairs, "template.name=chatml", model=model, expect=1)
    assert "'<|im_end|>' has the id 321; expected an id below 320" in capsys.readouterr().err
    assert main(["chat", str(model), "--template", "chatml", "--input", str(chats), "--output", "-"]) == 1
    assert main(["inspect", str(chats), "--checkpoint", str(model), "--template", "chatml"]) == 0
    assert "not in the embedding's 320 rows: '<|im_end|>'" in capsys.readouterr().out


def test_rows_that_a_template_refuses_are_named(run, checkpoint, tmp_path, capsys):
    refusing = tmp_path / "refusing.jinja"
    refusing.write_text(
        "{%- for m in messages -%}{%- if m.role == 'system' -%}{{- raise_exception('no system here') -}}{%- endif -%}"
        "{%- if m.role == 'assistant' -%}{{- 'A: ' -}}{%- generation -%}{{- m.content + eos_token -}}"
        "{%- endgeneration -%}{%- else -%}{{- 'U: ' + m.content -}}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- 'A: ' -}}{%- endif -%}"
    )
    system = {"role": "system", "content": "Be brief."}
    rows = chat_rows(4)
    rows[2]["messages"].insert(0, system)
    data = write_rows(tmp_path / "c.jsonl", rows)
    run("sft", data, f"template.name={refusing}", expect=1)
    assert f"error: {data}:3: refusing.jinja template refuses the row (no system here)" in capsys.readouterr().err
    pairs = pair_rows(3)
    for side in ("chosen", "rejected"):
        pairs[1][side].insert(0, system)
    data = write_rows(tmp_path / "p.jsonl", pairs)
    run("dpo", data, f"template.name={refusing}", expect=1)
    assert f"error: {data}:2: refusing.jinja template refuses" in capsys.readouterr().err
    data = write_rows(tmp_path / "c.jsonl", rows)
    arguments = ["chat", str(checkpoint()), "--template", str(refusing), "--input", str(data), "--output", "-"]
    assert main(arguments) == 1
    assert "refuses the messages (no system here)" in capsys.readouterr().err
    refusing.write_text("{% for")
    run("sft", data, f"template.name={refusing}", expect=2)


@pytest.mark.parametrize(("stage", "save_every"), [("sft", "null"), ("dpo", "1")])
def test_full_disk_is_an_error_after_which_the_run_resumes(
    chats, pairs, checkpoint, tmp_path, capsys, stage, save_every
):
    config, data = tmp_path / "c.yaml", {"sft": chats, "dpo": pairs}[stage]
    config.write_text(
        f"model: {checkpoint()}\noutput_dir: {tmp_path / 'out'}\ndata: {{train: [{data}]}}\n"
        f"training: {{max_steps: 2, batch_sequences: 8, micro_batch_sequences: 8, save_every_steps: {save_every}}}\n"
        "runtime: {device: cpu, num_threads: 1}\n"
    )
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # no file of this process may grow beyond it
    try:
        assert main([stage, str(config)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "the disk is full; expected space for the result" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([stage, str(config)]) == 0
    assert formats(["validate", "checkpoint", str(tmp_path / "out")]) == 0


def test_short_last_micro_batch_of_pairs_weighs_no_more(run, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", pair_rows(5))
    options = ["training.batch_sequences=5", "optimizer.epsilon=1e-3", "training.max_steps=2"]
    whole = read_metrics(run("dpo", data, *options, "training.micro_batch_sequences=5"))
    more = write_rows(tmp_path / "p.jsonl", pair_rows(5))
    parts = read_metrics(
        run("dpo", more, *options[1:], "training.batch_sequences=8", "training.micro_batch_sequences=2")
    )
    for a, b in zip(whole, parts, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)
        assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=1e-3)
