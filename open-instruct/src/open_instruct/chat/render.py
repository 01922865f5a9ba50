"""Messages to text, and which part of it is the assistant's: Jinja templates with `{% generation %}` around that part.

The template is saved with the checkpoint as chat_template.jinja, so inference renders what training did.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..config import TemplateSettings
from ..formats.chat import Message
from ..formats.contract import ConfigError, first_line

__all__ = [
    "SHIPPED",
    "ChatTemplate",
    "Refusal",
    "Rendered",
    "choose_template",
    "read_shipped",
    "render",
]

# name -> texts that must be single tokens; a template without any ends a turn with the end-of-sequence token
SHIPPED: dict[str, tuple[str, ...]] = {
    "tulu": (),
    "zephyr": (),
    "plain": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "olmo": (),
    "llama2": (),
    "mistral": (),
}
_OTHER_NAMES = {"llama-2": "llama2", "llama-3": "llama3", "mistral-instruct": "mistral"}
_DEFAULT = "tulu"
_MARKER = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_BOS = "{{- bos_token -}}\n"


class Refusal(ValueError):
    """A template refuses a conversation or fails on it; the message is the reason."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text; `spans` are the (start, end) of each answer with the end of its turn."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatTemplate:
    """A template's name (for messages), its Jinja text, and the texts that must be single tokens."""

    name: str
    text: str
    special_tokens: tuple[str, ...] = ()


def read_shipped(name: str) -> str:
    """Read the Jinja text of a template that is shipped with the package."""
    return (resources.files("open_instruct.chat") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def choose_template(settings: TemplateSettings, own: str | None, *, training: bool = True) -> ChatTemplate:
    """Return the template that the settings name, or the checkpoint's `own`.

    Raises:
        ConfigError: the name is unknown; or, for `training`, the template has no `{% generation %}`, so nothing would
            be trained.
    """
    name, special = _OTHER_NAMES.get(settings.name or "", settings.name), tuple(settings.special_tokens)
    if name is None and own is not None:
        template = ChatTemplate("the checkpoint's", own, special)
    elif name is None or name in SHIPPED:
        name = name or _DEFAULT
        template = ChatTemplate(name, read_shipped(name), SHIPPED[name])
    elif Path(name).is_file():
        try:
            template = ChatTemplate(Path(name).name, Path(name).read_text(encoding="utf-8"), special)
        except UnicodeDecodeError:
            raise ConfigError(f"template.name: {name} is not UTF-8; expected a Jinja template") from None
    else:
        known = ", ".join(SHIPPED)
        raise ConfigError(f'template.name: is "{name}"; expected a .jinja file or one of {known}')
    if training and not _has_marker(template.text):
        raise ConfigError(
            f"template.name: {template.name} template has no {{% generation %}}; expected it around each answer",
            hint=f"use a shipped template: {', '.join(SHIPPED)}",
        )
    if settings.add_bos and "bos_token" not in template.text:
        template = ChatTemplate(template.name, _BOS + template.text, template.special_tokens)
    return template


def render(
    template: str, messages: Sequence[Message], tokens: dict[str, Any], *, add_generation_prompt: bool = False
) -> Rendered:
    """Render a conversation to the text that transformers' `apply_chat_template` returns.

    `tokens` are the tokenizer's named tokens (`bos_token`, `eos_token`, …), which templates may use.

    Raises:
        Refusal: the template raises an exception, its own or another.
    """
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, spans = render_jinja_template(
            [list(messages)],
            chat_template=template,
            return_assistant_tokens_mask=_has_marker(template),
            add_generation_prompt=add_generation_prompt,
            **tokens,
        )
    # what a template may do with a message that it does not expect: "a" + None, items of a string, …
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise Refusal(first_line(error)) from error
    found = tuple((start, end) for start, end in (spans[0] if spans else []) if end > start)
    return Rendered(texts[0], found)


@lru_cache(maxsize=8)
def _has_marker(template: str) -> bool:
    """Whether a template marks the assistant's text with `{% generation %}`."""
    return _MARKER.search(template) is not None
