"""`open-instruct eval`: read the benchmarks, load the model, answer, grade, write the results."""

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import WRITER
from ..config import RuntimeSettings, SamplingSettings, TemplateSettings
from ..formats.contract import ConfigError, Problem, WorkError, canonical_line, read_object
from ..formats.manifest import MANIFEST, describe_input, read_manifest
from ..output import Output
from .api import ApiModel, is_address
from .cells import Cells
from .items import Answer, Benchmark, Decoding, Item, Loading, Model, Prompt, PromptStyle, Row, Score
from .results import TaskRows, choice_row, write_files
from .tasks import find_benchmarks

__all__ = ["EvalSettings", "evaluate"]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0
_STORED_AT_ONCE = 16  # answers: what a killed run does again at most


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to evaluate, on what, and how."""

    model: str
    tasks: tuple[str, ...]
    data: Path
    output_dir: Path
    cells: Path | None = None
    name: str | None = None
    served_model: str | None = None
    prompts: PromptStyle = "chat"
    template: str | None = None
    shots: int | None = None
    limit: int | None = None
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=0.0))
    max_new_tokens: int | None = None
    batch: int = 16
    dtype: str = "float32"
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    benchmark: Benchmark
    items: list[Item]
    files: list[Path]
    style: PromptStyle
    max_tokens: int


def evaluate(settings: EvalSettings) -> str:
    """Run the command; return the table of scores.

    Raises:
        ConfigError: the request is wrong; nothing was run.
        FormatError: a file of the data or of the checkpoint breaks its format.
        WorkError: some tasks failed. The results have the others, and the same command runs only what is missing.
    """
    benchmarks = find_benchmarks(settings.tasks)
    loaded = [_load(benchmark, settings) for benchmark in benchmarks]
    model = _open(settings)
    try:
        output = _output(settings, model, loaded)
        if _is_done(output):
            log.info("eval  %s is done already", settings.output_dir)
            return _table(output.directory)
        cells_directory = settings.cells or settings.output_dir.with_name(settings.output_dir.name + ".cells")
        cells = Cells(cells_directory, {"model": model.identity, "writer": WRITER})
        done, failed = [], {}
        with output.begin(keep_trainer=False):
            for one in loaded:
                try:
                    done.append(_run(one, model, settings, cells))
                except WorkError as error:
                    failed[one.benchmark.name] = error
                    log.error("%s failed: %s", one.benchmark.name, error)
            if done:
                _publish(output, settings, model, done, failed)
        if failed:
            raise WorkError(
                *(
                    Problem(f"{name}: {problem.message}", problem.hint)
                    for name, error in failed.items()
                    for problem in error.problems
                )
            )
        if settings.cells is None:
            shutil.rmtree(cells_directory, ignore_errors=True)
        return _table(output.directory)
    finally:
        model.close()


# ---- read


def _load(benchmark: Benchmark, settings: EvalSettings) -> _Loaded:
    style = benchmark.style or settings.prompts
    items, files = benchmark.load(Loading(directory=settings.data, style=style, shots=settings.shots))
    if not items:
        raise ConfigError(f"tasks: {benchmark.name} has no items in {files[0]}; expected at least one")
    max_tokens = settings.max_new_tokens or benchmark.max_tokens
    return _Loaded(benchmark=benchmark, items=items[: settings.limit], files=files, style=style, max_tokens=max_tokens)


def _open(settings: EvalSettings) -> Model:
    if is_address(settings.model):
        return ApiModel(settings.model, settings.served_model, at_once=settings.batch)
    from .local import LocalModel

    directory = Path(settings.model).expanduser()
    template = TemplateSettings(name=settings.template)
    name = settings.name or directory.resolve().name
    return LocalModel(directory, name, settings.runtime, template, settings.dtype, settings.batch)


def _output(settings: EvalSettings, model: Model, loaded: Sequence[_Loaded]) -> Output:
    config = {
        "model": model.name,
        "identity": hashlib.sha256(canonical_line(model.identity).encode()).hexdigest(),
        "tasks": [one.benchmark.name for one in loaded],
        "prompts": settings.prompts,
        "shots": settings.shots,
        "limit": settings.limit,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.sampling.temperature,
        "top_p": settings.sampling.top_p,
        "seed": settings.sampling.seed,
        "dtype": settings.dtype,
    }
    inputs = [row for path in model.inputs for row in describe_input("checkpoint", path, settings.output_dir)]
    for path in dict.fromkeys(path for one in loaded for path in one.files):
        inputs += describe_input("data", path, settings.output_dir)
    return Output(settings.output_dir, format_name="results", config=config, inputs=inputs)


def _is_done(output: Output) -> bool:
    """Whether the results are there and whole. Results without their failed tasks are removed, to be made again."""
    if not output.is_done():
        return False
    if not read_manifest(output.directory / MANIFEST).details.get("failed"):
        return True
    shutil.rmtree(output.directory)
    return False


# ---- answer and grade


def _run(one: _Loaded, model: Model, settings: EvalSettings, cells: Cells) -> TaskRows:
    began = time.monotonic()
    max_tokens = 0 if one.items[0].choices else one.max_tokens
    prompts = [_fitting_prompt(item, one.style, model, max_tokens) for item in one.items]
    shown = [prompt for prompt, _ in prompts]
    if one.items[0].choices:
        rows = _choose(one, shown, model, cells)
    else:
        rows = _answer(one, shown, model, settings, cells)
    dropped = sum(len(item.examples) > count for item, (_, count) in zip(one.items, prompts, strict=True))
    if dropped:
        log.warning("%s: %d prompts have fewer examples, so that they fit", one.benchmark.name, dropped)
    log.info("%s  %d items in %.1f s", one.benchmark.name, len(one.items), time.monotonic() - began)
    shots = max(len(item.examples) for item in one.items)
    return TaskRows(benchmark=one.benchmark, items=one.items, prompts=shown, rows=rows, shots=shots)


def _fitting_prompt(item: Item, style: PromptStyle, model: Model, max_tokens: int) -> tuple[Prompt, int]:
    """The prompt with as many examples as fit, and their number."""
    longest = max((len(choice.encode()) for choice in item.choices), default=0)
    for count in range(len(item.examples), 0, -1):
        prompt = item.prompt(style, count)
        if model.fits(prompt, max_tokens + longest):
            return prompt, count
    return item.prompt(style, 0), 0


def _choose(one: _Loaded, prompts: Sequence[Prompt], model: Model, cells: Cells) -> list[Row]:
    progress = _Progress(one.benchmark.name, len(prompts))
    rows = []
    for item, prompt in zip(one.items, prompts, strict=True):
        key = cells.key("score", asdict(prompt), item.choices)
        found = cells.get(key)
        if found is None:
            found = [asdict(score) for score in model.score(prompt, item.choices)]
            cells.keep([(key, found)])
        scores = [Score(**score) for score in found]
        row = choice_row(item, scores)
        rows.append(_placed(row, item))
        progress.add()
    return rows


def _answer(one: _Loaded, prompts: Sequence[Prompt], model: Model, settings: EvalSettings, cells: Cells) -> list[Row]:
    sampling = settings.sampling
    decoding = Decoding(
        max_tokens=one.max_tokens,
        stop=one.benchmark.stop if one.style == "text" else (),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )
    answers = _answers(one.benchmark.name, prompts, decoding, model, cells)
    unfinished = sum(not answer.ended for answer in answers)
    if unfinished:
        log.warning("%s: %d answers were cut at %d tokens", one.benchmark.name, unfinished, one.max_tokens)
    cut = sum(answer.cut for answer in answers)
    if cut:
        log.warning("%s: %d prompts lost their beginning, so that they fit", one.benchmark.name, cut)
    assert one.benchmark.grade is not None
    rows = []
    for item, answer in zip(one.items, answers, strict=True):
        graded = one.benchmark.grade(item, answer.text)
        if len(graded) == 1 and graded[0]["id"] == item.id:
            graded = [{"generation": answer.text, "references": list(item.references), **graded[0]}]
        rows += [_placed(row, item) for row in graded]
    return rows


def _placed(row: Row, item: Item) -> Row:
    """The row with the group and the cluster of its item, unless it has its own."""
    places = {"group": item.group, "cluster": item.cluster}
    return {**{name: value for name, value in places.items() if value is not None}, **row}


def _answers(name: str, prompts: Sequence[Prompt], decoding: Decoding, model: Model, cells: Cells) -> list[Answer]:
    """The answers in order, those that are not finished yet from the model."""
    keys = [cells.key("answer", asdict(prompt), asdict(decoding)) for prompt in prompts]
    found = {key: Answer(**value) for key in keys if (value := cells.get(key)) is not None}
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
    progress = _Progress(name, len(missing))
    waiting: list[tuple[str, Any]] = []
    names = list(missing)

    def keep(index: int, answer: Answer) -> None:
        found[names[index]] = answer
        waiting.append((names[index], asdict(answer)))
        progress.add()
        if len(waiting) >= _STORED_AT_ONCE:
            cells.keep(waiting)
            waiting.clear()

    try:
        if missing:
            model.generate(list(missing.values()), decoding, keep)
    finally:
        if waiting:
            cells.keep(waiting)
    return [found[key] for key in keys]


class _Progress:
    """A line every ten seconds."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._began = self._last = time.monotonic()

    def add(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            left = int((self._total - self._done) * (now - self._began) / self._done)
            log.info("%s  %d/%d items  eta %d:%02d", self._name, self._done, self._total, left // 60, left % 60)


# ---- write


def _publish(
    output: Output,
    settings: EvalSettings,
    model: Model,
    done: Sequence[TaskRows],
    failed: dict[str, WorkError],
) -> None:
    output.result.mkdir(parents=True)
    inference = {
        "dtype": settings.dtype,
        "max_length_tokens": getattr(model, "room", 1) or 1,
        "windowing": "strict-disjoint",
        "prefix": "eos",
        "prompts": settings.prompts,
        "template": settings.template,
        "temperature": settings.sampling.temperature,
        "seed": settings.sampling.seed,
    }
    entries = write_files(output.result, model=model.description, inference=inference, tasks=done)
    counts = {"tasks": len(entries), "items": sum(entry["items"] for entry in entries), "domains": 0}
    details: dict[str, Any] = {"tasks": {}}
    if failed:
        details["failed"] = {name: str(error) for name, error in failed.items()}
    output.publish(counts=counts, details=details)


def _table(directory: Path) -> str:
    """The primary metric of each task, with its 95 % interval."""
    lines = [f"{'task':<22} {'metric':<14} {'value':>8}   95 % interval      {'n':>6}"]
    results = read_object(directory / "results.json")
    for task in results["tasks"]:
        for name, metric in task["metrics"].items():
            if name == task["primary_metric"] or task.get("kind", "choices") != "choices":
                ends = results["intervals"][task["task"]][name]
                shown = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
                lines.append(f"{task['task']:<22} {name:<14} {metric['value']:>8.4f}   {shown:<18} {metric['n']:>6}")
    return "\n".join(lines) + "\n"
