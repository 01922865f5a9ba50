"""Made once a session: a tokenizer, shards, validation documents; and a config that trains in a second."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import olmo_trainer.train  # noqa: F401
import pytest
import yaml
from shards import make_tokenizer, write_documents, write_tokens

hypothesis.settings.register_profile("any time", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("any time")
gc.freeze()  # looking for garbage among everything imported took a fifth of the time

VOCABULARY = 400


def texts(count: int, seed: int) -> list[str]:
    """Sentences that have something to learn."""
    words = (
        "the model reads a token and then one more until nothing is left to read in this file of grüße 東京 x1".split()
    )
    draw = random.Random(seed)
    return [" ".join(draw.choice(words) for _ in range(draw.randint(8, 40))) for _ in range(count)]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `tokenizer.json`, `tokens/`, `more/` and `held_out/documents/`."""
    root = tmp_path_factory.mktemp("made")
    rows = [(f"d{index}", text) for index, text in enumerate(texts(240, 0))]
    make_tokenizer([text for _, text in rows], VOCABULARY, root / "tokenizer.json")
    write_tokens(root / "tokens", {"a": rows[:100], "b": rows[100:180]}, root / "tokenizer.json")
    write_tokens(root / "more", {"c": rows[180:]}, root / "tokenizer.json", dtype="uint32")
    held_out = [
        {"id": f"v{index}", "text": text, "source": "s", "metadata": {"subdomain": f"n{index % 2}"}}
        for index, text in enumerate(texts(6, 1))
    ]
    write_documents(root / "held_out" / "documents" / "v.jsonl.gz", held_out)
    return root


def settings(made: Path, run: Path, **changes: Any) -> dict[str, Any]:
    """A config of 12 steps; `changes` are dotted with `__`."""
    config: dict[str, Any] = {
        "output_dir": str(run),
        "seed": 3,
        "model": {
            "family": "olmo2",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        },
        "data": {"sources": [{"path": str(made / "tokens")}], "sequence_length": 16},
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup": 2},
        "train": {"steps": 12, "batch_windows": 4, "micro_batch_windows": 2, "device": "cpu", "num_threads": 1},
        "validation": {"documents": [str(made / "held_out")], "every_steps": 5},
        "checkpoint": {"every_steps": 3},
    }
    for name, value in changes.items():
        place = config
        *parents, last = name.split("__")
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return config


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """Write a config as YAML."""
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
