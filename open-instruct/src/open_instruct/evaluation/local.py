"""A checkpoint as the model of an evaluation: answers in batches, log-probabilities of given continuations."""

import hashlib
import queue
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..chat.answer import Chatter
from ..chat.render import Refusal
from ..config import RuntimeSettings, TemplateSettings
from ..formats.checkpoint import read_checkpoint
from ..formats.contract import WorkError, first_line
from ..model.load import check_ids
from ..serve.engine import Engine, Event, Failed, Finished, Job, Token
from ..serve.text import TextStream
from .items import Answer, Decoding, Prompt, Score

__all__ = ["LocalModel"]


class LocalModel:
    """A loaded checkpoint. Chats go through its own template, as `open-instruct chat` renders them."""

    def __init__(
        self, directory: Path, name: str, runtime: RuntimeSettings, template: TemplateSettings, dtype: str, batch: int
    ) -> None:
        """Check and load. Raises what `Chatter` raises."""
        self.name, self._directory, self._dtype = name, directory, dtype
        self._chatter = Chatter(directory, runtime, template, dtype=dtype)
        self._encoder, self._tokenizer = self._chatter.encoder, self._chatter.encoder.tokenizer
        self._checkpoint = read_checkpoint(directory, checksums=False)  # `Chatter` has checked them
        self.room: int = self._chatter.max_positions
        """The longest prompt with its answer, in tokens."""
        self._engine = Engine(
            self._chatter.model, self._chatter.device, len(self._tokenizer), batch=batch, waiting=2**31
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of the weights, the tokenizer, the configuration and the template; and the type of the weights."""
        template = hashlib.sha256(self._encoder.template.text.encode()).hexdigest()
        return {"files": self._checkpoint.sha256, "template": template, "dtype": self._dtype}

    @property
    def description(self) -> dict[str, Any]:
        """`model` of results.json."""
        checkpoint = self._checkpoint
        return {
            "name": self.name,
            "architecture": checkpoint.architecture,
            "parameters": checkpoint.parameters,
            "vocab_size": self._chatter.model.get_input_embeddings().num_embeddings,
            "dtype": self._dtype,
            "tokenizer_sha256": checkpoint.sha256.get("tokenizer.json"),
            "manifest_sha256": checkpoint.manifest.identity if checkpoint.manifest else None,
        }

    @property
    def inputs(self) -> list[Path]:
        """The directory."""
        return [self._directory]

    def close(self) -> None:
        """End the engine's thread."""
        self._engine.close()

    # ---- prompts

    def _encode(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt without the begun answer. Raises WorkError."""
        if not prompt.messages:
            ids: list[int] = self._tokenizer.encode(prompt.text)
        else:
            try:
                ids = self._encoder.encode_prompt(prompt.messages)
            except Refusal as refusal:
                where = (
                    f"template: {self._encoder.template.name} template refuses {prompt.messages[-1]['content']!r:.60}"
                )
                raise WorkError(f"{where} ({refusal}); expected a template that renders it") from refusal
        check_ids(self._chatter.model, self._tokenizer, max(ids, default=-1))
        if not ids:
            raise WorkError("a prompt has no tokens; expected at least one")
        return ids

    def _begun(self, prompt: Prompt) -> list[int]:
        return self._tokenizer.encode(prompt.begun, add_special_tokens=False) if prompt.begun else []

    def fits(self, prompt: Prompt, max_tokens: int) -> bool:
        """Whether the prompt leaves room for an answer of so many tokens."""
        return len(self._encode(prompt)) + len(self._begun(prompt)) + max_tokens <= self.room

    # ---- answers

    def generate(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        keep: Callable[[int, Answer], None],
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Answer the prompts, many at a time. A prompt that is too long loses its beginning.

        What is drawn for a prompt depends on its seed only: `seeds[i]`, or else that of the prompt.
        """
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        jobs, texts, cut = [], [], []
        for index, prompt in enumerate(prompts):
            whole = self._encode(prompt) + self._begun(prompt)
            ids = whole[-max(1, self.room - decoding.max_tokens) :]
            cut.append(len(ids) < len(whole))
            texts.append(TextStream(self._tokenizer, ids, decoding.stop))
            jobs.append(
                Job(
                    prompt=ids,
                    max_tokens=max(1, min(decoding.max_tokens, self.room - len(ids))),
                    notify=partial(_notify, events, index),
                    stops=frozenset(self._chatter.stops),
                    temperature=decoding.temperature,
                    top_p=decoding.top_p,
                    seed=decoding.seed_of(prompt) if seeds is None else seeds[index],
                )
            )
        self._engine.submit("evaluation", jobs)
        tokens, left = [0] * len(jobs), set(range(len(jobs)))
        try:
            while left:
                index, event = events.get()
                if index not in left:
                    continue  # tokens after a stop string
                text, job = texts[index], jobs[index]
                if isinstance(event, Failed):
                    raise WorkError(f"{self._directory}: {event.message}; expected an answer")
                if isinstance(event, Token):
                    tokens[index] += 1
                    if event.id not in job.stops:
                        text.add(event.id)
                if isinstance(event, Finished):
                    text.end()
                elif not text.stopped:
                    continue
                job.cancelled = True
                left.discard(index)
                ended = text.stopped or (isinstance(event, Finished) and event.reason == "stop")
                keep(index, Answer(text=text.text, tokens=tokens[index], ended=ended, cut=cut[index]))
        finally:
            for job in jobs:
                job.cancelled = True

    # ---- scores

    def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        """Score each continuation of the prompt and of the begun answer."""
        import torch

        rows, starts = [], []
        for continuation in continuations:
            ids, start = self._encode_pair(prompt, continuation)
            if len(ids) > self.room:
                raise WorkError(f"a prompt and its choice have {len(ids)} tokens; expected at most {self.room}")
            rows.append(ids)
            starts.append(start)
        try:
            with torch.inference_mode():
                return self._scores(rows, starts)
        except (RuntimeError, IndexError) as error:
            raise WorkError(f"{self._directory}: the model failed ({first_line(error)}); expected scores") from error

    def _encode_pair(self, prompt: Prompt, continuation: str) -> tuple[list[int], int]:
        """The ids of both, encoded together where the continuation begins, and where it begins."""
        if prompt.messages:
            context, text, special = self._encode(prompt), prompt.begun, False
        else:
            context, text, special = [], prompt.text, True
        encoded = self._tokenizer(
            text + continuation, add_special_tokens=special, return_offsets_mapping=True, return_attention_mask=False
        )
        ids = [*context, *encoded["input_ids"]]
        own = next(
            (place for place, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(text)),
            len(ids) - len(context),
        )
        start = len(context) + own
        if not 0 < start < len(ids):
            raise WorkError(f"{continuation!r:.40} has no tokens after the prompt; expected at least one")
        check_ids(self._chatter.model, self._tokenizer, max(ids))
        return ids, start

    def _scores(self, rows: list[list[int]], starts: list[int]) -> list[Score]:
        import torch

        contexts = {tuple(ids[:start]) for ids, start in zip(rows, starts, strict=True)}
        shared = len(contexts) == 1 and all(len(ids) == start + 1 for ids, start in zip(rows, starts, strict=True))
        # rows are padded on the right, where a causal model does not look
        batch = [list(contexts.pop())] if shared else rows
        longest = max(map(len, batch))
        padded = [ids + [0] * (longest - len(ids)) for ids in batch]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch]
        device = self._chatter.device
        logits = self._chatter.model(
            input_ids=torch.tensor(padded, device=device), attention_mask=torch.tensor(mask, device=device)
        ).logits
        found = []
        for index, (ids, start) in enumerate(zip(rows, starts, strict=True)):
            own = logits[0 if shared else index, start - 1 : len(ids) - 1].float().log_softmax(dim=-1)
            chosen = own.gather(1, torch.tensor(ids[start:], device=device)[:, None]).double().sum()
            value = float(chosen)
            if not torch.isfinite(chosen):
                raise WorkError(f"{self._directory}: a log-probability is {value}; expected a finite number")
            found.append(Score(sum_logprob=min(0.0, round(value, 6)), tokens=len(ids) - start))
        return found


def _notify(events: "queue.SimpleQueue[tuple[int, Event]]", index: int, event: Event) -> None:
    events.put((index, event))
