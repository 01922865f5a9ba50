"""From the Hugging Face Hub, at a revision, kept in the Hub's cache: the files of a data set's split, and checkpoints.

A data set without files that we can read has Parquet ones in the revision `refs/convert/parquet`. The cache stores
each file under its hash, which is checked whenever the file is used.
"""

import contextlib
import difflib
import fnmatch
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from catwalk.formats.contract import ConfigError, WorkError, first_line, sha256_file
from catwalk.types import Task

__all__ = ["download_checkpoint", "download_split"]

_CONVERTED = "refs/convert/parquet"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "*.tiktoken")


# ---- data sets


def download_split(task: Task, split: str, *, offline: bool) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files of a split and their names for a manifest. HF_HUB_OFFLINE=1 has the effect of `offline`.

    A revision that is a commit needs no network once its files are in the cache. The names contain the commit.

    Raises:
        ConfigError: the data set, its configuration or its split does not exist, or it is not in the cache.
        WorkError: the network failed, or a file's bytes are not those of its hash.
    """
    from huggingface_hub import constants

    hub = task.hub
    assert hub is not None
    name, config, pinned = hub["name"], hub.get("config", ""), hub.get("revision")
    offline = offline or constants.HF_HUB_OFFLINE
    where = f"data: {name}" + (f", configuration {config}" if config else "") + f", revision {pinned or 'main'}"
    hint = "check the network, pass --data DIR, or --offline if it was downloaded before"
    present: list[str] = []
    for revision in [pinned] if pinned else ["main", _CONVERTED]:
        with _explained(where, offline=offline, hint=hint):
            cached = _cached_files(name, revision) if offline or _COMMIT.fullmatch(revision) else []
            found = _of_split(cached, hub, split)
            if found and _complete(found):
                return _checked(name, revision, found, where, offline=True)
            if offline:
                continue
            try:
                listed = _listed_files(name, revision)
            except ConfigError:
                if revision == _CONVERTED:
                    break
                raise
            present += listed
            found = _of_split(listed, hub, split)
            if found:
                return _checked(name, revision, found, where, offline=False)
    if offline:
        raise ConfigError(f"{where}: the {split} split is not in the cache", hint="run once without --offline")
    raise _no_split(where, hub, split, present)


def _cached_files(name: str, revision: str) -> list[str]:
    from huggingface_hub import errors, snapshot_download

    try:
        root = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return []
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


def _listed_files(name: str, revision: str) -> list[str]:
    """The names of a data set's files.

    Raises:
        ConfigError: there is no such revision.
    """
    from huggingface_hub import HfApi, errors

    try:
        return sorted(HfApi().list_repo_files(name, repo_type="dataset", revision=revision))
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"data: {name}, revision {revision}: not found on the Hub") from error


def _of_split(listed: Sequence[str], hub: dict[str, str], split: str) -> list[str]:
    """The files of a split, Parquet before JSON Lines.

    `hub.files` is a pattern for their names, with `{split}`; else they have one of the usual names:
    `<config>/<split>-00000-of-00001.parquet`, `data/<split>.jsonl`, `<split>/0000.parquet`.
    """
    if "files" in hub:
        pattern = hub["files"].replace("{split}", split)
        return [file for file in listed if fnmatch.fnmatchcase(file, pattern)]
    config = hub.get("config", "")
    own = [f"{config}/", f"data/{config}/"] if config else ["", "data/"]
    folders = "|".join(map(re.escape, [*own, *([] if config else ["default/", "plain_text/"])]))
    for suffix in _SUFFIXES:
        end = re.escape(suffix)
        usual = re.compile(rf"(?:{folders}){re.escape(split)}(?:[-_.]\d[^/]*|/[^/]*\d)?{end}")
        found = [file for file in listed if usual.fullmatch(file)]
        if found:
            return found
    return []


def _complete(files: Sequence[str]) -> bool:
    """Whether cached files are all of a split. They are downloaded from the last to the first."""
    total = re.search(r"-of-0*(\d+)", files[0])
    if total:
        return len(files) == int(total[1])
    first = Path(files[0]).name.split(".")[0]
    return not first.isdecimal() or int(first) == 0


def _checked(
    name: str, revision: str, found: Sequence[str], where: str, *, offline: bool
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files, downloaded if need be, and their names with the commit."""
    from huggingface_hub import hf_hub_download

    files = [
        Path(hf_hub_download(name, file, repo_type="dataset", revision=revision, local_files_only=offline))
        for file in reversed(found)
    ][::-1]
    for file, own in zip(files, found, strict=True):
        _check_hash(file, f"{where}: {own}")
    commits = {next(part for part in reversed(file.parts) if _COMMIT.fullmatch(part)) for file in files}
    if len(commits) > 1:
        raise WorkError(f"{where}: it changed during the download; expected files of one commit", hint="run again")
    commit = commits.pop()
    return tuple(files), tuple(f"hub:{name}@{commit}/{own}" for own in found)


