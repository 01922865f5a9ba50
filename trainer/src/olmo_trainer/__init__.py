"""Pretrain language models from token shards; the command is `olmo`, the main path is train.py."""

from __future__ import annotations

__all__: list[str] = []
