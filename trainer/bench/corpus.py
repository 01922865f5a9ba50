"""Compare `olmo train` with plain transformers.Trainer: models of 10 M parameters on real text.

    python bench/corpus.py --documents "$SHARED_DATA/corpus" --work DIR     writes corpus.md

Some documents of each source are held out, by the hash of their text, so that equal texts are on one side; their first
2,000 characters are scored. The others train a tokenizer and go through `dolma tokens`. `olmo init` writes each model
untrained. Then `olmo train` and Trainer both train it, on the same windows (hf_trainer.py), and one scorer measures
bits per byte of both. Existing files in DIR are kept; `--models` and `--sides` divide the work among processes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hf_trainer import train_with_transformers
from olmo_trainer.config.load import load_config
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

VOCABULARY, LENGTH, WINDOWS, EOS, PAD = 8192, 256, 4, 0, 1
HELD_OUT_CHARACTERS = 2000
OLMO = [sys.executable, "-m", "olmo_trainer"]
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

DENSE = {
    "family": "olmo2",
    "hidden_size": 320,
    "intermediate_size": 864,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "tie_word_embeddings": True,
}
EXPERTS = {**DENSE, "family": "olmoe", "intermediate_size": 432, "num_experts": 8, "num_experts_per_tok": 2}
WINDOW = {**DENSE, "family": "olmo3", "sliding_window": 64}
MODELS: dict[str, tuple[str, int, float, dict[str, Any]]] = {
    "dense": ("OLMo-2", 300, 1e-3, DENSE),
    "window": ("OLMo-3, 64 tokens in three of four layers", 150, 1e-3, WINDOW),
    "moe": ("OLMoE, 2 of 8 experts", 150, 1e-3, EXPERTS),
}
"""Description, steps, peak learning rate and the group `model` of the config."""
PAIRS = ("dense", "window")
"""Those that Trainer trains too; its balance of experts is another (hf_trainer.py)."""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The documents of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def hash_of(row: dict[str, Any]) -> str:
    """Equal for equal texts."""
    return hashlib.sha256(row["text"].strip().encode()).hexdigest()


def split(documents: Path, work: Path) -> None:
    """Write `training/<source>.jsonl.gz` and `held-out/documents/<source>.jsonl.gz`: 4 to 16 documents of a source."""
    for path in sorted(documents.rglob("*.jsonl.gz")):
        hashes = sorted({hash_of(row) for row in rows_of(path)})
        last = hashes[max(4, min(16, len(hashes) // 20)) - 1]
        training = [row for row in rows_of(path) if hash_of(row) > last]
        held_out = [{**row, "text": row["text"][:HELD_OUT_CHARACTERS]} for row in rows_of(path) if hash_of(row) <= last]
        for side, rows in ((work / "training", training), (work / "held-out" / "documents", held_out)):
            side.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (side / path.name).write_bytes(gzip.compress(text.encode(), 1, mtime=0))


def make_tokenizer(work: Path) -> None:
    """A byte-level BPE of the training documents."""
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (row["text"] for path in sorted((work / "training").iterdir()) for row in rows_of(path))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(work / "tokenizer.json"))


def config_of(name: str, work: Path, arguments: argparse.Namespace) -> Path:
    """Write the config of a model's run."""
    config = {
        "output_dir": str(work / name / "ours"),
        "seed": 0,
        "model": MODELS[name][3],
        "data": {"sources": [{"path": str(work / "tokens"), "max_repetition": 1}], "sequence_length": LENGTH},
        "optimizer": {"learning_rate": MODELS[name][2], "decay_embeddings": True},
        "schedule": {"kind": "cosine", "warmup": 0.08, "final_ratio": 0.1},
        "train": {
            "steps": MODELS[name][1] * arguments.longer,
            "batch_windows": WINDOWS,
            "device": "cpu",
            "num_threads": arguments.threads,
        },
        "validation": {"documents": [str(work / "held-out")]},
        "checkpoint": {"every_steps": 100, "keep_last": 1},
        "logging": {"console_every_s": 60},
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@torch.no_grad()
def bits_per_byte(checkpoint: Path, work: Path) -> float:
    """Of the held-out documents, each by itself after an end-of-text token, LENGTH tokens at a time."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    nats, size = 0.0, 0
    for path in sorted((work / "held-out" / "documents").iterdir()):
        for row in rows_of(path):
            ids = tokenizer.encode(row["text"], add_special_tokens=False).ids
            size += len(row["text"].encode())
            for start in range(0, len(ids), LENGTH):
                wanted = ids[start : start + LENGTH]
                read = [ids[start - 1] if start else EOS, *wanted[:-1]]
                logits = model(torch.tensor([read])).logits[0]
                nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum"))
    return nats / math.log(2) / size


def untrained(config: Path, place: Path) -> Path:
    """The model before its first step."""
    initial = place / "untrained"
    if not (initial / "manifest.json").is_file():
        shutil.rmtree(initial, ignore_errors=True)
        subprocess.run([*OLMO, "init", config, initial], check=True, stdout=subprocess.DEVNULL)
    return initial


def ours(config: Path, place: Path, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a model by `olmo train` and score it."""
    untrained(config, place)
    subprocess.run([*OLMO, "train", config], check=True, stdout=subprocess.DEVNULL)
    first, *rows = [json.loads(line) for line in (place / "ours" / "metrics.jsonl").read_text().splitlines()]
    trained = place / "ours" / "checkpoints" / f"step-{len(rows)}"
    with safe_open(trained / "model.safetensors", "pt") as weights:
        sizes = [math.prod(weights.get_slice(key).get_shape()) for key in weights.keys()]
    return {
        "parameters": sum(sizes),
        "losses": [row["train/CrossEntropyLoss"] for row in rows],
        "tokens_per_second": statistics.median(row["throughput/device/tokens_per_second"] for row in rows),
        "untrained": first["eval/bpb"],
        "in_loop": rows[-1]["eval/bpb"],
        "bpb": bits_per_byte(trained, work),
    }


def theirs(config: Path, place: Path, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a model by Trainer and score it."""
    rows = train_with_transformers(load_config(config, []), untrained(config, place), place / "theirs")
    seconds = statistics.median(row["seconds"] for row in rows[1:])
    return {
        "losses": [row["loss"] for row in rows],
        "tokens_per_second": LENGTH * WINDOWS / seconds,
        "bpb": bits_per_byte(place / "theirs", work),
    }


def table(work: Path, arguments: argparse.Namespace) -> str:
    """The page with all results so far."""
    held_out = [row["text"] for path in (work / "held-out" / "documents").iterdir() for row in rows_of(path)]
    size = sum(len(text.encode()) for text in held_out)
    lines = [
        f"""# A small model on real text, compared with plain transformers.Trainer

`python bench/corpus.py --documents "$SHARED_DATA/corpus" --work DIR --longer {arguments.longer}`

Steps of {WINDOWS} windows of {LENGTH} tokens (vocabulary {VOCABULARY}), float32; cosine to a tenth of the peak
after a warmup of 8 %, AdamW (0.9, 0.95), decay 0.1, clip 1. Both begin with the weights of `olmo init` and read
the same windows in the same order.

Bits per byte are of {len(held_out)} held-out documents ({size / 1e3:.0f} kB), measured by one scorer on transformers'
models; "in the loop" is the run's own figure. The machine did other work, so tokens per second (medians of steps) do
not compare speed. In the model with experts, a token uses 10 M of the parameters.

| model | parameters | steps | peak rate | untrained | in the loop | ours | Trainer | difference | tokens/s |
|---|---|---|---|---|---|---|---|---|---|"""
    ]
    losses = [
        "",
        "Training loss, nats per token: mean of the last 50 steps, and the largest difference in one step.",
        "",
        "| model | ours | Trainer | difference in 10 steps | in 100 | in all |",
        "|---|---|---|---|---|---|",
    ]
    for name, (what, _, peak, _) in MODELS.items():
        found = {side: work / name / f"{side}.json" for side in SIDES}
        results = {side: json.loads(path.read_text()) for side, path in found.items() if path.is_file()}
        if "ours" not in results:
            continue
        one, other = results["ours"], results.get("theirs")
        pace, bpb, last = f"{one['tokens_per_second']:.0f}", ["", ""], [f"{statistics.mean(one['losses'][-50:]):.4f}"]
        if other is not None:
            pace += f", {other['tokens_per_second']:.0f}"
            bpb = [f"{other['bpb']:.5f}", f"{100 * (one['bpb'] / other['bpb'] - 1):+.4f} %"]
            apart = [abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True)]
            last.append(f"{statistics.mean(other['losses'][-50:]):.4f}")
            last += [f"{max(part):.1e}" for part in (apart[:10], apart[:100], apart)]
        cells = [
            f"{name}: {what}",
            f"{one['parameters'] / 1e6:.2f} M",
            f"{len(one['losses'])}",
            f"{peak:g}",
            f"{one['untrained']:.3f}",
        ]
        cells += [f"{one['in_loop']:.5f}", f"{one['bpb']:.5f}", *bpb, pace]
        lines.append(f"| {' | '.join(cells)} |")
        losses.append(f"| {' | '.join([name, *last, *[''] * (5 - len(last))])} |")
    return "\n".join(lines + losses) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="directory of documents")
    parser.add_argument("--work", type=Path, required=True, help="directory for all that is made")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--longer", type=int, default=1, help="so many times the steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dolma", type=Path, default=Path(sys.executable).with_name("dolma"), help="the command")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer.json").is_file():
        split(arguments.documents, work)
        make_tokenizer(work)
    if not (work / "tokens" / "manifest.json").is_file():
        settings = {"name_or_path": work / "tokenizer.json", "eos_token_id": EOS, "pad_token_id": PAD}
        options = [part for key, value in settings.items() for part in (f"--tokenizer.{key}", str(value))]
        places = ["--documents", str(work / "training" / "*.jsonl.gz"), "--destination", str(work / "tokens")]
        subprocess.run([arguments.dolma, "tokens", *places, *options, "--dtype", "uint16"], check=True)
    for name in arguments.models:
        config = config_of(name, work, arguments)
        for side in arguments.sides:
            kept = work / name / f"{side}.json"
            if kept.is_file() or (side == "theirs" and name not in PAIRS):
                continue
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(SIDES[side](config, kept.parent, work, arguments)), encoding="utf-8")
    text = table(work, arguments)
    Path(__file__).with_name("corpus.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


SIDES = {"ours": ours, "theirs": theirs}

if __name__ == "__main__":
    main()
