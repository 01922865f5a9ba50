"""From a step to its documents and back: exact inverses on real runs, from order.json and the shards alone."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import settings, texts, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.config.load import load_config
from olmo_trainer.data.provenance import keep_order
from olmo_trainer.data.sources import open_training_data
from shards import write_documents
from tokenizers import Tokenizer

STEPS = 30


def olmo(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert olmo("inspect", *arguments) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def trained(made: Path, run: Path, **changes: Any) -> Path:
    sources = [{"path": str(made / "tokens"), "ratio": 2}, {"path": str(made / "more"), "ratio": 1}]
    changes = {
        "data__sources": sources,
        "train__steps": STEPS,
        "train__batch_windows": 8,
        "train__batch_warmup": [{"batch_windows": 4, "until_tokens": 8 * 4 * 16}],
        "validation": {},
        "checkpoint": {},
        "model__num_hidden_layers": 1,
        "logging__metrics_every_steps": STEPS,
        **changes,
    }
    assert olmo("train", write_config(run.with_suffix(".yaml"), settings(made, run, **changes))) == 0
    return run


@pytest.fixture(scope="module")
def alone(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[object]]]:
    """Runs of each layout, of which nothing is left but order.json, and shards that lie elsewhere by now."""
    root = tmp_path_factory.mktemp("years-later")
    (root / "runs").mkdir()
    found: dict[str, tuple[Path, list[object]]] = {}
    layouts = {
        "concat": {},
        "best_fit": {"data__packing": "best_fit", "data__document_mask": True},
        "legacy": {
            "data__order": "legacy",
            "data__sources": [{"path": str(made / name)} for name in ("tokens", "more")],
        },
    }
    for name, changes in layouts.items():
        run = trained(made, root / "runs" / name, **changes)
        (root / "kept" / name).mkdir(parents=True)
        shutil.move(run / "order.json", root / "kept" / name / "order.json")
        shutil.move(run / "config.yaml", root / f"{name}.yaml")
        found[name] = root / "kept" / name / "order.json", ["--data", root / "a", "--data", root / "b"]
    shutil.rmtree(root / "runs")
    shutil.copytree(made / "tokens", root / "a")
    shutil.copytree(made / "more", root / "b")
    return found


@pytest.mark.parametrize("layout", ["concat", "best_fit", "legacy"])
def test_steps_and_documents_are_inverse(
    alone: dict[str, tuple[Path, list[object]]], made: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order, places = alone[layout]
    assert order.stat().st_size <= 1024
    rows = lines(capsys, order, *places, "--step", *range(1, STEPS + 1), "--text")
    seen: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    tokens: dict[int, int] = defaultdict(int)
    for row in rows:
        seen[row["id"]].add((row["step"], row["position"], row["window"]))
        tokens[row["position"]] += row["end"] - row["start"]
    sizes = [4] * 8 + [8] * (STEPS - 8)
    assert sorted({row["position"] for row in rows}) == list(range(sum(sizes)))
    assert all(count == 16 if layout != "best_fit" else 0 < count <= 16 for count in tokens.values())
    steps = {row["position"]: row["step"] for row in rows}
    assert [list(steps.values()).count(step) for step in range(1, STEPS + 1)] == sizes
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    ids = {name: np.fromfile(made / "tokens" / f"{name}.npy", dtype="<u2") for name in ("a", "b")}
    ids["c"] = np.fromfile(made / "more" / "c.npy", dtype="<u4")
    for row in rows:
        part = ids[row["file"].removesuffix(".npy")][row["start"] : row["end"]].tolist()
        assert row["text"] == tokenizer.decode(part, skip_special_tokens=False)
        assert (row["src"], row["rank"]) == (row["file"].replace(".npy", ".jsonl.gz"), 0)
    assert len(seen) > 150
    for identifier in [*sorted(seen)[::11], *({f"d{n}" for n in range(240)} - set(seen))][:25]:
        (found,) = lines(capsys, order, *places, "--document", identifier)
        assert {(one["step"], one["position"], one["window"]) for one in found["seen"]} == seen[identifier]
        assert found["steps"] == sorted({step for step, _, _ in seen[identifier]})
        inside = len({(row["start"], row["end"]) for row in rows if row["id"] == identifier})
        assert inside <= len(found["windows"])


@pytest.mark.parametrize("layout", ["concat", "best_fit", "legacy"])
def test_the_documents_of_a_step_are_what_the_step_reads(
    alone: dict[str, tuple[Path, list[object]]], layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order, places = alone[layout]
    data = open_training_data(load_config(order.parents[2] / f"{layout}.yaml", []))
    ids = {shard.name: shard.ids() for source in data.sources for shard in source.directory.shards}
    for step, positions in ((3, range(8, 12)), (12, range(56, 64)), (STEPS, range(200, 208))):
        batch = data.read(positions)
        told: dict[int, list[int]] = {position: [] for position in positions}
        for row in lines(capsys, order, *places, "--step", step):
            told[row["position"]] += ids[row["file"]][row["start"] : row["end"]].tolist()
        for tokens_T, expected in zip(batch.tokens_BT.tolist(), told.values(), strict=True):
            assert tokens_T[: len(expected)] == expected
            assert layout == "best_fit" or len(expected) == 16
            assert set(tokens_T[len(expected) :]) <= {1}  # padding


def test_ranks_and_micro_batches_divide_a_step(
    alone: dict[str, tuple[Path, list[object]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order, places = alone["legacy"]
    whole = lines(capsys, order, *places, "--step", 10, "--world-size", 4)
    parts = [lines(capsys, order, *places, "--step", 10, "--world-size", 4, "--rank", rank) for rank in range(4)]
    assert sorted(row["position"] for part in parts for row in part) == sorted(row["position"] for row in whole)
    for rank, part in enumerate(parts):
        assert {row["rank"] for row in part} == {rank}
        assert len({row["position"] for row in part}) == 2
        assert {row["micro_batch"] for row in part} == {0}  # two windows are computed at a time
    assert {row["micro_batch"] for row in lines(capsys, order, *places, "--step", 10)} == {0, 1, 2, 3}
    (found, *_) = lines(capsys, order, *places, "--document", whole[0]["id"], "--world-size", 4)
    assert whole[0]["rank"] in {one["rank"] for one in found["seen"] if one["position"] == whole[0]["position"]}
    lines(capsys, order, *places, "--data-indices", tmp_path / "data-indices", "--world-size", 4)
    for rank in range(4):
        table = gzip.decompress((tmp_path / "data-indices" / f"rank{rank}.tsv.gz").read_bytes()).decode()
        of_step = [list(map(int, line.split("\t"))) for line in table.splitlines()]
        assert [row[0] for row in of_step] == list(range(1, STEPS + 1))
        assert [len(row) - 1 for row in of_step] == [1] * 8 + [2] * (STEPS - 8)
        instances = list({row["position"]: row["instance"] for row in parts[rank]}.values())
        assert of_step[9][1:] == instances
    assert olmo("inspect", order, *places, "--step", 10, "--world-size", 4, "--rank", 4) == 2
    assert olmo("inspect", order, *places, "--step", STEPS + 1) == 2
    assert olmo("inspect", order, *places, "--document", "nobody") == 2
    assert olmo("inspect", order, *places[:2], "--step", 1) == 2
    assert "--data: is given 1 times; expected 2" in capsys.readouterr().err
    assert len(lines(capsys, order, *places, "--step", 1, "--limit", 3)) == 3


@pytest.mark.parametrize("layout", ["concat", "best_fit"])
@pytest.mark.parametrize("damage", ["tokens", "boundaries", "manifest", "size"])
def test_shards_that_changed_are_refused(
    alone: dict[str, tuple[Path, list[object]]],
    tmp_path: Path,
    layout: str,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    order, (_, first, flag, second) = alone[layout]
    for name, place in (("a", first), ("b", second)):
        shutil.copytree(str(place), tmp_path / name)
    spoilt = {"tokens": "a.npy", "boundaries": "a.csv.gz", "manifest": "manifest.json", "size": "a.npy"}[damage]
    path = tmp_path / "a" / spoilt
    content = bytearray(path.read_bytes())
    if damage == "size":
        content += content[:2]
    elif damage == "manifest":
        content = bytearray(content.replace(b'"writer"', b'"writer" '))
    else:
        content[4 if damage == "boundaries" else 40] ^= 1
    path.write_bytes(content)
    asked = ["inspect", order, "--data", tmp_path / "a", flag, tmp_path / "b", "--step", *range(1, 6), "--text"]
    assert olmo(*asked) == 1
    told = capsys.readouterr().err
    assert ("other shards (sha256" if damage == "manifest" else spoilt) in told
    if damage == "tokens":
        assert olmo(*asked, "--unchecked") == 0


def test_shards_without_manifest_are_known_by_their_files(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "tokens", tmp_path / "foreign")
    (tmp_path / "foreign" / "manifest.json").unlink()
    sources = [{"path": str(tmp_path / "foreign"), "dtype": "uint16", "eos_token_id": 0, "pad_token_id": 1}]
    run = trained(made, tmp_path / "run", data__sources=sources, train__steps=3)
    assert len({row["position"] for row in lines(capsys, run, "--step", 1, 2, 3)}) == 12
    config = run.with_suffix(".yaml")
    path = tmp_path / "foreign" / "b.npy"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    assert olmo("inspect", run, "--step", 1) == 1
    assert "foreign: is other shards" in capsys.readouterr().err
    assert olmo("inspect", run, "--step", 1, "--unchecked") == 0
    capsys.readouterr()
    assert olmo("train", config) == 1  # nor is the run continued with them
    assert "with which" in capsys.readouterr().err


def test_a_run_continued_by_other_ranks_records_which_rank_read_what(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(made, tmp_path / "run", train__steps=9)
    config = load_config(run / "config.yaml", [])
    data = open_training_data(config)
    for done_steps, world_size in ((3, 2), (5, 2), (7, 4), (6, 1)):
        keep_order(config, data, run, done_steps=done_steps, world_size=world_size)
    assert json.loads((run / "order.json").read_text())["ranks"] == [[1, 1], [4, 2], [7, 1]]
    rows = lines(capsys, run, "--step", *range(1, 10))
    assert {(row["step"], row["rank"]) for row in rows} == {
        *((step, 0) for step in range(1, 10)),
        *((step, 1) for step in range(4, 7)),
    }
    lines(capsys, run, "--data-indices", tmp_path / "data-indices")
    first, second = sorted((tmp_path / "data-indices").iterdir())
    assert len(gzip.decompress(first.read_bytes()).splitlines()) == 9
    assert [row.split()[0] for row in gzip.decompress(second.read_bytes()).splitlines()] == [b"4", b"5", b"6"]


def test_documents_have_their_source_and_url(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(made, tmp_path / "run", train__steps=2)
    documents = [
        {"id": f"d{n}", "text": text, "source": "web", "metadata": {"url": f"https://example.org/{n}"}}
        for n, text in enumerate(texts(240, 0))
    ]
    for name, part in (("a", documents[:100]), ("b", documents[100:180]), ("c", documents[180:])):
        write_documents(tmp_path / "documents" / f"{name}.jsonl.gz", part)
    for row in lines(capsys, run, "--step", 1, 2, "--documents", tmp_path / "documents"):
        assert (row["document_source"], row["url"]) == ("web", f"https://example.org/{row['id'][1:]}")
    assert "url" not in lines(capsys, run, "--step", 1)[0]
    write_documents(tmp_path / "documents" / "a.jsonl.gz", documents[1:])
    assert olmo("inspect", run, "--step", 1, 2, "--documents", tmp_path / "documents") == 1
    assert 'expected the document "' in capsys.readouterr().err
