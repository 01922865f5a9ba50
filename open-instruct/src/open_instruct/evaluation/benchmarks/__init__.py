"""One file for each benchmark: its rows, its prompts, and how an answer is graded."""

__all__: list[str] = []
