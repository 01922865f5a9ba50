"""Whole runs: the same whatever happened on the way, traceable, loadable by transformers."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.evaluation import windows_of
from olmo_trainer.formats.__main__ import main as formats
from olmo_trainer.formats.checkpoint import inspect_checkpoint
from shards import write_json
from tokenizers import Tokenizer

TIMES = ("time_s", "throughput/device/", "System/")


def olmo(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def rows_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in rows]


def manifest(path: Path) -> bytes:
    return (path / "manifest.json").read_bytes()


@pytest.fixture(scope="module")
def done(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that nothing interrupted."""
    root = tmp_path_factory.mktemp("runs")
    assert olmo("train", write_config(root / "c.yaml", settings(made, root / "run"))) == 0
    return root / "run"


def test_a_run_leaves_every_step_once_and_learns(done: Path) -> None:
    rows = rows_of(done)
    assert [row["step"] for row in rows] == list(range(13))
    assert [row["step"] for row in rows if "eval/bpb" in row] == [0, 5, 10, 12]
    assert {"eval/s/bpb", "eval/s/n0/bpb", "eval/s/n1/bpb"} <= set(rows[0])
    assert rows[-1]["eval/bpb"] < rows[0]["eval/bpb"] - 0.3
    assert rows[1]["train/CrossEntropyLoss"] == pytest.approx(math.log(384), abs=0.2)
    assert rows[-1]["throughput/total_tokens"] == 12 * 4 * 16
    assert rows[2]["optim/learning_rate_group0"] == 0.01
    assert sorted(path.name for path in (done / "checkpoints").iterdir()) == ["step-12", "step-3", "step-6", "step-9"]
    resolved = yaml.safe_load((done / "config.yaml").read_text())
    assert (resolved["model"]["embedding_size"], resolved["model"]["rope_theta"]) == (384, 5e5)


def test_an_equal_run_is_equal_in_every_byte(done: Path, made: Path, tmp_path: Path) -> None:
    """Elsewhere too, where the data lies at the same relative place."""
    copied, place = tmp_path / made.name, tmp_path / done.relative_to(made.parent)
    shutil.copytree(made, copied)
    config = settings(copied, place, checkpoint__keep_last=1, logging__metrics_every_steps=4)
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    assert [path.name for path in (place / "checkpoints").iterdir()] == ["step-12"]
    assert manifest(place / "checkpoints" / "step-12") == manifest(done / "checkpoints" / "step-12")
    assert [row["step"] for row in rows_of(place)] == [0, 3, 4, 5, 6, 8, 9, 10, 12]  # saved and scored too


