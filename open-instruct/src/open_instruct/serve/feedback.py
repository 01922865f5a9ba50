"""What users think of answers, as preference rows (docs/formats/preference.md) that `open-instruct dpo` trains on."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from ..formats.chat import parse_pair
from ..formats.contract import ConfigError, FormatError, canonical_json, read_rows
from .requests import Refused

__all__ = ["CONSENT", "Feedback"]

CONSENT = """\
Your feedback is stored: this conversation, the answers you judged or rewrote, and the time. No name or address is \
stored with it. It is used to train and may be published. Do not send anything private or secret."""
_KINDS = ("thumb", "edit", "choice")


class Feedback:
    """The files of a directory: `preferences.jsonl`, the rows, and `thumbs.jsonl`, every thumb.

    An edit and a choice between two answers each give a row. A thumb judges one answer, so a row needs two: an answer
    with a thumb up and one with a thumb down, to the same messages. The last thumb for an answer counts.
    """

    def __init__(self, directory: Path, model: str, consent: str = CONSENT) -> None:
        """Read what is stored already. Raises ConfigError."""
        self.consent = consent
        self.version = hashlib.sha256(consent.encode()).hexdigest()[:16]
        """Identifies the text of the consent; each stored row has it."""
        self._model, self._lock = model, threading.Lock()
        self._rows, self._thumbs = directory / "preferences.jsonl", directory / "thumbs.jsonl"
        self._known: set[str] = set()
        self._judged: dict[str, dict[str, bool]] = {}  # messages -> answer -> its thumb
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path in (self._rows, self._thumbs):
                path.touch()
            for _, row in read_rows(self._rows):
                self._known.add(_identity(row["prompt"], row["chosen"], row["rejected"]))
            for _, row in read_rows(self._thumbs):
                self._judged.setdefault(canonical_json(row["prompt"]), {})[row["answer"]] = row["up"]
        except (OSError, FormatError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--feedback: cannot use {directory} ({error}); expected a directory of this server"
            ) from error

    def add(self, body: Any) -> dict[str, Any]:
        """Store feedback; return how many rows it gave.

        Raises:
            Refused: it is not understood, its consent is missing, or its row is not a preference.
        """
        if not isinstance(body, dict):
            raise Refused("the body is not an object; expected feedback")
        if body.get("consent") != self.version:
            message = "consent: is missing or for another text; expected the version of the text that was agreed to"
            raise Refused(message, "consent", status=403, code="consent_missing")
        kind, prompt = body.get("kind"), body.get("messages")
        if kind not in _KINDS:
            raise Refused(f"kind: is {kind!r}; expected one of {', '.join(_KINDS)}", "kind")
        with self._lock:
            if kind == "thumb":
                return {"stored": True, "pairs": self._thumb(prompt, body)}
            return {"stored": True, "pairs": self._pair(kind, prompt, body.get("chosen"), body.get("rejected"))}

    def _thumb(self, prompt: Any, body: dict[str, Any]) -> int:
        answer, up = body.get("answer"), body.get("up")
        if not isinstance(up, bool) or not isinstance(answer, str):
            raise Refused("expected an answer and up: true or false", "up")
        self._check({"prompt": prompt, "chosen": answer, "rejected": f"{answer}."})
        judged = self._judged.setdefault(canonical_json(prompt), {})
        judged[answer] = up
        row = {"prompt": prompt, "answer": answer, "up": up, "metadata": self._metadata("thumb")}
        _append(self._thumbs, row)
        others = [other for other, is_up in judged.items() if is_up != up]
        return sum(self._pair("thumb", prompt, answer if up else other, other if up else answer) for other in others)

    def _pair(self, kind: str, prompt: Any, chosen: Any, rejected: Any) -> int:
        row = {
            "id": "",
            "source": f"feedback/{kind}",
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "metadata": self._metadata(kind),
        }
        self._check(row)
        identity = _identity(prompt, chosen, rejected)
        if identity in self._known:
            return 0
        _append(self._rows, row | {"id": identity})
        self._known.add(identity)
        return 1

    def _check(self, row: dict[str, Any]) -> None:
        if not isinstance(row["prompt"], list) or not all(
            isinstance(row[side], str) for side in ("chosen", "rejected")
        ):
            raise Refused("expected messages, and answers that are text", "messages")
        try:
            parse_pair(row, Path("feedback"), 1)
        except FormatError as error:
            raise Refused(error.message, error.field, code=error.code) from error

    def _metadata(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "model": self._model, "time": int(time.time()), "consent": self.version}


def _identity(prompt: Any, chosen: str, rejected: str) -> str:
    return hashlib.sha256(canonical_json([prompt, chosen, rejected]).encode()).hexdigest()[:16]


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
