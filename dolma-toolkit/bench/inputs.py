"""Input of any size: the documents of a corpus, repeated with new ids."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from backports import zstd

__all__ = ["Input", "find_corpus", "make_input", "make_large_input", "read_documents"]

PRODUCT = Path(__file__).resolve().parents[1]
FILES = 4


@dataclass(frozen=True)
class Input:
    """Document files below `folder/documents`."""

    folder: Path
    text_mb: float
    documents: int

    @property
    def pattern(self) -> str:
        """Of the document files."""
        return f"{self.folder}/documents/*.*"


def find_corpus() -> Path:
    """The folder of real documents: the corpus in SHARED_DATA if it is set, else the one that `make demo` gathered.

    Raises SystemExit: it contains no documents.
    """
    data = os.environ.get("SHARED_DATA")
    folder = Path(data, "corpus") if data else PRODUCT.parent / "demo/output/corpus"
    if any(folder.rglob("documents/*.jsonl.gz")):
        return folder
    hint = "hint: run `make demo` first, set SHARED_DATA (docs/guide/testing.md), or give --corpus"
    raise SystemExit(f"error: {folder} not found; expected documents\n{hint}")


def read_documents(corpus: Path) -> list[dict[str, Any]]:
    """All documents, in the order of the file names."""
    documents = []
    for path in sorted(corpus.rglob("documents/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            documents.extend(json.loads(line) for line in file)
    return documents


def make_input(folder: Path, corpus: Path, text_mb: float, files: int = FILES) -> Input:
    """Write documents of at least `text_mb` to `files` files; no number: one document."""
    (folder / "documents").mkdir(parents=True)
    paths = [folder / "documents" / f"{number:02}.jsonl.gz" for number in range(files if text_mb else 1)]
    text_bytes = written = 0
    outputs = [gzip.open(path, "wb", compresslevel=6) for path in paths]
    try:
        for number, document in enumerate(repeated(read_documents(corpus))):
            line = json.dumps({**document, "id": f"{document['id']}-{number}"}, ensure_ascii=False) + "\n"
            outputs[number % len(outputs)].write(line.encode())
            text_bytes += len(document["text"].encode())
            written += 1
            if text_bytes >= text_mb * 1e6:
                break
    finally:
        for output in outputs:
            output.close()
    return Input(folder, text_bytes / 1e6, written)


def make_large_input(folder: Path, corpus: Path, text_mb: float, files: int = 16) -> Input:
    """Write documents of about `text_mb` fast, as zstd. Each round numbers its lines, so that no paragraph repeats."""
    (folder / "documents").mkdir(parents=True)
    documents = read_documents(corpus)
    encode = msgspec.json.Encoder().encode
    text_bytes = written = 0
    for number in range(files):
        with zstd.open(folder / "documents" / f"{number:02}.jsonl.zst", "wb", level=1) as output:
            for again in itertools.count():
                for document in documents[number % 4 :: 4]:
                    text = document["text"].replace("\n", f" {again}.{number}\n")
                    output.write(encode({**document, "id": f"{document['id']}-{number}-{again}", "text": text}) + b"\n")
                    text_bytes += len(text.encode())
                    written += 1
                    if text_bytes >= text_mb * 1e6 * (number + 1) / files:
                        break
                else:
                    continue
                break
    return Input(folder, text_bytes / 1e6, written)


def repeated(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The documents without end; every second round is reversed, so that files do not repeat themselves."""
    for again in itertools.count():
        yield from documents if again % 2 == 0 else reversed(documents)
