"""Templates and expressions of task declarations: Jinja over a row, in its sandbox, with undefined names as errors."""

import ast
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from catwalk.bias import bbq_role

__all__ = ["TemplateError", "boxed", "compile_expression", "compile_template", "names_in"]

Row = dict[str, Any]


def _wikihow(text: str) -> str:
    """HellaSwag's texts without WikiHow's marks."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _re_sub(text: str, pattern: str, replacement: str = "") -> str:
    return re.sub(pattern, replacement, text)


def _split_options(text: str) -> list[str]:
    """MathQA's choices: "a ) 38 , b ) 27.675 , c ) 30"."""
    return [part.strip(" ,") for part in re.split(r"\b[a-e] \)", text.strip("[]'"))[1:]]


def _literal(text: str) -> Any:
    """The value of a Python literal: "['a', 'b']"."""
    return ast.literal_eval(text)


def boxed(text: str) -> str:
    r"""The content of the last \\boxed{...}, with balanced braces; empty without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return ""
    depth = 0
    for index in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : index]
    return ""


def _bbq_role(answer: list[str], row_metadata: dict[str, Any], polarity: str) -> str:
    return bbq_role(answer, row_metadata["stereotyped_groups"], polarity)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {
        "bbq_role": _bbq_role,
        "boxed": boxed,
        "literal": _literal,
        "lower_first": _lower_first,
        "re_sub": _re_sub,
        "split_options": _split_options,
        "wikihow": _wikihow,
    }
    return environment


@cache
def _template(text: str) -> Callable[[Row], str]:
    return _environment().from_string(text).render


@cache
def _expression(text: str) -> Callable[[Row], Any]:
    return _environment().compile_expression(text, undefined_to_none=False)


def names_in(text: str) -> set[str]:
    """The columns that a template uses.

    Raises:
        TemplateError: it is not valid.
    """
    return meta.find_undeclared_variables(_environment().parse(text))


def compile_template(text: str) -> Callable[[Row], str]:
    """A template as a function of a row. It is compiled when first called, since most tasks are only listed."""
    return lambda row: _template(text)(row)


def compile_expression(text: str) -> Callable[[Row], Any]:
    """An expression as a function of a row; its value has its own type.

    Raises:
        TemplateError: when called, for an undefined name or text that is no expression.
    """

    def evaluate(row: Row) -> Any:
        value = _expression(text)(row)
        if isinstance(value, Undefined):
            str(value)  # raises with the name that is missing
        return value

    return evaluate
