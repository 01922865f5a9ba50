"""What backends share that score token ids: texts to requests, and scores to answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers

from catwalk.backends.specs import DEFAULT_LENGTH, Settings
from catwalk.formats.checkpoint import Checkpoint, Inspection, inspect_checkpoint, read_checkpoint
from catwalk.formats.contract import ConfigError, WorkError, read_object
from catwalk.model.load import Tokenizer, load_tokenizer
from catwalk.perplexity import windows
from catwalk.requests import EncodedPairs, encode_pairs
from catwalk.results import checkpoint_inputs, describe_model
from catwalk.types import Advance, Boundary, Likelihood, Pair, PairError, Request, Windowing

__all__ = [
    "CheckpointBackend",
    "RequestError",
    "Score",
    "TokenBackend",
    "TypeLosses",
    "byte_tokenizer",
    "read_tokenizer",
]


class RequestError(WorkError):
    """A request that cannot be scored: `request` is its index."""

    def __init__(self, problem: str, request: int, hint: str | None = None) -> None:
        super().__init__(problem, hint=hint)
        self.request = request


TypeLosses = tuple[tuple[int, int, float], ...]
"""Of each token id that occurs: the id, how often, and its −Σ ln p."""
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
            answers, types = self.score_windows([request for parts in pieces for request in parts], owners, len(texts))
        except RequestError as error:
            raise PairError(error.problems[-1].message, owners[error.request], error.hint) from error
        scores = iter(answers)
        found = []
        for parts, losses in zip(pieces, types, strict=True):
            own = [next(scores) for _ in parts]
            found.append(
                Likelihood(
                    sum_logprob=sum(value for value, _ in own),
                    tokens=sum(len(part.continuation) for part in parts),
                    greedy=all(greedy for _, greedy in own),
                    windows=len(parts),
                    types=losses,
                )
            )
        return found

    def score_windows(
        self, requests: Sequence[Request], owners: Sequence[int], count: int
    ) -> tuple[list[Score], list[TypeLosses]]:
        """The scores of the windows of `count` documents, and of each document its loss by token id, if known.

        Raises:
            RequestError: for a log-probability that is not finite.
        """
        return self.score_requests(requests), [()] * count


class CheckpointBackend(TokenBackend):
    """A checkpoint directory in Hugging Face layout, whose weights are read for the first text to score."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.checkpoint: Checkpoint = read_checkpoint(directory)
        self.inspection = inspect_checkpoint(directory)
        self.dtype = settings.get("dtype") or "float32"
        super().__init__(load_tokenizer(self.inspection), settings)

    @property
    def parameters(self) -> int:
        """Of the stored weights."""
        return self.checkpoint.parameters

    @property
    def tokenizer_directory(self) -> Path:
        """The checkpoint's."""
        return self.checkpoint.directory

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""
        return describe_model(name, self.checkpoint, self.inspection)

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """The checkpoint by its manifest, or file by file."""
        return checkpoint_inputs(self.checkpoint, output)

    def fitting_length(self, asked: int | None, spare: int = 0) -> int:
        """Tokens of a window: those asked for, else the model's positions without the spare ones.

        Raises:
            ConfigError: the model has fewer.
        """
        positions = self.inspection.max_positions
        if positions is None:
            return asked or DEFAULT_LENGTH
        length = asked or positions - spare
        if length > positions - spare:
            beside = f" and {spare} more" if spare else ""
            problem = f"max_length_tokens: {length}{beside} is more than the model's {positions} positions"
            raise ConfigError(problem, hint=f"--max-length-tokens {positions - spare}")
        return length


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
