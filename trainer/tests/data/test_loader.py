"""From windows to batches: masks, limits, reading ahead, and whole runs with all of it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import settings as config_of
from conftest import write_config
from olmo_trainer.__main__ import main
from olmo_trainer.config.schema import RunConfig
from olmo_trainer.data.sources import Loader, TrainingData, check_repetition, open_training_data
from olmo_trainer.data.windows import ShardReader
from olmo_trainer.formats.contract import ConfigError, FormatError
from olmo_trainer.settings import build
from shards import EOS, PAD, write_shard


def opened(made: Path, **changes: Any) -> TrainingData:
    return open_training_data(build(RunConfig, config_of(made, made / "run", **changes), "c.yaml"))


def test_repetitive_windows_and_padding_are_excluded_from_the_loss(made: Path, tmp_path: Path) -> None:
    loud = [("loud", [*([7, 8] * 40), EOS]), *((f"s{n}", [9 + n, 30 + n, EOS]) for n in range(5))]
    write_shard(tmp_path / "tokens", "a", loud)
    sources = [{"path": str(tmp_path / "tokens"), "dtype": "uint16", "eos_token_id": EOS, "pad_token_id": PAD}]
    changes = {"data__sources": sources, "data__tokenizer": str(made / "tokenizer.json"), "data__packing": "best_fit"}
    changes |= {"data__sequence_length": 90, "data__window_filter": {}}
    data = opened(made, **changes)
    assert [len(source) for source in data.sources] == [2]
    batch = data.read(range(2))
    assert batch.masked_windows == 1
    assert batch.loss_mask_BT is not None
    assert sorted(batch.loss_mask_BT.sum(axis=1).tolist()) == [0, 9 if 7 in batch.tokens_BT[0, :1] else 6]
    (quiet,) = (row for row in range(2) if batch.loss_mask_BT[row].any())
    assert batch.tokens_BT[quiet, batch.loss_mask_BT[quiet].sum() :].tolist().count(PAD) > 70  # yet not repetitive
    assert opened(made, **{**changes, "data__window_filter": None}).read(range(2)).masked_windows == 0


def test_a_source_is_not_seen_more_often_than_it_may(made: Path) -> None:
    sources = [{"path": str(made / "tokens"), "ratio": 1}, {"path": str(made / "more"), "ratio": 3}]
    for source, limit in zip(sources, (0.5, 1.5), strict=True):
        source["max_repetition"] = limit
    changes = {"data__sources": sources}
    data = opened(made, **changes)
    config = build(RunConfig, config_of(made, made / "run", **changes), "c.yaml")
    seen: Counter[int] = Counter()
    for position in range(windows := 2 * data.order.epoch_windows):
        seen[data.order.at(position).source] += 1
    assert data.order.repetition(1, windows) == pytest.approx(seen[1] / len(data.sources[1]))
    assert data.order.repetition(0, windows) == pytest.approx(seen[0] / len(data.sources[0]))
    check_repetition(config, data, data.order.epoch_windows)
    with pytest.raises(ConfigError, match=r'"data.sources.1.max_repetition" is 1.5; expected 2 or more') as raised:
        check_repetition(config, data, windows)
    assert len(raised.value.problems) == 1


def test_the_plan_has_how_often_each_source_is_seen(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [{"path": str(made / "tokens"), "ratio": 1}, {"path": str(made / "more"), "ratio": 3}]
    config = write_config(made / "plan.yaml", config_of(made, made / "run", data__sources=sources))
    assert main(["train", str(config), "--dry-run", "--json", "train.steps=100"]) == 0
    plan = json.loads(capsys.readouterr().out)
    shares = [source["repetition"] * source["windows"] / 400 for source in plan["sources"]]
    assert shares == pytest.approx([0.25, 0.75], abs=0.01)


def same(left: Any, right: Any) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("tokens_BT", "loss_mask_BT", "document_ids_BT", "masked_windows")
    )


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_batches_do_not_depend_on_the_number_of_threads(made: Path, threads: int) -> None:
    changes = {"data__packing": "best_fit", "data__document_mask": True, "data__window_filter": {}}
    data = opened(made, **changes)
    plan = [range(start, start + 5) for start in range(0, 2 * data.order.epoch_windows, 5)]

    def read(positions: range) -> Any:
        time.sleep(positions.start * 7919 % 5 / 5000)  # done out of order
        return data.read(positions)

    with Loader(read, iter(plan), threads=threads, ahead=7) as loader:
        for positions in plan:
            assert same(loader.next(), data.read(positions))
        with pytest.raises(StopIteration):
            loader.next()


def test_the_loader_reads_so_far_ahead_and_no_further() -> None:
    read: list[int] = []
    with Loader(
        lambda positions: read.append(positions.start), (range(n, n + 1) for n in range(50)), threads=2, ahead=3
    ) as loader:
        for taken in range(1, 11):
            loader.next()
            assert len(read) <= taken + 3
        time.sleep(0.05)
        assert len(read) == 13
    before = threading.active_count()
    assert len(read) == 13
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")], before


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_while_reading_ahead_comes_with_its_batch(made: Path, threads: int) -> None:
    error = FormatError("out_of_range", made, "is 5; expected below 3")

    def read(positions: range) -> int:
        if positions.start == 4:
            raise error
        return positions.start

    with Loader(read, (range(n, n + 1) for n in range(9)), threads=threads, ahead=8) as loader:
        assert [loader.next() for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(FormatError) as raised:
            loader.next()
        assert raised.value is error


def test_few_files_are_open_and_a_file_that_shrank_is_reported(tmp_path: Path) -> None:
    for number in range(40):
        np.arange(number, number + 8, dtype="<u2").tofile(tmp_path / f"{number}.npy")
    reader, before = ShardReader(limit=5), len(os.listdir("/proc/self/fd"))
    results: dict[int, npt.NDArray[np.generic]] = {}

    def work(first: int) -> None:
        for turn in range(200):
            number = (first + 7 * turn) % 40
            results[number] = reader.read(tmp_path / f"{number}.npy", "uint16", 2, 4)
            assert results[number].tolist() == list(range(number + 2, number + 6))

    workers = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 40
    assert len(os.listdir("/proc/self/fd")) <= before + 5
    (tmp_path / "3.npy").write_bytes(b"\0" * 8)
    with pytest.raises(FormatError, match=r"3\.npy: is 8 bytes long; expected 12 bytes or more"):
        ShardReader().read(tmp_path / "3.npy", "uint16", 2, 4)
    with pytest.raises(FormatError, match="not found"):
        reader.read(tmp_path / "99.npy", "uint16", 0, 1)


@pytest.fixture(scope="module")
def masked(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that use everything at once."""
    root = tmp_path_factory.mktemp("masked")
    draw = np.random.default_rng(1)
    documents = [(f"d{n}", [*draw.integers(2, 300, int(draw.integers(1, 30))).tolist(), EOS]) for n in range(100)]
    documents += [(f"loud{n}", [5, 6] * 6 + [EOS]) for n in range(20)]
    tokens = write_shard(root / "tokens", "a", documents)
    (root / "masks").mkdir()
    (draw.random(tokens) < 0.8).tofile(root / "masks" / "a.npy")
    source = {"path": str(root / "tokens"), "label_masks": str(root / "masks"), "max_tokens": tokens - 100}
    return {
        "data__sources": [{**source, "dtype": "uint16", "eos_token_id": EOS, "pad_token_id": PAD}],
        "data__tokenizer": str(made / "tokenizer.json"),
        "data__packing": "best_fit",
        "data__document_mask": True,
        "data__window_filter": {"repetition_max_count": 4},
        "validation": {},
        "train__steps": 6,
    }


