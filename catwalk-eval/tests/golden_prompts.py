"""Three made-up rows per task in the original fields, with their prompts written by hand: (row, contexts,
continuations, label). `contexts` is one text for all choices, or a list with one per choice."""

from typing import Any

__all__ = ["GOLDEN"]

Case = tuple[dict[str, Any], str | list[str], list[str], int]


def _lettered(question_field: str, id: str, question: str, texts: list[str], key: str, letters: str) -> dict[str, Any]:
    return {
        "id": id,
        question_field: question,
        "choices": {"text": texts, "label": list(letters)},
        "answerKey": key,
        "question_concept": "x",
    }


_SCIENCE = [
    (
        _lettered("question", "r-1", "What melts ice?", ["heat", "shade"], "A", "AB"),
        "Question: What melts ice?\nAnswer:",
        [" heat", " shade"],
        0,
    ),
    (
        _lettered("question", "r-2", "Which is a gas?", ["iron", "air", "salt", "sand"], "2", "1234"),
        "Question: Which is a gas?\nAnswer:",
        [" iron", " air", " salt", " sand"],
        1,
    ),
    (
        _lettered("question", "r-3", "Two lines:\nwhich?", ["a b", "c", "d"], " C ", "ABC"),
        "Question: Two lines:\nwhich?\nAnswer:",
        [" a b", " c", " d"],
        2,
    ),
]

