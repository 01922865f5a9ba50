"""A log line every ten seconds with rate and time left; the totals go to metrics.jsonl."""

import logging
import time
from collections.abc import Mapping, Sequence

__all__ = ["Overall", "Progress", "duration"]

log = logging.getLogger(__name__)

_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Overall:
    """How much of all models' unfinished parts is done. A part's weight is what it costs, roughly."""

    def __init__(self, models: Sequence[tuple[str, Mapping[str, float]]]) -> None:
        self.models = len(models)
        self._parts = [(model, name, weight) for model, parts in models for name, weight in parts.items()]
        self._total = sum(weight for _, _, weight in self._parts) or 1.0
        self._done, self._started = 0.0, time.monotonic()

    def line(self, name: str, share: float) -> str:
        """Where the run is, with `share` of the part `name` done, and the time left."""
        place, (model, weight) = next(
            (place, (model, weight)) for place, (model, part, weight) in enumerate(self._parts) if part == name
        )
        done = (self._done + weight * min(1.0, share)) / self._total
        left = (time.monotonic() - self._started) * (1 - done) / max(done, 1e-9)
        return f"{model}, {name}: {len(self._parts) - place} parts left, {100 * done:.0f} %, eta {duration(left)}"

    def leave(self, model: str) -> None:
        """A model is done, even if some parts failed."""
        self._done += sum(weight for name, _, weight in self._parts if name == model)
        self._parts = [part for part in self._parts if part[0] != model]

    def finish(self, name: str) -> None:
        """A part is done."""
        for place, (_, part, weight) in enumerate(self._parts):
            if part == name:
                self._done += weight
                del self._parts[place]
                return


class Progress:
    """Counts of one stage; `tokens` are the model's input tokens, padding included. `overall` is the whole run."""

    def __init__(self, name: str, unit: str, total: int, overall: Overall | None = None) -> None:
        self.name, self.unit, self.total, self.overall = name, unit, total, overall
        self.done, self.tokens = 0.0, 0
        self._started = self._logged = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self._started

    def advance(self, done: float, tokens: int) -> None:
        """Count, and log a line every ten seconds."""
        self.done += done
        self.tokens += tokens
        if time.monotonic() - self._logged >= _EVERY_S:
            self._logged = time.monotonic()
            if self.overall is not None and self.overall.models > 1:
                rate = self.tokens / max(self.seconds, 1e-9)
                log.info("%s, %s tokens/s", self.overall.line(self.name, self.done / self.total), f"{rate:,.0f}")
                return
            left = self.seconds * (self.total - self.done) / max(1, self.done)
            log.info("%s, eta %s", self._line(), duration(max(0.0, left)))

    def _line(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        return f"{self.name}: {round(self.done):,}/{self.total:,} {self.unit}, {rate:,.0f} tokens/s"

    def finish(self) -> dict[str, float | int | str]:
        """Log the last line; returns the row for metrics.jsonl."""
        log.info("%s, %s", self._line(), duration(self.seconds))
        if self.overall is not None:
            self.overall.finish(self.name)
        return {
            "stage": self.name,
            "done": round(self.done),
            "unit": self.unit,
            "forward_tokens": self.tokens,
            "time_s": round(self.seconds, 3),
        }
