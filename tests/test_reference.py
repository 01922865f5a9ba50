"""The reference is what the commands print and what the benchmarks' files say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from repository import ROOT


@pytest.mark.parametrize("script", ["make_reference.py", "make_tasks.py"])
def test_reference_pages_are_current(script: str) -> None:
    command = [sys.executable, str(ROOT / "docs" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
