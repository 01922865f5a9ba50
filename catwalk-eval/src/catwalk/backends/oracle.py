"""Models whose answers are known: for tests of a task, of a metric, or of this package itself.

`oracle:uniform` gives each of V tokens the probability 1/V, so bits per byte are log2(V) · tokens / bytes. Without a
tokenizer, its tokens are bytes. `oracle:FILE.jsonl` reads its answers from rows:

    {"context": "Is ice cold?", "continuation": " yes", "logprob": -0.5, "tokens": 1, "greedy": true}
    {"document": "The whole text.", "logprob": -12.25, "tokens": 4}
    {"prompt": "Question: 2+2?\\nAnswer:", "text": " 4"}

A row without `context` answers after any context that has no row of its own. `tokens` is 1 and `greedy` false by
default.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catwalk import DISTRIBUTION, __version__
from catwalk.backends.specs import ModelSpec, Settings
from catwalk.backends.tokens import Score, TokenBackend, byte_tokenizer, read_tokenizer
from catwalk.formats.contract import ConfigError, Fields, WorkError, read_rows, sha256_file
from catwalk.formats.manifest import describe_input
from catwalk.model.load import Tokenizer
from catwalk.types import Advance, Backend, Likelihood, Pair, PairError, Prompt, Request

__all__ = ["Scripted", "Uniform", "open_oracle"]

_SOFTWARE = {DISTRIBUTION: __version__}


def open_oracle(spec: ModelSpec, settings: Settings) -> Backend:
    """The oracle of a specification.

    Raises:
        ConfigError: for an unknown name, a file that does not exist, or a wrong option.
        FormatError: for a row that is no answer.
    """
    if spec.target != "uniform":
        path = Path(spec.target).expanduser()
        if not path.is_file():
            problem = f'model: "oracle:{spec.target}" is neither "oracle:uniform" nor a file of answers'
            raise ConfigError(problem, hint="oracle:uniform,vocab_size=50304")
        if spec.options:
            raise ConfigError(f"model: oracle:{spec.target} has no options; expected none")
        return Scripted(path)
    directory = spec.options.get("tokenizer")
    tokenizer = byte_tokenizer() if directory is None else read_tokenizer(Path(directory).expanduser())
    size = spec.options.get("vocab_size", str(256 if directory is None else tokenizer.embedding_rows))
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f'model: vocab_size is "{size}"; expected an integer of at least 1')
    return Uniform(
        tokenizer, settings, vocab_size=int(size), directory=Path(directory).expanduser() if directory else None
    )


class Uniform(TokenBackend):
    """Every token has the probability 1/V. It generates nothing, since no token is more likely than the end."""

    parameters = 0

    def __init__(self, tokenizer: Tokenizer, settings: Settings, *, vocab_size: int, directory: Path | None) -> None:
        super().__init__(tokenizer, settings)
        self.vocab_size = vocab_size
        self.tokenizer_directory = directory
        self.tokenizer_sha256 = directory and sha256_file(directory / "tokenizer.json")

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return {"dtype": "float64", "vocab_size": self.vocab_size, **self.text_settings}

    @property
    def identity(self) -> dict[str, Any]:
        """The settings, the tokenizer and the software."""
        return {"oracle": "uniform", "tokenizer": self.tokenizer_sha256, "software": _SOFTWARE, **self.settings}

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""
        return _described(name, "uniform", self.vocab_size) | {"tokenizer_sha256": self.tokenizer_sha256}

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """None: the settings say all."""
        return []

    def score_requests(self, requests: Sequence[Request]) -> list[Score]:
        """−tokens · ln V. No token is more likely than another, unless there is only one."""
        if self.advance is not None:
            self.advance(len(requests), 0)
        each, greedy = math.log(self.vocab_size), self.vocab_size == 1
        return [(-len(request.continuation) * each, greedy) for request in requests]

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Nothing."""
        return [""] * len(prompts)


class Scripted:
    """Answers from a file."""

    parameters = 0
    tokenizer_directory = None
    document_prefix = "eos"
    unknown_tokens = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.advance: Advance | None = None
        self._pairs: dict[tuple[str | None, str], Likelihood] = {}
        self._documents: dict[str, Likelihood] = {}
        self._generations: dict[str, str] = {}
        for line, row in read_rows(path):
            fields = Fields(row, path, line)
            if "prompt" in row:
                self._generations[fields.string("prompt")] = fields.string("text")
                continue
            greedy = fields.value.get("greedy", False)
            if not isinstance(greedy, bool):
                raise fields.wrong_type("greedy", "true or false")
            logprob = fields.number("logprob")
            if logprob > 0:
                raise fields.error("invalid_value", "logprob", f"is {logprob}; a log-probability is at most 0")
            tokens = fields.integer("tokens", minimum=1) if "tokens" in row else 1
            answer = Likelihood(sum_logprob=logprob, tokens=tokens, greedy=greedy)
            if "document" in row:
                self._documents[fields.string("document")] = answer
            else:
                context = fields.string("context") if "context" in row else None
                self._pairs[context, fields.string("continuation")] = answer

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing can be set; the values are those of the field."""
        return {"dtype": "float64", "max_length_tokens": 2048, "prefix": "eos", "windowing": "paloma-reference"}

    @property
    def identity(self) -> dict[str, Any]:
        """The file and the software."""
        return {"oracle": sha256_file(self.path), "software": _SOFTWARE, **self.settings}

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""
        return _described(name, "scripted", 0)

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """The file."""
        return describe_input("checkpoint", self.path, output)

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find what has no answer.

        Raises:
            PairError: for a pair without a row.
        """
        for index in range(len(pairs)):
            self._answer(pairs, index)

    def _answer(self, pairs: Sequence[Pair], index: int) -> Likelihood:
        pair = pairs[index]
        found = self._pairs.get((pair.context, pair.continuation)) or self._pairs.get((None, pair.continuation))
        if found is None:
            problem = f"{self.path} has no answer for {pair.continuation[:60]!r}; expected a row with it"
            raise PairError(problem, index, hint=f"its context ends with {pair.context[-60:]!r}")
        return found

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """The rows of the pairs.

        Raises:
            PairError: for a pair without a row.
        """
        if self.advance is not None:
            self.advance(len(pairs), 0)
        return [self._answer(pairs, index) for index in range(len(pairs))]

    def documents(self, texts: Sequence[str]) -> list[Likelihood]:
        """The rows of the documents.

        Raises:
            PairError: for a document without a row.
        """
        for index, text in enumerate(texts):
            if text not in self._documents:
                raise PairError(f"{self.path} has no answer for {text[:60]!r}; expected a row with it", index)
        return [self._documents[text] for text in texts]

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """The rows of the prompts.

        Raises:
            WorkError: for a prompt without a row.
        """
        for prompt in prompts:
            if prompt.text not in self._generations:
                raise WorkError(f"{self.path} has no answer for {prompt.text[-60:]!r}; expected a row with this prompt")
        return [self._generations[prompt.text] for prompt in prompts]


def _described(name: str, architecture: str, vocab_size: int) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": architecture,
        "parameters": 0,
        "vocab_size": vocab_size,
        "dtype": "float64",
        "tokenizer_sha256": None,
        "manifest_sha256": None,
    }
