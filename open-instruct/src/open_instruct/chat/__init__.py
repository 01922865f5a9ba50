"""From messages to tokens and back: templates, masks, generation."""

__all__: list[str] = []
