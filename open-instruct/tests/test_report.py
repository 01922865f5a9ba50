"""What a run says about itself: the dry run before it, its page, and loggers on request."""

import re

import pytest
from conftest import chat_rows, pair_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.manifest import read_manifest

# peft asks transformers under an old name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def _plan(text: str) -> dict[str, list[int]]:
    """The whole numbers of each line."""
    lines = dict(re.split(r"\s\s+", line, maxsplit=1) for line in text.splitlines())
    return {name: [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", rest)] for name, rest in lines.items()}


def test_dry_run_says_what_the_run_then_does(run, chats, capsys):
    more = ["training.max_steps=null", "training.num_epochs=2", "training.batch_sequences=4"]
    more += ["training.micro_batch_sequences=4", "sequence.packing=true", "sequence.max_length_tokens=100"]
    output = run("sft", chats, *more, "--dry-run", "--tokens-per-s", "100")
    assert not output.exists()
    assert not output.with_name(output.name + ".partial").exists()
    plan = _plan(capsys.readouterr().out)
    done = run("sft", chats, *more)
    rows = read_metrics(done)
    manifest = read_manifest(done)
    assert plan["rows"] == [8, 0]
    assert plan["tokens"][0] * 2 == manifest.details["tokens_seen"]
    assert plan["steps"][0] == rows[-1]["step"] == manifest.details["step"]
    assert plan["parameters"] == [manifest.counts["parameters"]] * 2
    assert "time" in plan


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_dry_run_counts_adapters_and_loads_no_weights(run, chats, pairs, stage, capsys, monkeypatch):
    monkeypatch.setattr("open_instruct.train.load_model", None)
    run(stage, chats if stage == "sft" else pairs, "lora.rank=2", "--dry-run")
    total, trained = _plan(capsys.readouterr().out)["parameters"]
    assert 0 < trained < total / 4


def test_pace_needs_a_dry_run(run, chats, capsys):
    run("sft", chats, "--tokens-per-s", "100", expect=2)
    assert "--tokens-per-s: expected a number above 0, with --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_run_has_a_page_without_scripts_or_addresses(run, tmp_path, stage):
    rows = chat_rows(9) if stage == "sft" else pair_rows(9)
    rows[0]["source"] = "<b>mine</b>"
    data = write_rows(tmp_path / "d.jsonl", rows)
    output = run(stage, data, f"data.eval=[{data}]", "training.eval_every_steps=1")
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|https?://(?!www\.w3\.org)", page)
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert page.count("<figure>") >= 4
    assert "prefers-color-scheme: dark" in page
    assert f"{read_metrics(output)[0]['eval/loss']:.5g}" in page
    assert "learning_rate: 0.01" in page
    # it is not part of the artifact, whose bytes are reproducible
    assert "report.html" not in {entry["path"] for entry in read_manifest(output).files}


def test_tensorboard_gets_the_losses_on_request(run, chats):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = run("sft", chats, "training.report_to=[tensorboard]")
    logged = EventAccumulator(str(output.with_name(output.name + ".tensorboard")))
    logged.Reload()
    losses = [event.value for event in logged.Scalars("train/loss")]
    assert losses == pytest.approx([row["train/loss"] for row in read_metrics(output)], abs=1e-5)


def test_a_logger_that_is_not_installed_is_named(run, chats, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run("sft", chats, "training.report_to=[wandb]", expect=2)
    assert "the package wandb is not installed" in capsys.readouterr().err
    assert main(["sft", "absent.yaml"]) == 2
