"""What stands around TRL's trainers: arguments, held-out evaluation, metrics, the output directory."""

__all__: list[str] = []