def _check_hash(file: Path, where: str) -> None:
    """Compare a file with the name of its blob: the sha256 of its bytes, or git's sha1 of small files.

    Raises:
        WorkError: they differ; the file is deleted, so that the next run downloads it.
    """
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        found = sha256_file(blob)
    elif _COMMIT.fullmatch(blob.name):
        body = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()
    else:  # a system without links
        return
    if found != blob.name:
        file.unlink()
        blob.unlink()
        problem = f"{where}: the hash of its bytes is {found[:12]}…; expected {blob.name[:12]}…"
        raise WorkError(problem, hint="the damaged file was deleted; run again to download it")


def _no_split(where: str, hub: dict[str, str], split: str, present: Sequence[str]) -> ConfigError:
    data = [file for file in dict.fromkeys(present) if file.endswith((*_SUFFIXES, ".json", ".csv", ".tsv", ".arrow"))]
    wanted = hub["files"].replace("{split}", split) if "files" in hub else f"{hub.get('config', 'data')}/{split}"
    near = difflib.get_close_matches(wanted, data, n=3, cutoff=0.0)
    shown = f"; the nearest of its {len(data)} data files: {', '.join(near)}" if near else "; it has no data files"
    expected = f"files named {wanted}" if "files" in hub else f"Parquet or JSON Lines files of the {split} split"
    return ConfigError(f"{where}: no {expected}{shown}", hint="correct the task's hub key, or pass --data DIR")


# ---- checkpoints


def download_checkpoint(name: str, revision: str, *, offline: bool) -> Path:
    """The directory of a model at a revision, without pickled weights. HF_HUB_OFFLINE=1 has the effect of `offline`.

    Raises:
        ConfigError: the model or its revision does not exist, or it is not in the cache.
        WorkError: the network failed.
    """
    from huggingface_hub import constants, snapshot_download

    offline = offline or constants.HF_HUB_OFFLINE
    with _explained(f"model: hub:{name}@{revision}", offline=offline, hint="check the network, or give a directory"):
        patterns = list(_CHECKPOINT_FILES)
        found = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline)
    return Path(found)


# ---- errors


@contextlib.contextmanager
def _explained(where: str, *, offline: bool, hint: str) -> Iterator[None]:
    """The Hub's errors in our form."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ConfigError(f"{where}: not found on the Hub", hint="check the name, or that you have access") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{where}: {first_line(error)}", hint="a name of the Hub is OWNER/NAME") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if offline:
            raise ConfigError(f"{where}: not in the cache", hint="run once without --offline") from error
        raise WorkError(f"{where}: {first_line(error)}", hint=hint) from error
    except errors.EntryNotFoundError as error:  # listed a moment ago
        raise WorkError(f"{where}: {first_line(error)}", hint="run again") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise WorkError(f"{where}: {first_line(error)}", hint=hint) from error
