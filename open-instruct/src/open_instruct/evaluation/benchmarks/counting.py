"""Words and sentences of a text, counted by rules that a reader can check. In time linear in the text."""

import re

__all__ = ["count_sentences", "split_words"]

# each mark is looked at once, so that a million full stops take no longer than other text
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s|$)|[。！？।]+[」』”’）]*")
_MAY_BE_LAST = frozenset("etc inc ltd co corp jr sr a.m p.m u.s u.k ph.d b.c a.d al no".split())
_NEVER_LAST = frozenset(
    "mr mrs ms dr prof st gen rep sen rev hon capt col lt sgt gov pres vs e.g i.e cf fig vol pp p ed "
    "dept approx est jan feb mar apr jun jul aug sep sept oct nov dec".split()
)


def split_words(text: str, *, hyphens: bool = False) -> list[str]:
    """Runs of letters, digits and underscores; with `hyphens`, hyphens and apostrophes within a word belong to it."""
    return re.findall(r"\w+(?:[-'’]\w+)*" if hyphens else r"\w+", text)


def count_sentences(text: str) -> int:
    """Count sentences: runs of text with a letter or digit, up to a full stop, a question or exclamation mark.

    An abbreviation, an initial, a decimal or the number of a list item does not end one; a title without a mark belongs
    to the sentence after it.
    """
    count, start = 0, 0
    for match in _END.finditer(text):
        if _ends(text, start, match):
            count += _says_something(text[start : match.end()])
            start = match.end()
    return count + _says_something(text[start:])


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    if match[0][0] != "." or match[0].startswith(".."):
        return True
    before = text[max(start, match.start() - 20) : match.start()]
    word = re.split(r"[\s(\[\"'“‘—]", before)[-1]
    following = text[match.end() : match.end() + 20].lstrip()[:1]
    if word.lower() in _NEVER_LAST or re.fullmatch(r"[A-Z]", word):
        return not following
    if word.lower() in _MAY_BE_LAST:
        return not following or (following.isupper() and word.lower() not in ("u.s", "u.k"))
    return not (word.isdigit() and _begins_line(before[: len(before) - len(word)]))  # the number of a list item


def _begins_line(before: str) -> bool:
    return before.rstrip(" \t*")[-1:] in ("", "\n")
