"""Reward models: a score for an answer, learnt from pairs of a better and a worse one."""

__all__: list[str] = []
