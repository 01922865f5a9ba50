"""Tiny models with a tiny tokenizer, documents and task data, all made here; nothing is downloaded."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("any time", deadline=None)  # a busy machine is no failure
settings.load_profile("any time")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["OMP_NUM_THREADS"] = "1"  # small models gain nothing from threads, and a forked process hangs with them


_TEXT = """Rivers carry sand and clay to the sea. The sea is salt, and the wind is cold in winter.
Question: Which animal lays eggs? Answer: the hen, the duck and the goose lay eggs in spring.
People think that metal is heavier than wood because a nail sinks and a plank does not.
def add(first, second): return first + second  # two numbers, one sum
Größe, naïve, façade: letters with marks; 東京 and Δ need more bytes than one.
"""


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows to a gzip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of real data that `SHARED_DATA` names; without the variable the test is skipped."""
    if "SHARED_DATA" not in os.environ:
        pytest.skip("needs real data: set SHARED_DATA (docs/guide/testing.md)")
    return Path(os.environ["SHARED_DATA"])


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 600 tokens: every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines() * 3, trainer)
    directory = tmp_path_factory.mktemp("tokenizer")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|begin|>", clean_up_tokenization_spaces=False
    )
    wrapped.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def build_checkpoint(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Checkpoints by architecture name, each built once. Tests copy them before changing them."""
    built: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in built:
            built[kind] = _build(kind, tokenizer_directory, tmp_path_factory.mktemp(kind))
        return built[kind]

    return build


def _build(kind: str, tokenizer_directory: Path, directory: Path) -> Path:
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    sizes = {"vocab_size": 640, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 512, "eos_token_id": 0, "pad_token_id": None}
    sizes |= {"bos_token_id": None, "initializer_range": 0.3}
    t = transformers
    grouped = sizes | {"num_key_value_heads": 2}
    windowed = grouped | {"sliding_window": 8}
    experts = grouped | {"num_experts_per_tok": 2}
    match kind:
        case "olmo":
            config = t.OlmoConfig(**sizes)
        case "olmo2":
            config = t.Olmo2Config(**grouped)
        case "olmo3":
            config = t.Olmo3Config(**windowed, layer_types=["sliding_attention", "full_attention"])
        case "olmoe":
            config = t.OlmoeConfig(**experts, num_experts=4)
        case "llama":
            config = t.LlamaConfig(**sizes, tie_word_embeddings=True)
        case "llama_longrope":
            angles = {"rope_type": "longrope", "factor": 4.0, "rope_theta": 10000.0}
            angles |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 45}
            config = t.LlamaConfig(**sizes, rope_parameters=angles)
        case "mistral":
            config = t.MistralConfig(**grouped, sliding_window=40)
        case "mixtral":
            config = t.MixtralConfig(**experts, num_local_experts=4, sliding_window=None)
        case "qwen2":
            config = t.Qwen2Config(**grouped)
        case "qwen2_window":
            config = t.Qwen2Config(**windowed, use_sliding_window=True, max_window_layers=0)
        case "qwen2_wide":
            config = t.Qwen2Config(**grouped, use_sliding_window=True, max_window_layers=0, sliding_window=40)
        case "gemma2":
            # caps low enough to change these small logits
            caps = {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0}
            config = t.Gemma2Config(**windowed, **caps, head_dim=8, query_pre_attn_scalar=8)
        case "granite":
            config = t.GraniteConfig(**grouped, logits_scaling=3.0, embedding_multiplier=2.0)
        case "cohere":
            config = t.CohereConfig(**grouped, logit_scale=0.25)
        case "gptneox":
            config = t.GPTNeoXConfig(**sizes)
        case "gptneo":
            names = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 512}
            kinds = {"attention_types": [[["global", "local"], 1]], "window_size": 8}
            config = t.GPTNeoConfig(**names, **kinds, vocab_size=640, bos_token_id=0, eos_token_id=0)
        case "bloom":
            config = t.BloomConfig(vocab_size=640, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
        case "opt":
            names = {"ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
            names |= {key: sizes[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
            config = t.OPTConfig(**names, num_attention_heads=4, max_position_embeddings=512)
        case "mamba":
            config = t.MambaConfig(vocab_size=640, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=0)
        case _:
            config = t.GPT2Config(
                vocab_size=640, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=0
            )
    torch.manual_seed(len(kind))
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    # some versions of transformers add an eos there
    (directory / "generation_config.json").unlink(missing_ok=True)
    for file in tokenizer_directory.iterdir():
        shutil.copy(file, directory)
    return directory


def add_manifest(directory: Path, dtype: str) -> None:
    """Add a manifest to a checkpoint."""
    from catwalk.formats.checkpoint import read_checkpoint
    from catwalk.formats.manifest import write_manifest

    read = read_checkpoint(directory)
    write_manifest(
        directory,
        format="checkpoint",
        writer={"name": "test", "version": "1"},
        files=[file for file in directory.iterdir() if file.is_file()],
        config={},
        counts={"parameters": read.parameters, "tensors": len(read.tensors)},
        details={
            "architecture": read.architecture,
            "dtype": dtype,
            "stage": "pretrain",
            "step": 0,
            "tokens_seen": 0,
            "tokenizer_sha256": read.sha256["tokenizer.json"],
        },
        inputs=[],
    )


@pytest.fixture
def with_manifest(build_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint with a manifest."""
    directory = tmp_path / "checkpoint"
    shutil.copytree(build_checkpoint("olmo"), directory)
    add_manifest(directory, "float32")
    return directory


@pytest.fixture
def data_directory(tmp_path: Path) -> Path:
    """Hand-made rows of three tasks in their original fields."""
    return write_task_data(tmp_path / "data")


def write_task_data(root: Path) -> Path:
    """The contents of `data_directory`."""
    words = ("egg", "hen", "sea", "clay", "wood", "nail", "wind", "salt", "sand", "duck", "plank", "metal")
    write_jsonl(
        root / "sciq" / "validation.jsonl.gz",
        (
            {
                "question": f"What floats on the {word}?",
                "distractor1": word,
                "distractor2": f"{word} and {words[n - 1]}",
                "distractor3": "a stone",
                "correct_answer": words[n - 2],
                "support": "" if n % 3 == 0 else f"Rivers carry {word} to the sea. " * (1 + 3 * n),
            }
            for n, word in enumerate(words)
        ),
    )
    write_jsonl(
        root / "copa" / "validation.jsonl.gz",
        (
            {
                "premise": f"The {word} fell.",
                "choice1": f"It was {words[n - 1]}.",
                "choice2": "The wind blew.",
                "question": "cause" if n % 2 else "effect",
                "label": n % 2,
                "idx": n,
            }
            for n, word in enumerate(words)
        ),
    )
    write_jsonl(
        root / "winogrande" / "validation.jsonl.gz",
        (
            {
                "sentence": f"The {word} met the {words[n - 1]} because the _ was cold.",
                "option1": word,
                "option2": words[n - 1],
                "answer": str(1 + n % 2),
            }
            for n, word in enumerate(words)
        ),
    )
    return root


@pytest.fixture
def documents_directory(tmp_path: Path) -> Path:
    """Three domains of two sources, with a document of many windows, an empty text and letters of several bytes."""
    return write_documents(tmp_path / "documents")


def write_documents(root: Path) -> Path:
    """The contents of `documents_directory`."""
    rows = [
        {"id": "a-0", "text": _TEXT, "source": "prose", "metadata": {"subdomain": "rivers"}},
        {"id": "a-1", "text": "Größe 東京 Δ.", "source": "prose", "metadata": {"subdomain": "marks"}},
        {"id": "a-2", "text": "The hen lays an egg. " * 3, "source": "prose", "metadata": {"subdomain": "rivers"}},
        {"id": "a-3", "text": "", "source": "prose", "metadata": {"subdomain": "marks"}},
        {"id": "b-0", "text": "def add(a, b):\n    return a + b\n" * 30, "source": "code"},
    ]
    write_jsonl(root / "a.jsonl.gz", rows[:3])
    write_jsonl(root / "b.jsonl.gz", rows[3:])
    return root
