"""`open-instruct eval`: read the benchmarks, open the model, answer, grade, write the results."""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..config import SamplingSettings
from ..formats.contract import ConfigError, Problem, WorkError, canonical_line, read_object, sha256_file
from ..formats.manifest import MANIFEST, describe_input, read_manifest
from ..output import Output
from .api import is_address
from .asking import Asker
from .benchmarks.mt_bench import ModelOpponent, RecordedOpponent
from .classifier import load_classifier
from .items import Answer, Benchmark, Contest, Decoding, Item, Loading, Model, Prompt, PromptStyle, Row, Tools
from .opening import Opening, check_model, open_model
from .results import TaskRows, choice_row, write_files
from .tasks import find_benchmarks

__all__ = ["EvalSettings", "evaluate"]

log = logging.getLogger(__name__)


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
    shots: int | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=0.0))
    opening: Opening = field(default_factory=Opening)
    allow_code: bool = False
    classifier: Path | None = None
    toxic_label: str = "toxic"
    judge: str | None = None
    judge_model: str | None = None
    opponent: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    benchmark: Benchmark
    items: list[Item]
    available: int
    files: list[Path]
    style: PromptStyle
    decoding: Decoding


def evaluate(settings: EvalSettings) -> str:
    """Run the command; return the table of scores.

    Raises:
        ConfigError: the request is wrong; nothing was run.
        FormatError: a file of the data or of the checkpoint breaks its format.
        WorkError: some tasks failed. The results have the others, and the same command runs only what is missing.
    """
    benchmarks = find_benchmarks(settings.tasks)
    _check(settings, benchmarks)
    loaded = [_load(benchmark, settings) for benchmark in benchmarks]
    _check_scored(settings, loaded)
    with _opened(settings, loaded) as (model, tools):
        output = _output(settings, model, tools, loaded)
        if _is_done(output):
            log.info("eval  %s is done already", settings.output_dir)
            return _table(output.directory)
        cells = settings.cells or settings.output_dir.with_name(settings.output_dir.name + ".cells")
        asker = Asker(cells)
        done, failed = [], dict[str, WorkError]()
        with output.begin(keep_trainer=False):
            for one in loaded:
                try:
                    done.append(_run(one, model, tools, asker))
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
            shutil.rmtree(cells, ignore_errors=True)
        return _table(output.directory)


# ---- check and read


def _check(settings: EvalSettings, benchmarks: Sequence[Benchmark]) -> None:
    """Check everything that needs neither the data nor the model. Raises ConfigError with every problem."""
    problems = []
    hints = {
        "allow_code": "pass --allow-code to run programs that the model wrote, in a sandbox",
        "classifier": "pass --classifier FILE, a fastText model such as dolma train-classifier makes",
        "judge": "pass --judge, the address of an OpenAI-compatible API",
        "opponent": "pass --opponent, another model or a file of its answers",
    }
    for benchmark in benchmarks:
        for option in benchmark.needs:
            if not getattr(settings, option):
                flag = f"--{option.replace('_', '-')}"
                problems.append(Problem(f"tasks: {benchmark.name} runs only with {flag}", hints[option]))
    if problems:
        raise ConfigError(*problems)
    check_model("--model", settings.model)
    if settings.judge and not is_address(settings.judge):
        raise ConfigError(f"--judge: is {settings.judge}; expected an address, such as http://127.0.0.1:8000/v1")
    if settings.opponent and not Path(settings.opponent).is_file():
        check_model("--opponent", settings.opponent)


def _load(benchmark: Benchmark, settings: EvalSettings) -> _Loaded:
    style = "chat" if benchmark.only_chat else settings.prompts
    items, files = benchmark.load(Loading(directory=settings.data, style=style, shots=settings.shots))
    if not items:
        raise ConfigError(f"tasks: {benchmark.name} has no items in {files[0]}; expected at least one")
    decoding = Decoding(
        max_tokens=settings.max_new_tokens or benchmark.max_tokens,
        stop=benchmark.stop if style == "text" else (),
        temperature=settings.sampling.temperature,
        top_p=settings.sampling.top_p,
        seed=settings.sampling.seed,
    )
    return _Loaded(
        benchmark=benchmark,
        items=items[: settings.limit],
        available=len(items),
        files=files,
        style=style,
        decoding=decoding,
    )


