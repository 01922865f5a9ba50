"""Scores of generated text, and the sandbox of generated programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.formats.contract import ConfigError
from catwalk.generation import METRICS, drop_f1, exact_match, extract_answer, f1, judge
from catwalk.sandbox import run_program
from catwalk.tasks import TASKS


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


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("while True: pass", "not finished"),
        ("x = bytearray(4 << 30)", "MemoryError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "not allowed"),
        ("import os; os.system('true')", "not allowed"),
        ("open('big', 'wb').write(b'x' * (4 << 20))", ""),
        ("files = [open(str(n), 'w') for n in range(100)]", "Too many open files"),
        (
            "import os; assert os.listdir('.') == ['program.py']; raise SystemExit(3)",
            "",
        ),
    ],
)
def test_limits_of_the_sandbox(source: str, expected: str) -> None:
    outcome = run_program(source, time_s=1.5)
    assert not outcome.passed
    assert expected in outcome.message


def test_a_harmless_program_passes() -> None:
    assert run_program("import json, math, collections; open('x', 'w').write('y')").passed


def test_a_generation_task_is_run_and_verified(build_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = ["--model", str(build_checkpoint("llama")), "--tasks", "passkey", "--limit", "3"]
    assert main(["run", *arguments, "--output-dir", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert '"exact_match"' in json.dumps(results["tasks"])
