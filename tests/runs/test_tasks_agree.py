"""The trainer's in-loop tasks and catwalk give one checkpoint the same numbers, each by its own code."""

import gzip
import json
from pathlib import Path

import pytest
import yaml
from catwalk.__main__ import main as catwalk
from catwalk.items import load_items, locate
from catwalk.tasks import find_tasks
from olmo_trainer.__main__ import main as olmo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = "the cat sat on a mat because it was warm and dry there so nobody moved for hours".split()


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer.save(str(path))
    return tokenizer


def _rows(count: int) -> list[dict[str, object]]:
    """Questions in PIQA's fields; some are longer than the model's window."""
    texts = [" ".join(WORDS[(3 * i + j) % len(WORDS)] for j in range(4 + i % 5)) for i in range(count + 2)]
    return [
        {
            "goal": texts[i] * (12 if i % 7 == 3 else 1),
            "sol1": texts[i + 1],
            "sol2": f"{texts[i + 2]}, grüße",
            "label": i % 2,
        }
        for i in range(count)
    ]


def test_trainer_and_catwalk_agree(tmp_path: Path) -> None:
    import numpy as np

    tokenizer = _tokenizer(tmp_path / "tokenizer.json")
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    ids = [i for n in range(60) for i in (*tokenizer.encode(" ".join(WORDS[n % 9 :])).ids, 0)]
    np.array(ids, dtype="<u2").tofile(tokens / "a.npy")
    data = tmp_path / "items" / "piqa"
    data.mkdir(parents=True)
    with gzip.open(data / "validation.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in _rows(24))
    piqa = find_tasks(("piqa",))[0]
    with gzip.open(tmp_path / "requests.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number, item in enumerate(load_items(piqa, locate(piqa, tmp_path / "items"))):
            for index, (context, continuation) in enumerate(zip(item.contexts, item.continuations, strict=True)):
                request = {"context": context, "continuation": continuation}
                row = {"request": request, "doc_id": number, "idx": index, "label": item.label}
                stream.write(json.dumps(row) + "\n")
    config = {
        "output_dir": str(tmp_path / "run"),
        "model": {"family": "olmo2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        "data": {
            "tokenizer": str(tmp_path / "tokenizer.json"),
            "sources": [{"path": str(tokens), "dtype": "uint16", "eos_token_id": 0}],
            "sequence_length": 48,
        },
        "optimizer": {"learning_rate": 0.01},
        "train": {"steps": 3, "batch_windows": 4, "device": "cpu", "num_threads": 1},
        "validation": {"tasks": [{"name": "piqa", "path": str(tmp_path / "requests.jsonl.gz")}]},
    }
    config["model"]["num_attention_heads"] = 2
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert olmo(["train", str(tmp_path / "run.yaml")]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    ours = {name.removeprefix("eval/downstream/piqa_"): last[name] for name in last if "/piqa_" in name}
    checkpoint, results = tmp_path / "run" / "checkpoints" / "step-3", tmp_path / "results"
    arguments = ["--model", checkpoint, "--tasks", "piqa", "--data", tmp_path / "items", "--output-dir", results]
    assert catwalk(["run", *map(str, arguments), "--device", "cpu"]) == 0
    theirs = json.loads((results / "results.json").read_text())["tasks"][0]["metrics"]
    assert len(ours) == 6
    for name, value in ours.items():
        expected = theirs[name]["value"]
        assert value == (expected if name.startswith("acc") else pytest.approx(expected, rel=1e-6)), name
