"""chat, inspect and mix, through the command."""

import io
import json

import pytest
import torch
from conftest import chat_rows, pair_rows, trainer, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def learned(checkpoint, tmp_path_factory):
    """A model that has memorized two chats."""
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Good day."}]},
        {
            "messages": [
                {"role": "system", "content": "Be loud."},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "GOOD DAY"},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "AGAIN"},
            ]
        },
    ]
    folder = tmp_path_factory.mktemp("learned")
    data = write_rows(folder / "learn.jsonl", rows)
    return trainer(folder, checkpoint)(
        "sft", data, "training.max_steps=120", "training.batch_sequences=2", "training.micro_batch_sequences=2"
    )


def _talk(monkeypatch, capsys, text: str, *arguments: str) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["chat", *arguments]) == 0
    return capsys.readouterr().out


def test_chat_answers_lines_from_a_pipe(learned, monkeypatch, capsys):
    greedy = [str(learned), "--temperature", "0", "--max-new-tokens", "40", "--device", "cpu"]
    assert _talk(monkeypatch, capsys, "hi\n", *greedy) == "Good day.\n"
    loud = _talk(monkeypatch, capsys, "hi\n\nhi\n", *greedy, "--system", "Be loud.")
    assert loud == "GOOD DAY\nAGAIN\n"  # the second line is the second turn
    assert _talk(monkeypatch, capsys, "hi\n/new\nhi\n", *greedy, "--system", "Be loud.") == "GOOD DAY\nGOOD DAY\n"
    drawn = [_talk(monkeypatch, capsys, "x\n", str(learned), "--seed", seed, "--temperature", "5") for seed in "001"]
    assert drawn[0] == drawn[1] != drawn[2]


def test_greedy_answer_is_the_most_likely_token_each_time(checkpoint, run, chats, monkeypatch, capsys):
    model_dir = run("sft", chats, "training.max_steps=1")
    answer = _talk(monkeypatch, capsys, "Why?\n", str(model_dir), "--temperature", "0", "--max-new-tokens", "6")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    ids = tokenizer.encode("<|user|>\nWhy?\n<|assistant|>\n", add_special_tokens=False)
    start = len(ids)
    for _ in range(6):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits[: len(tokenizer)].argmax()))  # padding rows are never said
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert answer == tokenizer.decode(ids[start:], skip_special_tokens=True) + "\n"


def test_file_of_chats_is_answered_row_by_row(learned, tmp_path, capsys):
    question = {"id": "q", "source": "s", "messages": [{"role": "user", "content": "hi"}]}
    answered = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello"}]}
    data = write_rows(tmp_path / "in.jsonl", [question, answered])
    greedy = ["--temperature", "0", "--max-new-tokens", "40"]
    assert main(["chat", str(learned), "--input", str(data), "--output", str(tmp_path / "out.jsonl"), *greedy]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["messages"][-1] for row in rows] == [{"role": "assistant", "content": "Good day."}] * 2
    assert [row["reference"] for row in rows] == [None, "Hello"]
    assert (rows[0]["id"], rows[0]["source"], rows[0]["ended"]) == ("q", "s", True)
    assert formats(["validate", "chat", str(tmp_path / "out.jsonl")]) == 0
    assert main(["chat", str(learned), "--input", str(data)]) == 2
    bad = write_rows(tmp_path / "bad.jsonl", [{"messages": [{"role": "robot", "content": "hi"}]}])
    assert main(["chat", str(learned), "--input", str(bad), "--output", "-"]) == 1
    assert f'{bad}:1: "messages.0.role" is "robot"' in capsys.readouterr().err


def test_conversation_that_is_too_long_loses_its_oldest_turns(learned, monkeypatch, capsys):
    text = "word " * 30 + "\n"
    out = _talk(monkeypatch, capsys, text * 6, str(learned), "--max-new-tokens", "8", "--temperature", "0")
    assert len(out.splitlines()) >= 6
    assert _talk(monkeypatch, capsys, "word " * 400 + "\n", str(learned), "--max-new-tokens", "8", "--temperature", "0")


