"""The commands besides `sft` and `dpo`: chat, inspect, mix, merge."""

__all__: list[str] = []
