"""The shapes of other projects' rows, and how a row of each becomes chats or pairs.

A shape is a name, the keys that its rows have, and one function. The function reads a row through `Fields`, so a
missing key or a wrong type is an error with its line, and raises `Unusable` for a row that is well-formed but has
nothing to learn from.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ..formats.contract import Fields

__all__ = ["SHAPES", "Shape", "Unusable", "detect"]

Made = dict[str, Any]
Maker = Callable[[Fields], Iterator[Made]]


class Unusable(ValueError):
    """A well-formed row that cannot be used; the message is the reason, the same for all rows of its kind."""


@dataclass(frozen=True)
class Shape:
    """A shape: the keys that every row has, what `sample` requires of their values, and what rows become."""

    keys: tuple[str, ...]
    chat: Maker | None = None
    preference: Maker | None = None
    sample: Callable[[dict[str, Any]], bool] = lambda row: True

    def fits(self, row: dict[str, Any]) -> bool:
        """Whether a row looks like this shape."""
        return all(row.get(key) is not None for key in self.keys) and self.sample(row)


def detect(rows: list[dict[str, Any]]) -> str | None:
    """Return the name of the first shape that all rows fit."""
    return next((name for name, shape in SHAPES.items() if all(map(shape.fits, rows))), None)


# ---- parts of rows


def _exchange(question: str, answer: str, system: str = "") -> Made:
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _with_input(instruction: str, text: str | None) -> str:
    """An instruction and, after an empty line, what it is about."""
    text = (text or "").strip()
    return f"{instruction}\n\n{text}" if text and text.lower() not in ("<noinput>", "noinput") else instruction


_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def _role(fields: Fields, key: str) -> str:
    name = fields.string(key)
    if name in ("bing", "bard"):
        raise Unusable("an answer of a search engine (bing, bard)")
    if name.lower() not in _ROLES:
        known = ", ".join(sorted(_ROLES))
        raise fields.error("unknown_role", key, f'is "{name}"; expected one of {known}')
    return _ROLES[name.lower()]


def _ended(messages: list[Made]) -> list[Made]:
    """Drop the questions at the end, which have no answer."""
    while messages and messages[-1]["role"] != "assistant":
        messages = messages[:-1]
    if not messages:
        raise Unusable("no answer")
    return messages


def _turns(fields: Fields, key: str) -> list[Made]:
    """ShareGPT's turns: `from` and `value`."""
    return [{"role": _role(turn, "from"), "content": _called(turn)} for turn in fields.objects(key)]


def _called(turn: Fields) -> str:
    text = turn.string("value")
    return f"<tool_call>\n{text}\n</tool_call>" if turn.string("from") == "function_call" else text


def _message(fields: Fields) -> Made:
    """A message of OpenAI's API: text parts are joined; reasoning and calls become text of the answer."""
    row = fields.value
    content = row.get("content")
    if isinstance(content, list):
        parts = fields.objects("content")
        if any(part.string("type") != "text" for part in parts):
            raise Unusable("an image or a sound")
        text = "".join(part.string("text") for part in parts)
    else:
        text = fields.optional_string("content") or ""
    reasoning = next((row[key] for key in ("reasoning_content", "reasoning", "thinking") if row.get(key)), None)
    if reasoning:
        text = f"<think>\n{reasoning}\n</think>\n\n{text}"
    for call in fields.objects("tool_calls") if row.get("tool_calls") else []:
        function = call.value.get("function") or call.value
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                raise call.error("not_json", "function.arguments", "is not JSON; expected an object") from None
        shown = json.dumps({"name": function.get("name"), "arguments": arguments}, ensure_ascii=False)
        text += f"{chr(10) if text else ''}<tool_call>\n{shown}\n</tool_call>"
    kept = {key: row[key] for key in ("weight", "train") if row.get(key) is not None}
    return {"role": _role(fields, "role"), "content": text} | kept


# ---- one function for each shape


def _messages(fields: Fields) -> Iterator[Made]:
    tools = fields.value.get("tools") or fields.value.get("functions")
    messages = [_message(one) for one in fields.objects("messages")]
    if tools:
        shown = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
        text = f"<tools>\n{shown}\n</tools>"
        if messages and messages[0]["role"] == "system":
            messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}
        else:
            messages.insert(0, {"role": "system", "content": text})
    yield {"messages": _ended(messages)}


def _sharegpt(fields: Fields) -> Iterator[Made]:
    key = "conversations" if "conversations" in fields.value else "conversation"
    turns = _turns(fields, key)
    system = fields.optional_string("system")
    if system and turns and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    yield {"messages": _ended(turns)}


def _alpaca(fields: Fields) -> Iterator[Made]:
    answer = "response" if fields.value.get("output") is None and "response" in fields.value else "output"
    question = _with_input(fields.string("instruction"), fields.optional_string("input"))
    yield _exchange(question, fields.string(answer), fields.optional_string("system") or "")


def _dolly(fields: Fields) -> Iterator[Made]:
    question = _with_input(fields.string("instruction"), fields.optional_string("context"))
    yield _exchange(question, fields.string("response"))


