"""Models of others: all seven families from and to Hugging Face's layout, and OLMo's and OLMo-core's own files."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.checkpoint.layout import to_published
from olmo_trainer.checkpoint.restore import read_model
from olmo_trainer.config.load import load_config
from olmo_trainer.formats.__main__ import main as formats
from olmo_trainer.formats.checkpoint import read_checkpoint
from olmo_trainer.formats.contract import ConfigError
from safetensors.torch import load_file, save_file
from test_model import model_of
from tokenizers import Tokenizer, pre_tokenizers

VOCABULARY = 400
TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "pad_token_id": 1,
    "bos_token_id": None,
    "eos_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "Olmo": {"clip_qkv": 2.0, "tie_word_embeddings": True},
    "Olmo2": {"rms_norm_eps": 1e-4, "rope_parameters": YARN},
    "Olmo3": {
        "sliding_window": 6,
        "rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_theta": 1e4}},
    },
    "Olmo3 without windows": {"layer_types": ["full_attention"] * 3},
    "Olmoe": {"num_experts": 5, "num_experts_per_tok": 2, "clip_qkv": 3.0},
    "Llama": {"attention_bias": True, "mlp_bias": True, "head_dim": 12},
    "Mistral": {"sliding_window": 6, "head_dim": 16},
    "Mixtral": {"num_local_experts": 4, "sliding_window": 20},
}


@pytest.mark.parametrize("case", FAMILIES)
def test_a_family_comes_in_and_goes_out_unchanged(case: str, made: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    family = case.split()[0]
    config = getattr(transformers, f"{family}Config")(**TINY, **FAMILIES[case])
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    (tmp_path / "theirs" / "tokenizer.json").write_bytes((made / "tokenizer.json").read_bytes())

    assert main(["convert", "hf2olmo", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--verify"]) == 0
    assert read_checkpoint(tmp_path / "ours").manifest is not None
    tokens_BT = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(tokens_BT).logits
        assert expected.abs().max() > 0.5
        assert (read_model(tmp_path / "ours")[0].logits(tokens_BT) - expected).abs().max() <= 1e-5

    arguments = ["olmo2hf", str(tmp_path / "ours"), str(tmp_path / "back"), "--shard-size", "30KB", "--verify"]
    assert main(["convert", *arguments]) == 0
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    with torch.no_grad():
        assert torch.equal(again(tokens_BT).logits, expected)
    for name in ("theirs", "back"):
        files = sorted((tmp_path / name).glob("*.safetensors"))
        assert len(files) > 2
        assert all(path.stat().st_size < 60_000 for path in files)

    run = settings(made, tmp_path / "run", init_from=str(tmp_path / "ours"))
    del run["model"]
    model = load_config(write_config(tmp_path / "c.yaml", run), []).model
    assert (model.family, model.embedding_size) == (family.lower(), VOCABULARY)
    # what is also given must agree, in part or in whole
    again = {
        **run,
        "model": {"family": family.lower(), "rope_scaling": {"factor": 4.0} if model.rope_scaling else None},
    }
    assert load_config(write_config(tmp_path / "c.yaml", again), []).model == model
    with pytest.raises(ConfigError, match=r'"model.num_hidden_layers" is 4; expected 3'):
        load_config(write_config(tmp_path / "c.yaml", {**run, "model": {"num_hidden_layers": 4}}), [])


@pytest.mark.parametrize("family", ["Olmo3", "Mixtral"])
def test_training_begins_from_a_converted_model(family: str, made: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**TINY, **FAMILIES[family])
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path / "theirs")
    arguments = ["--tokenizer", str(made / "tokenizer.json"), "--dtype", "bfloat16"]
    assert main(["convert", "hf2olmo", str(tmp_path / "theirs"), str(tmp_path / "ours"), *arguments]) == 0
    run = settings(made, tmp_path / "run", init_from=str(tmp_path / "ours"), train__steps=2)
    del run["model"]
    assert main(["train", str(write_config(tmp_path / "c.yaml", run))]) == 0
    begun, done = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "run/checkpoints/step-2"))
    assert begun.keys() == done.keys()
    assert 0 < max(float((begun[name].float() - done[name]).abs().max()) for name in begun) < 0.1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ("train/load imbalance" in rows[-1]) == (family == "Mixtral")


def published(case: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights under transformers' names, tokens and the logits they give."""
    model, _ = model_of(case)
    tokens_BT = torch.randint(0, 100, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return to_published(model.state_dict(), model.shape), tokens_BT, model.logits(tokens_BT)


def save_as_olmo(weights: dict[str, torch.Tensor], directory: Path, *, safetensors: bool) -> None:
    """Fuse and name weights as allenai/OLMo does."""
    own = {"transformer.wte.weight": weights["model.embed_tokens.weight"]}
    if "lm_head.weight" in weights:
        own["transformer.ff_out.weight"] = weights["lm_head.weight"]
    if "model.norm.weight" in weights:
        own["transformer.ln_f.weight"] = weights["model.norm.weight"]
    fused = {
        "att_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attn_out": ["self_attn.o_proj"],
        "ff_proj": ["mlp.up_proj", "mlp.gate_proj"],
        "ff_out": ["mlp.down_proj"],
        "q_norm": ["self_attn.q_norm"],
        "k_norm": ["self_attn.k_norm"],
        "attn_norm": ["post_attention_layernorm"],
        "ff_norm": ["post_feedforward_layernorm"],
    }
    for layer in range(3):
        for name, parts in fused.items():
            pieces = [weights.get(f"model.layers.{layer}.{part}.weight") for part in parts]
            if pieces[0] is not None:
                own[f"transformer.blocks.{layer}.{name}.weight"] = torch.cat(pieces)  # type: ignore[arg-type]
    if safetensors:
        keys = {name: base64.urlsafe_b64encode(pickle.dumps(((name,), False))).decode() for name in own}
        save_file({keys[name]: tensor for name, tensor in own.items()}, directory / "model.safetensors")
    else:
        torch.save(own, directory / "model.pt")


OLMO_1 = {
    "d_model": 32, "n_heads": 4, "n_layers": 3, "mlp_hidden_size": 96, "weight_tying": True, "alibi": False,
    "rope": True, "clip_qkv": 0.1, "include_bias": False, "block_type": "sequential", "layer_norm_type": "default",
    "layer_norm_with_affine": False, "bias_for_layer_norm": False, "activation_type": "swiglu", "vocab_size": 100,
    "embedding_size": 112, "max_sequence_length": 64, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
OLMO_2 = {
    **OLMO_1, "n_kv_heads": 2, "mlp_hidden_size": None, "mlp_ratio": 3, "clip_qkv": None, "rope_theta": 500000,
    "layer_norm_type": "rms", "layer_norm_with_affine": True, "attention_layer_norm": True, "norm_after": True,
    "layer_norm_eps": 1e-6,
}  # fmt: skip


@pytest.mark.parametrize("safetensors", [False, True])
@pytest.mark.parametrize(("case", "described"), [("olmo-tied-clipped", OLMO_1), ("olmo2-grouped-tied", OLMO_2)])
def test_olmos_own_files_come_in(
    case: str, described: dict[str, Any], safetensors: bool, made: Path, tmp_path: Path
) -> None:
    weights, tokens_BT, expected = published(case)
    source = tmp_path / "own"
    source.mkdir()
    save_as_olmo(weights, source, safetensors=safetensors)
    (source / "config.yaml").write_text(yaml.safe_dump({"model": described, "seed": 6198}))
    arguments = ["convert", "hf2olmo", str(source), str(tmp_path / "ours")]
    assert main(arguments) == 2  # without a tokenizer
    assert not (tmp_path / "ours").exists()
    assert main([*arguments, "--tokenizer", str(made / "tokenizer.json"), "--verify"]) == 0
    model, config = read_model(tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(model.logits(tokens_BT), expected)
    assert (config["eos_token_id"], config["max_position_embeddings"]) == (0, 64)


def test_olmo_cores_files_come_in(made: Path, tmp_path: Path) -> None:
    weights, tokens_BT, expected = published("olmo3")
    names = {
        "lm_head": "lm_head.w_out", "model.embed_tokens": "embeddings", "model.norm": "lm_head.norm",
        "self_attn.q_proj": "attention.w_q", "self_attn.k_proj": "attention.w_k", "self_attn.v_proj": "attention.w_v",
        "self_attn.o_proj": "attention.w_out", "self_attn.q_norm": "attention.q_norm",
        "self_attn.k_norm": "attention.k_norm", "post_attention_layernorm": "attention_norm", "mlp.gate_proj":
        "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
        "post_feedforward_layernorm": "feed_forward_norm", "model.layers": "blocks",
    }  # fmt: skip
    own = {}
    for name, tensor in weights.items():
        for theirs, core in names.items():
            name = name.replace(theirs, core)
        own[name] = tensor
    source = tmp_path / "own"
    source.mkdir()
    torch.save({"model": own, "optim": {}}, source / "model.pt")
    pattern = {"pattern": [7, 7, 7, -1], "force_full_attention_on_first_layer": False}
    attention = {"n_heads": 4, "qk_norm": {"name": "rms"}, "rope": {"theta": 500000}, "sliding_window": pattern}
    block = {"name": "reordered_norm", "attention": attention, "layer_norm": {"name": "rms", "eps": 1e-6}}
    model = {"d_model": 32, "n_layers": 4, "vocab_size": 112, "block": {**block, "feed_forward": {"hidden_size": 48}}}
    tokenizer = {"eos_token_id": 0, "pad_token_id": 1}
    config = {"model": model, "dataset": {"tokenizer": tokenizer, "sequence_length": 64}}
    (source / "config.json").write_text(json.dumps(config))
    arguments = ["convert", "hf2olmo", str(source), str(tmp_path / "ours"), "--tokenizer", str(made / "tokenizer.json")]
    assert main([*arguments, "--verify"]) == 0
    read, written = read_model(tmp_path / "ours")
    assert written["layer_types"] == ["sliding_attention"] * 3 + ["full_attention"]
    with torch.no_grad():
        assert torch.equal(read.logits(tokens_BT), expected)


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


def test_nothing_of_a_file_is_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "own"
    source.mkdir()
    (source / "config.yaml").write_text(yaml.safe_dump({"model": OLMO_1}))
    torch.save({"transformer.wte.weight": torch.zeros(2), "x": _Harm()}, source / "model.pt")
    arguments = ["convert", "hf2olmo", "own", "ours", "--tokenizer", str(made / "tokenizer.json")]
    assert main(arguments) == 1
    (source / "model.pt").unlink()
    key = base64.urlsafe_b64encode(pickle.dumps((("a.weight", _Harm()), False))).decode()
    save_file({key: torch.zeros(2)}, source / "model.safetensors")
    assert main(arguments) == 1
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "ours").exists()


def test_an_unsupported_model_is_reported(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "own"
    source.mkdir()
    (source / "config.yaml").write_text(yaml.safe_dump({"model": {**OLMO_1, "alibi": True, "block_type": "llama"}}))
    assert main(["convert", "hf2olmo", str(source), str(tmp_path / "ours")]) == 2
    told = capsys.readouterr().err
    assert '"model.alibi" is true; expected false or null' in told
    assert '"model.block_type" is llama; expected sequential' in told
    assert main(["convert", "hf2olmo", str(source), str(tmp_path / "ours"), "--shard-size", "5 boxes"]) == 2


def instruct(directory: Path, made: Path, **config: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny Llama as a Hugging Face directory with a tokenizer, and its weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TINY, **config}))
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes((made / "tokenizer.json").read_bytes())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory, load_file(directory / "model.safetensors")


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None removes a field."""
    value = {**(json.loads(path.read_text()) if path.is_file() else {}), **changes}
    path.write_text(json.dumps({name: item for name, item in value.items() if item is not None}))


def both_ways(theirs: Path, place: Path, *flags: str) -> Path:
    """A directory converted to our layout and back."""
    assert main(["convert", "hf2olmo", str(theirs), str(place / "ours"), *flags]) == 0
    assert main(["convert", "olmo2hf", str(place / "ours"), str(place / "back"), *flags]) == 0
    return place / "back"


def test_conversion_keeps_sidecar_files(made: Path, tmp_path: Path) -> None:
    theirs, _ = instruct(tmp_path / "theirs", made, eos_token_id=[0, 5, 7], attention_dropout=0.25)
    sampling = {"eos_token_id": [0, 5, 7], "do_sample": True, "temperature": 0.6}
    files = {
        "generation_config.json": json.dumps(sampling),
        "special_tokens_map.json": '{"eos_token": "<|endoftext|>"}',
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/tools.jinja": "{{ tools }}",
    }
    (theirs / "additional_chat_templates").mkdir()
    for name, text in files.items():
        (theirs / name).write_text(text)
    edit(theirs / "config.json", rope_theta=12345.0, rope_parameters=None, of_others={"kept": 1})
    edit(theirs / "tokenizer_config.json", model_max_length=77, chat_template="of the settings")
    back = both_ways(theirs, tmp_path, "--verify")
    assert {name: (back / name).read_text() for name in files} == files
    config, kept = (json.loads((back / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    assert (config["eos_token_id"], config["attention_dropout"], config["of_others"]) == ([0, 5, 7], 0.25, {"kept": 1})
    assert config["rope_parameters"]["rope_theta"] == 12345.0
    assert (kept["model_max_length"], kept["chat_template"]) == (77, "of the settings")
    assert main(["soup", str(tmp_path / "ours"), str(tmp_path / "ours"), str(tmp_path / "soup")]) == 0
    assert {name: (tmp_path / "soup" / name).read_text() for name in files} == files


def test_conversion_finds_the_end_token_wherever_it_is_stated(made: Path, tmp_path: Path) -> None:
    for number, place in enumerate(("generation_config.json", "tokenizer_config.json")):
        theirs, _ = instruct(tmp_path / f"theirs-{number}", made)
        edit(theirs / "config.json", eos_token_id=None)
        (theirs / "generation_config.json").unlink()
        if place.startswith("generation"):
            edit(theirs / place, eos_token_id=[5, 0])
        assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / f"ours-{number}")]) == 0
        config = json.loads((tmp_path / f"ours-{number}" / "config.json").read_text())
        assert config["eos_token_id"] == (5 if number == 0 else 0)


def test_conversion_keeps_each_tensors_dtype(made: Path, tmp_path: Path) -> None:
    theirs, weights = instruct(tmp_path / "theirs", made)
    mixed = {name: tensor.bfloat16() if tensor.ndim == 2 else tensor for name, tensor in weights.items()}
    save_file(mixed, theirs / "model.safetensors", metadata={"format": "pt"})
    back = both_ways(theirs, tmp_path, "--verify")
    for place in (tmp_path / "ours", back):
        found = load_file(place / "model.safetensors")
        assert {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in mixed.items()}
        assert json.loads((place / "manifest.json").read_text())["details"]["dtype"] == "bfloat16"
        assert formats(["validate", "checkpoint", str(place)]) == 0
    assert main(["soup", str(back), str(back), str(tmp_path / "soup")]) == 0
    assert load_file(tmp_path / "soup" / "model.safetensors")["model.norm.weight"].dtype == torch.float32


def test_conversion_unties_an_output_matrix_of_its_own(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, weights = instruct(tmp_path / "theirs", made, tie_word_embeddings=True)
    head = 2 * weights["model.embed_tokens.weight"]
    save_file({**weights, "lm_head.weight": head}, theirs / "model.safetensors", metadata={"format": "pt"})
    assert main(["generate", str(theirs), "--prompt", "the"]) == 1
    assert '"lm_head.weight" is a different matrix' in capsys.readouterr().err
    back = both_ways(theirs, tmp_path, "--verify")
    assert json.loads((back / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load_file(back / "model.safetensors")["lm_head.weight"], head)
    # one that equals the embedding stays tied
    same = weights["model.embed_tokens.weight"].clone()
    save_file({**weights, "lm_head.weight": same}, theirs / "model.safetensors", metadata={"format": "pt"})
    assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / "tied")]) == 0
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")


def test_conversion_writes_the_class_that_uses_tokenizer_json_unchanged(made: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs, _ = instruct(tmp_path / "theirs", made)
    own = Tokenizer.from_file(str(theirs / "tokenizer.json"))
    own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), own.pre_tokenizer])
    own.save(str(theirs / "tokenizer.json"))
    edit(theirs / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", auto_map={"AutoTokenizer": ["x.Y", None]})
    text = "In 2023 the model\n\n\nreads 12345"
    want = own.encode(text, add_special_tokens=False).ids
    back = both_ways(theirs, tmp_path)
    for place in (tmp_path / "ours", back):
        assert transformers.AutoTokenizer.from_pretrained(place)(text).input_ids == want


def test_conversion_refuses_tokens_that_only_tokenizer_config_has(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, _ = instruct(tmp_path / "theirs", made)
    edit(theirs / "tokenizer_config.json", pad_token="<|of nobody|>")
    assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / "ours")]) == 1
    assert "'<|of nobody|>'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    value: float, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, weights = instruct(tmp_path / "theirs", made)
    assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / "ours")]) == 0
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name][3, 4] = value
    save_file(weights, theirs / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(tmp_path / "ours", tmp_path / "bad")
    save_file(weights, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    rows = json.loads((tmp_path / "bad" / "manifest.json").read_text())
    row = next(row for row in rows["files"] if row["path"] == "model.safetensors")
    row["sha256"] = hashlib.sha256((tmp_path / "bad" / "model.safetensors").read_bytes()).hexdigest()
    row["size_bytes"] = (tmp_path / "bad" / "model.safetensors").stat().st_size
    edit(tmp_path / "bad" / "manifest.json", files=rows["files"])
    for verb in (
        ["convert", "hf2olmo", str(theirs), str(tmp_path / "out"), "--verify"],
        ["convert", "olmo2hf", str(tmp_path / "bad"), str(tmp_path / "out")],
        ["export", str(tmp_path / "bad"), str(tmp_path / "out")],
        ["soup", str(tmp_path / "ours"), str(tmp_path / "bad"), str(tmp_path / "out")],
        ["generate", str(tmp_path / "bad"), "--prompt", "the"],
    ):
        capsys.readouterr()
        assert main(verb) == 1, verb
        told = capsys.readouterr().err
        assert f'"{name}" is {"NaN" if value != value else "infinity"} in 1 of 1536 values' in told, verb
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "ours", "theirs"], verb


def test_a_failed_verification_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, weights = instruct(tmp_path / "theirs", made)
    huge, _ = instruct(tmp_path / "huge", made)
    save_file({**weights, "lm_head.weight": torch.full((400, 32), 1e38)}, huge / "model.safetensors")
    for source, name in ((theirs, "ours"), (huge, "huge-ours")):
        assert main(["convert", "hf2olmo", str(source), str(tmp_path / name)]) == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    for direction, source in (("hf2olmo", huge), ("olmo2hf", tmp_path / "huge-ours")):
        assert main(["convert", direction, str(source), str(tmp_path / "new" / "out"), "--verify"]) == 1
        told = capsys.readouterr().err
        assert "logits overflow; expected those of transformers on" in told
        assert ".writing" not in told
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    monkeypatch.setattr("olmo_trainer.commands._TOLERANCE", -1.0)
    assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / "new" / "out"), "--verify"]) == 1
    assert f"expected those of transformers on {theirs}; nothing was written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_only_an_unknown_architecture_is_reported(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 names its sizes differently; that they are missing is not the error."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 400, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_bytes((made / "tokenizer.json").read_bytes())
    capsys.readouterr()
    assert main(["convert", "hf2olmo", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert '"architectures" is GPT2LMHeadModel; expected OlmoForCausalLM or' in errors[0]


def test_pickled_weights_are_named_with_the_way_out(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, weights = instruct(tmp_path / "theirs", made)
    torch.save(weights, theirs / "pytorch_model.bin")
    (theirs / "model.safetensors").unlink()
    assert main(["convert", "hf2olmo", str(theirs), str(tmp_path / "ours")]) == 1
    told = capsys.readouterr().err
    assert "model.safetensors: not found, but pytorch_model.bin exists; expected safetensors weights" in told
    assert "hint: python -c" in told
    assert formats(["validate", "checkpoint", str(theirs)]) == 1
    assert "model.safetensors: not found, but pytorch_model.bin" in capsys.readouterr().err
