"""The command reference is what the commands print."""

from __future__ import annotations

import subprocess
import sys

from repository import ROOT


def test_reference_pages_equal_help() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
