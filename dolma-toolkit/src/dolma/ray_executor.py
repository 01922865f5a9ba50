"""``dolma run --executor ray``: the shards of a run as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from dolma.core.extras import require
from dolma.errors import ConfigError, DolmaError, Problem, raise_all

__all__ = ["Cluster"]

log = logging.getLogger(__name__)

CONNECT_S = 20


class Cluster:
    """A Ray cluster whose machines share a file system with this one.

    Raises:
        ConfigError: Ray is not installed, there is no cluster, or its machines are too small.
    """

    def __init__(self, address: str, processes: int, retries: int) -> None:
        self._ray = require("ray", "ray", "executor", "--executor ray")
        self._processes, self._retries = processes, retries
        try:
            _reach(address)
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            message = f'is "{address}", where no Ray cluster answers ({reason}); expected a running one'
            raise ConfigError([Problem("ray_address", message, "start one with `ray start --head`")]) from None
        if not self.slots():
            self._ray.shutdown()
            message = f"is {processes}, more than any machine of the Ray cluster has CPUs; expected fewer"
            raise ConfigError([Problem("processes", message)])

    def slots(self) -> int:
        """How many shards run at once."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return sum(int(cpus // self._processes) for cpus in nodes)

    def run(self, shards: Mapping[str, Any], work: Callable[[Any], str]) -> None:
        """Calls ``work`` with the settings of each shard, until none gives a step that needs what other shards make.

        A task whose process or machine is lost starts again elsewhere, and resumes from its journal.

        Raises:
            ChildProcessError: a task was lost too often.
        """
        try:
            steps = dict.fromkeys(shards, "")
            while steps:
                before = steps
                steps = self._round({shard: shards[shard] for shard in before}, before, work)
                if steps == before:
                    found = ", ".join(f'{shard} ("{step}")' for shard, step in steps.items())
                    raise ChildProcessError(f"run: shards wait for each other: {found}; expected one of them to go on")
        finally:
            self._ray.shutdown()

    def _round(self, shards: Mapping[str, Any], steps: Mapping[str, str], work: Callable[[Any], str]) -> dict[str, str]:
        """A task for each of these shards. Gives those that are not done, and their next steps."""
        options = {"num_cpus": self._processes, "max_retries": self._retries, "scheduling_strategy": "SPREAD"}
        task = self._ray.remote(**options)(_call)
        start = {shard: task.options(name=f"shard {shard}").remote for shard in shards}
        running = {start[shard](work, config, os.getcwd()): shard for shard, config in shards.items()}
        following: dict[str, str] = {}
        failures: dict[str, Exception] = {}
        while running:
            [done], _ = self._ray.wait(list(running))
            shard = running.pop(done)
            where = f'shard {shard}, step "{steps[shard]}"' if steps[shard] else f"shard {shard}"
            try:
                step, failure = self._ray.get(done)
            except self._ray.exceptions.RayError as error:
                reason = f"{where}: its process or machine was lost {self._retries + 1} times ({type(error).__name__})"
                step, failure = "", ChildProcessError(f"{reason}; expected one that stays")
            if failure is not None:
                log.error("run  %s has failed", where)
                failures.setdefault(str(failure), failure)
            elif step:
                following[shard] = step
        raise_all(list(failures.values()))
        names = sorted(set(following.values()))
        log.info("run  %d shards on Ray: %s", len(shards), f"next {', '.join(names)}" if names else "done")
        return following


def _reach(address: str) -> None:
    """Fails if nothing listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _call(work: Callable[[Any], str], config: Any, directory: str) -> tuple[str, Exception | None]:
    """The task. Errors of ours are a result: Ray would wrap them."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        os.chdir(directory)
        return work(config), None
    except (DolmaError, OSError) as error:
        return "", error
