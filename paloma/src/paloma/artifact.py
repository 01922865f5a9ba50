"""An output directory that is complete or absent, and progress lines."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from paloma.configuration import ConfigError
from paloma.formats.manifest import MANIFEST

__all__ = ["Progress", "staged"]

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def staged(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to fill beside `output`, which takes its name when the block ends well.

    Raises:
        ConfigError: when `output` holds something and `overwrite` is false, or it is no artifact.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError([f"--output: {output} is a file; expected a directory"], "name another")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise ConfigError(
                [f"--output: {output} is not empty; expected a new directory"], "use --overwrite, or another"
            )
        if not (output / MANIFEST).is_file():  # whatever it is, it was not made here
            raise ConfigError([f"--output: {output} is not empty and no artifact"], "name another; it is not deleted")
    staging = output.with_name(f".{output.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if output.is_dir():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class Progress:
    """A line every ten seconds with the rate and the time that is left, and one at the end."""

    def __init__(self, verb: str, total_bytes: int) -> None:
        self._verb, self._total_bytes = verb, total_bytes
        self._start = self._last = time.monotonic()
        self._items = 0

    def step(self, done_bytes: int) -> None:
        """One more item; `done_bytes` of the inputs are behind."""
        self._items += 1
        if self._items % 256:
            return
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        seconds = now - self._start
        left_s = seconds * (self._total_bytes - done_bytes) / done_bytes if done_bytes else float("nan")
        eta = f"{int(left_s // 60):02d}:{int(left_s % 60):02d}" if done_bytes else "--:--"
        log.info(
            "%s  %s documents  %.0f documents/s  eta %s", self._verb, f"{self._items:,}", self._items / seconds, eta
        )

    def finish(self, directory: Path) -> None:
        """The last line, and the same numbers in `metrics.jsonl`, which is not part of the artifact."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self._items / seconds
        log.info("%s  %s documents in %.1f s  %.0f documents/s", self._verb, f"{self._items:,}", seconds, rate)
        row = {
            "verb": self._verb,
            "documents": self._items,
            "time_s": round(seconds, 3),
            "documents_per_s": round(rate, 1),
        }
        (directory / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