def _self_instruct(fields: Fields) -> Iterator[Made]:
    for instance in fields.objects("instances"):
        question = _with_input(fields.string("instruction"), instance.optional_string("input"))
        yield _exchange(question, instance.string("output"))


def _unnatural(fields: Fields) -> Iterator[Made]:
    for instance in fields.objects("instances"):
        yield _exchange(instance.string("instruction_with_input"), instance.string("output"))


def _flan(fields: Fields) -> Iterator[Made]:
    prompt = fields.string("inputs")
    yield _exchange(prompt if prompt.endswith(("\n", ":")) else prompt + "\n", fields.string("targets"))


def _science(fields: Fields) -> Iterator[Made]:
    yield _exchange(fields.string("input"), fields.string("output")) | {"source": f"science.{fields.string('dataset')}"}


def _hardcoded(fields: Fields) -> Iterator[Made]:
    yield _exchange(fields.string("prompt"), fields.string("output"))


def _open_orca(fields: Fields) -> Iterator[Made]:
    system = fields.optional_string("system_prompt") or ""
    yield _exchange(fields.string("question"), fields.string("response"), system)


def _lima(fields: Fields) -> Iterator[Made]:
    texts = fields.array("conversations")
    if not all(isinstance(text, str) for text in texts):
        raise fields.error("wrong_type", "conversations", "has other things than strings; expected strings")
    roles = ("user", "assistant")
    yield {"messages": _ended([{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)])}


def _prompt_completion(fields: Fields) -> Iterator[Made]:
    parts: list[Made] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(fields.value.get(key), list):
            parts += [_message(one) for one in fields.objects(key)]
        else:
            parts.append({"role": role, "content": fields.string(key)})
    yield {"messages": parts}


def _mt_bench(fields: Fields) -> Iterator[Made]:
    questions, answers = fields.array("turns"), fields.value.get("reference") or []
    pairs = list(takewhile(all, zip(questions, answers, strict=False)))  # up to the first that nobody answered
    if not pairs:
        raise Unusable("no answer")
    yield {"messages": [turn for question, answer in pairs for turn in _exchange(question, answer)["messages"]]}


def _nodes(node: Fields, before: list[Made]) -> Iterator[tuple[Fields, list[Made]]]:
    """Every message of an OASST tree that is not deleted, with the conversation up to and including it."""
    if node.value.get("deleted"):
        return
    path = [*before, {"role": _role(node, "role"), "content": node.string("text")}]
    yield node, path
    for reply in node.objects("replies") if node.value.get("replies") else []:
        yield from _nodes(reply, path)


def _oasst(fields: Fields) -> Iterator[Made]:
    """Every path from the root to a leaf, up to its last answer; equal paths once."""
    seen: set[str] = set()
    for node, path in _nodes(fields.object("prompt"), []):
        if node.value.get("replies") or (len(path) == 1 and path[0]["role"] == "user"):
            continue
        messages = _ended(path)
        key = json.dumps(messages)
        if key not in seen:
            seen.add(key)
            yield {"messages": messages}
    if not seen:
        raise Unusable("no answer")


def _oasst_pairs(fields: Fields) -> Iterator[Made]:
    """The best answer of each question, by rank, with each of the others."""
    found = False
    for node, path in _nodes(fields.object("prompt"), []):
        ranked = []
        for reply in node.objects("replies") if node.value.get("replies") else []:
            rank = reply.optional_integer("rank")
            if _role(reply, "role") == "assistant" and rank is not None and not reply.value.get("deleted"):
                ranked.append((rank, reply.string("text")))
        ranked.sort(key=lambda pair: pair[0])
        for _, worse in ranked[1:]:
            found = True
            yield _pair(path, ranked[0][1], worse)
    if not found:
        raise Unusable("no two ranked answers")


def _pair(prompt: list[Made], chosen: str, rejected: str) -> Made:
    sides = {"chosen": chosen, "rejected": rejected}
    return {name: [*prompt, {"role": "assistant", "content": text}] for name, text in sides.items()}


_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _hh_side(fields: Fields, key: str) -> list[Made]:
    _, *parts = _SPEAKER.split(fields.string(key))
    if not parts:
        raise fields.error("invalid_value", key, 'has no "\\n\\nHuman:"; expected a dialogue')
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": text.strip()} for name, text in zip(parts[::2], parts[1::2], strict=True)]


def _hh(fields: Fields) -> Iterator[Made]:
    yield {key: _hh_side(fields, key) for key in ("chosen", "rejected")}


def _hh_chat(fields: Fields) -> Iterator[Made]:
    yield {"messages": _ended(_hh_side(fields, "chosen"))}


def _score(completion: Fields) -> float | None:
    for key in ("overall_score", "fine-grained_score", "score"):
        if completion.value.get(key) is not None:
            return completion.number(key)
    return None