def _check_scored(settings: EvalSettings, loaded: Sequence[_Loaded]) -> None:
    names = [one.benchmark.name for one in loaded if one.items[0].choices and one.style == "chat"]
    if names and is_address(settings.model):
        raise ConfigError(
            f"tasks: {', '.join(names)} score given answers, which an API does not do in chats; expected plain texts",
            hint="pass --prompts text, or the checkpoint's directory",
        )


@contextmanager
def _opened(settings: EvalSettings, loaded: Sequence[_Loaded]) -> Iterator[tuple[Model, Tools]]:
    """Open the models that the benchmarks need, and close them afterwards."""
    needed = {option for one in loaded for option in one.benchmark.needs}
    toxicity: Callable[[str], float] | None = None
    judge: Model | None = None
    opponent: ModelOpponent | RecordedOpponent | None = None
    opened: list[Model] = []
    try:
        if "classifier" in needed and settings.classifier:
            classify, label = load_classifier(settings.classifier), settings.toxic_label
            labels = sorted(classify("a text"))
            if label not in labels:
                raise ConfigError(
                    f"--classifier: {settings.classifier} has the labels {', '.join(labels)}; expected {label}",
                    hint="name the label of toxic texts with --toxic-label",
                )

            toxicity = partial(_probability, classify, label)
        if "judge" in needed and settings.judge:
            judge = open_model(settings.judge, settings.opening, served=settings.judge_model)
            opened.append(judge)
        if "opponent" in needed and settings.opponent:
            if Path(settings.opponent).is_file():
                recorded = RecordedOpponent(Path(settings.opponent))
                for one in loaded:
                    if "opponent" in one.benchmark.needs:
                        recorded.check(one.items)
                opponent = recorded
            else:
                opened.append(open_model(settings.opponent, settings.opening))
                opponent = ModelOpponent(opened[-1])
        model = open_model(settings.model, settings.opening, title=settings.name, served=settings.served_model)
        opened.append(model)
        yield model, Tools(toxicity=toxicity, judge=judge, opponent=opponent)
    finally:
        for one_model in opened:
            one_model.close()


def _probability(classify: Callable[[str], dict[str, float]], label: str, text: str) -> float:
    return classify(text)[label]


def _output(settings: EvalSettings, model: Model, tools: Tools, loaded: Sequence[_Loaded]) -> Output:
    """The output directory, identified by all that the results depend on."""
    config: dict[str, Any] = {
        "model": settings.name or model.name,
        "identity": _digest(model),
        "tasks": [one.benchmark.name for one in loaded],
        "prompts": settings.prompts,
        "shots": settings.shots,
        "limit": settings.limit,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.sampling.temperature,
        "top_p": settings.sampling.top_p,
        "seed": settings.sampling.seed,
        "dtype": settings.opening.dtype,
    }
    inputs = [row for path in model.inputs for row in describe_input("checkpoint", path, settings.output_dir)]
    for path in dict.fromkeys(path for one in loaded for path in one.files):
        inputs += describe_input("data", path, settings.output_dir)
    if tools.toxicity and settings.classifier:
        config["classifier"] = {"sha256": sha256_file(settings.classifier), "label": settings.toxic_label}
        inputs += describe_input("classifier", settings.classifier, settings.output_dir)
    if tools.judge:
        config["judge"] = tools.judge.identity
    if isinstance(tools.opponent, ModelOpponent):
        config["opponent"] = _digest(tools.opponent.model)
        for path in tools.opponent.model.inputs:
            inputs += describe_input("opponent", path, settings.output_dir)
    elif tools.opponent and settings.opponent:
        inputs += describe_input("opponent", Path(settings.opponent), settings.output_dir)
    return Output(settings.output_dir, format_name="results", config=config, inputs=inputs)


def _digest(model: Model) -> str:
    return hashlib.sha256(canonical_line(model.identity).encode()).hexdigest()


def _is_done(output: Output) -> bool:
    """Whether the results are there and whole. Results without their failed tasks are removed, to be made again."""
    if not output.is_done():
        return False
    if not read_manifest(output.directory / MANIFEST).details.get("failed"):
        return True
    shutil.rmtree(output.directory)
    return False


# ---- answer and grade


