"""Pretrain language models from token shards; the command is `olmo`, the main path is train.py."""

__all__: list[str] = []
