"""Modules that a user names in ``tagger_modules``: importable names, ``.py`` files or package directories."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTagger
from dolma.errors import ConfigError, Problem

__all__ = ["import_modules", "make_tagger", "source_sha256", "told"]


class _ImportFailure(Exception):
    """What a user's module raised, and where."""


def import_modules(names: Iterable[str]) -> None:
    """Imports the package's own taggers and each module, so that their ``@add_tagger`` classes are registered.

    Raises:
        ConfigError: a module is missing, or fails on import.
    """
    importlib.import_module("dolma.tagging.models")
    problems = []
    for index, name in enumerate(names):
        try:
            _guarded_import(name)
        except _ImportFailure as failure:
            problems.append(
                Problem(f"tagger_modules.{index}", f'is "{name}", which {failure.args[0]}', failure.args[1])
            )
    if problems:
        raise ConfigError(problems)


def _guarded_import(name: str) -> None:
    try:
        _import(name)
    except ModuleNotFoundError as error:
        hint = "give a path to the file, or put its directory on PYTHONPATH"
        raise _ImportFailure(f"cannot be imported ({error}); expected a module", hint) from error
    except (Exception, SystemExit) as error:
        raise _ImportFailure(f"fails on import: {told(error)}", "") from error


def make_tagger(name: str) -> BaseTagger:
    """An instance of a registered class.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        return TaggerRegistry.get(name)()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        message = f'names "{name}", which cannot be made: {told(error)}'
        raise ConfigError([Problem("taggers", message)]) from error


def told(error: BaseException) -> str:
    """An exception of a user's code in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frames[-1].filename}:{frames[-1].lineno})"


def _import(name: str) -> None:
    path = Path(name)
    if not path.exists():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            here = os.getcwd()
            if error.name != name.partition(".")[0] or here in sys.path:
                raise
            # after all others, so that a file here hides no installed module
            sys.path.append(here)
            importlib.invalidate_caches()
            importlib.import_module(name)
        return
    # by path: the directory is added to `sys.path`, so that the module can import its neighbours. A module of a
    # package is imported as part of it, for its relative imports
    module_name = path.stem if path.suffix == ".py" else path.name
    directory = path.resolve().parent
    while (directory / "__init__.py").is_file() and directory.name.isidentifier():
        module_name, directory = f"{directory.name}.{module_name}", directory.parent
    parent = str(directory)
    known = sys.modules.get(module_name)
    if known is not None:
        origin = getattr(known, "__file__", None)
        if origin and Path(origin).resolve() in (path.resolve(), (path / "__init__.py").resolve()):
            return
        raise ImportError(f"another module is named {module_name}")
    if parent not in sys.path:
        sys.path.insert(0, parent)
    importlib.invalidate_caches()
    importlib.import_module(module_name)


def source_sha256(module_name: str) -> str:
    """sha256 of the source file of an imported module: results made by other code are other results."""
    module = sys.modules.get(module_name)
    origin = getattr(module, "__file__", None)
    if origin and Path(origin).is_file():
        return hashlib.sha256(Path(origin).read_bytes()).hexdigest()
    # the cells of a notebook so far
    cells = getattr(module, "In", None)
    return hashlib.sha256(repr(cells).encode()).hexdigest() if isinstance(cells, list) else ""
