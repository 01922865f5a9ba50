"""A benchmark's YAML file becomes tasks (docs/guide/write-a-task.md lists the keys)."""

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from catwalk.formats.contract import ConfigError, canonical_json
from catwalk.passkey import passkey_rows
from catwalk.templates import compile_expression, compile_template
from catwalk.types import UNCONDITIONAL_CONTEXT, Item, Shots, Task

__all__ = ["Declaration", "build_task", "members", "read_declaration"]

Declaration = dict[str, Any]
Row = dict[str, Any]

_KINDS = ("choices", "text", "generation")
_STATES = ("declared", "rendered", "scored")  # with real rows, in a test
_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
    "any": object,
}
_GENERATED = {"passkey": passkey_rows}
_KEYS: dict[str, Any] = {
    # what it is
    "name": str,
    "summary": str,
    "source": str,
    "paper": str,
    "licence": str,
    "state": str,
    "sets": list,
    # data
    "hub": dict,
    "package": str,
    "local": str,
    "generated": dict,
    "split": str,
    "fields": dict,
    "where": str,
    "members": (list, dict),
    # prompt
    "kind": str,
    "description": str,
    "context": (str, list),
    "choices": (str, list),
    "label": (str, int),
    "continuation": str,
    "answer": str,
    "references": (str, list),
    "texts": (str, list),
    "id": str,
    "cluster": str,
    "group": str,
    "roles": (str, list),
    "unconditional_context": (str, type(None)),
    "shots": dict,
    "variants": dict,
    # score
    "stop": list,
    "max_tokens": int,
    "extract": str,
    "metrics": list,
    "primary_metric": str,
    "runs_code": bool,
}
_NESTED = {
    "hub": ("name", "config", "revision", "files"),
    "shots": ("count", "split", "seed", "rows"),
    "generated": ("by", "lengths", "depths", "seed"),
}
_NEEDED = {
    "choices": ("context", "choices", "label"),
    "text": ("context", "continuation"),
    "generation": ("context", "references", "max_tokens"),
}


# ---- read


