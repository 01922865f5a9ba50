"""What backends share that score token ids but run no model in this process: texts to requests, and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers

from catwalk.backends.specs import DEFAULT_LENGTH, Settings
from catwalk.formats.checkpoint import Inspection, inspect_checkpoint
from catwalk.formats.contract import ConfigError, WorkError, read_object
from catwalk.model.load import Tokenizer, load_tokenizer
from catwalk.perplexity import windows
from catwalk.requests import EncodedPairs, encode_pairs
from catwalk.types import Advance, Boundary, Likelihood, Pair, PairError, Request, Windowing

__all__ = ["RequestError", "Score", "TokenBackend", "byte_tokenizer", "read_tokenizer"]


class RequestError(WorkError):
    """A request that cannot be scored: `request` is its index."""

    def __init__(self, problem: str, request: int, hint: str | None = None) -> None:
        super().__init__(problem, hint=hint)
        self.request = request


Score = tuple[float, bool]
"""Σ ln p of a request's continuation, and whether each of its tokens is the most likely."""


class TokenBackend(ABC):
    """Scores of pairs and documents from scores of requests, which a subclass answers."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings) -> None:
        self.advance: Advance | None = None
        self.tokenizer = tokenizer
        self.max_length_tokens = settings.get("max_length_tokens") or DEFAULT_LENGTH
        self.prefix = tokenizer.prefix(settings.get("prefix"))
        self.windowing: Windowing = settings.get("windowing", "paloma-reference")
        self.boundary: Boundary = settings.get("boundary", "whole")
        self.unknown_tokens = 0

    @abstractmethod
    def score_requests(self, requests: Sequence[Request]) -> list[Score]:
        """The requests' scores in their order.

        Raises:
            RequestError: for a log-probability that is not finite.
        """

    @property
    def document_prefix(self) -> str | None:
        """The tokenizer's own kind of token before a document."""
        return self.tokenizer.document_prefix

    @property
    def text_settings(self) -> dict[str, Any]:
        """Settings of how texts become requests."""
        found = {name: getattr(self, name) for name in ("max_length_tokens", "prefix", "windowing")}
        return found | ({} if self.boundary == "whole" else {"boundary": self.boundary})

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find what cannot be scored before anything is.

        Raises:
            PairError: for a continuation without tokens, or a token without an embedding.
        """
        self._encoded(pairs)

    def _encoded(self, pairs: Sequence[Pair]) -> EncodedPairs:
        prefix_id = self.tokenizer.prefix_id(self.prefix)
        return encode_pairs(pairs, self.tokenizer, prefix_id, self.max_length_tokens, self.boundary)

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Each continuation after its context.

        Raises:
            PairError: for a continuation without tokens, or a log-probability that is not finite.
        """
        encoded = self._encoded(pairs)
        try:
            scores = self.score_requests(encoded.requests)
        except RequestError as error:
            raise PairError(error.problems[-1].message, encoded.pair_of(error.request), error.hint) from error
        return [
            Likelihood(
                sum_logprob=sum(scores[part][0] for part in parts),
                tokens=sum(len(encoded.requests[part].continuation) for part in parts),
                greedy=all(scores[part][1] for part in parts),
                truncated=truncated,
                crossing=crossing,
                bos=bos,
                windows=len(parts),
            )
            for parts, truncated, crossing, bos in zip(
                encoded.parts, encoded.truncated, encoded.crossing, encoded.bos, strict=True
            )
        ]

    def documents(self, texts: Sequence[str]) -> list[Likelihood]:
        """Whole documents, each after one prefix token, in windows.

        Raises:
            PairError: for a text without tokens, a token without an embedding, or a log-probability that is not
                finite.
        """
        prefix_id = self.tokenizer.prefix_id(self.prefix)
        pieces: list[list[Request]] = []
        for index, (text, ids) in enumerate(zip(texts, self.tokenizer.encode(texts), strict=True)):
            if ids and max(ids) >= self.tokenizer.embedding_rows:
                raise PairError(self.tokenizer.beyond(ids), index, "use the model's own tokenizer")
            if text.strip() and not ids:
                problem = "the tokenizer produces no tokens; expected at least one"
                raise PairError(problem, index, "remove the document, or use another tokenizer")
            self.unknown_tokens += sum(id == self.tokenizer.unk_token_id for id in ids)
            pieces.append(windows(ids, prefix_id, self.max_length_tokens, self.windowing))
        owners = [index for index, parts in enumerate(pieces) for _ in parts]
        try:
            scores = iter(self.score_requests([request for parts in pieces for request in parts]))
        except RequestError as error:
            raise PairError(error.problems[-1].message, owners[error.request], error.hint) from error
        found = []
        for parts in pieces:
            own = [next(scores) for _ in parts]
            found.append(
                Likelihood(
                    sum_logprob=sum(value for value, _ in own),
                    tokens=sum(len(part.continuation) for part in parts),
                    greedy=all(greedy for _, greedy in own),
                    windows=len(parts),
                )
            )
        return found


# ---- tokenizers without weights


class _WithoutWeights(Inspection):
    """A directory with a tokenizer but no model: every token of the tokenizer counts as embedded."""

    @cached_property
    def embedding_rows(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, or of a directory that has only tokenizer.json and tokenizer_config.json.

    Raises:
        ConfigError: the directory does not exist. FormatError: it has no tokenizer that can be read.
    """
    if not directory.is_dir():
        raise ConfigError(f"tokenizer: {directory} not found; expected a directory with tokenizer.json")
    if (directory / "config.json").is_file() and any(directory.glob("*.safetensors*")):
        return load_tokenizer(inspect_checkpoint(directory))
    found = {}
    for name in ("config", "generation_config", "tokenizer_config"):
        path = directory / f"{name}.json"
        found[name] = read_object(path) if path.is_file() else {}
    return load_tokenizer(_WithoutWeights(directory=directory, **found))


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    encoder = Encoder(models.BPE(vocab={text: id for id, text in enumerate(alphabet)}, merges=[]))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    return Tokenizer(
        backend=encoder,
        bos_token_id=None,
        eos_token_id=len(alphabet),
        unk_token_id=None,
        starts_with_bos=False,
        document_prefix="eos",
        embedding_rows=len(alphabet) + 1,
    )