def test_a_run_with_all_of_it_is_the_same_stopped_or_not_with_any_number_of_threads(
    made: Path, masked: dict[str, Any], tmp_path: Path
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    command = ["train", str(write_config(tmp_path / "whole.yaml", config_of(made, whole, **masked)))]
    assert main([*command, "data.loader.threads=0"]) == 0
    command = ["train", str(write_config(tmp_path / "parted.yaml", config_of(made, parted, **masked)))]
    assert main([*command, "train.stop_at=4 steps", "data.loader.threads=3", "data.loader.ahead=9"]) == 0
    assert main([*command, "data.loader.threads=2"]) == 0
    names = [f"checkpoints/step-6/{name}" for name in ("manifest.json", "model.safetensors")]
    assert [(whole / name).read_bytes() for name in names] == [(parted / name).read_bytes() for name in names]
    rows = [json.loads(line) for line in (parted / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))
    assert all(0 <= row["throughput/device/data_loading_percent"] <= 100 for row in rows[1:])
    assert sum(row["train/masked_instances"] for row in rows[1:]) > 0
    inputs = json.loads((whole / names[0]).read_text())["inputs"]
    assert [row["path"].split("/")[-2:] for row in inputs if row["role"] == "label_masks"] == [["masks", "a.npy"]]


def test_steps_in_which_no_token_counts_are_refused(
    made: Path, masked: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even weight decay changes a weight, and a run with nothing to learn from gives up."""
    (source,) = masked["data__sources"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.npy").write_bytes(bytes((Path(source["path"]) / "a.npy").stat().st_size // 2))
    changes = {
        **masked,
        "data__sources": [{**source, "label_masks": str(tmp_path / "none")}],
        "train__max_skipped_steps": 3,
    }
    assert main(["train", str(write_config(tmp_path / "c.yaml", config_of(made, tmp_path / "run", **changes)))]) == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/CrossEntropyLoss"] for row in rows[1:]] == [None] * 3
    assert "no token counts" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__order": "legacy", "ratio": 1.0}, '"data.order" is "legacy" with ratios; expected no ratios'),
        ({"data__order": "legacy", "train__batch_windows": 10**6}, "since OLMo's order drops those that fill no batch"),
        ({"max_tokens": 0}, '"data.sources.0.max_tokens" is 0; expected more than 0'),
        ({"max_repetition": 0.01}, '"data.sources.0.max_repetition" is 0.01; expected'),
        ({"data__loader": {"threads": -1}}, '"data.loader.threads" is -1; expected 0 or more'),
        ({"data__window_filter": {"repetition_max_count": 2}}, "expected 3 or more"),
        ({"data__window_filter": {"repetition_min_period": 14}}, "expected 14, repetition_min_period, or more"),
        ({"data__packing": "worst_fit"}, 'expected "concat" or "best_fit"'),
        ({"label_masks": "nowhere"}, "expected the label mask of"),
    ],
)
def test_impossible_settings_are_reported(
    made: Path, tmp_path: Path, changes: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_source = {name: value for name, value in changes.items() if "__" not in name}
    sources = [{"path": str(made / "tokens"), **of_source}]
    rest = {name: value for name, value in changes.items() if "__" in name}
    config = config_of(made, tmp_path / "run", data__sources=sources, **rest)
    assert main(["train", str(write_config(tmp_path / "c.yaml", config)), "--dry-run"]) in (1, 2)
    assert told in capsys.readouterr().err
