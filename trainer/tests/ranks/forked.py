"""Ranks of a test: children of this process, which have its imports already; starting each anew takes seconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as processes

__all__ = ["on_ranks"]


def on_ranks(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work` on so many ranks, in the environment that torchrun would give each; raises what any of them does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes.start_processes(_rank, (world, port, work, arguments), nprocs=world, start_method="fork")


def _rank(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="localhost")
    torch.set_num_threads(1)
    work(*arguments)
