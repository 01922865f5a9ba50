"""How far a run is, and the request to stop it: SIGUSR1, which SLURM sends before a time limit, or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

__all__ = ["STOPPED_STATUS", "Progress", "StopRequest", "Stopped", "stop_on_signal"]

STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command continues the run


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; `position` counts windows taken, `skipped` has ranges [first, last) of the order."""

    step: int = 0
    position: int = 0
    skipped_steps: int = 0
    consecutive_bad_steps: int = 0
    learning_rate: float = 0.0
    rewinds: int = 0
    skipped: tuple[tuple[int, int], ...] = ()

    def row(self) -> dict[str, Any]:
        """The fields as training/state.json names them."""
        fields = dict(vars(self))
        return {"left_out": fields.pop("skipped"), **fields}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Self:
        """The inverse of `row`.

        Raises: TypeError, ValueError: other fields.
        """
        fields = dict(row)
        skipped = tuple((first, last) for first, last in fields.pop("left_out", ()))
        return cls(skipped=skipped, **fields)


class Stopped(Exception):
    """The run was asked to stop and has been saved."""


class StopRequest:
    """Whether this process was asked to stop. A second signal ends it at once."""

    def __init__(self) -> None:
        self.is_made = False

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.is_made = True
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn both signals into a request while the block runs; only in the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._on_signal) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
