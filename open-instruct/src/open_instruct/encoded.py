"""Encoding in several processes, and a cache of encoded rows. Both are off by default; neither changes a byte.

An entry of the cache is found by the hash of all that its content depends on: the rows, the template, the tokenizer,
the settings, and the versions of the libraries and of this code. So an entry is never stale. It is read only if its own
hash is right.
"""

import hashlib
import importlib.metadata
import json
import logging
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

from .chat.encode import ConversationEncoder
from .config import EncodingSettings, SequenceSettings
from .data import Examples, PairExample, SftExample, encode_conversations, encode_pairs, row_hash
from .formats.contract import WorkError
from .processes import is_first

__all__ = ["encode_rows", "entry_name"]

log = logging.getLogger(__name__)
_LIBRARIES = ("jinja2", "tokenizers", "transformers")
_CODE = ("data.py", "chat/encode.py", "chat/render.py")
# fewer rows for each process are encoded sooner than processes start
_LEAST_ROWS = 1000


def encode_rows(
    rows: Sequence[Any],
    encoder: ConversationEncoder,
    max_length: int,
    sequence: SequenceSettings,
    settings: EncodingSettings,
    *,
    pairs: bool,
    least_rows: int = _LEAST_ROWS,
) -> Examples[Any]:
    """Encode conversations or pairs as `encode_conversations` and `encode_pairs` do, with the same errors."""
    encode: Callable[..., Examples[Any]] = encode_pairs if pairs else encode_conversations

    def work() -> Examples[Any]:
        if settings.num_processes > 1 and len(rows) >= settings.num_processes * least_rows:
            found = _in_processes(encode, rows, encoder, max_length, sequence.too_long, settings.num_processes)
            if found is not None:
                return found
        return encode(rows, encoder, max_length, sequence.too_long)

    if settings.cache is None or not rows:
        return work()
    path = Path(settings.cache) / entry_name(rows, encoder, max_length, sequence, pairs=pairs)
    examples = _read(path, PairExample if pairs else SftExample)
    if examples is None:
        examples = work()
        if is_first():
            _write(path, examples)
    else:
        log.info("%d encoded rows: %s", len(examples.rows), path)
    return examples


# ---- several processes


def _in_processes(
    encode: Callable[..., Examples[Any]],
    rows: Sequence[Any],
    encoder: ConversationEncoder,
    max_length: int,
    too_long: str,
    count: int,
) -> Examples[Any] | None:
    """Encode a part of the rows in each process; None if any part has bad rows, which one process names in order."""
    size = -(-len(rows) // count)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    # not forked: the tokenizer's threads would be missing in a child
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        each = (pool.submit(_encode_part, encode, part, encoder, max_length, too_long) for part in parts)
        found = [future.result() for future in list(each)]
    whole: Examples[Any] = Examples()
    for part in found:
        if part is None:
            return None
        whole.rows += part.rows
        whole.truncated += part.truncated
        whole.dropped += part.dropped
    return whole


def _encode_part(
    encode: Callable[..., Examples[Any]], rows: Any, encoder: ConversationEncoder, max_length: int, too_long: str
) -> Examples[Any] | None:
    logging.disable(logging.WARNING)
    try:
        return encode(rows, encoder, max_length, too_long)
    except WorkError:
        return None


# ---- the cache


def entry_name(
    rows: Sequence[Any], encoder: ConversationEncoder, max_length: int, sequence: SequenceSettings, *, pairs: bool
) -> str:
    """Return the name of the file with these rows, encoded in this way."""
    home = Path(__file__).parent
    parts = {
        "code": [hashlib.sha256((home / name).read_bytes()).hexdigest() for name in _CODE],
        "libraries": [importlib.metadata.version(name) for name in _LIBRARIES],
        "template": [encoder.template.text, list(encoder.template.special_tokens)],
        "tokenizer": [encoder.tokenizer.backend_tokenizer.to_str(), encoder.tokenizer.special_tokens_map],
        "settings": [pairs, max_length, sequence.too_long],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(row_hash(row) + json.dumps([row.source, row.place]).encode())
    return f"{digest.hexdigest()}.arrow"


def _read(path: Path, kind: type[Any]) -> Examples[Any] | None:
    import pyarrow

    try:
        data, expected = path.read_bytes(), path.with_suffix(".sha256").read_text(encoding="utf-8")
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != expected:
        log.warning("%s: damaged, encoded again", path)
        return None
    table = pyarrow.ipc.open_file(data).read_all()
    counts = json.loads(table.schema.metadata[b"counts"])
    columns = [table.column(field.name).to_pylist() for field in fields(kind)]
    rows = [kind(*values) for values in zip(*columns, strict=True)]
    return Examples(rows, counts["truncated"], Counter(counts["dropped"]))


def _write(path: Path, examples: Examples[Any]) -> None:
    import pyarrow

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = type(examples.rows[0]) if examples.rows else SftExample
    columns = {field.name: [getattr(row, field.name) for row in examples.rows] for field in fields(kind)}
    counts = {"truncated": examples.truncated, "dropped": dict(examples.dropped)}
    table = pyarrow.table(columns).replace_schema_metadata({"counts": json.dumps(counts)})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    # the hash first: an entry without its own is not read
    for name, content in ((path.with_suffix(".sha256"), hashlib.sha256(data).hexdigest().encode()), (path, data)):
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(content)
        os.replace(stream.name, name)
