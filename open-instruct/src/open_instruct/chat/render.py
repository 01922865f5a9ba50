"""Messages to text, and which of the text is the assistant's. Templates are Jinja with `{% generation %}` around that.

The same template string is saved into the checkpoint as chat_template.jinja, so inference renders what training did.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..config import TemplateSettings
from ..errors import RequestError
from ..formats.chat import Message

__all__ = ["SHIPPED", "ChatTemplate", "Segment", "choose_template", "read_shipped", "render"]

# name -> texts that must be single tokens; the others end a turn with the tokenizer's own end-of-sequence token
SHIPPED: dict[str, tuple[str, ...]] = {
    "tulu": (),
    "zephyr": (),
    "plain": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}
_DEFAULT = "tulu"
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_BOS = "{{- bos_token -}}\n"


@dataclass(frozen=True)
class Segment:
    """A stretch of rendered text; `trained` when it is the assistant's own (its words and the end of its turn)."""

    text: str
    trained: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A template's name (for messages), its Jinja text, and the texts that must be single tokens."""

    name: str
    text: str
    special_tokens: tuple[str, ...] = ()


def read_shipped(name: str) -> str:
    """Read the Jinja text of a template that comes with the package."""
    return (resources.files("open_instruct.chat") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def choose_template(settings: TemplateSettings, own: str | None) -> ChatTemplate:
    """Pick the template that the settings name, or the checkpoint's `own`.

    Raises:
        RequestError: an unknown name, or a template without `{% generation %}` (nothing would be trained).
    """
    name, special = settings.name, tuple(settings.special_tokens)
    if name is None and own is not None:
        template = ChatTemplate("the checkpoint's", own, special)
    elif name is None or name in SHIPPED:
        name = name or _DEFAULT
        template = ChatTemplate(name, read_shipped(name), SHIPPED[name])
    elif Path(name).is_file():
        template = ChatTemplate(Path(name).name, Path(name).read_text(encoding="utf-8"), special)
    else:
        known = ", ".join(SHIPPED)
        raise RequestError(f'template.name: is "{name}"; expected a .jinja file or one of {known}')
    if not _MARKER.search(template.text):
        raise RequestError(
            f"template.name: {template.name} template has no {{% generation %}}; expected it around each answer",
            f"use a shipped template: {', '.join(SHIPPED)}",
        )
    if settings.add_bos and "bos_token" not in template.text:
        template = ChatTemplate(template.name, _BOS + template.text, template.special_tokens)
    return template


def render(
    template: str, messages: Sequence[Message], tokens: dict[str, Any], *, add_generation_prompt: bool = False
) -> list[Segment]:
    """Render a conversation to segments whose texts, joined, are what transformers' `apply_chat_template` gives.

    `tokens` are the tokenizer's named tokens (`bos_token`, `eos_token`, …), which templates may use.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        [list(messages)],
        chat_template=template,
        return_assistant_tokens_mask=_has_marker(template),
        add_generation_prompt=add_generation_prompt,
        **tokens,
    )
    text = texts[0]
    segments, position = [], 0
    for start, end in spans[0] if spans else []:
        segments += [Segment(text[position:start], False), Segment(text[start:end], True)]
        position = end
    segments.append(Segment(text[position:], False))
    return [segment for segment in segments if segment.text]


@lru_cache(maxsize=8)
def _has_marker(template: str) -> bool:
    return _MARKER.search(template) is not None
