"""Reinforcement learning from rewards that a program computes."""

__all__: list[str] = []
