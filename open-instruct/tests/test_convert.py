"""Rows of every shape become the chats and pairs that they mean; bad rows are located, unusable ones counted."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from open_instruct.__main__ import main
from open_instruct.convert.shapes import SHAPES, detect
from open_instruct.formats.__main__ import main as formats

SHARED_DATA = os.environ.get("SHARED_DATA")
CALL = {"name": "clock", "arguments": {"zone": "UTC"}}
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "role": "prompter",
        "text": "q",
        "replies": [
            {"role": "assistant", "text": "good", "rank": 0, "replies": [{"role": "prompter", "text": "and?"}]},
            {"role": "assistant", "text": "bad", "rank": 1, "replies": []},
            {"role": "assistant", "text": "gone", "rank": 2, "deleted": True, "replies": []},
        ],
    },
}
# shape, row, what it becomes: `role: content` of each message
CHATS = [
    ("alpaca", {"instruction": "i", "input": "", "output": "o"}, ["user: i", "assistant: o"]),
    ("alpaca", {"instruction": "i", "input": "x", "output": "o"}, ["user: i\n\nx", "assistant: o"]),
    ("gpteacher", {"instruction": "i", "input": "x", "response": "o"}, ["user: i\n\nx", "assistant: o"]),
    ("dolly", {"instruction": "i", "context": "c", "response": "r", "category": "k"}, ["user: i\n\nc", "assistant: r"]),
    (
        "self-instruct",
        {"instruction": "i", "instances": [{"input": "x", "output": "o"}]},
        ["user: i\n\nx", "assistant: o"],
    ),
    (
        "unnatural",
        {"instruction": "i", "instances": [{"instruction_with_input": "i x", "input": "x", "output": "o"}]},
        ["user: i x", "assistant: o"],
    ),
    ("flan", {"inputs": "2+2", "targets": "4"}, ["user: 2+2\n", "assistant: 4"]),
    ("flan", {"inputs": "Answer:", "targets": "4"}, ["user: Answer:", "assistant: 4"]),
    ("science", {"dataset": "scierc", "input": "i", "output": "o"}, ["user: i", "assistant: o"]),
    ("hardcoded", {"prompt": "Who?", "output": "Me."}, ["user: Who?", "assistant: Me."]),
    (
        "open-orca",
        {"id": "1", "system_prompt": "s", "question": "q", "response": "r"},
        ["system: s", "user: q", "assistant: r"],
    ),
    ("open-orca", {"system_prompt": "", "question": "q", "response": "r"}, ["user: q", "assistant: r"]),
    ("lima", {"conversations": ["q", "a", "r"], "source": "stackexchange"}, ["user: q", "assistant: a"]),
    ("prompt-completion", {"prompt": "p", "completion": "c"}, ["user: p", "assistant: c"]),
    (
        "prompt-completion",
        {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]},
        ["user: p", "assistant: c"],
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
                {"from": "human", "value": "r"},
            ]
        },
        ["user: q", "assistant: a"],
    ),
    (
        "sharegpt",
        {
            "system": "s",
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": "{}"},
                {"from": "observation", "value": "12"},
                {"from": "gpt", "value": "a"},
            ],
        },
        ["system: s", "user: q", "assistant: <tool_call>\n{}\n</tool_call>", "tool: 12", "assistant: a"],
    ),
    (
        "messages",
        {
            "tools": [{"name": "clock"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "clock", "arguments": json.dumps(CALL["arguments"])}}],
                },
                {"role": "tool", "content": "12", "tool_call_id": "x"},
                {"role": "assistant", "content": "Noon", "reasoning_content": "Hm."},
            ],
        },
        [
            'system: <tools>\n[{"name": "clock"}]\n</tools>',
            "user: q",
            f"assistant: <tool_call>\n{json.dumps(CALL)}\n</tool_call>",
            "tool: 12",
            "assistant: <think>\nHm.\n</think>\n\nNoon",
        ],
    ),
    ("mt-bench", {"question_id": 1, "turns": ["q", "r"], "reference": ["a", ""]}, ["user: q", "assistant: a"]),
    (
        "hh-rlhf",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        ["user: q", "assistant: a"],
    ),
]
# shape, row, the question, the chosen and the rejected answer
PAIRS = [
    ("hh-rlhf", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}),
    (
        "ultrafeedback",
        {
            "instruction": "q",
            "completions": [{"response": "b", "overall_score": 2}, {"response": "a", "overall_score": 8.5}],
        },
    ),
    (
        "pandalm",
        {
            "instruction": "q",
            "input": "",
            "response1": "b",
            "response2": "a",
            "annotator1": 2,
            "annotator2": 0,
            "annotator3": 2,
        },
    ),
    (
        "sharegpt-pairs",
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
    ),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}),
    (
        "preference",
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
            "score_chosen": 9.0,
        },
    ),
]


def _write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _rows(directory: Path) -> list[dict]:
    return [json.loads(line) for file in directory.glob("*.jsonl") for line in file.read_text("utf-8").splitlines()]


def _dump(capsys, format: str, directory: Path) -> list[dict]:
    capsys.readouterr()
    assert formats(["validate", format, str(directory)]) == 0
    assert formats(["dump", format, str(directory)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]


@pytest.mark.parametrize(("shape", "row", "expected"), CHATS, ids=lambda value: value if isinstance(value, str) else "")
def test_row_becomes_a_chat(shape, row, expected, tmp_path, capsys):
    assert detect([row]) == shape
    assert main(["convert", str(_write(tmp_path / "set.jsonl", [row])), "--output-dir", str(tmp_path / "out")]) == 0
    (made,) = _dump(capsys, "chat", tmp_path / "out")
    assert [f"{message['role']}: {message['content']}" for message in made["messages"]] == expected
    assert made["id"]
    assert made["source"] == {"science": "science.scierc", "lima": "stackexchange"}.get(shape, "set")


@pytest.mark.parametrize(("shape", "row"), PAIRS, ids=lambda value: value if isinstance(value, str) else "")
def test_row_becomes_a_pair(shape, row, tmp_path, capsys):
    assert detect([row]) == shape
    data = _write(tmp_path / "set.jsonl", [row])
    assert main(["convert", str(data), "--to", "preference", "--output-dir", str(tmp_path / "out")]) == 0
    (made,) = _dump(capsys, "preference", tmp_path / "out")
    assert made["prompt"] == [{"role": "user", "content": "q"}]
    assert (made["chosen"], made["rejected"]) == ("a", "b")


def test_every_shape_has_an_example():
    shown = {shape for shape, *_ in [*CHATS, *PAIRS]} | {"oasst-tree", "sharegpt-conversation"}
    assert {id(SHAPES[name]) for name in SHAPES} == {id(SHAPES[name]) for name in shown}


def test_tree_becomes_its_paths_and_its_ranked_pairs(tmp_path):
    data = _write(tmp_path / "trees.jsonl", [TREE])
    for kind in ("chat", "preference"):
        assert main(["convert", str(data), "--to", kind, "--output-dir", str(tmp_path / kind)]) == 0
    answers = [row["messages"][-1]["content"] for row in _rows(tmp_path / "chat")]
    assert answers == ["good", "bad"]
    (pair,) = _rows(tmp_path / "preference")
    assert (pair["chosen"][-1]["content"], pair["rejected"][-1]["content"]) == ("good", "bad")


def test_json_array_parquet_and_compressed_lines_are_read_alike(tmp_path):
    rows = [{"instruction": f"é{number}", "input": None, "output": "o"} for number in range(3)]
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    made = []
    for name in ("array.json", "table.parquet", "lines.jsonl.gz"):
        output = tmp_path / f"{name}-out"
        assert main(["convert", str(tmp_path / name), "--source", "s", "--output-dir", str(output)]) == 0
        made.append([row["messages"] for row in _rows(output)])
    assert made[0] == made[1] == made[2]
    assert [messages[0]["content"] for messages in made[0]] == ["é0", "é1", "é2"]


def test_bad_rows_are_located_and_nothing_is_written(tmp_path, capsys):
    rows = [{"instruction": "i", "output": "o"}, {"instruction": "i"}, {"instruction": 3, "output": "o"}]
    data = _write(tmp_path / "set.jsonl", rows)
    data.write_text(data.read_text() + "{\n")
    code = main(["convert", str(data), "--from", "alpaca", "--output-dir", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == 1
    assert f'{data}:2: "output" is missing' in error
    assert f'{data}:3: "instruction" is a number; expected a string' in error
    assert f"{data}:4: " in error
    assert not (tmp_path / "out").exists()
    (tmp_path / "array.json").write_text(
        '[\n{"instruction": "i", "output": "o"},\n\n{"instruction": 1, "output": "o"}]'
    )
    assert main(["convert", str(tmp_path / "array.json"), "--from", "alpaca", "--output-dir", str(tmp_path / "o")]) == 1
    assert f'{tmp_path / "array.json"}:4: "instruction" is a number' in capsys.readouterr().err


def test_unusable_rows_are_counted_by_reason_and_written_aside(tmp_path, caplog):
    tie = {"instruction": "q", "response1": "a", "response2": "b", "annotator1": 0, "annotator2": 1, "annotator3": 2}
    equal = tie | {"response2": "a", "annotator1": 1}
    empty = tie | {"response2": "", "annotator1": 1}
    data = _write(tmp_path / "set.jsonl", [tie, equal, empty, tie, tie | {"annotator1": 1}])
    assert main(["convert", str(data), "--to", "preference", "--output-dir", str(tmp_path / "out")]) == 0
    assert "2 rows were left out: a tie" in caplog.text
    assert "1 rows were left out: two equal answers" in caplog.text
    assert "1 rows were left out: an empty message" in caplog.text
    aside = [json.loads(line) for line in (tmp_path / "out.dropped.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["line"]) for row in aside] == [
        ("a tie", 1),
        ("two equal answers", 2),
        ("an empty message", 3),
        ("a tie", 4),
    ]
    assert aside[1]["row"] == equal
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["details"]["rows_dropped"] == {"a tie": 2, "an empty message": 1, "two equal answers": 1}
    assert manifest["counts"] == {"pairs": 1}


def test_ghost_attention_trains_the_last_answer_of_a_chat_with_a_system_message(tmp_path, capsys):
    turns = [{"from": who, "value": who} for who in ("human", "gpt", "human", "gpt")]
    rows = [{"system": "Act as a cat.", "conversations": turns}, {"conversations": turns}]
    data = _write(tmp_path / "set.jsonl", rows)
    assert main(["convert", str(data), "--ghost-attention", "--output-dir", str(tmp_path / "out")]) == 0
    weights = [[one.get("weight") for one in row["messages"]] for row in _dump(capsys, "chat", tmp_path / "out")]
    assert weights == [[None, None, 0, None, None], [None] * 4]


@pytest.mark.parametrize(
    ("rows", "flags", "expected"),
    [
        ([{"text": "t"}], [], "rows with the keys text; expected one of the known shapes"),
        ([{"inputs": "a", "targets": "b"}], ["--from", "flam"], '--from: is "flam"; expected one of'),
        ([{"inputs": "a", "targets": "b"}], ["--to", "preference"], "rows of flan cannot become preference rows"),
    ],
)
def test_wrong_request_is_refused(rows, flags, expected, tmp_path, capsys):
    data = _write(tmp_path / "set.jsonl", rows)
    assert main(["convert", str(data), *flags, "--output-dir", str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err


class _Hub(BaseHTTPRequestHandler):
    """The three answers of the Hub that a download needs."""

    content = b'{"instruction": "i", "output": "from the hub"}\n'

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        sha = "a" * 40
        content = self.content
        if "/resolve/" not in self.path:
            files = [{"rfilename": "data/train.jsonl"}, {"rfilename": "model.bin"}]
            content = json.dumps({"id": "them/set", "sha": sha, "siblings": files}).encode()
            if "/tree/" in self.path:
                entry = {"type": "file", "path": "data/train.jsonl", "size": len(self.content), "oid": "b" * 40}
                content = json.dumps([entry]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"' + "c" * 40 + '"')
        self.send_header("X-Repo-Commit", sha)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def test_data_set_of_the_hub_is_downloaded_if_asked(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    command = ["-m", "open_instruct", "convert", "--hub", "them/set", "--output-dir", str(tmp_path / "out")]
    try:
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **names, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    (row,) = _rows(tmp_path / "out")
    assert row["messages"][1]["content"] == "from the hub"


# file of SHARED_DATA/sft -> shape, format, rows, rows left out
REAL = {
    "dummy_conversation.json": ("chat", 500, 0),
    "gpteacher_codegen.jsonl.gz": ("chat", 2500, 0),
    "gpteacher_roleplay.jsonl.gz": ("chat", 1200, 0),
    "hh_rlhf_harmless.jsonl.gz": ("preference", 1196, 4),
    "mt_bench_question.jsonl": ("chat", 38, 42),
    "oasst_en_messages.jsonl.gz": ("chat", 403, 0),
    "oasst_en_preferences.jsonl.gz": ("preference", 311, 0),
    "oasst_en_trees.jsonl.gz": ("chat", 403, 0),
    "pandalm_pairs.jsonl.gz": ("preference", 532, 58),
    "seed_tasks.jsonl": ("chat", 175, 0),
}


@pytest.mark.skipif(SHARED_DATA is None, reason="SHARED_DATA is not set")
@pytest.mark.parametrize("name", REAL)
def test_published_file_is_converted(name, tmp_path, capsys):
    kind, kept, left_out = REAL[name]
    data = Path(str(SHARED_DATA)) / "sft" / name
    assert main(["convert", str(data), "--to", kind, "--output-dir", str(tmp_path / "out")]) == 0
    assert len(_dump(capsys, kind, tmp_path / "out")) == kept
    aside = tmp_path / "out.dropped.jsonl"
    assert len(aside.read_text("utf-8").splitlines() if left_out else []) == left_out
    assert aside.exists() == bool(left_out)


@pytest.mark.skipif(SHARED_DATA is None, reason="SHARED_DATA is not set")
@pytest.mark.parametrize(("kind", "theirs"), [("chat", "messages"), ("preference", "preferences")])
def test_trees_become_the_published_rows(kind, theirs, tmp_path):
    folder = Path(str(SHARED_DATA)) / "sft"
    trees = folder / "oasst_en_trees.jsonl.gz"
    assert main(["convert", str(trees), "--to", kind, "--output-dir", str(tmp_path / "out")]) == 0
    with gzip.open(folder / f"oasst_en_{theirs}.jsonl.gz", "rt", encoding="utf-8") as stream:
        expected = [json.loads(line) for line in stream]
    keys = ("messages",) if kind == "chat" else ("chosen", "rejected")

    def plain(rows: list[dict]) -> set[str]:
        return {json.dumps([row[key] for key in keys], sort_keys=True) for row in rows}

    assert plain(_rows(tmp_path / "out")) == plain(expected)
