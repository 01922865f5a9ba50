"""Settings of a run: what there is (schema), where values come from (load) and what must agree (check)."""

from .schema import RunConfig

__all__ = ["RunConfig"]
