"""``dolma tokens decode``: documents of token shards, as text again."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.commands.tokens import ITEM_TYPES, tokenizer_path
from dolma.config import setting
from dolma.config.shared import at_least
from dolma.errors import ConfigError, Problem, ProblemsError, translated
from dolma.formats import manifest
from dolma.formats.error import FormatError
from dolma.formats.tokens import MissingArgumentError, read

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma tokens decode``."""

    path: str | None = setting(None, "a directory that `dolma tokens` wrote, or one .npy", positional=True)
    document: int | None = setting(None, "number of the document, from 0 on, shards in sorted order (default: 0)")
    id: str | None = setting(None, "id of the documents to show, in place of a number")
    tokenizer: str | None = setting(None, "tokenizer.json or a name (default: the one beside the shards)")
    dtype: str | None = setting(None, "item type, where no manifest tells it")
    eos_token_id: int | None = setting(None, "where neither manifest nor table tells the ends of documents")
    json: bool = setting(False, "one JSON object a document, in place of lines for people")

    def check(self) -> Iterator[Problem]:
        """What is asked for has to be there."""
        if self.path is None:
            yield Problem("path", "is missing; expected a directory of token shards, or one .npy")
        elif not Path(self.path).exists():
            yield Problem("path", f'is "{self.path}", which was not found; expected token shards')
        if self.document is not None and self.id is not None:
            yield Problem("id", "is given beside document; expected one of the two")
        if self.dtype is not None and self.dtype not in ITEM_TYPES:
            yield Problem("dtype", f'is "{self.dtype}"; expected one of {", ".join(ITEM_TYPES)}')
        yield from at_least(0, document=self.document, eos_token_id=self.eos_token_id)


@translated
def run(config: Config) -> None:
    """Prints the documents asked for; that there is none is an error."""
    path = Path(config.path or "")
    directory = path if path.is_dir() else path.parent
    shape = _shape(config, directory)
    tokenizer = tokenizer_path(config.tokenizer or str(directory / "tokenizer.json"))
    wanted = config.document or 0
    seen, shown = 0, 0
    for row in _rows(path, shape):
        if (config.id is None and seen == wanted) or (config.id is not None and row["id"] == config.id):
            _show(row | {"document": seen, "text": _native.decode_tokens(str(tokenizer), row["tokens"])}, config.json)
            shown += 1
            if config.id is None:
                return
        seen += 1
    if not shown and config.id is not None:
        raise ConfigError([Problem("id", f'is "{config.id}", which none of the {seen} documents has')])
    if not shown:
        raise ConfigError(
            [Problem("document", f"is {wanted}; expected a number below {seen}, the documents there are")]
        )


def _shape(config: Config, directory: Path) -> tuple[str | None, int | None]:
    """Item type and eos; a single shard of an artifact has them from its manifest."""
    if config.dtype is not None or not (directory / manifest.FILE_NAME).is_file():
        return config.dtype, config.eos_token_id
    details = manifest.read(directory, "tokens").details
    return details.string("dtype"), config.eos_token_id


def _rows(path: Path, shape: tuple[str | None, int | None]) -> Iterator[dict[str, Any]]:
    errors: list[FormatError] = []
    try:
        for row, _ in read(path, *shape, errors):
            yield row
    except MissingArgumentError as error:
        raise ConfigError([Problem(str(error), "is missing; expected it, as no manifest tells it")]) from None
    if errors:
        raise ProblemsError(errors) if len(errors) > 1 else errors[0]


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(f"document {row['document']}  {row['file']}  tokens {row['start']} to {row['end']}\n")
    sys.stdout.write(f"id       {row['id']}\nsource   {row['src']}:{row['loc']}\n")
    sys.stdout.write(f"ids      {' '.join(map(str, row['tokens']))}\ntext\n{row['text']}\n")


if __name__ == "__main__":  # `python -m dolma.commands.tokens_decode` is `dolma tokens decode`
    from dolma.__main__ import main

    main(["tokens", "decode", *sys.argv[1:]])
