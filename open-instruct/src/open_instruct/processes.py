"""The processes of one run, as `torchrun` and `accelerate launch` start them: how many, which one, and waiting.

Every process reads and encodes the same rows. The first one writes the files and speaks.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .formats.contract import ConfigError

__all__ = ["count_processes", "end_together", "first_goes_ahead", "is_first", "join_processes", "require_one_process"]


def count_processes() -> int:
    """Return the number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def require_one_process(command: str) -> None:
    """Raise ConfigError if this is one of several processes, for a command that does not share its work."""
    if count_processes() > 1:
        raise ConfigError(
            f"WORLD_SIZE: is {count_processes()}; expected 1, {command} runs in one process",
            hint="start open-instruct without accelerate launch or torchrun",
        )


def is_first() -> bool:
    """Whether this is the process that writes the files."""
    return int(os.environ.get("RANK", "0")) == 0


def join_processes(device: str) -> None:
    """Let the processes find each other, if there are several."""
    if count_processes() > 1:
        state = _state(device == "cpu")
        atexit.register(state.destroy_process_group)


def _state(cpu: bool | None = None) -> Any:
    from accelerate import PartialState

    return PartialState() if cpu is None else PartialState(cpu=cpu)


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run a block in the first process, then in the others. Needs `join_processes`."""
    if count_processes() == 1:
        yield
        return
    with _state().main_process_first():
        yield


def end_together() -> None:
    """Wait until every process comes here, if there are several. They part when they exit."""
    if count_processes() > 1:
        _state().wait_for_everyone()
