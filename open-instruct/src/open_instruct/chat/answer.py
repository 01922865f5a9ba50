"""`open-instruct chat`: answers from a checkpoint, in the terminal or to the prompts of a file of chats."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RuntimeSettings, SamplingSettings, TemplateSettings
from ..data import collect_rows, warn_of_ignored
from ..formats.chat import Conversation, Message, parse_conversation, parse_rows
from ..formats.contract import ConfigError, WorkError, write_file
from ..formats.manifest import artifact_files
from ..model.load import check_ids, check_model_directory, load_model, load_tokenizer, set_up_torch
from .encode import PromptEncoder
from .render import Refusal, choose_template

__all__ = ["Answer", "Chatter", "answer_file", "talk"]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0
_PLACEHOLDER: Message = {"role": "assistant", "content": "?"}


@dataclass(frozen=True)
class Answer:
    """An answer, its number of tokens, and whether the model ended its turn itself."""

    text: str
    tokens: int
    ended: bool


class Chatter:
    """A loaded checkpoint with its tokenizer and template."""

    def __init__(
        self, directory: Path, runtime: RuntimeSettings, template: TemplateSettings, *, dtype: str = "float32"
    ) -> None:
        """Check and load. Raises what `check_model_directory`, `choose_template` and `PromptEncoder` raise."""
        inspection = check_model_directory(str(directory))
        self.device, _ = set_up_torch(runtime)
        tokenizer = load_tokenizer(inspection)
        chosen = choose_template(template, tokenizer.chat_template, training=False)
        if tokenizer.chat_template is None and template.name is None:
            log.warning("template: the checkpoint has no template; using %s", chosen.name)
        self.encoder = PromptEncoder(tokenizer, chosen)
        self.model = load_model(directory, dtype).to(self.device).eval()
        self._padding_rows = list(range(len(tokenizer), self.model.get_input_embeddings().num_embeddings))
        self.max_positions = inspection.max_positions or 2**31
        stops = {*inspection.stop_token_ids, tokenizer.eos_token_id, self.encoder.turn_end}
        self.stops = sorted(id for id in stops if id is not None)

    def answer(
        self,
        messages: Sequence[Message],
        sampling: SamplingSettings,
        seed: int,
        show: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer the last user message; `show` receives pieces of text as they are generated.

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
                f"template: {name} template refuses the messages ({refusal}); expected messages that it can render",
                hint="drop the system message, or choose another template",
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
        # a single message may still be too long: keep its end
        room = max(1, self.max_positions - max_new_tokens)
        return prompt if len(prompt) <= self.max_positions - 1 else prompt[-room:]


def talk(
    chatter: Chatter, lines: Iterable[str], sampling: SamplingSettings, system: str | None, write: Callable[[str], None]
) -> None:
    """Answer each line of `lines` as the next message of one conversation; `/new` starts another."""
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    turn = 0
    for line in lines:
        text = line.rstrip("\n")
        if not text.strip():
            continue
        if text.strip() == "/new":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": text})
        answer = chatter.answer(messages, sampling, sampling.seed + turn, write)
        write("\n")
        turn += 1
        messages.append({"role": "assistant", "content": answer.text})


def _read_prompts(source: str) -> list[tuple[Conversation, str | None]]:
    """Read rows and the last answer of each, if it has one. Raises ConfigError, BadRows, FormatError."""
    if not Path(source).exists():
        raise ConfigError(f"--input: {source} not found; expected a file of chat rows")

    def parse(row: dict[str, Any], path: Path, line: int) -> tuple[Conversation, str | None]:
        messages = row.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if isinstance(messages, list) and isinstance(last, dict) and last.get("role") == "user":
            # the format requires an answer: check the row with one, which is not used
            return parse_conversation(row | {"messages": [*messages, _PLACEHOLDER]}, path, line), None
        conversation = parse_conversation(row, path, line)
        return conversation, conversation.messages[-1]["content"]

    rows = collect_rows(parse_rows(artifact_files(Path(source), "chat"), parse))
    warn_of_ignored([row for row, _ in rows], "--input")
    return rows


def answer_file(chatter: Chatter, source: str, target: str, sampling: SamplingSettings, system: str | None) -> None:
    """Answer the prompt of every row: its messages without the last answer, if it ends with one.

    Rows `{"id", "source", "messages", "answer_tokens", "ended", "reference"}` go to the file `target`, or to standard
    output if it is `-`: the last of the messages is the model's answer, `reference` is the row's. Row i is sampled with
    the seed `sampling.seed` + i, whatever the other rows are.
    """
    rows = _read_prompts(source)
    lines = []
    began = last = time.monotonic()
    for index, (row, reference) in enumerate(rows):
        prompt = list(row.messages[:-1])
        if system and prompt[0]["role"] != "system":
            prompt.insert(0, {"role": "system", "content": system})
        answer = chatter.answer(prompt, sampling, sampling.seed + index)
        value = {
            "id": row.id,
            "source": row.source,
            "messages": [*prompt, {"role": "assistant", "content": answer.text}],
            "answer_tokens": answer.tokens,
            "ended": answer.ended,
            "reference": reference,
        }
        lines.append(json.dumps(value, ensure_ascii=False) + "\n")
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            left = (len(rows) - index - 1) * (now - began) / (index + 1)
            log.info("chat  %d/%d answers  eta %d:%02d", index + 1, len(rows), left // 60, left % 60)
    if target == "-":
        sys.stdout.writelines(lines)
        return
    path = Path(target)
    write_file(path, "".join(lines).encode())
    log.info("chat  %d answers in %.1f s: %s", len(rows), time.monotonic() - began, path)
