"""Words that an answer and the truth share (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1)."""

import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["squad_tokens", "token_f1"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = {"a", "an", "the"}


def squad_tokens(text: str) -> list[str]:
    """Split into lower-case words without punctuation and articles, as SQuAD's evaluation does."""
    return [word for word in text.lower().translate(_PUNCTUATION).split() if word not in _ARTICLES]


def token_f1(answer: Sequence[str], truth: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of the words, each counted as often as it appears."""
    shared = sum((Counter(answer) & Counter(truth)).values())
    return 2 * shared / (len(answer) + len(truth)) if shared else 0.0
