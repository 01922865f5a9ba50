"""Greedy decoding compared with transformers: families, paddings, stop texts, windows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from catwalk.backends.huggingface import HuggingFace
from catwalk.formats.contract import WorkError
from catwalk.types import Prompt

Build = Callable[[str], Path]

_TEXTS = ("The hen", "Rivers carry sand and clay to the", "def add(first, second): return", "東京", "Question: Which")


def _expected(directory: Path, text: str, max_tokens: int) -> str:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    settings = {"do_sample": False, "max_new_tokens": max_tokens, "eos_token_id": 0, "pad_token_id": 0}
    added = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :]
    decoded: str = tokenizer.decode(added, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return decoded


@pytest.mark.parametrize("kind", ["olmo2", "llama", "qwen2", "gptneox", "mistral", "gemma2", "bloom", "mamba"])
def test_texts_equal_those_of_transformers(build_checkpoint: Build, kind: str) -> None:
    directory = build_checkpoint(kind)
    prompts = [Prompt(text=text, stop=(), max_tokens=12) for text in _TEXTS]
    assert HuggingFace(directory).generate(prompts) == [_expected(directory, text, 12) for text in _TEXTS]


def test_a_batch_decides_like_each_prompt_alone(build_checkpoint: Build) -> None:
    backend = HuggingFace(build_checkpoint("llama"))
    prompts = [Prompt(text=text, stop=(), max_tokens=1 + 5 * n) for n, text in enumerate(_TEXTS)]
    assert backend.generate(prompts) == [backend.generate([prompt])[0] for prompt in prompts]


def test_stop_text_is_cut_off_wherever_its_tokens_end(build_checkpoint: Build) -> None:
    backend = HuggingFace(build_checkpoint("llama"))
    (whole,) = backend.generate([Prompt(text="The hen", stop=(), max_tokens=20)])
    stop = whole[3:5]
    (cut,) = backend.generate([Prompt(text="The hen", stop=("not there", stop), max_tokens=20)])
    assert cut == whole[: whole.index(stop)]


def test_long_prompt_is_cut_on_the_left(build_checkpoint: Build, caplog: pytest.LogCaptureFixture) -> None:
    backend = HuggingFace(build_checkpoint("llama"), max_length_tokens=24)
    long = "sea " * 60
    ids = backend.tokenizer.encode([long])[0]
    kept = backend.tokenizer.decode(ids[-16:])
    assert backend.tokenizer.encode([kept])[0] == ids[-16:]
    found = backend.generate([Prompt(text=text, stop=(), max_tokens=8) for text in (long, kept)])
    assert found[0] == found[1]
    assert "1 prompts were cut" in caplog.text


def test_more_tokens_than_the_window_is_an_error(build_checkpoint: Build) -> None:
    backend = HuggingFace(build_checkpoint("llama"), max_length_tokens=8)
    with pytest.raises(WorkError, match="leaves no room for a prompt in 8 tokens"):
        backend.generate([Prompt(text="The hen", stop=(), max_tokens=8)])
