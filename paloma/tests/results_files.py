"""Made-up results and documents."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

__all__ = ["domain", "results", "write_documents", "write_results"]


def domain(source: str, subdomain: str = "", **changes: Any) -> dict[str, Any]:
    """A domain of results whose ratio follows from its sums."""
    values: dict[str, Any] = {"documents": 2, "tokens": 10, "bytes": 40, "chars": 40, "words": 8, "nll_nats": 30.0}
    stderr = changes.pop("stderr", 0.1)
    values |= changes
    ratio = values["nll_nats"] / (values["bytes"] * math.log(2)) if values["bytes"] else None
    score = {"value": ratio, "stderr": stderr, "n": values["documents"]}
    return {"source": source, "subdomain": subdomain, **values, "bits_per_byte": score}


def results(
    *domains: dict[str, Any], name: str = "model", tokenizer: str | None = "a" * 64, **inference: Any
) -> dict[str, Any]:
    """`results.json` as an object."""
    return {
        "format": "results",
        "version": 1,
        "model": {
            "name": name,
            "architecture": "OlmoForCausalLM",
            "parameters": 1000,
            "vocab_size": 64,
            "dtype": "float32",
            "tokenizer_sha256": tokenizer,
            "manifest_sha256": None,
        },
        "inference": {"dtype": "float32", "max_length_tokens": 64, "windowing": "strict-disjoint", "prefix": "eos"}
        | inference,
        "tasks": [],
        "perplexity": sorted(domains, key=lambda d: (d["source"], d["subdomain"])),
    }


def write_results(folder: Path, value: dict[str, Any]) -> Path:
    """Write results without a manifest; returns their directory."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def write_documents(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows; returns their file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path
