"""A pipeline over documents in a bucket and over the same on the disk, and what the two are compared by."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from dolma_corpus import make_rows, write_rows

__all__ = [
    "FILES",
    "Measured",
    "comparable",
    "largest_bytes",
    "of_disk",
    "pipeline",
    "stages",
    "write_documents",
]

FILES = 12


def write_documents(folder: Path) -> None:
    """Documents with repeated paragraphs."""
    for index in range(FILES):
        rows = make_rows(250, 500 * index)
        for row in rows[::5]:
            row["text"] = f"{rows[0]['text']}\n{row['text']}\nthe same line in many documents"
        write_rows(folder / f"{index % 3}" / f"{index:02}.jsonl", rows)


def stages(root: str, tokenizer_path: Path) -> list[dict[str, Any]]:
    """Tag, dedupe, mix and tokens, with results below ``root``."""
    output = {"path": f"{root}/mixed", "max_size_in_bytes": 60_000}
    rule = "$.attributes[?(@.q__char_length_v1__length[0][2] < 60)]"
    stream = {
        "name": "all",
        "attributes": ["q", "dup"],
        "filter": {"exclude": [rule]},
        "span_replacement": [{"span": "$.attributes.dup", "min_score": 0.5, "replacement": ""}],
        "output": output,
    }
    return [
        {"tag": {"experiment": "q", "taggers": ["char_length_v1", "random_number_v1"]}},
        {
            "dedupe": {
                "dedupe": {"name": "dup", "paragraphs": {"attribute_name": "dup"}, "skip_empty": True},
                "bloom_filter": {
                    "file": f"{root}/filter.bin",
                    "estimated_doc_count": 10_000,
                    "desired_false_positive_rate": 1e-6,
                },
            }
        },
        {"mix": {"streams": [stream]}},
        {
            "tokens": {
                "destination": f"{root}/tokens",
                "tokenizer": {"name_or_path": str(tokenizer_path), "eos_token_id": 0, "pad_token_id": 1},
                "max_size": 40_000,
            }
        },
    ]


def pipeline(root: str, tokenizer_path: Path, *, keep: bool, **settings: Any) -> Path:
    """The settings of a run over the documents below ``root``."""
    chosen = [{**stage, "keep": True} if keep else stage for stage in stages(root, tokenizer_path)]
    path = Path(f"run-{root.partition(':')[0] if '://' in root else 'disk'}-{keep}.yaml")
    path.write_text(yaml.safe_dump({"documents": [f"{root}/documents/**"], "stages": chosen, **settings}))
    return path


def of_disk(*names: str) -> dict[str, str]:
    """Hashes of files and of what is in directories, without records of runs."""
    files = [path for name in names for path in [Path(name), *Path(name).rglob("*")] if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if ".dolma" not in path.parts}


def comparable(hashes: dict[str, str]) -> dict[str, str]:
    """Without what names the documents' files, which are URLs in the bucket."""
    return {name: sha256 for name, sha256 in hashes.items() if not name.endswith((".csv.gz", "manifest.json"))}


class Measured:
    """The most space that a directory takes while something is done."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.most_bytes, self.ended = directory, 0, threading.Event()

    def __enter__(self) -> Measured:
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.is_set():
            self.most_bytes = max(self.most_bytes, _taken_bytes(self.directory))
            time.sleep(0.001)


def _taken_bytes(directory: Path) -> int:
    total = 0
    for above, _, names in os.walk(directory):
        for name in names:
            path = Path(above, name)
            # the filter is read as a whole
            if ".dolma" not in path.parts and name != "filter.bin":
                with suppress(FileNotFoundError):
                    total += path.stat().st_blocks * 512
    return total


def largest_bytes() -> int:
    """The size of the largest document file."""
    return max(path.stat().st_size for path in Path("documents").rglob("*.jsonl"))