def _run(one: _Loaded, model: Model, tools: Tools, asker: Asker) -> TaskRows:
    began = time.monotonic()
    name, items = one.benchmark.name, one.items
    chosen = bool(items[0].choices)
    fitted = [_fitting_prompt(item, one.style, model, 0 if chosen else one.decoding.max_tokens) for item in items]
    prompts = [prompt for prompt, _ in fitted]
    warnings, cut = [], 0
    if dropped := sum(len(item.examples) > count for item, (_, count) in zip(items, fitted, strict=True)):
        warnings.append(f"{dropped} prompts have fewer examples, so that they fit")
    if one.benchmark.hold is not None:
        contest = Contest(model=model, asking=asker, tools=tools, decoding=one.decoding)
        rows = one.benchmark.hold(items, contest)
    elif chosen:
        grade = one.benchmark.grade_choices or choice_row
        scores = asker.scores(name, model, prompts, [item.choices for item in items])
        rows = [_placed(grade(item, found), item) for item, found in zip(items, scores, strict=True)]
    else:
        answers = asker.answers(name, model, prompts, one.decoding)
        rows = _graded(one, answers, tools)
        if unfinished := sum(not answer.ended for answer in answers):
            warnings.append(f"{unfinished} answers were cut at {one.decoding.max_tokens} tokens")
        if cut := sum(answer.cut for answer in answers):
            log.warning("%s: %d prompts do not fit; they lost their beginning, or an API refused them", name, cut)
    for warning in warnings:
        log.warning("%s: %s", name, warning)
    log.info("%s  %d items in %.1f s", name, len(items), time.monotonic() - began)
    return TaskRows(
        benchmark=one.benchmark,
        items=items,
        prompts=prompts,
        rows=rows,
        shots=max(len(item.examples) for item in items),
        available=one.available,
        cut=cut,
        warnings=warnings,
    )


def _fitting_prompt(item: Item, style: PromptStyle, model: Model, max_tokens: int) -> tuple[Prompt, int]:
    """The prompt with as many examples as fit, and their number."""
    longest = max((len(choice.encode()) for choice in item.choices), default=0)
    for count in range(len(item.examples), 0, -1):
        prompt = item.prompt(style, count)
        if model.fits(prompt, max_tokens + longest):
            return prompt, count
    return item.prompt(style, 0), 0


def _graded(one: _Loaded, answers: Sequence[Answer], tools: Tools) -> list[Row]:
    assert one.benchmark.grade is not None
    rows = []
    for item, answer in zip(one.items, answers, strict=True):
        graded = one.benchmark.grade(item, answer.text, tools)
        if len(graded) == 1 and graded[0]["id"] == item.id:
            graded = [{"generation": answer.text, "references": list(item.references), **graded[0]}]
        rows += [_placed(row, item) for row in graded]
    return rows


def _placed(row: Row, item: Item) -> Row:
    """The row with the group and the cluster of its item, unless it has its own."""
    places = {"group": item.group, "cluster": item.cluster}
    return {**{name: value for name, value in places.items() if value is not None}, **row}


# ---- write


def _publish(
    output: Output, settings: EvalSettings, model: Model, done: Sequence[TaskRows], failed: dict[str, WorkError]
) -> None:
    output.result.mkdir(parents=True)
    inference = {
        "dtype": settings.opening.dtype,
        "max_length_tokens": model.room,
        "windowing": "strict-disjoint",  # the format wants these two, which mean nothing for answers
        "prefix": "eos",
        "prompts": settings.prompts,
        "template": settings.opening.template,
        "temperature": settings.sampling.temperature,
        "seed": settings.sampling.seed,
    }
    description = model.description | {"name": settings.name or model.name}
    entries = write_files(output.result, model=description, inference=inference, tasks=done)
    counts = {"tasks": len(entries), "items": sum(entry["items"] for entry in entries), "domains": 0}
    details: dict[str, Any] = {"tasks": {one.benchmark.name: one.details for one in done}}
    if failed:
        details["failed"] = {name: str(error) for name, error in failed.items()}
    output.publish(counts=counts, details=details)


def _table(directory: Path) -> str:
    """The metrics of each task, of choices only the primary one, with 95 % intervals."""
    lines = [f"{'task':<20} {'metric':<16} {'value':>8}   95 % interval      {'n':>6}"]
    results = read_object(directory / "results.json")
    for task in results["tasks"]:
        for name, metric in task["metrics"].items():
            if name == task["primary_metric"] or task.get("kind", "choices") != "choices":
                ends = results["intervals"][task["task"]][name]
                shown = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
                lines.append(f"{task['task']:<20} {name:<16} {metric['value']:>8.4f}   {shown:<18} {metric['n']:>6}")
    return "\n".join(lines) + "\n"
