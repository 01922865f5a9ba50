"""The demo's own steps: stages that resume, chats from functions, strict reading of a user's corpus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
sys.path.insert(0, str(DEMO))

import chats  # noqa: E402
import gather  # noqa: E402
import run  # noqa: E402
import stage  # noqa: E402
import tables  # noqa: E402
from artifact import Artifact, file_hash, read_documents  # noqa: E402

WRITE = """
import pathlib, sys, time
sys.path.insert(0, {demo!r})
from artifact import Artifact
out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
with open("calls", "a") as file:
    file.write(sys.argv[2] + "\\n")
time.sleep(float(sys.argv[3]))
artifact = Artifact(out, "table")
artifact.write_bytes("value", sys.argv[2].encode())
artifact.finish(config={{}}, counts={{}})
"""


@pytest.fixture
def place(tmp_path: Path) -> stage.Workplace:
    here = tmp_path / "demo"
    (here / "configs").mkdir(parents=True)
    (here / "configs" / "a.yaml").write_text("x: 1\n")
    (here / "write.py").write_text(WRITE.format(demo=str(DEMO)))
    return stage.Workplace(tmp_path / "work", here, workers=2)


def step(
    place: stage.Workplace, value: str, *, pause_s: float = 0.0, inputs: tuple[str, ...] = (), name: str = "first"
) -> stage.Stage:
    command = place.script("write.py", name, value, pause_s)
    return stage.Stage(name, [command], inputs=list(inputs), outputs=[name], configs=["a.yaml"])


def calls(place: stage.Workplace) -> list[str]:
    return (place.directory / "calls").read_text().split()


def test_stage_is_done_once_and_not_again(place: stage.Workplace) -> None:
    assert not place.is_done(step(place, "one"))
    place.perform(step(place, "one"))
    assert place.is_done(step(place, "one"))
    assert calls(place) == ["one"]


def test_stage_is_redone_when_its_command_setting_input_or_output_changes(place: stage.Workplace) -> None:
    place.perform(step(place, "one"))
    second = step(place, "two", inputs=("first",), name="second")
    place.perform(second)
    assert place.is_done(second)
    place.perform(step(place, "other"))
    assert not place.is_done(second), "an input has another identity"
    assert not place.is_done(step(place, "one")), "the command differs"
    place.perform(second)
    (place.here / "configs" / "a.yaml").write_text("x: 2\n")
    assert not place.is_done(second), "a setting differs"
    place.perform(second)
    (place.directory / "second" / "manifest.json").unlink()
    assert not place.is_done(second), "the output is not whole"


def test_time_left_includes_the_stages_that_read_a_changed_output(place: stage.Workplace) -> None:
    plan = [step(place, "one"), step(place, "two", inputs=("first",), name="second"), step(place, "x", name="third")]
    for each in plan:
        place.perform(each)
    assert run.to_do(place, plan) == []
    plan[0] = step(place, "other")
    assert run.to_do(place, plan) == plan[:2]


def test_time_left_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    assert run.pace(20, 20, threads=0) == 1
    assert run.pace(4, 16, threads=0) < 1.2, "a short stage was four times slower"
    assert run.pace(0, 0, threads=6) == 4, "eight threads on two cores"
    assert run.pace(200, 400, threads=0) > 1.7, "long stages decide"
    assert [run.minutes(seconds) for seconds in (20, 70, 290)] == ["less than a minute", "about 1 min", "about 5 min"]


def test_worker_count_is_not_part_of_a_stage(place: stage.Workplace) -> None:
    def with_workers(count: int) -> stage.Stage:
        return stage.Stage(
            "first", [place.script("write.py", "first", "one", 0, "--processes", count)], outputs=["first"]
        )

    assert place.key(with_workers(1)) == place.key(with_workers(4))


def test_failing_command_and_missing_manifest_are_failures(place: stage.Workplace) -> None:
    with pytest.raises(stage.Failed, match="exited with 3"):
        place.perform(stage.Stage("bad", [[sys.executable, "-c", "raise SystemExit(3)"]], outputs=["bad"]))
    with pytest.raises(stage.Failed, match=r"no manifest\.json"):
        place.perform(stage.Stage("empty", [[sys.executable, "-c", ""]], outputs=["empty"]))


def test_partial_output_stays_after_a_kill_and_goes_when_the_work_changes(
    place: stage.Workplace, tmp_path: Path
) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import sys; sys.path[:0] = [{str(DEMO)!r}]\nimport stage, pathlib\n"
        f"p = stage.Workplace(pathlib.Path({str(place.directory)!r}), pathlib.Path({str(place.here)!r}), 2)\n"
        "command = p.script('write.py', 'first', 'one', 30.0)\n"
        "p.perform(stage.Stage('first', [command], outputs=['first'], configs=['a.yaml']))\n"
    )
    process = subprocess.Popen([sys.executable, str(driver)], start_new_session=True)
    deadline = time.monotonic() + 20
    while not (place.directory / "calls").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (place.directory / "first" / "half").write_text("left by the killed run")
    same = step(place, "one", pause_s=30.0)
    begun = json.loads((place.stamps / "first.begun").read_text())
    assert begun["key"] == place.key(same)
    place.perform(step(place, "one", pause_s=0.0))
    assert not (place.directory / "first" / "half").exists(), "another command: what the old one left is removed"


def test_gathered_documents_are_equal_twice_and_say_where_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "MAX_DOMAINS", 2)
    gather.gather(tmp_path / "a")
    gather.gather(tmp_path / "b")
    manifests = [(tmp_path / name / "documents" / "manifest.json").read_bytes() for name in "ab"]
    assert manifests[0] == manifests[1]
    manifest = json.loads(manifests[0])
    assert manifest["counts"]["documents"] == len(manifest["inputs"]) > 20
    rows = list(read_documents(tmp_path / "a" / "documents" / "docs" / "docs-0000.jsonl.gz"))
    assert {row["metadata"]["subdomain"] for row in rows} >= {"python"}
    code = list(read_documents(tmp_path / "a" / "documents" / "code" / "code-0000.jsonl.gz"))
    assert not {row["metadata"]["path"] for row in rows} & {row["metadata"]["path"] for row in code}


def test_corpus_with_a_row_that_is_not_a_document_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "x"}\n{"id": "2", "text": 3}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: .text. is missing or not a string"):
        gather.adopt([str(tmp_path / "a.jsonl")], tmp_path / "out")
    assert not (tmp_path / "out" / "documents" / "manifest.json").exists()


def test_functions_become_questions_with_their_docstrings() -> None:
    text = 'def area(width, height=2):\n    """Return the area of a rectangle in square metres.\n\n    More.\n    """\n'
    found = list(chats.function_pairs({"id": "m", "text": text, "metadata": {"subdomain": "shapes"}}))
    question = "What does this function of shapes do?\n\ndef area(width, height=2)"
    assert found == [("m:area:1", question, "Return the area of a rectangle in square metres.")]
    assert list(chats.function_pairs({"id": "m", "text": "no python at all ("})) == []


def test_prose_becomes_questions_about_how_it_continues() -> None:
    text = "The first sentence of a paragraph stands here. And this is how the text goes on after it."
    assert list(chats.continuation_pairs({"id": "m", "text": text})) == [
        (
            "m:0",
            "How does this text go on?\n\nThe first sentence of a paragraph stands here.",
            "And this is how the text goes on after it.",
        )
    ]


def test_chats_and_preferences_follow_their_formats_and_held_out_answers_are_new(tmp_path: Path) -> None:
    for name, numbers in (("train", range(260)), ("heldout", range(255, 300))):
        artifact = Artifact(tmp_path / name, "document")
        text = "".join(f'def f{i}(x):\n    """Return the number {i} added to x, as an integer."""\n' for i in numbers)
        artifact.write_lines(
            "a.jsonl.gz", [{"id": "m", "text": text, "source": "code", "metadata": {"subdomain": "p"}}]
        )
        artifact.finish(config={}, counts={"documents": 1, "text_bytes": len(text)})
    chats.main(tmp_path / "out", tmp_path / "train", tmp_path / "heldout")
    for kind, split in [(kind, split) for kind in ("chat", "preference") for split in ("train", "heldout")]:
        directory = tmp_path / "out" / {"chat": "chats", "preference": "preferences"}[kind] / split
        command = [sys.executable, "-m", "open_instruct.formats", "validate", kind, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/chats/heldout/chats.jsonl").read_text().splitlines()]
    assert len(rows) == 40, "the five functions that training has too are left out"
    first = file_hash(tmp_path / "out/preferences/train/preferences.jsonl")
    chats.main(tmp_path / "again", tmp_path / "train", tmp_path / "heldout")
    assert file_hash(tmp_path / "again/preferences/train/preferences.jsonl") == first


def test_rule_names_are_readable() -> None:
    rule = '.source != "code" and (.attributes.rules__gopher_v2__word_count[0][2] // 0) < 30'
    assert tables.rule_name(rule) == "gopher v2: word count < 30"
    assert tables.rule_name("(.attributes.duplicates | length) > 0") == "duplicates > 0"
    assert tables.rule_name("$.attributes.rules__pii_regex_v3__EMAIL_ADDRESS") == "pii regex v3: EMAIL ADDRESS"
