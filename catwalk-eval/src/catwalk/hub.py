"""From the Hugging Face Hub, at a revision, kept in the Hub's cache: the Parquet files of a split, and checkpoints."""

import re
from pathlib import Path

from catwalk.formats.contract import ConfigError, WorkError, first_line
from catwalk.types import Task

__all__ = ["download_checkpoint", "download_split"]


def download_split(task: Task, split: str, *, offline: bool) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files of a split and their names for a manifest. HF_HUB_OFFLINE=1 has the effect of `offline`.

    Data sets without Parquet files have converted ones in the revision `refs/convert/parquet`.

    Raises:
        ConfigError: the data set, its configuration or its split does not exist, or it is not in the cache.
        WorkError: the network failed.
    """
    from huggingface_hub import constants, errors, hf_hub_download, snapshot_download

    assert task.hub is not None
    name, config = task.hub["name"], task.hub.get("config", "")
    revision = task.hub.get("revision", "main")
    offline = offline or constants.HF_HUB_OFFLINE
    where = f"data: {name}" + (f", configuration {config}" if config else "") + f", revision {revision}"
    try:
        found = _files(name, config, split, revision, offline)
        if not found and not offline and "revision" not in task.hub:
            revision = "refs/convert/parquet"
            found = _files(name, config or "default", split, revision, offline)
        if not found:
            if offline:
                raise ConfigError(f"{where}: the {split} split is not in the cache", hint="run once without --offline")
            raise ConfigError(f"{where}: no Parquet files of the {split} split", hint="pass --data DIR with its rows")
        if offline:
            root = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
            files = [root / file for file in found]
        else:
            files = [Path(hf_hub_download(name, file, repo_type="dataset", revision=revision)) for file in found]
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise ConfigError(f"{where}: not found on the Hub", hint="check the name, or that you have access") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError, errors.HfHubHTTPError) as error:
        if offline:
            raise ConfigError(f"{where}: not in the cache", hint="run once without --offline") from error
        raise WorkError(f"{where}: {first_line(error)}", hint="check the network, or pass --data DIR") from error
    commit = next((part for part in reversed(files[0].parts) if re.fullmatch(r"[0-9a-f]{40}", part)), revision)
    return tuple(files), tuple(f"hub:{name}@{commit}/{file}" for file in found)


def _files(name: str, config: str, split: str, revision: str, offline: bool) -> list[str]:
    """The Parquet files of a split: `<config>/<split>-00000-of-00001.parquet`, `data/<split>-…`, `<split>/0*`."""
    listed: list[str]
    if offline:
        from huggingface_hub import snapshot_download

        root = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
        listed = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.parquet"))]
    else:
        from huggingface_hub import HfApi

        listed = sorted(HfApi().list_repo_files(name, repo_type="dataset", revision=revision))
    folders = [f"{config}/", f"data/{config}/"] if config else ["", "data/", "default/", "plain_text/"]
    pattern = re.compile(
        rf"(?:{'|'.join(map(re.escape, folders))}){re.escape(split)}(?:[-_.].*|/\d+)\.parquet|"
        rf"(?:{'|'.join(map(re.escape, folders))}){re.escape(split)}\.parquet"
    )
    return [file for file in listed if pattern.fullmatch(file)]


_CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "*.tiktoken")


def download_checkpoint(name: str, revision: str, *, offline: bool) -> Path:
    """The directory of a model at a revision, without pickled weights. HF_HUB_OFFLINE=1 has the effect of `offline`.

    Raises:
        ConfigError: the model or its revision does not exist, or it is not in the cache.
        WorkError: the network failed.
    """
    from huggingface_hub import constants, errors, snapshot_download

    offline = offline or constants.HF_HUB_OFFLINE
    where = f"model: hub:{name}@{revision}"
    try:
        patterns = list(_CHECKPOINT_FILES)
        found = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ConfigError(f"{where}: not found on the Hub", hint="check the name, or that you have access") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if offline:
            raise ConfigError(f"{where}: not in the cache", hint="run once without --offline") from error
        raise WorkError(f"{where}: {first_line(error)}", hint="check the network, or give a directory") from error
    except (OSError, errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise WorkError(f"{where}: {first_line(error)}", hint="check the network, or give a directory") from error
    return Path(found)
