"""`lmeval:NAME[@SHOTS]`: a task or a group of lm-evaluation-harness, scored by our backends.

The harness reads its YAML files, builds the requests, filters the answers and scores each item. Only the model is ours.
So samples and metrics are its own, `--limit` included: the first items, not a draw.

Its sums over a data set are not always means. `aggregates.py` computes those that follow from one number
or pair per item. Any other is computed by the task's own function, and the artifact says by which.
"""

import contextlib
import difflib
import hashlib
import io
import json
import logging
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from catwalk.aggregates import AGGREGATES
from catwalk.formats.contract import ConfigError, Problem, WorkError, canonical_line, first_line
from catwalk.lm_eval_groups import GroupRule
from catwalk.metrics import round_significant
from catwalk.requests import unusual
from catwalk.tasks import HARNESS
from catwalk.types import Likelihood, Pair, Prompt, TaskPart

__all__ = ["Harness", "HarnessQuestions", "prompt_of"]

_SEEDS = {"random": 0, "numpy": 1234, "shots": 1234}  # the harness's defaults
_MAX_TOKENS = 256  # the harness's default
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Harness:
    """Tasks and groups by their `lmeval:` names. `include` is a directory of further YAML files.

    `groups` are those of the names that were asked for so far.

    Raises:
        ConfigError: lm-eval is not installed, or names are unknown.
    """

    def __init__(self, names: Sequence[str], include: Path | None) -> None:
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            problem = f"tasks: {names[0]} needs the package lm-eval, which is not installed"
            raise ConfigError(problem, hint='pip install "catwalk-eval[lm-eval]"') from error
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._manager = TaskManager(include_path=None if include is None else str(include))
        self.groups: list[GroupRule] = []
        known = self._manager.all_tasks
        problems = []
        for spec in names:
            name, at, shots = spec.removeprefix(HARNESS).partition("@")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {HARNESS}{near[0]}?" if near else "lm_eval ls tasks"
                problems.append(Problem(f'tasks: lm-eval has no task or group "{name}"', hint))
            elif at and not shots.isdecimal():
                problems.append(Problem(f'tasks: "{spec}" has "@{shots}"; expected a number of examples'))
        if problems:
            raise ConfigError(*problems)

    def questions(self, spec: str, limit: int | None) -> Iterator["HarnessQuestions"]:
        """The tasks of a name, a group taken apart.

        Raises:
            ConfigError: the data cannot be loaded. WorkError: the requests cannot be built.
        """
        name, at, shots = spec.removeprefix(HARNESS).partition("@")
        random.seed(_SEEDS["random"])
        np.random.seed(_SEEDS["numpy"])  # the generator that the harness's tasks use
        try:
            loaded = self._manager.load([name])
        except Exception as error:  # whatever datasets and the YAML's own functions raise
            problem = f"tasks: lm-eval cannot load {name} ({first_line(error)})"
            raise ConfigError(problem, hint="its data must be local or in the Hub's cache") from error
        self.groups += [_rule(group, f"{at}{shots}") for group in loaded["groups"].values() if group.has_aggregation]
        for own, task in loaded["tasks"].items():
            if not at:
                count = task.get_config("num_fewshot") or 0
            else:
                fixed = task.get_config("num_fewshot") == 0  # the harness never gives these tasks examples
                count = 0 if fixed else int(shots)
            task.set_config(key="num_fewshot", value=count)
            task.set_fewshot_seed(seed=_SEEDS["shots"])
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
                    task.build_all_requests(limit=limit, rank=0, world_size=1)
            except Exception as error:  # whatever a template or a function of the task raises
                raise WorkError(f"tasks: lm-eval cannot build the requests of {own} ({first_line(error)})") from error
            yield HarnessQuestions(name=f"{HARNESS}{own}{at}{shots}", task=task, limit=limit, num_shots=count)


def _rule(group: Any, shots: str) -> GroupRule:
    """How the harness sums a group, by our names of tasks and metrics."""
    tasks = group.get_all_tasks()
    filters = list(dict.fromkeys(one.name for task in tasks for one in task._filters))
    by_items: dict[str, bool] = {}
    for one in group.aggregate_metric_list:
        chosen = [one.filter_list] if isinstance(one.filter_list, str) else one.filter_list or filters
        by_items |= {_metric_name(one.metric, name): bool(one.weight_by_size) for name in chosen}
    names = tuple(f"{HARNESS}{task.task_name}{shots}" for task in tasks)
    return GroupRule(name=f"{HARNESS}{group.name}{shots}", tasks=names, by_items=by_items)


