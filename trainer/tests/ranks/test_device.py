"""What the trainer asks of the machine it runs on."""

from __future__ import annotations

import multiprocessing
import platform
import resource

import pytest
import torch
from olmo_trainer.device import keep_freed_memory


def _faults_of_large_tensors() -> int:
    """Page faults of eight tensors of 64 MiB (16,384 pages each), in the best of six rounds.

    One round proves nothing: a small allocation in a freed block makes the next tensor take new memory once.
    """
    rounds = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            torch.ones(2**24)
        rounds.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(rounds)


def _before_and_after() -> tuple[int, int]:
    given_back = _faults_of_large_tensors()
    keep_freed_memory()
    return given_back, _faults_of_large_tensors()


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of another C library is left as it is")
def test_freed_memory_is_used_again() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # what is asked of glibc stays so for the process
        given_back, kept = pool.apply(_before_and_after)
    assert kept < 100
    assert given_back > 100_000
