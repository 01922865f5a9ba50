"""The 25 verifiable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911, table 1), each as a check of an answer.

Names and arguments are those of its data. Every check takes time linear in the answer, whatever the answer is.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..classifier import language_of
from .counting import count_sentences, split_words

__all__ = ["INSTRUCTIONS", "RELATIONS", "Instruction", "follows", "follows_loosely"]

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Instruction:
    """A check, with the names and types of the arguments it needs."""

    check: Callable[[str, Arguments], bool]
    arguments: Mapping[str, type]


RELATIONS = ("less than", "at least")


def follows(answer: str, name: str, arguments: Arguments) -> bool:
    """Whether an answer follows the instruction exactly; an empty one never does."""
    return bool(answer.strip()) and INSTRUCTIONS[name].check(answer, arguments)


def follows_loosely(answer: str, name: str, arguments: Arguments) -> bool:
    """Whether it does without its first or last line (an introduction, an ending), or without asterisks (section 3)."""
    return any(follows(variant, name, arguments) for variant in _variants(answer))


def _variants(answer: str) -> Iterator[str]:
    lines = answer.split("\n")
    for text in (answer, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])):
        yield text.strip() if text is not answer else text
        yield (text.strip() if text is not answer else text).replace("*", "")


# ---- keywords


def _existence(answer: str, given: Arguments) -> bool:
    return all(_occurrences(answer, keyword) for keyword in given["keywords"])


def _frequency(answer: str, given: Arguments) -> bool:
    return _compare(_occurrences(answer, given["keyword"]), given["relation"], given["frequency"])


def _forbidden_words(answer: str, given: Arguments) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in given["forbidden_words"])


def _letter_frequency(answer: str, given: Arguments) -> bool:
    return _compare(answer.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


def _occurrences(answer: str, keyword: str) -> int:
    """How often a text occurs, in any case, also within words."""
    return len(re.findall(re.escape(keyword), answer, re.IGNORECASE))


def _compare(count: int, relation: str, number: int) -> bool:
    return count < number if relation == "less than" else count >= number


# ---- language


def _response_language(answer: str, given: Arguments) -> bool:
    return language_of(answer) == str(given["language"])


def _english_capital(answer: str, given: Arguments) -> bool:
    return answer.isupper() and language_of(answer) == "en"


def _english_lowercase(answer: str, given: Arguments) -> bool:
    return answer.islower() and language_of(answer) == "en"


# ---- length


def _number_sentences(answer: str, given: Arguments) -> bool:
    return _compare(count_sentences(answer), given["relation"], given["num_sentences"])


def _number_words(answer: str, given: Arguments) -> bool:
    return _compare(len(split_words(answer)), given["relation"], given["num_words"])


def _number_paragraphs(answer: str, given: Arguments) -> bool:
    paragraphs = _between(answer, "***")
    return paragraphs is not None and len(paragraphs) == int(given["num_paragraphs"])


def _between(answer: str, divider: str) -> list[str] | None:
    """The texts between dividers; None if one is empty that is neither the first nor the last."""
    parts = [part.strip() for part in answer.split(divider)]
    if any(not part for part in parts[1:-1]):
        return None
    return [part for part in parts if part]


def _nth_paragraph_first_word(answer: str, given: Arguments) -> bool:
    paragraphs = [part.strip() for part in answer.split("\n\n")]
    number, wanted = given["nth_paragraph"], given["first_word"].lower()
    if len([part for part in paragraphs if part]) != given["num_paragraphs"] or not 1 <= number <= len(paragraphs):
        return False
    words = paragraphs[number - 1].split(maxsplit=1)
    first = words[0].lstrip("\"'") if words else ""
    return re.split(r"[.,?!'\"]", first, maxsplit=1)[0].lower() == str(wanted)


# ---- content and format


def _number_placeholders(answer: str, given: Arguments) -> bool:
    return sum(_count_brackets(line) for line in answer.split("\n")) >= int(given["num_placeholders"])


def _count_brackets(line: str) -> int:
    """How many `[…]` follow each other; within one, further opening brackets do not count."""
    count, place = 0, 0
    while (start := line.find("[", place)) >= 0 and (end := line.find("]", start)) >= 0:
        count, place = count + 1, end + 1
    return count


def _postscript(answer: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    letters = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(letters.get(marker, re.escape(marker.lower())), answer.lower()) is not None


def _number_bullet_lists(answer: str, given: Arguments) -> bool:
    lines = [line.strip() for line in answer.split("\n")]
    starred = sum(line[:1] == "*" and line[1:2] not in ("*", "") for line in lines)
    return starred + sum(line.startswith("-") for line in lines) == int(given["num_bullets"])


_DECISIONS = "My answer is yes.", "My answer is no.", "My answer is maybe."


def _constrained_response(answer: str, given: Arguments) -> bool:
    return any(decision in answer for decision in _DECISIONS)


def _number_highlighted_sections(answer: str, given: Arguments) -> bool:
    found = re.findall(r"\*([^\n*]*)\*", answer) + re.findall(r"\*\*([^\n*]*)\*\*", answer)
    return sum(bool(text.strip()) for text in found) >= int(given["num_highlights"])


def _multiple_sections(answer: str, given: Arguments) -> bool:
    marks = re.findall(rf"{re.escape(given['section_spliter'].strip())}\s?\d", answer)
    return len(marks) >= int(given["num_sections"])


def _json_format(answer: str, given: Arguments) -> bool:
    text = answer.strip()
    if fence := re.match(r"```(?:json)?", text, re.IGNORECASE):
        text = text[fence.end() :]
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(answer: str, given: Arguments) -> bool:
    for line in answer.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].strip("<> \t"):
            return True
    return False


# ---- combinations, beginnings and ends, case, punctuation


def _two_responses(answer: str, given: Arguments) -> bool:
    responses = _between(answer, "******")
    return responses is not None and len(responses) == 2 and responses[0] != responses[1]


def _repeat_prompt(answer: str, given: Arguments) -> bool:
    return answer.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def _end_checker(answer: str, given: Arguments) -> bool:
    return answer.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def _quotation(answer: str, given: Arguments) -> bool:
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_word_frequency(answer: str, given: Arguments) -> bool:
    count = sum(word.isupper() for word in split_words(answer, hyphens=True))
    return _compare(count, given["capital_relation"], given["capital_frequency"])


def _no_comma(answer: str, given: Arguments) -> bool:
    return "," not in answer


INSTRUCTIONS = {
    "keywords:existence": Instruction(_existence, {"keywords": list}),
    "keywords:frequency": Instruction(_frequency, {"keyword": str, "frequency": int, "relation": str}),
    "keywords:forbidden_words": Instruction(_forbidden_words, {"forbidden_words": list}),
    "keywords:letter_frequency": Instruction(
        _letter_frequency, {"letter": str, "let_frequency": int, "let_relation": str}
    ),
    "language:response_language": Instruction(_response_language, {"language": str}),
    "length_constraints:number_sentences": Instruction(_number_sentences, {"num_sentences": int, "relation": str}),
    "length_constraints:number_paragraphs": Instruction(_number_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_words": Instruction(_number_words, {"num_words": int, "relation": str}),
    "length_constraints:nth_paragraph_first_word": Instruction(
        _nth_paragraph_first_word, {"num_paragraphs": int, "nth_paragraph": int, "first_word": str}
    ),
    "detectable_content:number_placeholders": Instruction(_number_placeholders, {"num_placeholders": int}),
    "detectable_content:postscript": Instruction(_postscript, {"postscript_marker": str}),
    "detectable_format:number_bullet_lists": Instruction(_number_bullet_lists, {"num_bullets": int}),
    "detectable_format:constrained_response": Instruction(_constrained_response, {}),
    "detectable_format:number_highlighted_sections": Instruction(_number_highlighted_sections, {"num_highlights": int}),
    "detectable_format:multiple_sections": Instruction(
        _multiple_sections, {"section_spliter": str, "num_sections": int}
    ),
    "detectable_format:json_format": Instruction(_json_format, {}),
    "detectable_format:title": Instruction(_title, {}),
    "combination:two_responses": Instruction(_two_responses, {}),
    "combination:repeat_prompt": Instruction(_repeat_prompt, {"prompt_to_repeat": str}),
    "startend:end_checker": Instruction(_end_checker, {"end_phrase": str}),
    "startend:quotation": Instruction(_quotation, {}),
    "change_case:capital_word_frequency": Instruction(
        _capital_word_frequency, {"capital_frequency": int, "capital_relation": str}
    ),
    "change_case:english_capital": Instruction(_english_capital, {}),
    "change_case:english_lowercase": Instruction(_english_lowercase, {}),
    "punctuation:no_comma": Instruction(_no_comma, {}),
}
