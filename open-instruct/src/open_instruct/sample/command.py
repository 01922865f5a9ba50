"""`open-instruct sample`: several answers to each prompt; the best, or the best and the worst, as rows.

The scenes: read, draw, score, choose, write. This is Llama 2's rejection sampling (arXiv:2307.09288, section 3.2.3).
"""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..config import RuntimeSettings, SamplingSettings, TemplateSettings
from ..evaluation.items import Answer
from ..evaluation.statistics import estimate
from ..formats.contract import ConfigError, WorkError, canonical_line
from ..formats.manifest import describe_input
from ..model.load import check_model_directory
from ..output import Output
from ..settings import as_mapping
from ..verifiers.prompts import Prompt, read_prompts
from .choose import Candidate, Dropped, choose_best, choose_pair
from .draw import draw, seed_of

__all__ = ["SampleSettings", "sample"]

log = logging.getLogger(__name__)
_SCORED_AT_ONCE = 512  # answers


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What to answer, with which model, and what to choose."""

    model: Path
    prompts: tuple[str, ...]
    output_dir: Path
    reward: Path | None = None
    to: Literal["chat", "preference"] = "chat"
    count: int = 8
    min_score: float | None = None
    min_margin: float = 0.0
    template: str | None = None
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=1.0))
    batch: int = 32
    dtype: str = "float32"
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


def sample(settings: SampleSettings) -> None:
    """Write rows of docs/formats/chat.md or preference.md; return at once if they are there already.

    Raises:
        ConfigError: the request is wrong; nothing was done.
        BadRows, FormatError: files that break their format.
        WorkError: the model or the template fails, or no prompt gives a row.
    """
    # ---- read
    _check(settings)
    prompts = read_prompts(settings.prompts, "prompts", judged=settings.reward is None)
    if not prompts:
        raise ConfigError("prompts: no rows found; expected at least one")
    check_model_directory(str(settings.model))
    if settings.reward is not None:
        check_model_directory(str(settings.reward), reward=True)
    output = _output(settings)
    if output.is_done():
        log.info("sample: already done: %s", output.directory)
        return

    with output.begin(keep_trainer=True):
        # ---- draw
        answers = draw(
            settings.model,
            prompts,
            settings.count,
            settings.sampling,
            TemplateSettings(name=settings.template),
            settings.runtime,
            settings.dtype,
            settings.batch,
            output.partial / "answers",
        )

        # ---- score: an answer that was cut, or is empty, is none
        texts = [_finished(own) for own in answers]
        scores = _scores(settings, prompts, texts)

        # ---- choose
        rows: list[dict[str, Any]] = []
        dropped: Counter[str] = Counter()
        chosen_scores: list[float] = []
        for prompt, own, finished, scored in zip(prompts, answers, texts, scores, strict=True):
            candidates = [
                Candidate(number, seed_of(prompt, number, settings.sampling.seed), text, scored[text])
                for text, number in finished.items()
                if text in scored
            ]
            try:
                if own is None:
                    raise Dropped("the prompt leaves no room for an answer")
                rows.append(_row(settings, prompt, candidates))
            except Dropped as reason:
                dropped[str(reason)] += 1
                continue
            chosen_scores.append(max(one.score for one in candidates))
        for why, number in sorted(dropped.items()):
            log.warning("sample: %d prompts were left out: %s", number, why)
        if not rows:
            raise WorkError(
                f"prompts: none of {len(prompts)} gives a row ({', '.join(sorted(dropped))}); expected at least one",
                hint="draw more answers with --count, allow longer ones with --max-new-tokens, or train the model more",
            )

        # ---- write
        output.result.mkdir(parents=True)
        file = output.result / f"{settings.to}-0000.jsonl"
        file.write_text("".join(map(canonical_line, rows)), encoding="utf-8")
        every = [scored[text] for own, scored in zip(answers, scores, strict=True) for text in _texts(own, scored)]
        counts = {"pairs": len(rows)}
        if settings.to == "chat":
            counts = {"conversations": len(rows), "messages": sum(len(row["messages"]) for row in rows)}
        details = {
            "prompts": len(prompts),
            "dropped": dict(sorted(dropped.items())),
            "answers": sum(len(own) for own in answers if own is not None),
            "answers_scored": len(every),
            "mean_score": math.fsum(every) / len(every),
            "mean_best_score": math.fsum(chosen_scores) / len(chosen_scores),
        }
        output.publish(counts=counts, details=details)
    for name, values in (("all answers", every), ("the best of each prompt", chosen_scores)):
        found = estimate(values)
        interval = f" ({found.interval[0]:.4g} to {found.interval[1]:.4g})" if found.interval else ""
        log.info("sample  score of %s: %.4g%s", name, found.value, interval)
    log.info("sample  %d rows of %d prompts: %s", len(rows), len(prompts), output.directory)


def _check(settings: SampleSettings) -> None:
    least = 2 if settings.to == "preference" else 1
    if settings.count < least:
        raise ConfigError(f"--count: is {settings.count}; expected {least} or more")
    if settings.count > 1 and settings.sampling.temperature == 0:
        raise ConfigError(
            f"--temperature: is 0 with --count {settings.count}; expected a number above 0, or all answers are the same"
        )
    if settings.min_margin and settings.to != "preference":
        raise ConfigError(f"--min-margin: is {settings.min_margin:g} with --to chat; expected it with --to preference")


def _output(settings: SampleSettings) -> Output:
    config = {
        "model": settings.model.resolve().name,
        "reward": settings.reward.resolve().name if settings.reward else None,
        "template": Path(settings.template).name if settings.template else None,
        "sampling": as_mapping(settings.sampling),
    }
    config |= {name: getattr(settings, name) for name in ("to", "count", "min_score", "min_margin", "dtype")}
    inputs = describe_input("checkpoint", settings.model, settings.output_dir)
    if settings.reward is not None:
        inputs += describe_input("reward", settings.reward, settings.output_dir)
    if settings.template and Path(settings.template).is_file():
        inputs += describe_input("template", Path(settings.template), settings.output_dir)
    for path in dict.fromkeys(settings.prompts):
        inputs += describe_input("prompts", Path(path), settings.output_dir)
    return Output(settings.output_dir, format_name=settings.to, config=config, inputs=inputs)


def _finished(answers: list[Answer] | None) -> dict[str, int]:
    """Return the different texts that the model ended itself, with the number of the first answer that has each."""
    found: dict[str, int] = {}
    for number, answer in enumerate(answers or []):
        if answer.ended and answer.text.strip():
            found.setdefault(answer.text, number)
    return found


def _texts(answers: list[Answer] | None, scored: dict[str, float]) -> list[str]:
    return [answer.text for answer in answers or [] if answer.ended and answer.text in scored]


def _scores(settings: SampleSettings, prompts: list[Prompt], texts: list[dict[str, int]]) -> list[dict[str, float]]:
    """Score each different text of each prompt once, so that equal texts have equal scores."""
    if settings.reward is None:
        return [
            {text: prompt.score(text) for text in own} if prompt.score else {}
            for prompt, own in zip(prompts, texts, strict=True)
        ]
    from ..reward.score import RewardScorer

    scorer = RewardScorer(settings.reward, settings.runtime, settings.dtype, settings.batch)
    rows = [(index, text) for index, own in enumerate(texts) for text in own]
    found: list[dict[str, float]] = [{} for _ in prompts]
    unscored = 0
    for start in range(0, len(rows), _SCORED_AT_ONCE):
        part = rows[start : start + _SCORED_AT_ONCE]
        scores = scorer.score([(prompts[index].messages, text) for index, text in part])
        for (index, text), score in zip(part, scores, strict=True):
            if score is None:
                unscored += 1
                continue
            if not math.isfinite(score):
                raise WorkError(f"{prompts[index].place}: the reward of an answer is {score}; expected a finite number")
            found[index][text] = score
        log.info("sample  %d/%d answers scored", start + len(part), len(rows))
    if unscored:
        log.warning(
            "sample: %d answers were left out: too long for the reward model, or refused by its template", unscored
        )
    return found


def _row(settings: SampleSettings, prompt: Prompt, candidates: list[Candidate]) -> dict[str, Any]:
    """Return a row of the result. Raises Dropped."""
    by = settings.reward.resolve().name if settings.reward else list(prompt.verifiers)
    facts: dict[str, Any] = {"model": settings.model.resolve().name, "scored_by": by, "count": settings.count}
    messages = list(prompt.messages)
    own = {"id": prompt.row.id or f"{prompt.row.path.name}:{prompt.row.line}", "source": prompt.row.source}
    # a verifier's 0 means wrong: without another limit, such an answer is no example
    least = settings.min_score
    if settings.to == "chat":
        best = choose_best(candidates, least)
        if least is None and settings.reward is None and best.score == 0:
            raise Dropped("every score is 0")
        answer = {"role": "assistant", "content": best.text}
        facts |= {"seed": best.seed, "sample": best.sample, "score": best.score}
        return own | {"messages": [*messages, answer], "metadata": facts}
    best, worst = choose_pair(candidates, least, settings.min_margin)
    facts |= {"margin": best.score - worst.score}
    for name, one in (("chosen", best), ("rejected", worst)):
        facts[name] = {"seed": one.seed, "sample": one.sample, "score": one.score}
    return own | {
        "prompt": messages,
        "chosen": [{"role": "assistant", "content": best.text}],
        "rejected": [{"role": "assistant", "content": worst.text}],
        "metadata": facts,
    }
