"""A small run through all five tools, using only their commands, for `test_formats_matrix.py`.

`documents` are written here. Every other artifact comes from a package's command, which runs in that package's own
environment. Everything is deterministic and takes about a minute on one core.
"""

import gzip
import json
import os
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["STEPS", "Chain", "Step", "prepare"]

_WORDS = "the of and to in a is that for it on be with as was by not or from at an are this but had".split()
_NAMES = ["Zoë", "Łódź", "Αθήνα", "東京", "😀", "naïve", "R2-D2", "x=1", "don't", "§ 5"]


@dataclass(frozen=True)
class Step:
    """Commands of one package and the artifacts that they make, by path and format."""

    package: str
    commands: list[list[str]]
    makes: dict[str, str]
    needs: list[str] = field(default_factory=list)
    before: Callable[[Path], None] | None = None


def _forget_manifest(folder: Path) -> None:
    """Copy the token files as another tool would have left them."""
    (folder / "foreign").mkdir()
    for path in (folder / "tokens").iterdir():
        if path.suffix == ".npy" or path.name.endswith(".csv.gz"):
            (folder / "foreign" / path.name).write_bytes(path.read_bytes())


_PACK = ["dolma", "tokens", "pack", "--sources", "tokens", "--destination", "packed"]
_SCORE = ["catwalk", "run", "--documents", "sample", "--tasks", "copa", "--data", "items", "--device", "cpu"]

STEPS = {
    "tag": Step(
        "dolma-toolkit",
        [["dolma", "-c", "tag.yaml", "tag"]],
        {"corpus/attributes/rules": "attributes"},
    ),
    "dedupe": Step(
        "dolma-toolkit",
        [["dolma", "-c", "dedupe.yaml", "dedupe"]],
        {"corpus/attributes/duplicates": "attributes"},
    ),
    "mix": Step(
        "dolma-toolkit",
        [["dolma", "-c", "mix.yaml", "mix"]],
        {"mixed": "document"},
        ["tag", "dedupe"],
    ),
    "tokens": Step("dolma-toolkit", [["dolma", "-c", "tokens.yaml", "tokens"]], {"tokens": "tokens"}, ["mix"]),
    "pack": Step(
        "dolma-toolkit",
        [[*_PACK, "--sequence_length", "64", "--pad_token_id", "0"]],
        {"packed": "packed"},
        ["tokens"],
    ),
    "export": Step(
        "dolma-toolkit",
        [["dolma", "tokens", "export", "--sources", "tokens", "--destination", "megatron"]],
        {"megatron": "megatron"},
        ["tokens"],
    ),
    "build": Step(
        "paloma",
        [["paloma", "build", "--documents", "mixed", "--output-dir", "sample", "--bytes-per-domain", "400"]],
        {"sample": "document"},
        ["mix"],
    ),
    "train": Step(
        "trainer",
        [["olmo", "train", "train.yaml"], ["olmo", "export", "run", "base"]],
        {"base": "checkpoint"},
        ["tokens", "build"],
    ),
    "train foreign": Step(
        "trainer",
        [
            [
                "olmo",
                "train",
                "train.yaml",
                "output_dir=run-foreign",
                "data.sources=[{path: foreign, dtype: uint16, eos_token_id: 0}]",
                "data.tokenizer=tokenizer/tokenizer.json",
            ],
            ["olmo", "export", "run-foreign", "base-foreign"],
        ],
        {"base-foreign": "checkpoint"},
        ["tokens", "build"],
        _forget_manifest,
    ),
    "evaluation text": Step(
        "catwalk-eval",
        [["catwalk", "documents", "--tasks", "copa", "--data", "items", "--output-dir", "evaluation"]],
        {"evaluation/documents": "document"},
    ),
    "sft": Step("open-instruct", [["open-instruct", "sft", "sft.yaml"]], {"sft": "checkpoint"}, ["train"]),
    "dpo": Step("open-instruct", [["open-instruct", "dpo", "dpo.yaml"]], {"dpo": "checkpoint"}, ["sft"]),
    "score": Step(
        "catwalk-eval",
        [[*_SCORE, "--model", name, "--output-dir", f"scores/{name}"] for name in ("base", "sft", "dpo")],
        {f"scores/{name}": "results" for name in ("base", "sft", "dpo")},
        ["dpo", "build"],
    ),
    "aggregate": Step(
        "paloma",
        [["paloma", "aggregate", "scores/base", "scores/sft", "scores/dpo", "--output-dir", "table"]],
        {"table": "table"},
        ["score"],
    ),
}