def test_inspect_shows_counts_and_the_mask(checkpoint, chats, pairs, tmp_path, capsys):
    assert main(["inspect", str(chats), "--checkpoint", str(checkpoint()), "--row", "0"]) == 0
    out = capsys.readouterr().out
    assert "source a: 4 rows" in out
    assert "source b: 4 rows" in out
    assert "truncated: 0" in out
    tokens = [line.split("  ") for line in out.splitlines() if line[:6].strip().isdigit()]
    trained = "".join(eval(line.split("  T  ")[1]) for line in out.splitlines() if "  T  " in line)
    assert trained == "A sequence of items. 0<|endoftext|>"
    assert len(tokens) == int(out.split("tokens per row: 0% ")[1].split()[0]) or tokens
    assert main(["inspect", str(pairs), "--checkpoint", str(checkpoint()), "--row", "1"]) == 0
    assert "rejected:" in capsys.readouterr().out
    assert main(["inspect", str(chats), "--checkpoint", str(checkpoint()), "--row", "8"]) == 2
    assert main(["inspect", str(chats)]) == 2
    config = tmp_path / "c.yaml"
    config.write_text(
        f"model: {checkpoint()}\noutput_dir: o\ndata: {{train: [{chats}]}}\nsequence: {{max_length_tokens: 60}}\n"
    )
    capsys.readouterr()
    assert main(["inspect", str(config)]) == 0
    assert "truncated: 0" not in capsys.readouterr().out
    equal = pair_rows(2)
    equal[1]["rejected"] = equal[1]["chosen"]
    data = write_rows(tmp_path / "equal.jsonl", equal)
    config.write_text(f"data: {{train: [{data}], identical_answers: drop}}\nmodel: {checkpoint()}\noutput_dir: o\n")
    assert main(["inspect", str(config)]) == 0
    assert "1 rows, " in capsys.readouterr().out


def test_inspect_shows_trained_tokens_in_green(checkpoint, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl", chat_rows(1))
    command = ["inspect", str(data), "--checkpoint", str(checkpoint()), "--row", "0", "--color"]
    assert main([*command, "never"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert main([*command, "always"]) == 0
    colored = capsys.readouterr().out
    green = [line for line in colored.splitlines() if line.startswith("\x1b[32m")]
    assert len(green) == sum(line[17:18] == "T" for line in plain.splitlines()) > 0
    assert all("  T  " in line for line in green)


def test_mix_takes_exact_amounts_whatever_the_order(tmp_path, capsys):
    first = write_rows(tmp_path / "first.jsonl", chat_rows(10))
    second = write_rows(tmp_path / "second.jsonl", [{"messages": row["messages"]} for row in chat_rows(4)])
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    assert main(["mix", f"{first}=5", f"{second}=2.5", "--output-dir", str(one), "--seed", "7"]) == 0
    assert main(["mix", f"{second}=2.5", f"{first}=5", "--output-dir", str(two), "--seed", "7"]) == 0
    assert main(["mix", f"{first}=5", f"{second}=2.5", "--output-dir", str(other), "--seed", "8"]) == 0
    assert sha256_file(one / "manifest.json") == sha256_file(two / "manifest.json")
    assert sha256_file(one / "chat-0000.jsonl") != sha256_file(other / "chat-0000.jsonl")
    assert formats(["validate", "chat", str(one)]) == 0
    rows = [json.loads(line) for line in (one / "chat-0000.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row["source"] != "second"]) == 5
    copies = [
        sum(row["messages"] == want["messages"] and row["source"] == "second" for row in rows) for want in chat_rows(4)
    ]
    assert sorted(copies) == [2, 2, 3, 3]
    assert main(["mix", f"{first}=5", f"{second}=2.5", "--output-dir", str(one), "--seed", "7"]) == 0
    assert "already done" not in capsys.readouterr().out
    assert main(["mix", f"{first}=4", "--output-dir", str(one)]) == 2
    assert main(["mix", f"{first}=-4", "--output-dir", str(two)]) == 2


def test_mix_of_pairs(tmp_path):
    pairs = write_rows(tmp_path / "pairs.jsonl", pair_rows(6))
    assert main(["mix", f"{pairs}=0.5", "--output-dir", str(tmp_path / "out"), "--format", "preference"]) == 0
    assert formats(["validate", "preference", str(tmp_path / "out")]) == 0
    assert len((tmp_path / "out" / "preference-0000.jsonl").read_text().splitlines()) == 3
    assert main(["mix", str(pairs), "--output-dir", str(tmp_path / "wrong")]) == 1
