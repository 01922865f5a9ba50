"""A made-up run with all of its evidence: sample, filter, marks, training documents, tokens, checkpoint, results."""

import json
import math
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paloma.__main__ import main
from paloma.controls import PALOMA_VOCABULARY_SHA256
from paloma.formats.contract import canonical_json, sha256_file, write_file, write_gzip
from paloma.formats.document import document_files, read_documents
from paloma.formats.manifest import describe_input, read_manifest, write_manifest
from results_files import domain, results, write_documents

__all__ = ["Run", "export", "write_run", "write_scores"]

_WRITER = {"name": "test", "version": "1"}


class Run:
    """The directories of a run."""

    def __init__(self, root: Path) -> None:
        self.sample = root / "sample"
        self.certificate = root / "certificate"
        self.checkpoint = root / "checkpoint"
        self.results = root / "results"


def write_run(
    root: Path, rows: list[dict[str, Any]], *, size_bytes: int = 200, mixed_with: list[Path] | None = None
) -> Run:
    """Sample the rows, decontaminate twenty training documents, and score the sample's `val`.

    With `mixed_with` the model is trained on a later mix of the training documents and these.
    """
    run = Run(root)
    documents = write_documents(root / "in" / "d.jsonl.gz", rows)
    flags = ["--documents", str(documents), "--output-dir", str(run.sample), "--bytes-per-domain", str(size_bytes)]
    assert main(["build", *flags]) == 0
    training = _decontaminated(root, run.sample)
    flags = ["--documents", str(run.sample), "--result", str(training), "--output-dir", str(run.certificate)]
    assert main(["decontaminate", *flags]) == 0
    if mixed_with is not None:
        inputs = [("documents", path) for path in (training, *mixed_with)]
        training = _artifact(root / "mixed", "document", {"m.jsonl.gz": b"rows"}, inputs, counts={"documents": 19})
    tokens = _artifact(root / "tokens", "tokens", {"part.npy": b"12"}, [("documents", training)])
    _artifact(
        run.checkpoint,
        "checkpoint",
        {"model.safetensors": b"weights"},
        [("tokens", tokens)],
        config={"seed": 0, "data": {"sequence_length": 64}, "train": {"steps": 10}},
        counts={"parameters": 1000},
        details={"tokens_seen": 5000, "step": 10},
        listed=[{"path": "tokenizer.json", "size_bytes": 1, "sha256": PALOMA_VOCABULARY_SHA256}],
    )
    write_scores(run.results, run.sample, run.checkpoint)
    return run


def _decontaminated(root: Path, sample: Path) -> Path:
    """What dolma writes: a filter with the sample's files, marks of one of 20 documents, and the 19 others."""
    inputs = [{"path": path.name, "sha256": sha256_file(path)} for path in document_files(sample)]
    record = json.dumps({"estimated_keys": 9, "false_positive_rate": 1e-15, "runs": [{"inputs": inputs}]}).encode()
    write_file(root / "filter.bin", struct.pack("<4I3Q", 0x81F0F117, 3, 6, 2, 64, 9, len(record)) + record)
    marks = _artifact(
        root / "attributes",
        "attributes",
        {"a.jsonl.gz": b"marks"},
        [("filter", root / "filter.bin")],
        config={
            "bloom_filter": {"read_only": True},
            "dedupe": {"min_words": 13, "num_partitions": 1, "unit": {"paragraphs": {"by_ngram": None}}},
        },
        counts={"documents": 20},
        details={"keys": ["paloma_paragraphs"]},
    )
    training = _artifact(
        root / "training", "document", {"t.jsonl.gz": b"rows"}, [("attributes", marks)], counts={"documents": 19}
    )
    rule = {"kind": "exclude", "rule": "(.attributes.paloma_paragraphs // []) | length > 0", "documents_alone": 1}
    funnel = {"documents_in": 20, "documents_out": 19, "rules": [rule]}
    write_file(training / ".dolma" / "funnel.ndjson", json.dumps(funnel).encode() + b"\n")
    return training


def _artifact(
    folder: Path,
    kind: str,
    files: dict[str, bytes],
    inputs: Iterable[tuple[str, Path]],
    *,
    listed: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Path:
    for name, content in files.items():
        write_file(folder / name, content)
    fields = {"config": {}, "counts": {}, "details": {}} | fields
    rows = [row for role, path in inputs for row in describe_input(role, path, folder)]
    write_manifest(folder, format=kind, writer=_WRITER, files=[folder / n for n in files], inputs=rows, **fields)
    if listed:
        value = json.loads((folder / "manifest.json").read_text())
        value["files"] = sorted([*value["files"], *listed], key=lambda row: row["path"])
        write_file(folder / "manifest.json", canonical_json(value).encode())
    return folder


def export(run: Run, folder: Path) -> Path:
    """A copy of the run's checkpoint whose manifest only names the original, as `olmo export` writes it."""
    return _artifact(
        folder,
        "checkpoint",
        {"model.safetensors": b"weights"},
        [("checkpoint", run.checkpoint)],
        counts={"parameters": 1000},
        details={"tokens_seen": 5000, "step": 10},
        listed=[{"path": "tokenizer.json", "size_bytes": 1, "sha256": PALOMA_VOCABULARY_SHA256}],
    )


def write_scores(
    folder: Path,
    sample: Path,
    checkpoint: Path,
    *,
    name: str = "model",
    level: float = 2.0,
    seed: int = 0,
    documents_found: int | None = None,
) -> Path:
    """Results of a model for the split `val` of a sample, with a loss of about `level` nats per token."""
    draw = random.Random(seed)
    rows = []
    for document in read_documents(path for path in document_files(sample) if path.parent.name == "val"):
        text = document.text
        tokens = max(1, len(text) // 4)
        rows.append(
            {
                "source": document.source,
                "subdomain": document.subdomain,
                "id": document.id,
                "tokens": tokens,
                "bytes": len(text.encode()),
                "chars": len(text),
                "words": len(text.split()),
                "nll_nats": round(tokens * level * draw.uniform(0.8, 1.2), 6),
            }
        )
    keys = sorted({(row["source"], row["subdomain"]) for row in rows})
    domains = []
    for key in keys:
        found = [row for row in rows if (row["source"], row["subdomain"]) == key]
        sums = {field: sum(row[field] for row in found) for field in ("tokens", "bytes", "chars", "words")}
        loss = math.fsum(row["nll_nats"] for row in found)
        domains.append(domain(*key, documents=len(found), nll_nats=loss, stderr=None, **sums))
    value = results(*domains, name=name, tokenizer=PALOMA_VOCABULARY_SHA256, split="val")
    write_file(folder / "results.json", canonical_json(value).encode())
    with write_gzip(folder / "perplexity.jsonl.gz") as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    write_manifest(
        folder,
        format="results",
        writer=_WRITER,
        files=[folder / "results.json", folder / "perplexity.jsonl.gz"],
        config={},
        counts={"tasks": 0, "items": 0, "domains": len(domains)},
        details={"documents": {"found": documents_found or len(rows), "scored": len(rows)}},
        inputs=[*describe_input("checkpoint", checkpoint, folder), *describe_input("documents", sample, folder)],
    )
    read_manifest(folder)
    return folder