GOLDEN: dict[str, list[Case]] = {
    "arc_easy": _SCIENCE,
    "arc_challenge": _SCIENCE,
    "commonsense_qa": _SCIENCE,
    "openbookqa": [
        (
            _lettered("question_stem", "o-1", "Plants need", ["light", "noise"], "A", "AB"),
            "Plants need",
            [" light", " noise"],
            0,
        ),
        (
            _lettered("question_stem", "o-2", "A shadow is cast when", ["light is blocked", "it rains"], "B", "AB"),
            "A shadow is cast when",
            [" light is blocked", " it rains"],
            1,
        ),
        (
            _lettered("question_stem", "o-3", "Which bends?", ["Rubber", "Glass", "Stone"], "A", "ABC"),
            "Which bends?",
            [" Rubber", " Glass", " Stone"],
            0,
        ),
    ],
    "boolq": [
        (
            {"passage": "Tea is a drink.", "question": "is tea a drink", "answer": True},
            "Tea is a drink.\nQuestion: is tea a drink?\nAnswer:",
            [" yes", " no"],
            0,
        ),
        (
            {"passage": "(Old) text.", "question": "can stones swim", "answer": False},
            "(Old) text.\nQuestion: can stones swim?\nAnswer:",
            [" yes", " no"],
            1,
        ),
        (
            {"passage": "One.\nTwo.", "question": "are there two", "answer": True},
            "One.\nTwo.\nQuestion: are there two?\nAnswer:",
            [" yes", " no"],
            0,
        ),
    ],
    "copa": [
        (
            {
                "premise": "The cup fell.",
                "choice1": "It broke.",
                "choice2": "It sang.",
                "question": "effect",
                "label": 0,
            },
            "The cup fell therefore",
            [" it broke.", " it sang."],
            0,
        ),
        (
            {"premise": "I slept. ", "choice1": "I was tired.", "choice2": "A B.", "question": "cause", "label": 1},
            "I slept because",
            [" i was tired.", " a B."],
            1,
        ),
        (
            {"premise": "Rain fell!", "choice1": "Éa.", "choice2": "x", "question": "cause", "label": 0},
            "Rain fell because",
            [" éa.", " x"],
            0,
        ),
    ],
    "piqa": [
        (
            {"goal": "cut bread", "sol1": "use a knife", "sol2": "use a pillow", "label": 0},
            "Question: cut bread\nAnswer:",
            [" use a knife", " use a pillow"],
            0,
        ),
        (
            {"goal": "How to dry?", "sol1": "Wet it.", "sol2": "Sun it.", "label": 1},
            "Question: How to dry?\nAnswer:",
            [" Wet it.", " Sun it."],
            1,
        ),
        (
            {"goal": "a", "sol1": "b c", "sol2": "b d", "label": 1},
            "Question: a\nAnswer:",
            [" b c", " b d"],
            1,
        ),
    ],
    "sciq": [
        (
            {
                "support": "Bees make honey.",
                "question": "Who makes honey?",
                "distractor1": "ants",
                "distractor2": "cats",
                "distractor3": "owls",
                "correct_answer": "bees",
            },
            "Bees make honey.\nQuestion: Who makes honey?\nAnswer:",
            [" ants", " cats", " owls", " bees"],
            3,
        ),
        (
            {
                "support": "",
                "question": "What is H2O?",
                "distractor1": "salt",
                "distractor2": "iron",
                "distractor3": "air",
                "correct_answer": "water",
            },
            "Question: What is H2O?\nAnswer:",
            [" salt", " iron", " air", " water"],
            3,
        ),
        (
            {
                "support": "  Two.\nLines. ",
                "question": "q?",
                "distractor1": "a",
                "distractor2": "b",
                "distractor3": "c",
                "correct_answer": "d e",
            },
            "Two.\nLines. \nQuestion: q?\nAnswer:",
            [" a", " b", " c", " d e"],
            3,
        ),
    ],
    "winogrande": [
        (
            {"sentence": "Ann met Bo as _ was early.", "option1": "Ann", "option2": "Bo", "answer": "1"},
            ["Ann met Bo as Ann", "Ann met Bo as Bo"],
            [" was early.", " was early."],
            0,
        ),
        (
            {"sentence": "The _ won't fit.", "option1": "red box", "option2": "lid", "answer": "2"},
            ["The red box", "The lid"],
            [" won't fit.", " won't fit."],
            1,
        ),
        (
            {"sentence": "_ ran; under_score stayed.", "option1": "Cy", "option2": "Di", "answer": "1"},
            ["Cy", "Di"],
            [" ran; under_score stayed.", " ran; under_score stayed."],
            0,
        ),
    ],
    "hellaswag": [
        (
            {
                "activity_label": "Baking",
                "ctx_a": "A man mixes dough.",
                "ctx_b": "he",
                "ctx": "A man mixes dough. he",
                "endings": ["bakes it.", "swims off."],
                "label": "0",
            },
            "Baking: A man mixes dough. He",
            [" bakes it.", " swims off."],
            0,
        ),
        (
            {
                "activity_label": "Home",
                "ctx_a": "How to sweep [title] Take a broom. [step] Hold it.",
                "ctx_b": "",
                "ctx": "How to sweep [title] Take a broom. [step] Hold it.",
                "endings": ["[substeps] Sweep the floor.", "Sing [title] Stop", "x"],
                "label": "2",
            },
            # the brackets go, and the double space that they leave becomes one, but not at an ending's beginning
            "Home: How to sweep. Take a broom. Hold it.",
            ["  Sweep the floor.", " Sing. Stop", " x"],
            2,
        ),
        (
            {
                "activity_label": "Run",
                "ctx_a": "A dog runs.",
                "ctx_b": "the OWNER",
                "ctx": "A dog runs. the OWNER",
                "endings": ["waits", "eats"],
                "label": "1",
            },
            "Run: A dog runs. The owner",
            [" waits", " eats"],
            1,
        ),
    ],
    "social_i_qa": [
        (
            {
                "context": "Kim won.",
                "question": "How does Kim feel?",
                "answerA": "glad",
                "answerB": "sad",
                "answerC": "cold",
                "label": "1",
            },
            "Question: Kim won. How does Kim feel?\nAnswer:",
            [" glad", " sad", " cold"],
            0,
        ),
        (
            {"context": "A.", "question": "B?", "answerA": "c", "answerB": "d", "answerC": "e", "label": "2"},
            "Question: A. B?\nAnswer:",
            [" c", " d", " e"],
            1,
        ),
        (
            {"context": "A", "question": "B", "answerA": "c", "answerB": "d", "answerC": "e f", "label": "3"},
            "Question: A B\nAnswer:",
            [" c", " d", " e f"],
            2,
        ),
    ],
    "rte": [
        (
            {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0},
            "It rains.\nQuestion: It is wet. True or False?\nAnswer:",
            [" True", " False"],
            0,
        ),
        (
            {"sentence1": "A.", "sentence2": "B.", "label": 1},
            "A.\nQuestion: B. True or False?\nAnswer:",
            [" True", " False"],
            1,
        ),
        (
            {"sentence1": "A\nB", "sentence2": "C", "label": 0},
            "A\nB\nQuestion: C True or False?\nAnswer:",
            [" True", " False"],
            0,
        ),
    ],
    "commitment_bank": [
        (
            {"premise": "He said so.", "hypothesis": "it is so", "label": 2},
            "He said so.\nQuestion: it is so. True, False or Neither?\nAnswer:",
            [" True", " False", " Neither"],
            2,
        ),
        (
            {"premise": "A.", "hypothesis": "b", "label": 0},
            "A.\nQuestion: b. True, False or Neither?\nAnswer:",
            [" True", " False", " Neither"],
            0,
        ),
        (
            {"premise": "C?", "hypothesis": "d", "label": 1},
            "C?\nQuestion: d. True, False or Neither?\nAnswer:",
            [" True", " False", " Neither"],
            1,
        ),
    ],
    "mrpc": [
        (
            {"sentence1": "He left .", "sentence2": "He went .", "label": 1},
            "Sentence 1: He left .\nSentence 2: He went .\nQuestion: Do both sentences mean the same thing?\nAnswer:",
            [" no", " yes"],
            1,
        ),
        (
            {"sentence1": "A", "sentence2": "B", "label": 0},
            "Sentence 1: A\nSentence 2: B\nQuestion: Do both sentences mean the same thing?\nAnswer:",
            [" no", " yes"],
            0,
        ),
        (
            {"sentence1": "A", "sentence2": "A", "label": 1},
            "Sentence 1: A\nSentence 2: A\nQuestion: Do both sentences mean the same thing?\nAnswer:",
            [" no", " yes"],
            1,
        ),
    ],
    "sst2": [
        (
            {"sentence": "a charming film . ", "label": 1},
            "a charming film .\nQuestion: Is this sentence positive or negative?\nAnswer:",
            [" negative", " positive"],
            1,
        ),
        (
            {"sentence": "dull", "label": 0},
            "dull\nQuestion: Is this sentence positive or negative?\nAnswer:",
            [" negative", " positive"],
            0,
        ),
        (
            {"sentence": "n't bad", "label": 1},
            "n't bad\nQuestion: Is this sentence positive or negative?\nAnswer:",
            [" negative", " positive"],
            1,
        ),
    ],
}
