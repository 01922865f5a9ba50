"""Verifiers against known answers and hostile ones."""

import pytest
from conftest import write_rows
from open_instruct.data import BadRows
from open_instruct.verifiers.mathematics import final_answer, is_same
from open_instruct.verifiers.prompts import read_prompts
from open_instruct.verifiers.table import VERIFIERS, make_verifier

WORDS = {"instruction_id_list": ["punctuation:no_comma", "keywords:existence"], "kwargs": [{}, {"keywords": ["sea"]}]}


@pytest.mark.parametrize(
    ("name", "truth", "answer", "score"),
    [
        ("gsm8k", "72", "48 + 24 = 72 clips.", 1),
        ("gsm8k", "She sold 24.\n#### 1,072", "In all $1072.00", 1),
        ("gsm8k", 5, "5", 1),
        ("gsm8k", "-3", "it is -3", 1),
        ("gsm8k", "72", "first 72, then 27", 0),
        ("gsm8k", "72", "seventy-two", 0),
        ("gsm8k", "72", "\u0667\u0662", 0),
        ("gsm8k", "1", "nan", 0),
        ("math", "\\frac{1}{2}", "So \\boxed{\\dfrac12}.", 1),
        ("math", "we get \\boxed{0.5}", "The final answer is 1/2.", 1),
        ("math", "1000", "\\boxed{1{,}000} or \\boxed{1,000}", 1),
        ("math", "10", "\\boxed{10\\text{ cm}^2}", 1),
        ("math", "x=5", "\\boxed{5}", 1),
        ("math", "90", "$\\boxed{90^\\circ}$", 1),
        ("math", "\\text{Evelyn}", "\\boxed{Evelyn}", 1),
        ("math", "2\\sqrt{3}", "\\boxed{2\\sqrt3}", 1),
        ("math", "(3, \\frac{\\pi}{2})", "\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", 1),
        ("math", "-\\frac{3}{4}", "\\boxed{-0.75}", 1),
        ("math", "5", "\\boxed{6} or 5", 0),
        ("math", "5", "5", 0),
        ("math", "5", "\\boxed{5", 0),
        ("math", "5", "\\boxed{\\frac{5}{0}}", 0),
        ("math", "5", "\\boxed{}", 0),
        ("exact_match", "Paris", "  Paris\n", 1),
        ("exact_match", ["Paris", "in Paris"], "in  Paris", 1),
        ("exact_match", "Paris", "paris", 0),
        ("f1", "the cat sat", "A cat sat down!", 0.8),
        ("f1", ["dog", "cat"], "the Cat", 1),
        ("f1", "cat", "dog", 0),
        ("f1", "a cat cat", "cat", pytest.approx(2 / 3)),
        ("regex", "^[0-9]{4}$", "2024", 1),
        ("regex", "^[0-9]{4}$", "in 2024", 0),
        ("think", None, "<think>hm</think> 4", 1),
        ("think", None, "<think></think> 4", 0),
        ("think", None, "<think>hm</think>", 0),
        ("think", None, "4 <think>hm</think>", 0),
        ("think", None, "<think>a</think>b</think>c", 0),
        ("ifeval", WORDS, "The sea is calm.", 1),
        ("ifeval", WORDS, "Calm, the sea.", 0.5),
        ("ifeval", WORDS, "", 0),
    ],
)
def test_known_answers(name, truth, answer, score):
    assert make_verifier(name, truth)(answer) == score


TRUTHS = {"gsm8k": "72", "math": "72", "ifeval": WORDS, "exact_match": "72", "f1": "72", "regex": "^72$", "think": None}
HOSTILE = [
    "",
    " \n\t",
    "\0",
    "NaN",
    "inf",
    "9" * 100_000,
    "1," * 50_000,
    "{" * 100_000,
    "\\boxed{" * 20_000,
    "\\boxed" * 20_000,
    "\\boxed{" + "\\frac" * 20_000 + "}",
    "\\boxed{" + "9" * 5_000 + "}",
    "\\boxed{" + "9" * 90 + "/" + "7" * 9 + "}",
    "\\boxed{9^{9^{9^{9}}}}",
    "<think>" * 20_000,
    "answer is " * 20_000,
    "\u0663\uff14\u00b2\u2167",
    "\ud800",
    "٧٢",
    "a\u0301" * 10_000,
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", list(VERIFIERS))
def test_hostile_answers_have_a_score_soon(name):
    score = make_verifier(name, TRUTHS[name])
    for answer in HOSTILE:
        # following an instruction such as "no comma" is no accident of these texts
        assert 0 <= score(answer) <= (0.5 if name == "ifeval" else 0), answer[:40]


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("gsm8k", "none"),
        ("gsm8k", None),
        ("gsm8k", True),
        ("math", " "),
        ("exact_match", []),
        ("f1", "the"),
        ("regex", "("),
        ("think", "yes"),
        ("ifeval", "no commas"),
        ("ifeval", {"instruction_id_list": ["made:up"], "kwargs": [{}]}),
        ("ifeval", {"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}),
        ("ifeval", {"instruction_id_list": ["keywords:existence"], "kwargs": []}),
        ("unknown", "1"),
    ],
)
def test_truth_that_does_not_fit_is_an_error(name, truth):
    with pytest.raises(ValueError, match="expected"):
        make_verifier(name, truth)


def test_final_answers():
    assert final_answer("\\boxed{1} then \\boxed{\\frac{1}{{2}}}") == "\\frac{1}{{2}}"
    assert final_answer("\\boxed 7$.") == "7"
    assert final_answer("The answer is: 4.") == "4"
    assert final_answer("4") is None
    assert not is_same("9" * 2000, "9" * 2001)
    assert is_same("9" * 2000, "9" * 2000)


def test_prompts_name_their_verifier(tmp_path):
    ask = [{"role": "user", "content": "2 + 2?"}]
    answered = [*ask, {"role": "assistant", "content": "It is four."}]
    rows = [
        {"messages": ask, "verifier": "gsm8k", "ground_truth": "4"},
        {"messages": answered, "verifier": ["gsm8k", "think"], "ground_truth": ["4", None]},
    ]
    found = read_prompts([str(write_rows(tmp_path / "a.jsonl", rows))], "data", judged=True)
    assert [list(one.messages) for one in found] == [ask, ask]
    assert [one.score("4") for one in found] == [1, 0.5]

    bad = [
        {"messages": ask},
        {"messages": ask, "verifier": "gsm9k", "ground_truth": "4"},
        {"messages": ask, "verifier": "gsm8k", "ground_truth": "four"},
        {"messages": ask, "verifier": ["gsm8k"], "ground_truth": "4"},
        {"messages": ask, "verifier": 3},
        {"messages": [], "verifier": "think"},
    ]
    path = write_rows(tmp_path / "b.jsonl", bad)
    with pytest.raises(BadRows) as error:
        read_prompts([str(path)], "data", judged=True)
    for line in range(1, 7):
        assert f"b.jsonl:{line}" in str(error.value)
    assert "does not fit the verifier gsm8k; expected a text with a number" in str(error.value)
    assert read_prompts([str(write_rows(tmp_path / "c.jsonl", bad[:1]))], "data", judged=False)[0].score is None