def read_declaration(path: Path) -> Declaration:
    """A benchmark's declaration, checked.

    Raises:
        ConfigError: at `file:line`, for text that is not YAML, an unknown key or a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ConfigError(f"tasks: {path}: {error.strerror}; expected a task's YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys of a task, such as name and context")
    check_keys(value, path, text)
    for key in ("name", "summary", "primary_metric", "split", "texts"):
        if key not in value and not (key == "split" and "generated" in value):
            raise ConfigError(f'{path}: "{key}" is missing')
    kind = value.get("kind", "choices")
    if kind not in _KINDS:
        raise ConfigError(f'{_place(path, text, "kind")}: "kind" is {kind!r}; expected {" or ".join(_KINDS)}')
    state = value.get("state", _STATES[0])
    if state not in _STATES:
        raise ConfigError(f'{_place(path, text, "state")}: "state" is {state!r}; expected {" or ".join(_STATES)}')
    for key in _NEEDED[kind]:
        if key not in value:
            raise ConfigError(f'{path}: "{key}" is missing; a task of kind {kind} needs it')
    return value


def check_keys(value: dict[Any, Any], path: Path, text: str) -> None:
    """Refuse unknown keys and wrong types, also inside `hub`, `shots` and `variants`."""
    for key, found in value.items():
        where = _place(path, text, key)
        if key not in _KEYS:
            raise ConfigError(f'{where}: unknown key "{key}" (nearest: "{_nearest(key, _KEYS)}")')
        kind = _KEYS[key]
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = {str: "a string", list: "a list", dict: "keys and values", int: "an integer", bool: "true or false"}
            expected = " or ".join(names.get(one, "null") for one in kinds)
            raise ConfigError(f'{where}: "{key}" is {json.dumps(found, default=str)[:60]}; expected {expected}')
        for inner in found if key in _NESTED else ():
            if inner not in _NESTED[key]:
                near = _nearest(inner, _NESTED[key])
                raise ConfigError(f'{_place(path, text, inner)}: unknown key "{key}.{inner}" (nearest: "{near}")')
    for name, changes in value.get("variants", {}).items():
        if not isinstance(changes, dict):
            raise ConfigError(f'{_place(path, text, name)}: variant "{name}" changes nothing; expected keys and values')
        check_keys(changes, path, text)
    for column, kind in value.get("fields", {}).items():
        if kind not in _TYPES:
            raise ConfigError(f'{_place(path, text, column)}: field "{column}" is {kind}; expected {", ".join(_TYPES)}')


def _nearest(key: Any, known: Any) -> str:
    return str(difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.0)[0])


def _place(path: Path, text: str, key: Any) -> str:
    """`file:line` of a key."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip(" -{").startswith((f"{key}:", f'"{key}":')):
            return f"{path}:{number}"
    return str(path)


# ---- build


def members(declaration: Declaration) -> dict[str | None, str | None]:
    """The members of a benchmark and the group of each: MMLU's subjects. One member, None, without the key."""
    found = declaration.get("members")
    if found is None:
        return {None: None}
    if isinstance(found, list):
        return dict.fromkeys(map(str, found))
    return {str(member): group for group, names in found.items() for member in names}


def build_task(
    declaration: Declaration, member: str | None = None, variant: str | None = None, count: int | None = None
) -> Task:
    """The task of one member and variant, with `count` few-shot examples.

    Raises:
        ConfigError: for an unknown variant, or more few-shot examples than the file lists.
    """
    name = declaration["name"] if member is None else f"{declaration['name']}_{member}"
    listed = dict(declaration)
    letters = variant == "letters" and "letters" not in declaration.get("variants", {})
    if variant is not None and not letters:
        known = [*declaration.get("variants", {}), "letters"]
        if variant not in known:
            near = _nearest(variant, known)
            raise ConfigError(f'tasks: unknown variant "{variant}" of {name} (nearest: "{near}")')
        listed |= declaration["variants"][variant]
    kind = listed.get("kind", "choices")
    if letters and (kind != "choices" or isinstance(listed["context"], list)):
        raise ConfigError(f"tasks: {name} has no variant letters; expected a task whose choices share one context")
    if letters:
        listed |= {"primary_metric": "acc_raw", "unconditional_context": None}
    if listed["primary_metric"] == "acc_unconditional" and listed.get("unconditional_context", "") is None:
        problem = f'tasks: {name}: "primary_metric" is acc_unconditional, but "unconditional_context" is null'
        raise ConfigError(problem, hint="give the text to score the choices after, or choose acc_per_char")
    for key in ("variants", "members", "sets"):
        listed.pop(key, None)
    listed = _filled(listed, member)
    shots = _shots(listed, name, count)
    render, answer = _renderer(listed, kind, letters), listed.get("answer")
    generated = listed.get("generated")
    spec = name + (f":{variant}" if variant else "") + (f"@{count}" if count is not None else "")
    scoring = {key: listed.get(key) for key in sorted(_KEYS) if key in listed and key not in _ABOUT}
    return Task(
        name=spec,
        benchmark=name,
        summary=listed["summary"],
        source=listed.get("source", listed["name"]),
        licence=listed.get("licence", "not stated"),
        paper=listed.get("paper", ""),
        kind=kind,
        primary_metric=listed["primary_metric"],
        metrics=tuple(listed.get("metrics", ())),
        package=listed.get("package"),
        hub=listed.get("hub"),
        local=listed.get("local"),
        rows=_generator(generated) if generated else None,
        keep=_filter(listed["where"]) if "where" in listed else None,
        fields={column: _TYPES[kind] for column, kind in listed.get("fields", {}).items()},
        render=render,
        answer=compile_template(answer) if answer else None,
        split=listed.get("split", "test"),
        shots=shots,
        description=listed.get("description", ""),
        stop=tuple(listed.get("stop", ("\n",) if kind == "generation" else ())),
        max_tokens=listed.get("max_tokens", 0),
        extract=listed.get("extract"),
        runs_code=listed.get("runs_code", False),
        state=listed.get("state", "declared"),
        declaration=canonical_json(scoring | {"name": spec, "letters": letters}),
    )


_ABOUT = ("summary", "source", "paper", "licence", "state", "package", "hub", "local")


def _filled(declaration: Declaration, member: str | None) -> Declaration:
    """The declaration with `{member}` replaced by the member's name, and `{title}` by its words."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{member}", member or "").replace("{title}", (member or "").replace("_", " "))
        if isinstance(value, list):
            return [fill(one) for one in value]
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}
        return value

    return {key: fill(value) for key, value in declaration.items()} if member else declaration


def _generator(settings: dict[str, Any]) -> Any:
    by = settings.get("by", "")
    if by not in _GENERATED:
        raise ConfigError(f'tasks: "generated.by" is {by!r}; expected {" or ".join(_GENERATED)}')
    return lambda: _GENERATED[by](**{key: value for key, value in settings.items() if key != "by"})


_EQUALS = re.compile(r"(\w+) == '([^'{}\\]*)'")


def _filter(where: str) -> Callable[[Row], bool]:
    """The expression as a function of a row. A column with one value, the usual case, needs no Jinja."""
    equals, expression = _EQUALS.fullmatch(where), compile_expression(where)

    def keep(row: Row) -> bool:
        if equals and equals[1] in row:
            return bool(row[equals[1]] == equals[2])
        return bool(expression(row))

    return keep


def _shots(declaration: Declaration, name: str, count: int | None) -> Shots | None:
    declared = declaration.get("shots", {})
    wanted = declared.get("count", 0) if count is None else count
    rows = tuple(declared.get("rows", ()))
    if not wanted:
        return None
    if rows and wanted > len(rows):
        raise ConfigError(f"tasks: {name}@{wanted}: the file lists {len(rows)} examples; expected at most that many")
    split = declared.get("split", declaration.get("split", "test"))
    return Shots(count=wanted, split=split, seed=declared.get("seed", 1234), rows=rows)


def _strings(value: str | list[str]) -> Callable[[Row], list[str]]:
    """A list of templates, or an expression whose value is a list."""
    if isinstance(value, list):
        templates = [compile_template(str(one)) for one in value]
        return lambda row: [template(row) for template in templates]
    expression = compile_expression(value)

    def evaluate(row: Row) -> list[str]:
        found = expression(row)
        if isinstance(found, str):
            raise TypeError("a string where a list is expected")
        return [str(one) for one in found]

    return evaluate


def _renderer(declaration: Declaration, kind: str, letters: bool) -> Callable[[Row, str], Item]:
    """The function that makes an item of a row."""
    context = declaration["context"]
    contexts = _strings(context if isinstance(context, list) else [context])
    choices = _strings(declaration["choices"]) if kind == "choices" else None
    label = compile_expression(str(declaration.get("label", 0)))
    continuation = compile_template(declaration["continuation"]) if kind == "text" else None
    references = _strings(declaration["references"]) if "references" in declaration else None
    texts = _strings(declaration["texts"])
    roles = _strings(declaration["roles"]) if "roles" in declaration else None
    cluster, group = (
        compile_template(declaration[key]) if key in declaration else None for key in ("cluster", "group")
    )
    unconditional = declaration.get("unconditional_context", UNCONDITIONAL_CONTEXT if kind == "choices" else None)

    def render(row: Row, id: str) -> Item:
        before = contexts(row)
        after: list[str] = []
        if choices is not None:
            after = [f" {choice}" if before[0] else choice for choice in choices(row)]
        elif continuation is not None:
            after = [continuation(row)]
        if letters:
            before, after = [_lettered(before[0], after)], [f" {_LETTERS[index]}" for index in range(len(after))]
        return Item(
            id=id,
            contexts=tuple(before if len(before) == max(len(after), 1) else before * len(after)),
            continuations=tuple(after),
            label=int(label(row)),
            texts=tuple(texts(row)),
            unconditional_context=unconditional,
            references=tuple(references(row)) if references else (),
            cluster=cluster(row) if cluster else None,
            group=group(row) if group else "",
            roles=tuple(roles(row)) if roles else (),
        )

    return render


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _lettered(context: str, choices: list[str]) -> str:
    """OLMES' form (arXiv:2406.08446): the choices on lines of their own, before "Answer:"."""
    question = context.removesuffix("Answer:").rstrip("\n")
    lines = [f" {letter}.{choice}" for letter, choice in zip(_LETTERS, choices, strict=False)]
    return "\n".join([question, *lines, "Answer:"])
