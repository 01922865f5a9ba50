"""What the trainer asks of the machine it runs on."""

from __future__ import annotations

import multiprocessing
import platform
import resource

import pytest
import torch
from olmo_trainer.device import keep_freed_memory


def _faults_of_large_tensors() -> int:
    for _ in range(4):
        torch.ones(2**24)  # 64 MiB: 16,384 pages
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _before_and_after() -> tuple[int, int]:
    given_back = _faults_of_large_tensors()
    keep_freed_memory()
    return given_back, _faults_of_large_tensors()


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of another C library is left as it is")
def test_freed_memory_is_used_again() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # what is asked of glibc stays so for the process
        given_back, kept = pool.apply(_before_and_after)
    assert kept < 100 < given_back
