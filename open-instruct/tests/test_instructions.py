"""IFEval's 25 instructions: an answer that follows each, one that does not, and hostile answers."""

import pytest
from open_instruct.evaluation.benchmarks.counting import count_sentences, split_words
from open_instruct.evaluation.benchmarks.instructions import INSTRUCTIONS, follows, follows_loosely
from open_instruct.evaluation.classifier import language_of

LESS, MORE = "less than", "at least"
PARAGRAPHS = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"}
# name, arguments, an answer that follows it, one that does not
CASES = [
    ("keywords:existence", {"keywords": ["sea", "C++"]}, "The SEASIDE has c++.", "The sea has C."),
    ("keywords:frequency", {"keyword": "the", "frequency": 2, "relation": MORE}, "The other", "A theory"),
    ("keywords:frequency", {"keyword": "a.c", "frequency": 1, "relation": LESS}, "abc", "a.c"),
    ("keywords:forbidden_words", {"forbidden_words": ["art", "so"]}, "A cart also.", "It is ART."),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": MORE}, "eE", "e and a"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": LESS}, "none", "one #"),
    ("language:response_language", {"language": "de"}, "Das ist ein sehr schönes Haus.", "This is a nice house."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, "One. ", "One. Two!"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": MORE}, "One? Two", "Mr. Lee at 3.5 p.m."),
    ("length_constraints:number_words", {"num_words": 3, "relation": MORE}, "one, two - three", "one two"),
    ("length_constraints:number_words", {"num_words": 2, "relation": LESS}, "one!", "one two"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***one***two***", "one *** *** two"),
    ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, 'One.\n\n"weekend", two', "One.\n\nA weekend"),
    ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "1\n\nWeekend's", "Weekend"),
    ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "1\n\nweekend.", "1\n\nweekend\n\n3"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b c]", "[a] and [b"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. more", "PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye. P.P.S more", "P.S. more"),
    ("detectable_content:postscript", {"postscript_marker": "NB (x)"}, "nb (x): more", "NB x"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n  - two\n**bold**", "* one\n* two\n- three"),
    ("detectable_format:constrained_response", {}, "Well: My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** ** or *\n*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na\nSection b",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >> and <no title>"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:two_responses", {}, "******one******two", "one******two******three"),
    ("combination:repeat_prompt", {"prompt_to_repeat": " Say it. "}, "SAY IT. Here it is.", "Here: say it."),
    ("startend:end_checker", {"end_phrase": "That is all."}, 'So. "THAT IS ALL."', "That is all. Bye."),
    ("startend:quotation", {}, ' "all of it" ', '"'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": MORE}, "A B-C d", "A Bc"),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": LESS}, "none", "ONE"),
    ("change_case:english_capital", {}, "THIS IS A LONG WALK IN THE PARK.", "This is a long walk in the park."),
    ("change_case:english_capital", {}, "IT IS RAINING AGAIN TODAY", "DAS IST EIN SEHR SCHÖNES HAUS"),
    ("change_case:english_lowercase", {}, "this is a long walk in the park.", "This is a long walk."),
    ("punctuation:no_comma", {}, "No comma here.", "One, two"),
]
OTHERS = {"relation": MORE, "let_relation": MORE, "capital_relation": MORE}
HOSTILE = {
    "stops": "." * 200_000 + "x",
    "stars": "*" * 200_001 + "x",
    "brackets": "[" * 200_000,
    "nested": "[" * 100_000 + "]" * 100_000,
    "titles": "<" * 200_000,
    "white": " \n" * 100_000 + ".",
    "ideographs": "漢字。" * 50_000,
    "arabic": "مرحبا بالعالم، " * 10_000,
    "odd": "\x00\ufeff\u200b\ud800 \N{COMBINING ACUTE ACCENT}" * 20_000,
    "quotes": "\"'" * 100_000,
    "numbers": "1. " * 60_000,
}


def arguments_for(name):
    """Arguments of an instruction that fit its types."""
    values = {int: 3, str: "a", list: ["a"]}
    return {key: OTHERS.get(key, values[kind]) for key, kind in INSTRUCTIONS[name].arguments.items()}


@pytest.mark.parametrize(("name", "given", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_instruction_is_followed_by_one_answer_and_not_by_the_other(name, given, right, wrong):
    assert set(given) == set(INSTRUCTIONS[name].arguments)
    assert follows(right, name, given)
    assert follows_loosely(right, name, given)
    assert not follows(wrong, name, given)


def test_cases_cover_every_instruction():
    assert {case[0] for case in CASES} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize("name", list(INSTRUCTIONS))
def test_empty_answer_follows_nothing(name):
    for answer in ("", " \n\t\u3000"):
        assert not follows(answer, name, arguments_for(name))
        assert not follows_loosely(answer, name, arguments_for(name))


@pytest.mark.parametrize("kind", list(HOSTILE))
@pytest.mark.timeout(20)
def test_huge_and_odd_answers_are_checked_in_time(kind):
    for name in INSTRUCTIONS:
        assert follows(HOSTILE[kind], name, arguments_for(name)) in (True, False)


def test_loose_check_forgives_an_introduction_an_ending_and_asterisks():
    name = "startend:quotation"
    assert not follows('Sure!\n"quoted"', name, {})
    for answer in ('Sure!\n"quoted"', '"quoted"\nBye.', 'Sure!\n"quoted"\nBye.', '*"quoted"*', 'Sure!\n**"quoted"**\n'):
        assert follows_loosely(answer, name, {}), answer
    assert not follows_loosely('Sure!\nReally!\n"quoted"', name, {})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two! Three?", 3),
        ('He said "Go." Then left.', 2),
        ("Dr. J. Smith, e.g. of the U.S. Navy, paid $3.50.", 1),
        ("Apples, pears, etc. Then tea.", 2),
        ("Wait... what?! Yes", 3),
        ("1. First item.\n2. Second item.", 2),
        ("It was 1999. Then came 2000.", 2),
        ("これは本です。あれは何ですか？", 2),
        ("See example.com for v1.2 today.", 1),
    ],
)
def test_sentences_are_counted(text, count):
    assert count_sentences(text) == count


def test_words_are_split():
    assert split_words("Don't stop—it's a well-known_name 3.5") == [
        *("Don", "t", "stop", "it", "s", "a", "well", "known_name", "3", "5")
    ]
    assert split_words("a well-known man's", hyphens=True) == ["a", "well-known", "man's"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Der Hund schläft im Garten, weil es warm ist.", "de"),
        ("यह किताब बहुत अच्छी है और मुझे पसंद है।", "hi"),
        ("このほんはとてもおもしろいです。", "ja"),
        ("ಈ ಪುಸ್ತಕ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ", "kn"),
        ("หนังสือเล่มนี้ดีมาก", "th"),
        ("12345 !?", None),
        ("", None),
    ],
)
def test_language_is_detected(text, language):
    assert language_of(text) == language
