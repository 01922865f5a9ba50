"""From files of rows to examples of token ids: reading, holding out, encoding, packing. No model here."""

__all__: list[str] = []
