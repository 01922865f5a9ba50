"""The extractors: a name to a function from HTML to text.

resiliparse and trafilatura have the settings of dolma 1.2.1 (``dolma/warc/linearizers.py``), so that texts can be
compared with its own.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from dolma.core.extras import require
from dolma.errors import ConfigError, Problem

__all__ = ["NAMES", "Extractor", "make", "version"]

Extractor = Callable[[str], str]

NAMES = ("resiliparse", "trafilatura", "plain")
"""``plain`` is for what is text already. An extractor of one's own is ``module:function``."""

FLUSH_AFTER = 10_000
"""Pages after which the caches of trafilatura are emptied, as in dolma 1.2.1."""


def make(name: str, key: str) -> Extractor:
    """The extractor of that name.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    if name == "resiliparse":
        return _resiliparse(key)
    if name == "trafilatura":
        return _trafilatura(key)
    return _own(name, key)


def version(name: str, key: str) -> str:
    """What texts depend on besides the page: the version of the package, or the hash of one's own module.

    Raises:
        ConfigError: as ``make``.
    """
    if name == "plain":
        return name
    if name in NAMES:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            require(name, name, key, f'"{name}"')
            raise
    make(name, key)
    origin = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    digest = hashlib.sha256(Path(origin).read_bytes()).hexdigest()[:12] if origin else "unknown"
    return f"{name} {digest}"


def _resiliparse(key: str) -> Extractor:
    html2text = require("resiliparse.extract.html2text", "resiliparse", key, '"resiliparse"')
    html = require("resiliparse.parse.html", "resiliparse", key, '"resiliparse"')

    def extract(page: str) -> str:
        tree = html.HTMLTree.parse(page)
        text: str = html2text.extract_plain_text(
            tree,
            preserve_formatting=True,
            main_content=True,
            list_bullets=True,
            alt_texts=False,
            links=False,
            form_fields=False,
            noscript=False,
            comments=True,
        )
        return text

    return extract


def _trafilatura(key: str) -> Extractor:
    trafilatura = require("trafilatura", "trafilatura", key, '"trafilatura"')
    meta = require("trafilatura.meta", "trafilatura", key, '"trafilatura"')
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    pages = 0

    def extract(page: str) -> str:
        nonlocal pages
        pages += 1
        if pages % FLUSH_AFTER == 0:
            meta.reset_caches()
        return trafilatura.extract(page, output_format="txt", include_comments=False, include_tables=False) or ""

    extract("<html><body><p>It loads its lists of words with the first page.</p></body></html>")
    return extract


def _own(name: str, key: str) -> Extractor:
    module, _, function = name.partition(":")
    if not function:
        message = f'is "{name}"; expected {", ".join(NAMES)} or module:function'
        raise ConfigError([Problem(key, message)])
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        message = f'is "{name}", which cannot be imported ({error}); expected module:function'
        raise ConfigError([Problem(key, message, "put the directory of the module on PYTHONPATH")]) from None
    extractor: Extractor = found
    return extractor
