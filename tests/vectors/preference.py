"""Vectors of docs/formats/preference.md."""

from typing import Any

from .cases import ASTRAL, Case, gz, head, invalid, json_lines, manifest, pretty
from .chat import messages

__all__ = ["cases"]

_FILE = "pairs.jsonl"


def _pair(*turns: str, better: str, worse: str, **more: Any) -> dict[str, Any]:
    prompt = messages(*turns)
    return {"chosen": [*prompt, *messages(better)], "rejected": [*prompt, *messages(worse)]} | more


_ROWS: list[dict[str, Any]] = [
    _pair("user: 2 + 2?", better="assistant: 4", worse="assistant: 5", id="p-1", source="sums", prompt="2 + 2?"),
    _pair(
        "system: Short.", f"user: {ASTRAL}", better="assistant: é", worse="assistant: e", dataset="d", metadata={"k": 1}
    ),
    _pair(
        "user: a",
        "assistant: b",
        "user: c",
        better="assistant: d",
        worse="assistant: D",
        prompt=messages("user: a", "assistant: b", "user: c"),
        score_chosen=4.5,
    ),
]


_SPLIT: list[dict[str, Any]] = [
    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    {"prompt": messages("user: a"), "chosen": messages("assistant: b"), "rejected": messages("assistant: c")},
    {"prompt": messages("system: s", "user: a"), "chosen": "b", "rejected": messages("assistant: c")},
]
_SPLIT_WHOLE = [
    _pair("user: 2 + 2?", better="assistant: 4", worse="assistant: 5"),
    _pair("user: a", better="assistant: b", worse="assistant: c"),
    _pair("system: s", "user: a", better="assistant: b", worse="assistant: c"),
]


def _dump(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        head("preference", {"pairs": len(rows)}),
        *(
            {
                "id": row.get("id") or "",
                "source": row.get("source") or row.get("dataset") or "",
                "prompt": row["chosen"][:-1],
                "chosen": row["chosen"][-1]["content"],
                "rejected": row["rejected"][-1]["content"],
            }
            for row in rows
        ),
    ]


def _lines(name: str, second: dict[str, Any] | bytes, code: str, field: str | None = None) -> Case:
    """Three rows, the second one broken."""
    broken = second + b"\n" if isinstance(second, bytes) else json_lines([second])
    return invalid(name, {_FILE: json_lines(_ROWS[:1]) + broken + json_lines(_ROWS[2:])}, code, _FILE, 2, field)


def cases() -> list[Case]:
    """Valid: one file, shards with a manifest. Invalid: one case per rule."""
    shards = {"a.jsonl": json_lines(_ROWS[:2]), "b.jsonl.gz": gz(json_lines(_ROWS[2:]))}
    value = manifest("preference", shards, {"pairs": 3})
    good = _pair("user: a", better="assistant: b", worse="assistant: c")
    other_prompt = {"chosen": good["chosen"], "rejected": messages("user: A", "assistant: c")}
    longer = {"chosen": good["chosen"], "rejected": messages("user: a", "assistant: x", "user: y", "assistant: c")}
    long = gz(
        json_lines([_pair(f"user: {n**4}", better=f"assistant: {n**5}", worse="assistant: 0") for n in range(1, 61)])
    )
    return [
        Case(name="one_file", data={_FILE: json_lines(_ROWS)}, dump=_dump(_ROWS)),
        Case(name="shards_with_manifest", data={**shards, "manifest.json": pretty(value)}, dump=_dump(_ROWS)),
        Case(name="prompt_and_answers", data={_FILE: json_lines(_SPLIT)}, dump=_dump(_SPLIT_WHOLE)),
        _lines("empty_prompt", {"prompt": "", "chosen": "b", "rejected": "c"}, "invalid_value", "prompt"),
        _lines(
            "prompt_ends_with_answer",
            {"prompt": messages("user: a", "assistant: b"), "chosen": "c", "rejected": "d"},
            "role_order",
            "chosen.role",
        ),
        _lines(
            "answer_not_trained",
            good | {"rejected": [good["rejected"][0], good["rejected"][1] | {"weight": 0}]},
            "invalid_value",
            "rejected.1.weight",
        ),
        _lines("equal_strings", {"prompt": "a", "chosen": "b", "rejected": "b"}, "identical_answers", "rejected"),
        _lines("not_json", b"chosen", "not_json"),
        _lines("not_object", b'"chosen"', "not_object"),
        _lines("missing_rejected", {"chosen": good["chosen"]}, "missing_field", "rejected"),
        _lines("chosen_is_text", good | {"chosen": "b"}, "wrong_type", "chosen"),
        _lines(
            "empty_answer",
            _pair("user: a", better="assistant: b", worse="assistant:"),
            "invalid_value",
            "rejected.1.content",
        ),
        _lines(
            "unknown_role",
            _pair("Human: a", better="assistant: b", worse="assistant: c"),
            "unknown_role",
            "chosen.0.role",
        ),
        _lines(
            "ends_with_user",
            _pair("user: a", "assistant: b", better="user: c", worse="user: d"),
            "role_order",
            "chosen.2.role",
        ),
        _lines("no_messages", good | {"rejected": []}, "empty_messages", "rejected"),
        _lines("other_question", other_prompt, "prompt_mismatch", "rejected"),
        _lines("other_length", longer, "prompt_mismatch", "rejected"),
        _lines("other_prompt_text", good | {"prompt": "something else"}, "prompt_mismatch", "prompt"),
        _lines("other_prompt_messages", good | {"prompt": messages("user: b")}, "prompt_mismatch", "prompt"),
        _lines(
            "identical_answers",
            _pair("user: a", better="assistant: b", worse="assistant: b"),
            "identical_answers",
            "rejected",
        ),
        invalid("truncated", {"p.jsonl.gz": long[:-40]}, "truncated", "p.jsonl.gz"),
        invalid(
            "unknown_format",
            {**shards, "manifest.json": pretty(value | {"format": "chat"})},
            "unknown_format",
            "manifest.json",
            None,
            "format",
        ),
        invalid(
            "newer_version",
            {**shards, "manifest.json": pretty(value | {"version": 2})},
            "unsupported_version",
            "manifest.json",
            None,
            "version",
        ),
    ]
