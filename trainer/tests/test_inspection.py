"""What `inspect_checkpoint` finds under the many names that models give to a fact."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from olmo_trainer.formats.checkpoint import (
    inspect_checkpoint,
    open_tokenizer,
    tokenizer_difference,
)
from olmo_trainer.formats.contract import FormatError
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors


def tokenizer(*, bos: bool = False, digits: bool = False) -> Tokenizer:
    """A tokenizer of bytes, with `<s>` 0 and `</s>` 1; with `digits`, each digit is a piece of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1} | {text: 2 + number for number, text in enumerate(alphabet)} | {"12": 258}
    made = Tokenizer(models.BPE(vocab, [("1", "2")]))
    split = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens(["<s>", "</s>"])
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def checkpoint(directory: Path, config: dict[str, Any], *, bos: bool = False, **files: dict[str, Any]) -> Path:
    """A directory with these JSON files, a tokenizer and weights of two dtypes."""
    directory.mkdir(exist_ok=True)
    for name, value in {"config": config, **files}.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    tokenizer(bos=bos).save(str(directory / "tokenizer.json"))
    weights = {
        "model.embed_tokens.weight": np.zeros((264, 4), np.float16),
        "model.norm.weight": np.zeros(4, np.float32),
    }
    save_file(weights, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 256}, 256),
        ({"n_positions": 128}, 128),
        ({"max_seq_len": 64}, 64),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({}, None),
    ],
)
def test_positions_are_found_under_each_name(config: dict[str, Any], limit: int | None, tmp_path: Path) -> None:
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config)).max_positions == limit


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"sliding_window": 8}, "8"),
        ({"sliding_window": 8, "use_sliding_window": True}, "8"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"attention_chunk_size": 16}, "16"),
        ({"alibi": True}, "ALiBi"),
        ({"attn_config": {"alibi": True}}, "ALiBi"),
        ({"model_type": "bloom"}, "ALiBi"),
        ({"attention_types": [[["global", "local"], 2]]}, "local"),
        ({"state_size": 16}, "recurrent"),
    ],
)
def test_unsupported_attention_is_reported(config: dict[str, Any], word: str, tmp_path: Path) -> None:
    assert word in str(inspect_checkpoint(checkpoint(tmp_path / "c", config)).special_attention)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sliding_window": None},
        {"sliding_window": 8, "use_sliding_window": False},
        {"layer_types": ["full_attention"]},
    ],
)
def test_plain_attention_is_plain(config: dict[str, Any], tmp_path: Path) -> None:
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config)).special_attention is None


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, None),
        ({"sliding_window": 8, "use_sliding_window": False}, None),
        ({"sliding_window": 8}, 8),
        ({"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}, 8),
        ({"attention_chunk_size": 16, "layer_types": ["chunked_attention", "full_attention"]}, 16),
        ({"layer_types": ["full_attention", "sliding_attention"]}, 0),
        ({"sliding_window": 8, "layer_types": ["linear_attention", "sliding_attention"]}, 0),
        ({"sliding_window": 8, "alibi": True}, 0),
        ({"sliding_window": 8, "model_type": "bloom"}, 0),
        ({"attention_types": [[["global", "local"], 2]], "window_size": 4}, 0),
        ({"window_size": 4}, 0),
        ({"sliding_window": 8, "mamba_d_state": 16}, 0),
    ],
)
def test_rows_that_a_window_holds_are_plain(config: dict[str, Any], length: int | None, tmp_path: Path) -> None:
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config)).plain_length == length


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, None),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8}}, None),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 8}}, 8),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 9}, 9),
        ({"rope_parameters": {"full_attention": {"rope_type": "longrope"}}, "max_position_embeddings": 7}, 7),
    ],
)
def test_lengths_that_switch_the_angles_are_reported(
    config: dict[str, Any], length: int | None, tmp_path: Path
) -> None:
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config)).rotary_switch == length


