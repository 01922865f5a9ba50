"""Small but real fixtures: a byte-level BPE tokenizer, tiny models of the three families, chats and pairs."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from open_instruct.__main__ import main, prepare_process

prepare_process()

import open_instruct.trainers  # noqa: E402, F401
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)
settings.register_profile("any time", deadline=None)  # a busy machine is not a failure
settings.load_profile("any time")
gc.freeze()  # Trainer collects garbage after each run; looking at everything imported took half of the time
TINY = {
    "vocab_size": 320,  # 300 tokens and 20 padding rows
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
QUESTIONS = ["What is a list?", "Name a colour.", "How are you?", "Why?", "What does sort do?", "Say\n\nthree  words."]
ANSWERS = [
    "A sequence of items.",
    "Blue",
    "Fine, thanks! And you?",
    "Because it is so.",
    "It sorts, in place.",
    " a b\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 tokens, without a beginning-of-sequence token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(QUESTIONS + ANSWERS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|padding|>")


@pytest.fixture(scope="session")
def checkpoint(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint("olmo", tied=True)`: a directory with a tiny random model and the tokenizer, without a manifest."""
    made: dict[tuple[str, bool], Path] = {}
    kinds = {
        "olmo": (OlmoConfig, OlmoForCausalLM),
        "olmo2": (Olmo2Config, Olmo2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }

    def make(family: str = "olmo", tied: bool = False) -> Path:
        if (family, tied) not in made:
            config_class, model_class = kinds[family]
            torch.manual_seed(1)
            config = config_class(
                **TINY,
                bos_token_id=None,
                tie_word_embeddings=tied,
                initializer_range=0.1,
            )
            directory = tmp_path_factory.mktemp(f"{family}-{tied}")
            model_class(config).save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            made[family, tied] = directory
        return made[family, tied]

    return make


def chat_rows(count: int) -> list[dict[str, Any]]:
    """Chats of one and two turns, of unequal length."""
    rows = []
    for index in range(count):
        turns = [
            (QUESTIONS[(index + turn) % 6], f"{ANSWERS[(index + turn) % 6]} {index}") for turn in range(1 + index % 2)
        ]
        messages = []
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append({"id": str(index), "source": "ab"[index % 2], "messages": messages})
    return rows


def pair_rows(count: int) -> list[dict[str, Any]]:
    """Pairs whose rejected answer is the next row's chosen one."""
    rows = []
    for index in range(count):
        user = {"role": "user", "content": f"{QUESTIONS[index % 6]} {index}"}
        answers = [f"{ANSWERS[(index + shift) % 6]}{index * shift}" for shift in (0, 1)]
        chosen, rejected = ([user, {"role": "assistant", "content": answer}] for answer in answers)
        rows.append({"chosen": chosen, "rejected": rejected})
    return rows


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Write JSONL; strings are written unchanged."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Eight chats."""
    return write_rows(tmp_path / "chats.jsonl", chat_rows(8))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight pairs."""
    return write_rows(tmp_path / "pairs.jsonl", pair_rows(8))


def trainer(folder: Path, checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Make the function of the fixture `run`, which writes to `folder`."""
    calls = iter(range(1000))

    def train(stage: str, data: Path, *overrides: str, model: Path | None = None, expect: int = 0) -> Path:
        output = folder / f"{stage}-{next(calls)}"
        config = folder / f"{output.name}.yaml"
        config.write_text(
            f"model: {model or checkpoint()}\noutput_dir: {output}\ndata: {{train: [{data}]}}\n"
            "sequence: {max_length_tokens: 128}\n"
            "optimizer: {learning_rate: 0.01, schedule: constant, warmup_fraction: 0.0, max_grad_norm: 0.0}\n"
            "training: {max_steps: 2, batch_sequences: 8, micro_batch_sequences: 8, log_every_steps: 1}\n"
            "runtime: {device: cpu, num_threads: 1}\n"
        )
        assert main([stage, str(config), *overrides]) == expect
        return output

    return train


@pytest.fixture
def run(tmp_path: Path, checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """`run("sft", chats, "training.max_steps=1")`: train on all rows at once; return the output directory."""
    return trainer(tmp_path, checkpoint)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _quiet_threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
