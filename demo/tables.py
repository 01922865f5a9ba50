"""What the report reads: the artifacts of the work directory, as plain numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from artifact import read_directory

MODELS = ("untrained", "base", "sft", "dpo")


def read_json(path: Path) -> dict:
    """One JSON file."""
    return json.loads(path.read_text("utf-8"))


def read_lines(path: Path) -> list[dict]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def curve(rows: list[dict], name: str) -> list[tuple[float, float]]:
    """(step, value) of the rows that have a metric."""
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def share_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n cases (Wilson 1927), which is also valid near 0 and 1."""
    z = 1.959964  # 97.5 % point of the normal distribution
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def thinned(points: list[tuple[float, float]], count: int = 120) -> list[tuple[float, float]]:
    """Means of consecutive groups, so that at most `count` points remain."""
    size = max(1, math.ceil(len(points) / count))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def bits_per_byte_by_source(rows: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """source -> (step, mean over its domains) from the validation metrics `eval/<source>/<subdomain>/bpb`."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        found = defaultdict(list)
        for name, value in row.items():
            match = re.fullmatch(r"eval/([^/]+)/.+/bpb", name)
            if match:
                found[match[1]].append(value)
        for source, values in found.items():
            series[source].append((row["step"], sum(values) / len(values)))
    return dict(sorted(series.items()))


def tokens_by_source(work: Path) -> dict[str, dict[str, int]]:
    """source -> documents and tokens in the shards, joined by document id."""
    sources = {document["id"]: document.get("source", "") for document in read_directory(work / "training")}
    totals: dict[str, dict[str, int]] = defaultdict(lambda: {"documents": 0, "tokens": 0})
    for path in sorted((work / "tokens").glob("**/*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for start, end, name, _, _ in csv.reader(io.StringIO(file.read())):
                total = totals[sources[name]]
                total["documents"] += 1
                total["tokens"] += int(end) - int(start)
    return dict(sorted(totals.items()))


def rule_name(rule: str) -> str:
    """A short name of a rule: the tagger and span type that it looks at, and its threshold."""
    found = re.search(r"\.attributes\.([A-Za-z0-9_]+)", rule)
    threshold = re.search(r"([<>]=?)\s*([0-9.]+)", rule)
    parts = found[1].split("__")[-2:] if found else [rule]
    name = ": ".join(part.replace("_", " ").strip() for part in parts)
    return f"{name} {threshold[1]} {threshold[2]}" if threshold else name


def scores(work: Path) -> dict[str, dict]:
    """model -> its results.json."""
    return {name: read_json(work / "scores" / name / "results.json") for name in MODELS}


def domain_bits(results: dict) -> dict[tuple[str, str], float]:
    """(source, subdomain) -> bits per byte, from the sums."""
    return {
        (row["source"], row["subdomain"]): row["nll_nats"] / (row["bytes"] * math.log(2))
        for row in results["perplexity"]
    }


def pooled_bits(results: dict) -> float:
    """Bits per byte over all domains together."""
    nats = sum(row["nll_nats"] for row in results["perplexity"])
    return nats / (sum(row["bytes"] for row in results["perplexity"]) * math.log(2))


def stage_costs(work: Path) -> list[dict]:
    """The stamps of the finished stages, in the order in which they finished."""
    return [read_json(path) for path in sorted((work / "stages").glob("*.json"), key=lambda p: p.stat().st_mtime)]


def lineage(work: Path, artifact: str) -> str:
    """What `python -m open_instruct.formats lineage` prints for an artifact.

    Raises SystemExit: the chain is broken.
    """
    command = [sys.executable, "-m", "open_instruct.formats", "lineage", artifact]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: lineage of {artifact}: {done.stderr.strip()}")
    return done.stdout
