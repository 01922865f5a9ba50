"""Answers from a checkpoint, token by token."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RuntimeSettings, TemplateSettings
from ..errors import WorkError
from ..formats.chat import Message
from ..model.load import check_ids, check_model_directory, load_model, load_tokenizer
from .encode import PromptEncoder
from .render import Refusal, choose_template

__all__ = ["Answer", "Chatter", "Sampling"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: temperature 0 takes the likeliest."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """What was said, in how many tokens, and whether the model ended its turn itself."""

    text: str
    tokens: int
    ended: bool


class Chatter:
    """A loaded checkpoint with its tokenizer and template."""

    def __init__(self, directory: Path, runtime: RuntimeSettings, template: TemplateSettings) -> None:
        """Check and load. Raises what `check_model_directory`, `choose_template` and `PromptEncoder` raise."""
        from ..training.process import set_up_torch

        inspection = check_model_directory(str(directory))
        self.device, _ = set_up_torch(runtime)
        tokenizer = load_tokenizer(inspection)
        chosen = choose_template(template, tokenizer.chat_template, training=False)
        if tokenizer.chat_template is None and template.name is None:
            log.warning("template: the checkpoint has none; using %s", chosen.name)
        self.encoder = PromptEncoder(tokenizer, chosen)
        self.model = load_model(directory).to(self.device).eval()
        self._padding_rows = list(range(len(tokenizer), self.model.get_input_embeddings().num_embeddings))
        self.max_positions = inspection.max_positions or 2**31
        stops = {*inspection.stop_token_ids, tokenizer.eos_token_id, self.encoder.turn_end}
        self.stops = sorted(id for id in stops if id is not None)

    def answer(
        self, messages: Sequence[Message], sampling: Sampling, seed: int, show: Callable[[str], None] | None = None
    ) -> Answer:
        """Answer the last user message; `show` gets pieces of text as they come.

        A conversation that leaves no room for an answer loses its oldest turns (never the system message).

        Raises:
            WorkError: the template refuses the messages, or the embedding has no row for a token.
        """
        import torch
        from transformers import TextStreamer

        try:
            prompt = self._fitting_prompt(list(messages), sampling.max_new_tokens)
        except Refusal as refusal:
            name = self.encoder.template.name
            raise WorkError(
                f"template: {name} template refuses the messages ({refusal}); expected messages it can render",
                "drop the system message, or choose another template",
            ) from refusal
        tokenizer = self.encoder.tokenizer
        check_ids(self.model, tokenizer, max(prompt, default=-1))
        streamer = None
        if show is not None:
            streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
            streamer.on_finalized_text = lambda text, stream_end=False: show(text)
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        arguments: dict[str, Any] = {
            "max_new_tokens": max(1, min(sampling.max_new_tokens, self.max_positions - len(prompt))),
            "eos_token_id": self.stops or None,
            "pad_token_id": tokenizer.pad_token_id,
            "suppress_tokens": self._padding_rows or None,
            "streamer": streamer,
        }
        arguments |= drawn if sampling.temperature > 0 else {"do_sample": False}
        ids = torch.tensor([prompt], device=self.device)
        with torch.no_grad():
            output = self.model.generate(ids, attention_mask=torch.ones_like(ids), **arguments)
        new = output[0, len(prompt) :].tolist()
        text = tokenizer.decode(new, skip_special_tokens=True)
        return Answer(text, len(new), bool(new) and new[-1] in self.stops)

    def _fitting_prompt(self, messages: list[Message], max_new_tokens: int) -> list[int]:
        first = 1 if messages[0]["role"] == "system" else 0
        prompt = self.encoder.encode_prompt(messages)
        while len(prompt) + max_new_tokens > self.max_positions and len(messages) > first + 1:
            del messages[first : first + 2]
            prompt = self.encoder.encode_prompt(messages)
        # one message alone may still be too long: its end is what is to be answered
        room = max(1, self.max_positions - max_new_tokens)
        return prompt if len(prompt) <= self.max_positions - 1 else prompt[-room:]
