"""Pretrain language models from token shards; the command is `olmo`, the main path is train.py.

Functions raise ConfigError, or its kind SettingError, for a request that is wrong, FormatError for a file that breaks
its format, and RuntimeError or OSError for work that fails. Docstrings name only what this does not make obvious.
"""

__all__: list[str] = []
