"""The two sizes a sample is cut by: UTF-8 bytes, or tokens of a `tokenizer.json`."""

from pathlib import Path
from typing import Protocol

from paloma.configuration import ConfigError

__all__ = ["Bytes", "Measure", "Tokens"]

_OTHER_TOKENIZERS = {".tiktoken": "tiktoken", "tekken.json": "Tekken", ".model": "SentencePiece"}


class Measure(Protocol):
    """A size of texts.

    `size` is 0 for the empty text alone; `cut` gives the longest prefix that is not above a size (it may be empty).
    """

    unit: str

    def size(self, text: str) -> int:
        """How large a text is."""
        ...

    def cut(self, text: str, size: int) -> str:
        """The beginning of a text."""
        ...


class Bytes:
    """UTF-8 bytes; a cut never halves a character."""

    unit = "bytes"

    def size(self, text: str) -> int:
        """Length in bytes."""
        return len(text.encode())

    def cut(self, text: str, size: int) -> str:
        """The longest prefix of at most `size` bytes."""
        return text.encode()[:size].decode(errors="ignore")


class Tokens:
    """Tokens of the text as it stands, without special tokens; a cut falls between characters."""

    unit = "tokens"

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ConfigError(
                ["--tokenizer: the package `tokenizers` is not installed; it counts tokens"],
                "pip install 'paloma-eval[tokenizers]', or use --bytes-per-domain",
            ) from None
        if not path.is_file():
            found = "is a directory" if path.is_dir() else "not found"
            raise ConfigError([f"--tokenizer: {path} {found}; expected a tokenizer.json"], "check the path")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises bare Exception for every kind of broken file
            kind = next((name for end, name in _OTHER_TOKENIZERS.items() if path.name.endswith(end)), None)
            what = f"is a {kind} file" if kind else f"is not a tokenizer ({error})"
            raise ConfigError(
                [f"--tokenizer: {path} {what}; expected a tokenizer.json of the tokenizers library"],
                "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of transformers converts most others",
            ) from error
        # like the other tools: whole texts, and the spelling of a special token is text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def size(self, text: str) -> int:
        """Number of tokens; at least 1 for a text that is not empty, whatever the vocabulary lacks."""
        return max(len(self._tokenizer.encode(text, add_special_tokens=False).ids), 1 if text else 0)

    def cut(self, text: str, size: int) -> str:
        """The prefix that ends with the character where token number `size` ends."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= size:
            return text
        end = offsets[size - 1][1] if size else 0
        # a character may be spread over several tokens: only those before a token that starts later are whole
        return text[: min(end, offsets[size][0])] if size else ""
