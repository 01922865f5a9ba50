"""Vectors of docs/formats/chat.md."""

from typing import Any

from .cases import ASTRAL, Case, gz, head, invalid, json_lines, manifest, pretty

__all__ = ["cases", "messages"]

_FILE = "chats.jsonl"


def messages(*turns: str) -> list[dict[str, Any]]:
    """Messages from `role: content` strings; a role is the text before the first colon."""
    pairs = (turn.split(":", 1) for turn in turns)
    return [{"role": role, "content": content.strip()} for role, content in pairs]


_ROWS: list[dict[str, Any]] = [
    {"id": "c-1", "source": "oasst", "messages": messages("user: Hello", "assistant: Hi there.")},
    {
        "id": "c-2",
        "dataset": "local",
        "messages": messages("system: Be brief.", f"user: {ASTRAL}", "assistant: a", "user: b", "assistant: c\nd"),
        "metadata": {"turns": 2},
    },
    {"messages": messages("user: q", "assistant: a"), "rank": 3, "id": None},
]


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    skipped = message["role"] == "assistant" and (message.get("weight") == 0 or message.get("train") is False)
    return {"role": message["role"], "content": message["content"]} | ({"weight": 0} if skipped else {})


def _dump(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bare = [[_bare(m) for m in row["messages"]] for row in rows]
    counts = {"conversations": len(rows), "messages": sum(map(len, bare))}
    named = [
        {"id": row.get("id") or "", "source": row.get("source") or row.get("dataset") or "", "messages": m}
        for row, m in zip(rows, bare, strict=True)
    ]
    return [head("chat", counts), *named]


def _lines(name: str, second: dict[str, Any] | bytes, code: str, field: str | None = None) -> Case:
    """Three rows, the second one broken."""
    broken = second + b"\n" if isinstance(second, bytes) else json_lines([second])
    return invalid(name, {_FILE: json_lines(_ROWS[:1]) + broken + json_lines(_ROWS[2:])}, code, _FILE, 2, field)


def _turns(name: str, code: str, field: str, *turns: str) -> Case:
    return _lines(name, {"messages": messages(*turns)}, code, field)


def cases() -> list[Case]:
    """Valid: one file, shards with a manifest, foreign keys. Invalid: one case per rule."""
    shards = {"0.jsonl.gz": gz(json_lines(_ROWS[:1])), "1.jsonl": json_lines(_ROWS[1:])}
    value = manifest("chat", shards, {"conversations": 3, "messages": 9})
    foreign = [{"messages": [m | {"weight": 1} for m in _ROWS[0]["messages"]], "source": None, "prompt_id": "p"}]
    user, answer = _ROWS[0]["messages"]
    skipped = [
        {"messages": [user, answer | {"weight": 0}, user, answer | {"weight": 1}]},
        {
            "messages": [user | {"train": False}, answer | {"train": False, "tool_calls": None}, user, answer],
            "tools": [],
        },
    ]
    tools = [
        {"messages": messages("user: Time?", "assistant: look()", "tool: 12:00", "tool: UTC", "assistant: Noon.")},
        {"messages": messages("system: s", "user: a", "assistant: b", "assistant: c", "user: d", "assistant: e")},
    ]
    long = gz(json_lines([{"messages": messages(f"user: {n**4}", f"assistant: {n**5}")} for n in range(60)]))
    return [
        Case(name="one_file", data={_FILE: json_lines(_ROWS)}, dump=_dump(_ROWS)),
        Case(name="shards_with_manifest", data={**shards, "manifest.json": pretty(value)}, dump=_dump(_ROWS)),
        Case(name="foreign_keys", data={"f.json": json_lines(foreign)}, dump=_dump(foreign)),
        Case(name="tools_and_two_answers", data={_FILE: json_lines(tools)}, dump=_dump(tools)),
        Case(name="answers_not_trained", data={_FILE: json_lines(skipped)}, dump=_dump(skipped)),
        _lines("half_weight", {"messages": [user, answer | {"weight": 0.5}]}, "invalid_value", "messages.1.weight"),
        _lines("weight_is_text", {"messages": [user, answer | {"weight": "0"}]}, "wrong_type", "messages.1.weight"),
        _lines("train_is_number", {"messages": [user, answer | {"train": 0}]}, "wrong_type", "messages.1.train"),
        _lines("trained_question", {"messages": [user | {"train": True}, answer]}, "invalid_value", "messages.0.train"),
        _lines(
            "tool_calls",
            {"messages": [user, answer | {"tool_calls": [{"name": "clock"}]}]},
            "invalid_value",
            "messages.1.tool_calls",
        ),
        _lines(
            "reasoning_content",
            {"messages": [user, answer | {"reasoning_content": "because"}]},
            "invalid_value",
            "messages.1.reasoning_content",
        ),
        _lines("tools", {"messages": [user, answer], "tools": [{"name": "clock"}]}, "invalid_value", "tools"),
        _lines("not_json", b"{'messages': []}", "not_json"),
        _lines("not_object", b"[]", "not_object"),
        _lines("missing_messages", {"conversation": []}, "missing_field", "messages"),
        _lines(
            "missing_content",
            {"messages": [{"role": "user"}, _ROWS[0]["messages"][1]]},
            "missing_field",
            "messages.0.content",
        ),
        _lines(
            "content_is_list",
            {"messages": [{"role": "user", "content": ["a"]}, _ROWS[0]["messages"][1]]},
            "wrong_type",
            "messages.0.content",
        ),
        _turns("empty_content", "invalid_value", "messages.1.content", "user: a", "assistant:"),
        _turns("unknown_role", "unknown_role", "messages.0.role", "human: a", "assistant: b"),
        _turns(
            "system_in_the_middle",
            "role_order",
            "messages.2.role",
            "user: a",
            "assistant: b",
            "system: c",
            "user: d",
            "assistant: e",
        ),
        _turns("two_users", "role_order", "messages.1.role", "user: a", "user: b", "assistant: c"),
        _turns("tool_after_user", "role_order", "messages.1.role", "user: a", "tool: b", "assistant: c"),
        _turns("user_after_tool", "role_order", "messages.3.role", "user: a", "assistant: b", "tool: c", "user: d"),
        _turns("begins_with_assistant", "role_order", "messages.0.role", "assistant: a", "user: b", "assistant: c"),
        _turns("ends_with_user", "role_order", "messages.2.role", "user: a", "assistant: b", "user: c"),
        _lines("no_messages", {"messages": []}, "empty_messages", "messages"),
        _turns("no_answer", "empty_messages", "messages", "system: a", "user: b"),
        invalid("truncated", {"c.jsonl.gz": long[:-40]}, "truncated", "c.jsonl.gz"),
        invalid(
            "unknown_format",
            {**shards, "manifest.json": pretty(value | {"format": "preference"})},
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
