"""Every tool that runs torch limits OpenMP's spinning before torch is imported, unless the user has set it."""

import os
import subprocess
import sys

import pytest
from repository import PACKAGES, Package

COMMANDS = {"trainer": "train", "catwalk-eval": "verify", "open-instruct": "inspect"}
RUN = """
import os, sys
from {package}.__main__ import main
assert main([{command!r}, "nowhere"]) in (1, 2)
assert "torch" not in sys.modules
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


def found(package: Package, **environment: str) -> str:
    """The two variables after a command has failed on a missing file."""
    code = RUN.format(package=package.import_name, command=COMMANDS[package.folder])
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    run = subprocess.run([sys.executable, "-c", code], env=others | environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("package", [one for one in PACKAGES if one.folder in COMMANDS], ids=lambda one: one.folder)
def test_spinning_is_limited_unless_the_user_has_set_it(package: Package) -> None:
    assert found(package) == "10000 None"
    assert found(package, GOMP_SPINCOUNT="7") == "7 None"
    assert found(package, OMP_WAIT_POLICY="ACTIVE") == "None ACTIVE"


def test_every_tool_that_needs_torch_is_tested() -> None:
    needing = {one.folder for one in PACKAGES if '"torch' in (one.path / "pyproject.toml").read_text(encoding="utf-8")}
    assert needing == set(COMMANDS)