def test_stops_are_those_of_the_generation_config_first(tmp_path: Path) -> None:
    config = {"eos_token_id": 1, "vocab_size": 264}
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config)).stop_token_ids == (1,)
    stops = {"eos_token_id": [5, 1, 5]}
    assert inspect_checkpoint(checkpoint(tmp_path / "c", config, generation_config=stops)).stop_token_ids == (5, 1)
    named = checkpoint(tmp_path / "d", {}, tokenizer_config={"eos_token": {"content": "</s>"}})
    assert inspect_checkpoint(named).stop_token_ids == (1,)


def test_dtypes_and_rows_are_those_of_the_weights(tmp_path: Path) -> None:
    found = inspect_checkpoint(checkpoint(tmp_path / "c", {"vocab_size": 9, "architectures": ["XForCausalLM"]}))
    assert (found.dtypes, found.embedding_rows, found.architecture) == (("float16", "float32"), 264, "XForCausalLM")


def test_document_prefix_follows_the_tokenizer(tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    assert inspect_checkpoint(checkpoint(tmp_path / "a", {}, bos=True, tokenizer_config=names)).document_prefix == "bos"
    assert inspect_checkpoint(checkpoint(tmp_path / "b", {}, tokenizer_config=names)).document_prefix == "eos"
    added = {**names, "add_bos_token": True}
    assert inspect_checkpoint(checkpoint(tmp_path / "c", {}, tokenizer_config=added)).document_prefix == "bos"
    kept_off = {**names, "add_bos_token": False}
    found = inspect_checkpoint(checkpoint(tmp_path / "d", {}, bos=True, tokenizer_config=kept_off))
    assert found.document_prefix == "eos"
    assert inspect_checkpoint(checkpoint(tmp_path / "e", {})).document_prefix is None


def test_special_token_outside_the_embedding_is_none(tmp_path: Path) -> None:
    found = inspect_checkpoint(checkpoint(tmp_path / "c", {"pad_token_id": 264, "eos_token_id": 1}))
    assert (found.special_token_id("pad"), found.special_token_id("eos")) == (None, 1)


def test_template_is_found_wherever_it_is_kept(tmp_path: Path) -> None:
    several = {"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}
    directory = checkpoint(tmp_path / "c", {}, tokenizer_config=several)
    assert inspect_checkpoint(directory).chat_template == "D"
    (directory / "chat_template.jinja").write_text("J")
    assert inspect_checkpoint(directory).chat_template == "J"
    assert inspect_checkpoint(checkpoint(tmp_path / "d", {})).chat_template is None


def test_text_that_spells_a_special_token_is_text(tmp_path: Path) -> None:
    opened = open_tokenizer(checkpoint(tmp_path / "c", {}) / "tokenizer.json")
    assert 1 not in opened.encode("</s>", add_special_tokens=False).ids


def test_foreign_weights_and_tokenizers_are_named(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "c", {})
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(FormatError, match=r"pytorch_model\.bin exists") as caught:
        _ = inspect_checkpoint(directory).tensors
    assert "save_pretrained" in str(caught.value.hint)
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    with pytest.raises(FormatError, match=r"tokenizer\.model exists") as caught:
        _ = inspect_checkpoint(directory).tokenizer
    assert "save_pretrained" in str(caught.value.hint)


def test_tokenizers_are_compared_by_what_they_do(tmp_path: Path) -> None:
    assert tokenizer_difference(tokenizer(), tokenizer(bos=True)) is None
    assert "12345" in str(tokenizer_difference(tokenizer(), tokenizer(digits=True)))
    other = tokenizer()
    other.add_tokens(["word"])
    assert "'word'" in str(tokenizer_difference(tokenizer(), other))


@pytest.mark.parametrize(("text", "code"), [("{", "not_json"), ("[]", "not_object"), (None, "missing_file")])
def test_broken_configuration_is_named(text: str | None, code: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(FormatError) as caught:
        inspect_checkpoint(tmp_path)
    assert (caught.value.code, Path(caught.value.path).name) == (code, "config.json")
