"""A log line every ten seconds with rate and time left; the totals go to metrics.jsonl."""

import logging
import time

__all__ = ["Progress", "duration"]

log = logging.getLogger(__name__)

_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Progress:
    """Counts of one stage; `tokens` are the model's input tokens, padding included."""

    def __init__(self, name: str, unit: str, total: int) -> None:
        self.name, self.unit, self.total = name, unit, total
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
            left = self.seconds * (self.total - self.done) / max(1, self.done)
            log.info("%s, eta %s", self._line(), duration(max(0.0, left)))

    def _line(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        return f"{self.name}: {round(self.done):,}/{self.total:,} {self.unit}, {rate:,.0f} tokens/s"

    def finish(self) -> dict[str, float | int | str]:
        """Log the last line; returns the row for metrics.jsonl."""
        log.info("%s, %s", self._line(), duration(self.seconds))
        return {
            "stage": self.name,
            "done": round(self.done),
            "unit": self.unit,
            "forward_tokens": self.tokens,
            "time_s": round(self.seconds, 3),
        }
