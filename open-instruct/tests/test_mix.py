"""mix: mixtures in YAML, seeds of sources, the table, and decontamination."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import chat_rows, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from open_instruct.mix import _parse_source

MIXTURES = sorted((Path(__file__).parents[1] / "configs" / "mixtures").glob("*.yaml"))
QUESTION = "If a train leaves the station at noon and travels sixty miles each hour, when does it arrive?"


def _chat(question: str, **more: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}], **more}


def _rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "chat-0000.jsonl").read_text("utf-8").splitlines()]


def test_mixture_in_a_file_is_the_one_of_the_command_line(tmp_path):
    first, second = (write_rows(tmp_path / name, chat_rows(6)) for name in ("a.jsonl", "b.jsonl"))
    entries = [f"{first}=3", f"{second}=1.5"]
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"sources": entries}))
    assert main(["mix", str(tmp_path / "mix.yaml"), "--output-dir", str(tmp_path / "one")]) == 0
    assert main(["mix", *entries, "--output-dir", str(tmp_path / "two")]) == 0
    assert sha256_file(tmp_path / "one" / "manifest.json") == sha256_file(tmp_path / "two" / "manifest.json")


def test_seed_of_a_source_changes_its_choice_only(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [_chat(f"a{n}") for n in range(40)])
    second = write_rows(tmp_path / "b.jsonl", [_chat(f"b{n}") for n in range(40)])
    chosen = []
    for number, entry in enumerate([f"{first}=0.5", f"{first}=0.5@1", f"{first}=0.5@2"]):
        output = tmp_path / str(number)
        assert main(["mix", entry, f"{second}=20", "--output-dir", str(output)]) == 0
        texts = [row["messages"][0]["content"] for row in _rows(output)]
        chosen.append([{text for text in texts if text[0] == letter} for letter in "ab"])
    assert chosen[0][1] == chosen[1][1] == chosen[2][1]
    assert chosen[0][0] != chosen[1][0] != chosen[2][0]
    assert all(len(one) == 20 for pair in chosen for one in pair)


def test_table_counts_rows_and_tokens_of_each_source(checkpoint, tmp_path, caplog, capsys):
    data = write_rows(tmp_path / "a.jsonl", chat_rows(4))
    caplog.set_level("INFO")
    flags = ["--checkpoint", str(checkpoint()), "--template", "tulu"]
    assert main(["mix", f"{data}=2.0", "--output-dir", str(tmp_path / "out"), *flags]) == 0
    (line,) = [one for one in caplog.messages if str(data) in one and " 8 " in one]
    assert main(["inspect", str(tmp_path / "out" / "chat-0000.jsonl"), *flags]) == 0
    counted = [one for one in capsys.readouterr().out.splitlines() if one.startswith("source ")]
    words = " ".join(counted).replace(",", "").split()
    for name, value in zip(("tokens", "trained"), line.split()[-2:], strict=True):
        assert int(value) == sum(int(words[index - 1]) for index, word in enumerate(words) if word == name)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"id": "1", "text": f"Question: {QUESTION} Answer: four"},
        _chat(QUESTION),
        {"turns": [QUESTION]},
        {"question": QUESTION},
    ],
    ids=["document", "chat", "turns", "question"],
)
def test_rows_that_repeat_an_evaluation_are_removed_and_reported(evaluation, tmp_path, caplog):
    near = "Please help: " + QUESTION.upper().replace(",", " ")
    far = "If a train leaves the station at midnight and the driver sleeps, who is to blame for it all?"
    data = write_rows(tmp_path / "a.jsonl", [_chat(near), _chat(far), _chat("Hi")])
    held_out = write_rows(tmp_path / "eval.jsonl", [evaluation])
    command = ["mix", f"{data}=1.0", "--decontaminate", str(held_out), "--output-dir", str(tmp_path / "out")]
    assert main(command) == 0
    assert {row["messages"][0]["content"] for row in _rows(tmp_path / "out")} == {far, "Hi"}
    assert "1 rows repeat eval.jsonl and were removed" in caplog.text
    (report,) = [json.loads(line) for line in (tmp_path / "out.contaminated.jsonl").read_text().splitlines()]
    assert (report["evaluation"], report["line"], report["row"]["messages"][0]["content"]) == ("eval.jsonl", 1, near)
    assert report["overlap"] >= 0.9
    assert formats(["validate", "chat", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["details"]["rows_contaminated"] == 1


def test_short_prompt_is_removed_only_if_it_is_the_whole_question(tmp_path):
    data = write_rows(tmp_path / "a.jsonl", [_chat("Who are you?"), _chat("Who are you, and why?")])
    held_out = write_rows(tmp_path / "eval.jsonl", [{"question": "who ARE you"}])
    command = ["mix", str(data), "--decontaminate", str(held_out), "--output-dir", str(tmp_path / "out")]
    assert main(command) == 0
    assert [row["messages"][0]["content"] for row in _rows(tmp_path / "out")] == ["Who are you, and why?"]


@pytest.mark.parametrize("path", MIXTURES, ids=lambda path: path.stem)
def test_shipped_mixture_is_readable(path):
    sources = [_parse_source(text) for text in yaml.safe_load(path.read_text())["sources"]]
    assert len({source.name for source in sources}) == len(sources)
    assert sum(source.count or 0 for source in sources) > 100_000
