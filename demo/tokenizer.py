"""Train a byte-level BPE tokenizer on documents: `python demo/tokenizer.py DOCUMENTS OUTPUT VOCABULARY`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from artifact import Artifact, file_hash, read_directory
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ["<|endoftext|>", "<|padding|>"]
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Words with one leading sign, up to three digits, runs of signs, white space: the split of current open tokenizers."""


def texts(directory: Path) -> Iterator[str]:
    """Yield the text of every document."""
    for document in read_directory(directory):
        yield document["text"]


def train(documents: Path, output: Path, vocabulary: int) -> None:
    """Train the tokenizer and write it with its manifest; equal documents give equal bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(documents), trainer)
    artifact = Artifact(output, "tokenizer")
    artifact.add_artifact("documents", documents)
    artifact.write_bytes("tokenizer.json", tokenizer.to_str(pretty=False).encode())
    size = tokenizer.get_vocab_size()
    artifact.finish(
        config={"vocabulary": vocabulary, "algorithm": "byte-level BPE"},
        counts={"vocabulary": size},
        details={"tokenizer_sha256": file_hash(output / "tokenizer.json"), "special_tokens": SPECIAL_TOKENS},
    )
    sys.stderr.write(json.dumps({"vocabulary": size}) + "\n")


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