def _ultrafeedback(fields: Fields) -> Iterator[Made]:
    """The best of the scored answers, and one of the worse ones, chosen by the hash of the question."""
    question = fields.string("instruction")
    scored = [(_score(one), one.string("response")) for one in fields.objects("completions")]
    known = sorted(((score, text) for score, text in scored if score is not None), reverse=True)
    worse = [text for score, text in known if score < known[0][0]]
    if not worse:
        raise Unusable("no two answers with different scores")
    index = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8]) % len(worse)
    yield _pair([{"role": "user", "content": question}], known[0][1], worse[index])


def _ultrafeedback_chat(fields: Fields) -> Iterator[Made]:
    for pair in _ultrafeedback(fields):
        yield {"messages": pair["chosen"]}


def _pandalm(fields: Fields) -> Iterator[Made]:
    """The answer that more annotators prefer: 1 or 2; 0 is a tie."""
    names = [key for key in fields.value if re.fullmatch(r"annotator\d+", key)]
    votes = [fields.integer(name) for name in names]
    first, second = votes.count(1), votes.count(2)
    if first == second:
        raise Unusable("a tie")
    order = ("response1", "response2") if first > second else ("response2", "response1")
    question = _with_input(fields.string("instruction"), fields.optional_string("input"))
    yield _pair([{"role": "user", "content": question}], *map(fields.string, order))


def _sharegpt_pairs(fields: Fields) -> Iterator[Made]:
    prompt = _turns(fields, "conversations")
    sides = {}
    for key in ("chosen", "rejected"):
        turn = fields.object(key)
        sides[key] = [*prompt, {"role": _role(turn, "from"), "content": turn.string("value")}]
    yield sides


def _preference(fields: Fields) -> Iterator[Made]:
    made = {key: fields.get(key, "an array or a string") for key in ("chosen", "rejected")}
    if fields.value.get("prompt") is not None:
        made["prompt"] = fields.value["prompt"]
    if isinstance(made["chosen"], list) and made.get("prompt") == made["chosen"][:1]:
        del made["prompt"]
    if isinstance(made["chosen"], list):  # drop what other projects put into a message
        for key in ("chosen", "rejected"):
            if isinstance(made[key], list):
                made[key] = [_message(one) for one in fields.objects(key)]
    yield made


def _is(kind: type, key: str, inner: type | None = None) -> Callable[[dict[str, Any]], bool]:
    def check(row: dict[str, Any]) -> bool:
        value = row.get(key)
        return isinstance(value, kind) and (inner is None or (bool(value) and isinstance(value[0], inner)))  # type: ignore[index]

    return check


def _is_hh(row: dict[str, Any]) -> bool:
    return isinstance(row["chosen"], str) and _SPEAKER.match(row["chosen"]) is not None


# Each shape before those with fewer keys that its rows have too
SHAPES: dict[str, Shape] = {
    "messages": Shape(("messages",), chat=_messages),
    "hh-rlhf": Shape(("chosen", "rejected"), chat=_hh_chat, preference=_hh, sample=_is_hh),
    "sharegpt-pairs": Shape(
        ("conversations", "chosen", "rejected"), preference=_sharegpt_pairs, sample=_is(dict, "chosen")
    ),
    "preference": Shape(("chosen", "rejected"), preference=_preference),
    "oasst-tree": Shape(
        ("message_tree_id", "prompt"), chat=_oasst, preference=_oasst_pairs, sample=_is(dict, "prompt")
    ),
    "lima": Shape(("conversations",), chat=_lima, sample=_is(list, "conversations", str)),
    "sharegpt": Shape(("conversations",), chat=_sharegpt),
    "sharegpt-conversation": Shape(("conversation",), chat=_sharegpt, sample=_is(list, "conversation", dict)),
    "ultrafeedback": Shape(("instruction", "completions"), chat=_ultrafeedback_chat, preference=_ultrafeedback),
    "pandalm": Shape(("instruction", "response1", "response2", "annotator1"), preference=_pandalm),
    "mt-bench": Shape(("question_id", "turns"), chat=_mt_bench),
    "unnatural": Shape(
        ("instruction", "instances"),
        chat=_unnatural,
        sample=lambda row: _is(list, "instances", dict)(row) and "instruction_with_input" in row["instances"][0],
    ),
    "self-instruct": Shape(("instruction", "instances"), chat=_self_instruct),
    "dolly": Shape(("instruction", "context", "response"), chat=_dolly),
    "open-orca": Shape(("question", "response"), chat=_open_orca),
    "flan": Shape(("inputs", "targets"), chat=_flan),
    "science": Shape(("dataset", "input", "output"), chat=_science, sample=lambda row: "instruction" not in row),
    "alpaca": Shape(("instruction", "output"), chat=_alpaca),
    "gpteacher": Shape(("instruction", "response"), chat=_alpaca),
    "hardcoded": Shape(("prompt", "output"), chat=_hardcoded),
    "prompt-completion": Shape(("prompt", "completion"), chat=_prompt_completion),
}
# sets whose rows have the shape of another
for _name, _same in (
    ("code-alpaca", "alpaca"),
    ("gpt4-alpaca", "alpaca"),
    ("wizardlm", "alpaca"),
    ("cot", "flan"),
    ("tulu", "messages"),
    ("trl", "preference"),
):
    SHAPES[_name] = SHAPES[_same]
