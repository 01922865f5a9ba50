"""The one error that a file outside its format raises. Codes and text: docs/formats/README.md."""

from pathlib import Path

__all__ = ["FormatError", "kind"]


class FormatError(ValueError):
    """A file breaks the rules of its format.

    `path` is as the reader was given it; `line` is 1-based or None; `field` is dotted (`messages.0.role`) or None;
    `code` is one of the stable codes of docs/formats/README.md; `hint` is one action, or empty.
    """

    def __init__(
        self,
        code: str,
        path: Path | str,
        sentence: str,
        *,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Compose the text `path:line: sentence`."""
        self.code, self.path, self.line, self.field, self.sentence = code, Path(path), line, field, sentence
        self.hint = hint or ""
        super().__init__(f"{path}{f':{line}' if line is not None else ''}: {sentence}")


def kind(value: object) -> str:
    """Name a JSON value's type as the messages do: `a number`, `an object`, …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
