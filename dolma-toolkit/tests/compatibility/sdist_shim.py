"""A pytest plugin for the tests of dolma 1.2.1: it maps file names that differ, and adds helpers that they import.

They look for ``<stream>-0000.json.gz``, which is now ``….jsonl.gz``, and read the manifest as if it were data. The
missing ``dolma.core.paths`` has two functions that they use for S3.
"""

from __future__ import annotations

import glob
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any


def pytest_configure() -> None:
    sys.path.insert(0, os.path.join(os.getcwd(), "tests"))
    if importlib.util.find_spec("dolma.core.paths") is None:
        paths = types.ModuleType("dolma.core.paths")
        paths.glob_path = lambda pattern: iter(sorted(glob.glob(str(pattern))))  # type: ignore[attr-defined]
        paths.mkdir_p = lambda path: os.makedirs(path, exist_ok=True)  # type: ignore[attr-defined]
        sys.modules["dolma.core.paths"] = paths
    utils = importlib.import_module("python.utils")
    load, read = utils.load_jsonl, utils.TestCasePipeline.readUnits

    def load_jsonl(path: str | Path) -> Any:
        name = str(path)
        renamed = f"{name.removesuffix('.json.gz')}.jsonl.gz"
        return load(renamed if not os.path.exists(name) and os.path.exists(renamed) else name)

    def read_units(self: Any, paths: list[Any], sort: bool = True) -> Any:
        data = [path for path in paths if os.path.isfile(path) and Path(path).name != "manifest.json"]
        return read(self, data, sort)

    utils.load_jsonl = load_jsonl
    utils.TestCasePipeline.readUnits = read_units