class Chain:
    """The steps in one folder; each runs once, when it is first needed."""

    def __init__(self, folder: Path, environments: Path) -> None:
        self.folder, self.environments = folder, environments
        self._failed: dict[str, str] = {}
        self._done: set[str] = set()

    def program(self, package: str, name: str) -> str:
        """The path of a program in a package's environment."""
        return str(self.environments / package / "bin" / name)

    def call(self, package: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program of a package's environment in the folder, isolated from this environment."""
        kept = ("HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "CUDA_VISIBLE_DEVICES")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"PATH": f"{self.environments / package / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONIOENCODING": "utf-8",
            "CUDA_VISIBLE_DEVICES": "",
        }
        full = [self.program(package, command[0]), *command[1:]]
        return subprocess.run(
            full, cwd=self.folder, env=environment, capture_output=True, encoding="utf-8", timeout=600
        )

    def make(self, name: str) -> str | None:
        """Run a step and the steps it needs; return the error, or None."""
        if name in self._done or name in self._failed:
            return self._failed.get(name)
        step = STEPS[name]
        for need in step.needs:
            if self.make(need) is not None:
                self._failed[name] = f"needs {need}, which failed"
                return self._failed[name]
        if step.before is not None:
            step.before(self.folder)
        for command in step.commands:
            done = self.call(step.package, command)
            if done.returncode:
                self._failed[name] = f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
                return self._failed[name]
        self._done.add(name)
        return None


def _documents() -> list[dict[str, Any]]:
    """Three sources, two subdomains each, some texts twice, an empty one, white space at the ends."""
    rows: list[dict[str, Any]] = []
    for number in range(90):
        draw = random.Random(number)
        text = " ".join(draw.choices(_WORDS, k=draw.randint(40, 120)) + draw.choices(_NAMES, k=3)) + ".\n"
        place = {"source": ("books", "web", "code")[number % 3], "added": "2024-03-01T00:00:00Z"}
        rows.append({"id": f"d-{number}", "text": text, **place, "metadata": {"subdomain": f"part {number % 2}"}})
    rows[30] |= {"text": rows[0]["text"]}
    rows[61] |= {"text": "  \n"}
    return rows


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _tokenizer(texts: list[str], path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir()
    tokenizer.save(str(path))


def _conversation(number: int, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"what is {number} in {_NAMES[number % 10]}?"},
        {"role": "assistant", "content": answer},
    ]


def prepare(folder: Path) -> None:
    """Write the first inputs: documents, a tokenizer, chats, pairs, test items and settings."""
    rows = _documents()
    for part in range(2):
        _write_rows(folder / "corpus" / "documents" / f"part-{part}.jsonl.gz", rows[part::2])
    _tokenizer([row["text"] for row in rows], folder / "tokenizer" / "tokenizer.json")
    _write_rows(folder / "chats.jsonl", [{"messages": _conversation(n, f"it is {n}")} for n in range(12)])
    pairs = [{"chosen": _conversation(n, f"it is {n}"), "rejected": _conversation(n, "no")} for n in range(12)]
    _write_rows(folder / "pairs.jsonl", pairs)
    items = [
        {
            "premise": f"It was {word}.",
            "choice1": "it is the",
            "choice2": "of a",
            "question": "effect",
            "idx": n,
            "label": n % 2,
        }
        for n, word in enumerate(_WORDS[:8])
    ]
    _write_rows(folder / "items" / "copa" / "validation.jsonl.gz", items)
    tuning = {
        "sequence": {"max_length_tokens": 96},
        "training": {"max_steps": 2, "batch_size": 2, "micro_batch_size": 2},
        "runtime": {"device": "cpu", "num_threads": 1},
    }
    bloom = {"file": "filter.bin", "read_only": False, "estimated_doc_count": 1000, "desired_false_positive_rate": 1e-6}
    settings: dict[str, dict[str, Any]] = {
        "tag": {
            "documents": ["corpus/documents/*.jsonl.gz"],
            "experiment": "rules",
            "taggers": ["char_length_v1", "gopher_v2"],
        },
        "dedupe": {
            "documents": ["corpus/documents/*.jsonl.gz"],
            "dedupe": {
                "name": "duplicates",
                "documents": {"attribute_name": "duplicates", "key": "$.text"},
                "skip_empty": True,
            },
            "bloom_filter": bloom,
        },
        "mix": {
            "streams": [
                {
                    "name": "mixed",
                    "documents": ["corpus/documents/*.jsonl.gz"],
                    "attributes": ["rules", "duplicates"],
                    "output": {"path": "mixed", "max_size_in_bytes": 20_000, "discard_fields": ["attributes"]},
                    "filter": {"syntax": "jq", "exclude": [".attributes.duplicates | length > 0"]},
                }
            ]
        },
        "tokens": {
            "documents": ["mixed/*.jsonl.gz"],
            "destination": "tokens",
            "dtype": "uint16",
            "tokenizer": {"name_or_path": "tokenizer/tokenizer.json", "eos_token_id": 0, "pad_token_id": 1},
        },
        "train": {
            "output_dir": "run",
            "model": {
                "family": "olmo2",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            },
            "data": {"sources": [{"path": "tokens"}], "sequence_length": 64},
            "optimizer": {"learning_rate": 0.001},
            "train": {"steps": 2, "batch_windows": 2, "device": "cpu", "num_threads": 1},
            "validation": {"documents": ["sample"]},
        },
        "sft": tuning | {"model": "base", "output_dir": "sft", "data": {"train": ["chats.jsonl"]}},
        "dpo": tuning | {"model": "sft", "output_dir": "dpo", "data": {"train": ["pairs.jsonl"]}},
    }
    for name, value in settings.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
