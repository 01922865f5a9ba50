"""Programs that judge an answer: rewards for `grpo`, scores for `sample`."""

__all__: list[str] = []
