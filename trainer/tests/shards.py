"""Tokenizers, token shards and documents for the tests, written as docs/formats says."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS, PAD = 0, 1


def make_tokenizer(texts: list[str], vocab_size: int, path: Path) -> Tokenizer:
    """A byte-level BPE whose first ids are the end-of-text and padding tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    # merges as strings, which tokenizers before 0.20 (and so dolma 1.2.1) reads too
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.from_file(str(path))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_shard(directory: Path, name: str, documents: list[tuple[str, list[int]]], dtype: str = "uint16") -> int:
    """Write `<name>.npy` and `<name>.csv.gz`; returns the number of tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    rows, start, ids = io.StringIO(newline=""), 0, []
    writer = csv.writer(rows)
    for line, (identifier, tokens) in enumerate(documents, start=1):
        writer.writerow([start, start + len(tokens), identifier, f"{name}.jsonl.gz", line])
        start += len(tokens)
        ids += tokens
    (directory / f"{name}.npy").write_bytes(np.array(ids, dtype=np.dtype(dtype).newbyteorder("<")).tobytes())
    (directory / f"{name}.csv.gz").write_bytes(gzip.compress(rows.getvalue().encode(), mtime=0))
    return start


def write_tokens(
    directory: Path, files: dict[str, list[tuple[str, str]]], tokenizer_path: Path, *, dtype: str = "uint16"
) -> Path:
    """Encode {file: [(id, text)]} into a directory of shards with a manifest."""
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    total = documents = 0
    for name, rows in files.items():
        encoded = [(identifier, [*tokenizer.encode(text.strip()).ids, EOS]) for identifier, text in rows]
        total += write_shard(directory, name, encoded, dtype)
        documents += len(rows)
    (directory / "tokenizer.json").write_bytes(tokenizer_path.read_bytes())
    listed = [
        {"path": path.name, "size_bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(directory.iterdir())
    ]
    write_json(
        directory / "manifest.json",
        {
            "format": "tokens",
            "version": 1,
            "writer": {"name": "test", "version": "1"},
            "config": {},
            "counts": {
                "documents": documents,
                "tokens": total,
                "text_bytes": sum(len(text.strip().encode()) for rows in files.values() for _, text in rows),
            },
            "details": {
                "dtype": dtype,
                "vocab_size": tokenizer.get_vocab_size(),
                "eos_token_id": EOS,
                "bos_token_id": None,
                "pad_token_id": PAD,
                "tokenizer_sha256": sha256(tokenizer_path),
            },
            "files": listed,
            "inputs": [],
        },
    )
    return directory


def write_documents(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write documents as one gzipped JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path