def prompt_of(context: str, options: dict[str, Any]) -> Prompt:
    """A `generate_until` request of the harness.

    Raises:
        ConfigError: it samples.
    """
    if options.get("do_sample") and options.get("temperature", 1.0) > 0:
        raise ConfigError("tasks: generation_kwargs has do_sample: true; expected greedy decoding")
    until = options.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    limits = (options.get(key) for key in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"))
    limit = next((int(value) for value in limits if value is not None), _MAX_TOKENS)
    return Prompt(text=context, stop=tuple(text for text in stop if text), max_tokens=limit)


@dataclass(frozen=True, kw_only=True)
class HarnessQuestions:
    """`types.Questions` of a task of the harness, whose requests are built."""

    name: str
    task: Any
    limit: int | None
    num_shots: int

    @property
    def split(self) -> str:
        """The split of the items."""
        config = self.task.config
        return str(config.test_split or config.validation_split or config.training_split or "test")

    @cached_property
    def items_available(self) -> int:
        """Items before `limit`."""
        return len(self.task.eval_docs)

    @cached_property
    def _functions(self) -> dict[str, Callable[[list[Any]], float]]:
        """What sums each metric of the task."""
        found: dict[str, Callable[[list[Any]], float]] = self.task.aggregation()
        if not found:
            raise ConfigError(f"{self.name}: the task has no metric; expected at least one")
        return found

    def _kind(self, metric: str) -> str | None:
        """The name in `aggregates.py` or "mean", if the function is the harness's own of this name."""
        function = self._functions[metric]
        name = getattr(function, "__name__", "")
        own = name == "mean" or name in AGGREGATES
        return name if own and function.__module__.startswith("lm_eval.api.") else None

    @property
    def primary_metric(self) -> str:
        """The first metric, under the first filter."""
        return _metric_name(next(iter(self._functions)), self._filters[0])

    @property
    def _filters(self) -> list[str]:
        return [one.name for one in self.task._filters]

    @cached_property
    def _scored(self) -> list[Any]:
        return [one for one in self.task.instances if one.request_type != "generate_until"]

    @cached_property
    def _generated(self) -> list[Any]:
        return [one for one in self.task.instances if one.request_type == "generate_until"]

    @cached_property
    def key(self) -> str:
        """sha256 of the configuration, the requests and the harness's version."""
        settings = json.dumps(self.task.dump_config(), sort_keys=True, default=str)
        asked = [[one.doc_id, one.idx, one.request_type, json.dumps(one.args)] for one in self.task.instances]
        targets = [str(self.task.doc_to_target(doc)) for _, doc in self._documents()]
        content = [version("lm_eval"), self.name, _ADDRESS.sub("", settings), asked, targets]
        return hashlib.sha256(canonical_line(content).encode()).hexdigest()

    def _documents(self) -> Iterable[tuple[int, Any]]:
        return self.task.doc_iterator(rank=0, limit=self.limit, world_size=1)  # type: ignore[no-any-return]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Its requests for log-likelihoods. A rolling one has no context; a long text is scored in windows."""
        return [
            Pair(context=one.args[0], continuation=one.args[1])
            if one.request_type == "loglikelihood"
            else Pair(context="", continuation=one.args[0])
            for one in self._scored
        ]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Its requests for text."""
        return [prompt_of(*one.args) for one in self._generated]

    def where(self, pair: int) -> str:
        """The item that a pair belongs to."""
        return f'{self.name}, item "{self._scored[pair].doc_id}"'

    def _by_item(self) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for one in sorted(self.task.instances, key=lambda one: one.idx):
            found[one.doc_id].append(one)
        return found

    def texts(self) -> list[dict[str, Any]]:
        """Rows of items.jsonl.gz."""
        rows = []
        for id, instances in self._by_item().items():
            contexts = [one.args[0] if one.request_type != "loglikelihood_rolling" else "" for one in instances]
            texts = [one.args[-1] for one in instances if one.request_type != "generate_until"]
            context: Any = contexts[0] if len(set(contexts)) == 1 else contexts
            rows.append({"task": self.name, "id": str(id), "context": context, "continuations": texts})
        return rows

    def collect(self, likelihoods: Sequence[Likelihood], generations: Sequence[str]) -> TaskPart:
        """Rows with the harness's scores of each item and the answers that they follow from."""
        for one, answer in zip(self._scored, likelihoods, strict=True):
            value = round(answer.sum_logprob, 6)
            rolling = one.request_type == "loglikelihood_rolling"
            one.resps = [value if rolling else (value, answer.greedy)] * one.repeats
        for one, text in zip(self._generated, generations, strict=True):
            one.resps = [text] * one.repeats
        self.task.apply_filters()
        by_item = self._by_item()
        rows = []
        others: dict[str, list[Any]] = defaultdict(list)
        for id, doc in self._documents():
            instances = by_item[id]
            row: dict[str, Any] = {"id": str(id), "responses": [one.resps[0] for one in instances]}
            if len(instances) == 1 and instances[0].request_type == "generate_until":
                row["generation"] = instances[0].resps[0]
                row["references"] = [str(self.task.doc_to_target(doc))]
            row["scores"], parts = {}, {}
            for name in self._filters:
                answers = [one.filtered_resps[name] for one in instances]
                for metric, value in self.task.process_results(doc, answers).items():
                    if metric not in self._functions:
                        continue
                    stored, kind = _metric_name(metric, name), self._kind(metric)
                    if kind == "mean":
                        row["scores"][stored] = float(value)
                    elif kind is not None:
                        parts[stored] = [kind, *(_number(one) for one in np.ravel(value))]
                    else:
                        others[stored].append(value)
            rows.append(row | ({"parts": parts} if parts else {}))
        if len({(*row["scores"], *row.get("parts", ())) for row in rows}) > 1:
            raise WorkError(f"{self.name}: items have different metrics; expected the same for each")
        counts = unusual(self.pairs, likelihoods)
        return TaskPart(rows=rows, counts=counts, sums={name: self._sum(name, others[name]) for name in sorted(others)})

    def _sum(self, stored: str, values: list[Any]) -> dict[str, Any]:
        """A metric by the task's own function."""
        function = self._functions[stored.partition(",")[0]]
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', function)}"
        try:
            value = float(function(values))
        except Exception as error:  # whatever the task's function raises
            raise WorkError(f"{self.name}: {name} cannot sum {stored} ({first_line(error)})") from error
        if not math.isfinite(value):
            raise WorkError(f"{self.name}: {name} gives {value} for {stored}; expected a finite number")
        return {"value": round_significant(value), "stderr": None, "n": len(values), "summed_by": name}


def _number(value: float) -> float | None:
    """What JSON can store: NaN, by which the harness leaves an item out of a mean, is null."""
    return float(value) if math.isfinite(value) else None


def _metric_name(metric: str, filter: str) -> str:
    """`acc`, or `exact_match,strict-match` for a metric under a filter."""
    return metric if filter == "none" else f"{metric},{filter}"
