r"""Final answers of MATH (Hendrycks et al. 2021, arXiv:2103.03874) and whether two of them are the same.

An answer is the last `\boxed{…}`, or what follows "answer is". Two are the same if their LaTeX is, up to layout, units
and ways to write a fraction or a decimal number (as in appendix D of Minerva, arXiv:2206.14858), or if both are equal
rational numbers. Nothing is evaluated: a model's `9^{9^{9}}` stays text.
"""

import re
from fractions import Fraction

__all__ = ["final_answer", "is_same"]

_LONGEST = 1000  # characters that are normalised; a longer answer must be equal as it is
_LONGEST_NUMBER = 100  # digits of a number that is compared as one
_SENTENCE = re.compile(r"answer\s+is:?\s*([^\n]*)", re.IGNORECASE)
_BOX = re.compile(r"\\f?boxed?(?![a-z])\s*")

_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[!,;:> ])|~|\\\\$")
_UNITS = re.compile(r"\\(?:text|mbox|mathrm)\{\s[^{}]*\}(?:\^\{?[0-9]\}?)?$|\^\{?\\circ\}?|\\?%|\\?\$")
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac\s*([0-9a-z])\s*([0-9a-z])")
_HALF_FRACTION = re.compile(r"\\frac\s*([0-9a-z])\s*\{|\\frac(\{[^{}]*\})\s*([0-9a-z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9a-z])")
_ASSIGNED = re.compile(r"[a-zA-Z]\s*=\s*")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?:\\!)?(?=[0-9]{3}(?![0-9]))")
_RATIO = re.compile(r"([-+]?)\\frac\{([-+]?[0-9]+)\}\{([-+]?[0-9]+)\}|([-+]?[0-9]+)/([0-9]+)")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")


def final_answer(text: str) -> str | None:
    """Return the content of the last box, or else the end of the last sentence with "answer is"; None without both."""
    boxes = list(_BOX.finditer(text))
    if boxes:
        return _boxed(text, boxes[-1].end())
    sentences = _SENTENCE.findall(text)
    return sentences[-1].strip().rstrip(".").strip() or None if sentences else None


def _boxed(text: str, start: int) -> str | None:
    """Return what is in the braces that open at `start`, or the word there; None if the braces do not close."""
    if text[start : start + 1] != "{":
        words = text[start:].split(None, 1)
        return words[0].strip("$.") or None if words else None
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1 : index].strip() or None
    return None


def is_same(answer: str, truth: str) -> bool:
    """Whether two final answers are the same."""
    if answer == truth or max(len(answer), len(truth)) > _LONGEST:
        return answer == truth
    one, other = _normalized(answer), _normalized(truth)
    if not one or not other:
        return False
    numbers = _number(one), _number(other)
    return one == other or (None not in numbers and numbers[0] == numbers[1])


def _normalized(text: str) -> str:
    text = text.replace("\u2212", "-").strip().strip("$").strip().rstrip(".")
    text = _LAYOUT.sub("", text).strip()
    text = _UNITS.sub("", text)
    text = _WRAPPED.sub(r"\1", text)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cdot", "*")
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _HALF_FRACTION.sub(lambda m: f"\\frac{{{m[1]}}}{{" if m[1] else f"\\frac{m[2]}{{{m[3]}}}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    if match := _ASSIGNED.match(text):
        text = text[match.end() :]
    return "".join(_THOUSANDS.sub("", text).split())


def _number(text: str) -> Fraction | None:
    """Return the rational number that a normalised answer is; None if it is none, or a very long one."""
    if len(text) > _LONGEST_NUMBER:
        return None
    if match := _RATIO.fullmatch(text):
        sign, over, under = match[1], match[2] or match[4], match[3] or match[5]
        return None if not int(under) else (-1 if sign == "-" else 1) * Fraction(int(over), int(under))
    return Fraction(text.rstrip(".")) if _DECIMAL.fullmatch(text) else None
