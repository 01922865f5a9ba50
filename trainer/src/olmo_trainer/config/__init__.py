"""Settings: what there is (schema), how it is read (parse) and what must hold together (check)."""

from __future__ import annotations

from .errors import ConfigError, Problem
from .schema import RunConfig

__all__ = ["ConfigError", "Problem", "RunConfig"]
