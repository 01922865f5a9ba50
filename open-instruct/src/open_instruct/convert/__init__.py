"""The command `convert`: rows of other projects to chats and pairs."""

__all__: list[str] = []
