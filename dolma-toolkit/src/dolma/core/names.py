"""Names of taggers and experiments as parts of attribute keys."""

from __future__ import annotations

import re

__all__ = ["variable_name"]


def variable_name(name: str, remove_multiple_underscores: bool = False) -> str:
    """Every ASCII character but letters, digits and ``_`` becomes ``_``; names of other scripts stay as they are."""
    found = re.sub(r"[^a-zA-Z0-9_\u0080-\U0010ffff]", "_", name)
    return re.sub(r"__+", "_", found) if remove_multiple_underscores else found