@pytest.mark.processes
def test_a_run_killed_again_and_again_ends_as_if_never_stopped(done: Path, made: Path, tmp_path: Path) -> None:
    changes = {
        "train__steps": 24,
        "checkpoint__every_steps": 1,
        "checkpoint__keep_last": 3,
        "validation__every_steps": 7,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert olmo("train", write_config(tmp_path / "whole.yaml", settings(made, whole, **changes))) == 0
    command = ["train", str(write_config(tmp_path / "killed.yaml", settings(made, killed, **changes)))]
    context, draw, kills, within = multiprocessing.get_context("fork"), random.Random(), 0, 0
    while True:
        child = context.Process(target=lambda: os._exit(main(command)))
        child.start()
        child.join(timeout=draw.uniform(0.02, 0.1 + 0.08 * kills))
        if child.is_alive():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
            within += any(path.name.startswith(".step") for path in (killed / "checkpoints").glob("*"))
            continue
        assert child.exitcode == 0
        break
    assert kills >= 2, "the run was too fast to be killed"
    assert rows_of(killed) == rows_of(whole)
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert (
        sorted(path.name for path in (killed / "checkpoints").iterdir()) == names == ["step-22", "step-23", "step-24"]
    )
    for name in names:
        assert manifest(killed / "checkpoints" / name) == manifest(whole / "checkpoints" / name)


@pytest.mark.parametrize("moment", ["saving", "deleting", "row"])
def test_what_a_kill_leaves_half_done_is_cleared(done: Path, made: Path, tmp_path: Path, moment: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    checkpoints = run / "checkpoints"
    if moment == "saving":
        (checkpoints / "step-12" / "manifest.json").unlink()
        (checkpoints / "step-12").rename(checkpoints / ".step-12.writing")
    elif moment == "deleting":
        shutil.rmtree(checkpoints / "step-12")
        (checkpoints / "step-3").rename(checkpoints / ".step-3.deleting")
    else:
        shutil.rmtree(checkpoints / "step-12")
        text = (run / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text(text[:-25])
    config = settings(made, run)
    config["data"]["sources"][0]["path"] = str(made / "tokens")
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    assert rows_of(run) == rows_of(done)
    weights = "step-12/model.safetensors"
    assert (checkpoints / weights).read_bytes() == (done / "checkpoints" / weights).read_bytes()
    assert not list(checkpoints.glob(".*"))


def test_a_run_is_not_continued_with_another_config(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(made, done, optimizer__learning_rate=0.02, train__steps=14, logging__console_every_s=1)
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 2
    told = capsys.readouterr().err
    assert '"optimizer.learning_rate" is 0.02; expected 0.01' in told
    assert '"train.steps" is 14; expected 12' in told
    assert "console_every_s" not in told


def test_a_damaged_checkpoint_is_not_continued(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    path = run / "checkpoints" / "step-12" / "training" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert olmo("train", write_config(tmp_path / "c.yaml", settings(made, run))) == 1
    told = capsys.readouterr().err
    assert "damaged" in told
    assert f"hint: remove {run}/checkpoints/step-12 to continue from the checkpoint before it" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("checkpoints/step-9/manifest.json", "manifest.json: not found; expected a whole checkpoint"),
        ("metrics.jsonl", "metrics.jsonl:4: is damaged; expected the row of a step"),
        ("metrics.jsonl with NaN", "metrics.jsonl:4: is damaged; expected the row of a step"),
    ],
)
def test_damage_is_reported_before_a_run_resumes(
    name: str, told: str, done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    shutil.rmtree(run / "checkpoints" / "step-12")
    if name.startswith("metrics"):
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        bad = '{"step": 3, "time_s": NaN}\n' if name.endswith("NaN") else "?" * 9 + "\n"
        (run / "metrics.jsonl").write_text("".join([*lines[:3], bad, *lines[4:]]))
    else:
        (run / name).unlink()
    assert olmo("train", write_config(tmp_path / "c.yaml", settings(made, run))) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("sharded", [False, True])
def test_a_full_disk_is_reported_and_the_run_resumes_from_what_was_saved(
    sharded: bool, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings(made, tmp_path / "run", validation={}, checkpoint__sharded=sharded, train__steps=4)
    config = write_config(tmp_path / "c.yaml", run)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file may grow beyond
    try:
        assert olmo("train", config) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    told = capsys.readouterr().err
    assert "not written" in told.splitlines()[-1]
    assert "File too large" in told
    assert olmo("train", config) == 0
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-3", "step-4"]


def test_a_run_resumes_with_the_threads_it_began_with(
    done: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has another number of cores, and sums depend on the number of threads in the last bit."""
    run = tmp_path / "run"
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    shutil.copytree(done, run)
    assert olmo("train", write_config(tmp_path / "c.yaml", settings(made, run, train__num_threads=None))) == 0


def test_lineage_leads_from_the_checkpoint_to_its_data(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = done / "checkpoints" / "step-12"
    assert olmo("export", checkpoint, tmp_path / "out") == 0
    capsys.readouterr()
    assert formats(["lineage", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    identities = [hashlib.sha256(manifest(path)).hexdigest()[:12] for path in (tmp_path / "out", checkpoint)]
    assert [line.split()[-1] for line in lines[:2]] == identities
    assert lines[1].startswith("  checkpoint: checkpoint ..")
    assert any(line.startswith("    tokens: tokens ") for line in lines)
    assert formats(["validate", "checkpoint", str(checkpoint)]) == 0
    assert sorted(path.name for path in checkpoint.parent.parent.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "order.json",
    ]


def test_checkpoint_loads_in_transformers_with_its_tokenizer(done: Path) -> None:
    transformers = pytest.importorskip("transformers")
    directory = done / "checkpoints" / "step-12"
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id)
    assert ids == (0, 1, None)
    assert ids == (model.config.eos_token_id, model.config.pad_token_id, model.config.bos_token_id)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (0, 1)
    text = "the model reads grüße 東京\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer(text).input_ids == Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text).ids


def test_bits_per_byte_in_the_loop_are_those_of_a_plain_computation(done: Path, made: Path) -> None:
    """Recomputed with transformers, a document and a window at a time."""
    transformers = pytest.importorskip("transformers")
    import gzip

    directory = done / "checkpoints" / "step-12"
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    nats: dict[str, float] = defaultdict(float)
    size: dict[str, int] = defaultdict(int)
    longest = 0
    lines = gzip.decompress((made / "held_out" / "documents" / "v.jsonl.gz").read_bytes()).splitlines()
    for row in map(json.loads, lines):
        stream = [0, *tokenizer.encode(row["text"]).ids]
        longest = max(longest, len(stream))
        for start in range(0, len(stream) - 1, 16):
            part = torch.tensor([stream[start : start + 17]])
            with torch.no_grad():
                scores = model(part[:, :-1]).logits.double().log_softmax(-1)
            value = -float(scores.gather(2, part[:, 1:, None]).sum())
            for name in ("eval/bpb", f"eval/s/{row['metadata']['subdomain']}/bpb"):
                nats[name] += value
        for name in ("eval/bpb", f"eval/s/{row['metadata']['subdomain']}/bpb"):
            size[name] += len(row["text"].encode())
    assert longest > 33, "no document needs three windows"
    last = rows_of(done)[-1]
    for name, value in nats.items():
        assert last[name] == pytest.approx(value / size[name] / math.log(2), rel=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_windows_score_each_token_once_after_the_one_before(count: int) -> None:
    ids = list(range(100, 100 + count))
    pairs = [pair for inputs, labels in windows_of(ids, 7, 4) for pair in zip(inputs, labels, strict=True)]
    assert pairs == list(zip([7, *ids], ids, strict=False))


def test_export_init_and_init_from(done: Path, made: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    source = done / "checkpoints" / "step-12"
    assert olmo("export", source, tmp_path / "half", "--dtype", "bfloat16") == 0
    assert not (tmp_path / "half" / "training").exists()
    half = json.loads(manifest(tmp_path / "half"))
    assert (half["details"]["dtype"], half["details"]["step"], half["inputs"][0]["role"]) == (
        "bfloat16",
        12,
        "checkpoint",
    )
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16

    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run"))
    assert olmo("init", config, tmp_path / "untrained") == 0
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "untrained", source))
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])

    # a run from the untrained weights is the run that drew them itself; the model is read from the checkpoint
    same = settings(made, tmp_path / "same", init_from=str(tmp_path / "untrained"))
    del same["model"]
    assert olmo("train", write_config(tmp_path / "same.yaml", same)) == 0
    weights = "checkpoints/step-12/model.safetensors"
    assert (tmp_path / "same" / weights).read_bytes() == (done / weights).read_bytes()
    roles = {row["role"] for row in json.loads(manifest(tmp_path / "same" / "checkpoints" / "step-12"))["inputs"]}
    assert roles == {"tokens", "validation", "checkpoint"}


def test_a_run_gives_up_after_so_many_bad_steps(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overflowing = settings(made, tmp_path / "run", model__init={"std": 1e30}, validation={})
    config = write_config(tmp_path / "c.yaml", overflowing)
    assert olmo("train", config, "train.max_skipped_steps=3") == 1
    assert "for 3 steps in a row" in capsys.readouterr().err
    rows = rows_of(tmp_path / "run")
    assert [row["optim/skipped_steps"] for row in rows[1:]] == [1, 2, 3]
    assert rows[1]["optim/total_grad_norm"] is None


def test_a_score_of_nan_ends_the_run(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN is not a perfect score, for a document or for a choice."""
    overflowing = settings(made, tmp_path / "run", model__init={"std": 1e30})
    config = write_config(tmp_path / "c.yaml", overflowing)
    assert olmo("train", config) == 1
    assert re.search(r'v.jsonl.gz:\d: document "v\d" has a log-likelihood of nan;', capsys.readouterr().err)
    request = {"context": "the", "continuation": " model"}
    row = {"request": request, "doc_id": 7, "idx": 0, "label": 0}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    tasks = {"tasks": [{"name": "t", "path": str(tmp_path / "t.jsonl")}]}
    assert olmo("train", write_config(tmp_path / "c.yaml", {**overflowing, "validation": tasks})) == 1
    assert "t.jsonl: question 7 has a log-likelihood of nan;" in capsys.readouterr().err
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_run_resumes_with_its_shards_moved(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What counts is the content, not the path."""
    place, run = tmp_path / "made", tmp_path / "run"
    shutil.copytree(made, place)
    foreign = {"dtype": "uint16", "eos_token_id": 0, "pad_token_id": 1}
    for name in ("manifest.json", "tokenizer.json"):
        shutil.copyfile(place / "tokens" / name, place / name)
    (place / "tokens" / "manifest.json").unlink()
    (place / "tokens" / "tokenizer.json").unlink()
    sources = [{"path": str(place / "tokens"), **foreign}]
    changes = {"data__sources": sources, "data__tokenizer": str(place / "tokenizer.json"), "validation": {}}
    begun = settings(made, run, **changes, train__stop_at="5 steps")
    assert olmo("train", write_config(tmp_path / "c.yaml", begun)) == 0
    moved = tmp_path / "moved"
    place.rename(moved)
    config = settings(made, run, **changes)
    config["data"].update(tokenizer=str(moved / "tokenizer.json"), sources=[{**sources[0], "path": f"{moved}/tokens"}])
    path = write_config(tmp_path / "c.yaml", config)
    (moved / "tokenizer.json").write_text((moved / "tokenizer.json").read_text() + " ")
    assert olmo("train", path) == 2  # another tokenizer
    assert '"data.tokenizer" is' in capsys.readouterr().err
    shutil.copyfile(made / "tokenizer.json", moved / "tokenizer.json")
    held = (moved / "tokens" / "b.npy").read_bytes()
    (moved / "tokens" / "b.npy").write_bytes(held[:-2] + b"\2\0")
    assert olmo("train", path) == 2  # other shards
    (moved / "tokens" / "b.npy").write_bytes(held)
    assert olmo("train", path) == 0
    weights = "checkpoints/step-12/model.safetensors"
    assert (run / weights).read_bytes() == (done / weights).read_bytes()


def test_a_finished_run_can_be_extended_if_its_rates_stay(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, status in (("constant", 0), ("cosine", 2)):
        changes = {"schedule__kind": kind, "validation": {}, "checkpoint": {}}
        config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / kind, **changes, train__steps=6))
        assert olmo("train", config) == 0
        capsys.readouterr()
        assert olmo("train", config, "train.steps=9") == status
    told = capsys.readouterr().err
    assert '"train.steps" is 9; expected 6' in told
    assert f"init_from={tmp_path / 'cosine'}/checkpoints/step-6 and init_moments=true" in told
    changes["schedule__kind"] = "constant"
    whole = settings(made, tmp_path / "whole", **changes, train__steps=9)
    assert olmo("train", write_config(tmp_path / "c.yaml", whole)) == 0
    weights = "checkpoints/step-9/model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "constant" / weights).read_bytes()
    shorter = settings(made, tmp_path / "constant", **changes, train__steps=4)
    assert olmo("train", write_config(tmp_path / "c.yaml", shorter)) == 2


def test_init_from_needs_the_shards_tokenizer(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert olmo("export", done / "checkpoints" / "step-12", model) == 0
    own = Tokenizer.from_file(str(model / "tokenizer.json"))
    content = json.loads(own.to_str())
    names = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"][names[-1]], content["model"]["vocab"][names[-2]] = len(names) - 2, len(names) - 1
    (model / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    (model / "manifest.json").unlink()
    changes = {"init_from": str(model), "validation": {}, "checkpoint": {}, "train__steps": 2}
    config = settings(made, tmp_path / "run", **changes)
    del config["model"]
    path = write_config(tmp_path / "c.yaml", config)
    for flags in ([], ["--dry-run"]):
        assert olmo("train", path, *flags) == 2
        told = capsys.readouterr().err
        assert (
            f"whose tokenizer differs from {made}/tokens/tokenizer.json (id {len(names) - 2} is {names[-1]!r}" in told
        )
        assert "init_tokenizer=other" in told
    assert olmo("train", path, "init_tokenizer=other") == 0
    assert not (tmp_path / "run" / "checkpoints" / "step-2" / "chat_template.jinja").exists()
    # one that is written differently but encodes the same is equal, and sidecar files are kept
    (model / "tokenizer.json").write_text(json.dumps(json.loads(own.to_str()), indent=7))
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "generation_config.json").write_text('{"eos_token_id": [0, 5], "temperature": 0.6}')
    assert olmo("train", path, f"output_dir={tmp_path / 'again'}") == 0
    written = tmp_path / "again" / "checkpoints" / "step-2"
    for name in ("chat_template.jinja", "generation_config.json"):
        assert (written / name).read_bytes() == (model / name).read_bytes()
    assert (written / "tokenizer.json").read_bytes() == (made / "tokenizer.json").read_bytes()


def test_moments_with_nan_are_refused(
    done: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guard sees a step's loss and gradient, not the moments: the weights would become NaN."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(done / "checkpoints" / "step-12", tmp_path / "model")
    path = tmp_path / "model" / "training" / "optimizer.safetensors"
    moments = load_file(path)
    moments["exp_avg.embedding"][3, 4] = math.nan
    save_file(moments, path)
    (tmp_path / "model" / "manifest.json").unlink()
    config = settings(made, tmp_path / "run", init_from=str(tmp_path / "model"), init_moments=True, validation={})
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 1
    assert '"exp_avg.embedding" contains NaN; expected numbers' in capsys.readouterr().err


def test_documents_that_start_with_bos_are_scored_after_it(made: Path, tmp_path: Path) -> None:
    """The checkpoint's own settings must lead its readers to the score of the training loop."""
    shutil.copytree(made, tmp_path / "made")
    tokens = tmp_path / "made" / "tokens"
    row = json.loads((tokens / "manifest.json").read_text())
    row["details"]["bos_token_id"] = 2
    write_json(tokens / "manifest.json", row)
    for name, prefix, config in (
        ("with", "bos", settings(tmp_path / "made", tmp_path / "with", train__steps=2)),
        ("without", "eos", settings(made, tmp_path / "without", train__steps=2)),
    ):
        assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
        found = inspect_checkpoint(tmp_path / name / "checkpoints" / "step-2")
        assert (found.document_prefix, found.starts_with_bos) == (prefix, prefix == "bos")
        assert found.special_token_id(prefix) == (2 if prefix == "bos" else 0)
    scores = [rows_of(tmp_path / name)[0]["eval/bpb"] for name in ("with", "without")]
    assert scores[0] != scores[1]


def test_dry_run_prints_what_a_run_would_do(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run"))
    assert olmo("train", config, "--dry-run", "--json", "train.steps=30") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["tokens"], plan["steps"], plan["micro_batches"]) == (30 * 4 * 16, 30, 2)
    assert plan["parameters"] - plan["parameters_without_embeddings"] == 384 * 16
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
def test_wandb_gets_the_rows_offline(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    changes = {"wandb__enabled": True, "train__steps": 2, "validation": {}, "checkpoint": {}}
    assert olmo("train", write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changes))) == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
