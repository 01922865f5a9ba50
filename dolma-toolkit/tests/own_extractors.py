"""Extractors of one's own that do what a page may make a library do."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path


def plain(page: str) -> str:
    """The text between tags; does what the page asks for."""
    if "HANG" in page:
        while True:
            pass
    if "SLEEP" in page:
        time.sleep(3600)
    if "CRASH" in page:
        os.abort()
    if "MEMORY" in page:
        return "x" * (1 << 33)
    if "RAISE" in page:
        raise ValueError("no such page")
    if "ONCE" in page and not Path("once").exists():
        Path("once").touch()
        os.kill(os.getpid(), 9)
    return " ".join(re.sub("<[^>]*>", " ", page).split())
