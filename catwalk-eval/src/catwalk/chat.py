"""Prompts as chats: `--chat-template` puts what a task asks into a user's turn, as the model's tokenizer writes it.

A task's description, after `--system-instruction`, is the system's message. Its examples and its question are one turn
of the user, or with `--fewshot-as-multiturn` turns of both. The choices are what the assistant says next, without their
leading space. This is lm-evaluation-harness's rule, so that prompts are equal.
"""

import dataclasses
import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from catwalk.formats.contract import ConfigError, first_line
from catwalk.shots import SEPARATOR, shared_prefix
from catwalk.types import Item

__all__ = ["Chat"]

log = logging.getLogger(__name__)

Message = dict[str, str]


class Chat:
    """The chat template of the tokenizer in a directory, and how prompts become messages.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or has no chat template.
    """

    def __init__(self, directory: Path, system_instruction: str | None, fewshot_as_multiturn: bool) -> None:
        self.directory = directory
        self._system = system_instruction
        self._multiturn = fewshot_as_multiturn
        self._without_system = False
        if not self.template:
            problem = f"chat_template: the tokenizer in {directory} has no chat template; expected one"
            raise ConfigError(problem, hint="leave out --chat-template, or use the chat model's own tokenizer")

    @cached_property
    def _tokenizer(self) -> Any:
        import transformers

        transformers.logging.set_verbosity_error()
        try:
            return transformers.AutoTokenizer.from_pretrained(
                self.directory, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever the library raises
            problem = f"chat_template: transformers cannot load the tokenizer in {self.directory}"
            raise ConfigError(f"{problem} ({first_line(error)})") from error

    @cached_property
    def template(self) -> str:
        """The template's text; of several, the one named `default`. Empty without one."""
        found = self._tokenizer.chat_template or ""
        return str(found.get("default", "")) if isinstance(found, dict) else found

    @property
    def settings(self) -> dict[str, Any]:
        """What prompts depend on, for the manifest. A cell's name depends on the prompts themselves."""
        return {
            "chat_template": hashlib.sha256(self.template.encode()).hexdigest(),
            "system_instruction": self._system,
            "fewshot_as_multiturn": self._multiturn,
        }

    def item(self, item: Item) -> Item:
        """The item with chats as contexts.

        Raises:
            ConfigError: the template refuses the messages.
        """
        prefix = shared_prefix(item.description, item.examples)
        parts = [text for text in (self._system, item.description) if text]
        before: list[Message] = []
        if parts:
            before.append({"role": "system", "content": SEPARATOR.join(parts)})
        examples = "".join(question + answer + SEPARATOR for question, answer in item.examples)
        if self._multiturn:
            for question, answer in item.examples:
                before.append({"role": "user", "content": question})
                before.append({"role": "assistant", "content": answer.removeprefix(" ")})
            examples = ""
        contexts = {
            context: self.render([*before, {"role": "user", "content": examples + context.removeprefix(prefix)}])
            for context in dict.fromkeys(item.contexts)
        }
        free = item.unconditional_context
        after = item.continuations
        return dataclasses.replace(
            item,
            contexts=tuple(contexts[context] for context in item.contexts),
            continuations=tuple(text.removeprefix(" ") for text in after) if len(after) > 1 else after,
            unconditional_context=free and self.render([{"role": "user", "content": free}]),
            rendered=True,
        )

    def render(self, messages: list[Message], *, add_generation_prompt: bool = True) -> str:
        """The text of a chat, up to where the assistant speaks next; else up to the end of the last message.

        A system's message is left out, with a warning, if the template has no place for one.

        Raises:
            ConfigError: the template refuses the messages.
        """
        try:
            return self._rendered(messages, add_generation_prompt)
        except TemplateError as error:
            rest = [message for message in messages if message["role"] != "system"]
            try:
                if len(rest) == len(messages):
                    raise
                text = self._rendered(rest, add_generation_prompt)
            except TemplateError:
                problem = f"chat_template: the template in {self.directory} refuses the prompt ({first_line(error)})"
                raise ConfigError(problem) from error
            if not self._without_system:
                self._without_system = True
                message = "%s: the chat template refuses a system's message (%s); prompts are without it"
                log.warning(message, self.directory, first_line(error))
            return text

    def _rendered(self, messages: list[Message], add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text
