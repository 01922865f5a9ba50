"""From one request to the engine and back: one job for each prompt and choice, and their events in order."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..chat.answer import Chatter
from ..chat.render import Refusal
from ..formats.chat import Message
from .engine import Engine, Event, Failed, Finished, Job, Prompted, Token
from .requests import CompletionRequest, Refused, Sampling
from .text import TextStream
from .waiting import QueueFull

__all__ = ["RETRY_AFTER_S", "Generation", "Generator", "Limits", "Piece"]

RETRY_AFTER_S = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cost, and how many there may be."""

    batch: int = 16
    """Sequences that are generated at the same time."""
    waiting: int = 128
    """Sequences that may wait for their turn."""
    max_tokens: int = 2048
    """Longest answer of one request, in tokens."""
    request_s: float = 300.0
    """Longest time from a request to the end of its answer."""
    body_bytes: int = 1 << 20
    """Largest body of a request."""
    shutdown_s: float = 30.0
    """How long running answers may take when the server is asked to end."""


@dataclass
class Choice:
    """One sequence of a request, as far as it is generated."""

    prompt: list[int]
    text: TextStream
    job: Job
    tokens: list[Token] = field(default_factory=list)
    prompt_tokens: tuple[Token, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Piece:
    """What an event adds to the choice `index`: text and tokens; at the end also why it ended."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    reason: str | None


class Generation:
    """The choices of one request. Iterate over its pieces; `cancel` when nobody listens any more."""

    def __init__(self, choices: list[Choice], events: "asyncio.Queue[tuple[int, Event]]") -> None:
        self.choices, self._events = choices, events

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all prompts; choices of one prompt count it once."""
        return sum({id(choice.prompt): len(choice.prompt) for choice in self.choices}.values())

    @property
    def completion_tokens(self) -> int:
        """The generated tokens of all choices."""
        return sum(len(choice.tokens) for choice in self.choices)

    def cancel(self) -> None:
        """Stop generating."""
        for choice in self.choices:
            choice.job.cancelled = True

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what is generated until all choices have ended. Raises Refused if the engine fails."""
        left = len(self.choices)
        while left:
            index, event = await self._events.get()
            choice = self.choices[index]
            if choice.reason is not None:
                continue  # tokens after a stop string
            piece = self._piece(index, choice, event)
            left -= piece.reason is not None
            yield piece

    def _piece(self, index: int, choice: Choice, event: Event) -> Piece:
        if isinstance(event, Failed):
            self.cancel()
            raise Refused(event.message, status=503 if event.busy else 500, code="failed")
        if isinstance(event, Prompted):
            choice.prompt_tokens = event.tokens
            return Piece(index, "", (), None)
        if isinstance(event, Finished):
            text = choice.text.end()
            choice.reason = "stop" if choice.text.stopped else event.reason
            return Piece(index, text, (), choice.reason)
        choice.tokens.append(event)
        text = "" if event.id in choice.job.stops else choice.text.add(event.id)
        if choice.text.stopped:
            choice.reason, choice.job.cancelled = "stop", True
        return Piece(index, text, (event,), choice.reason)


class Generator:
    """The checkpoint behind the API: encodes prompts, checks them against the limits and submits them."""

    def __init__(self, chatter: Chatter, limits: Limits) -> None:
        self.tokenizer, self.limits = chatter.encoder.tokenizer, limits
        self._encoder, self._stops = chatter.encoder, frozenset(chatter.stops)
        self._room = chatter.max_positions
        self._rows = chatter.model.get_input_embeddings().num_embeddings
        self.engine = Engine(
            chatter.model, chatter.device, len(self.tokenizer), batch=limits.batch, waiting=limits.waiting
        )

    @property
    def usual_tokens(self) -> int:
        """The longest answer that leaves half of the context for the chat."""
        return max(1, min(self.limits.max_tokens, self._room // 2))

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode the prompt of an answer. Raises Refused."""
        try:
            return self._encoder.encode_prompt(messages)
        except Refusal as refusal:
            raise Refused(f"messages: the chat template refuses them ({refusal})", "messages") from refusal

    def encode_prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Return the ids of each prompt. Raises Refused."""
        found = []
        for prompt in request.prompts:
            ids = prompt
            if isinstance(ids, str):
                ids = self.tokenizer.encode(ids, add_special_tokens=request.add_special_tokens)
            if not ids:
                raise Refused("prompt: has no tokens; expected at least one", "prompt")
            found.append(ids)
        return found

    def start(
        self, client: str, prompts: Sequence[list[int]], sampling: Sampling, *, score_prompt: bool = False
    ) -> Generation:
        """Submit a request. Raises Refused."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        deadline = time.monotonic() + self.limits.request_s

        def notify(index: int, event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, (index, event))

        choices: list[Choice] = []
        for prompt in prompts:
            max_tokens = self._fitting_tokens(prompt, sampling.max_tokens)
            for number in range(sampling.choices):
                job = Job(
                    prompt=prompt,
                    max_tokens=max_tokens,
                    notify=partial(notify, len(choices)),
                    stops=frozenset() if sampling.ignore_eos else self._stops,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=None if sampling.seed is None else sampling.seed + number,
                    top_logprobs=sampling.top_logprobs,
                    score_prompt=score_prompt,
                    deadline=deadline,
                )
                choices.append(Choice(prompt, TextStream(self.tokenizer, prompt, sampling.stop), job))
        try:
            self.engine.submit(client, [choice.job for choice in choices])
        except QueueFull:
            message = f"{self.limits.waiting} sequences wait already; try again later"
            raise Refused(message, status=429, code="rate_limit_exceeded") from None
        except RuntimeError as error:
            raise Refused(str(error), status=503, code="unavailable") from None
        return Generation(choices, events)

    def _fitting_tokens(self, prompt: list[int], wanted: int | None) -> int:
        if not 0 <= min(prompt) <= max(prompt) < self._rows:
            raise Refused(f"prompt: has an id that is not from 0 to {self._rows - 1}", "prompt")
        room = self._room - len(prompt)
        code = "context_length_exceeded"
        if room < (1 if wanted is None else wanted):
            message = f"the prompt has {len(prompt)} tokens and the answer {wanted or 'at least 1'}; expected at most"
            raise Refused(f"{message} {self._room} together", "max_tokens", code=code)
        if wanted is not None and wanted > self.limits.max_tokens:
            raise Refused(f"max_tokens: is {wanted}; expected at most {self.limits.max_tokens}", "max_tokens")
        return min(room, self.limits.max_tokens) if wanted is None else wanted
