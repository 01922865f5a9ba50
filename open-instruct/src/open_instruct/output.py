"""The output directory of a command: already done, in use by another result, or to be made.

A result is made in `<output_dir>.partial` and renamed into place at the end, its manifest written last.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import WRITER
from .config import FORMER_NAMES, TrainingRun
from .formats.contract import ConfigError, write_file
from .formats.manifest import MANIFEST, Manifest, check_files, describe_input, read_manifest, write_manifest
from .processes import is_first
from .settings import as_mapping

__all__ = ["Output", "result_config", "result_inputs"]

log = logging.getLogger(__name__)
_UNLISTED = {"metrics.jsonl", "report.html", "run.yaml"}  # in the directory, but not part of the artifact


class Output:
    """A command's output directory; `partial`, next to it, contains the work in progress."""

    def __init__(
        self,
        directory: str | Path,
        *,
        format_name: str,
        config: dict[str, Any],
        inputs: list[dict[str, Any]],
        stage: str | None = None,
    ) -> None:
        """Identify the result by its `config` (all that its bytes depend on) and its `inputs` (manifest entries)."""
        self.directory = Path(directory)
        self.partial = self.directory.with_name(self.directory.name + ".partial")
        self.result, self.trainer = self.partial / "result", self.partial / "trainer"
        self.metrics = self.partial / "metrics.jsonl"
        self.format_name, self.stage, self.config = format_name, stage, config
        self.inputs = sorted(inputs, key=lambda entry: (entry["role"], entry["path"]))

    def is_done(self) -> bool:
        """Whether the directory already contains the result of the same settings and inputs, undamaged.

        Raises:
            ConfigError: it contains something else.
            FormatError: it contains this result, but a file was changed since.
        """
        if not self.directory.exists():
            return False
        if not (self.directory / MANIFEST).is_file():
            if self.directory.is_dir() and not any(self.directory.iterdir()):
                return False
            raise ConfigError(
                f"output_dir: {self.directory} exists and is not a result of open-instruct; expected a new directory",
                hint="choose another output_dir, or remove that one",
            )
        manifest = read_manifest(self.directory)
        difference = self._difference(manifest)
        if difference:
            raise ConfigError(
                f"output_dir: {self.directory} contains another result ({difference}); expected a new directory",
                hint="choose another output_dir, or remove that one",
            )
        for error in check_files(manifest, checksums=True):
            raise error
        shutil.rmtree(self.partial, ignore_errors=True)
        return True

    def _difference(self, manifest: Manifest) -> str:
        writer, format_name, stage = manifest.writer, manifest.format, manifest.details.get("stage")
        if (writer, format_name, stage) != (WRITER, self.format_name, self.stage):
            return " ".join([format_name, *([stage] if stage else []), "by", writer["name"], writer["version"]])
        old, new = _flat(manifest.config), _flat(self.config)
        for key in sorted(old.keys() | new.keys()):
            if key not in _MACHINE and old.get(key) != new.get(key):
                return f"made with {FORMER_NAMES.get(key, key)} = {old.get(key)!r}, not {new.get(key)!r}"
        if _identities(manifest.inputs) != _identities(self.inputs):
            return "made from other inputs"
        return ""

    def resolve(self, **runtime: str | int | None) -> None:
        """Fill in the settings of `runtime` that depend on the machine."""
        self.config = {**self.config, "runtime": {**self.config["runtime"], **runtime}}

    @contextmanager
    def begin(self, *, keep_trainer: bool, keep_failed: bool = True) -> Iterator[Path | None]:
        """Lock the work directory; yield the trainer checkpoint to resume from, if there is one.

        Of the processes of one run, the first one does this, and the others use the directory that they find. Failed
        work leaves its log and its trainer checkpoints there, or nothing without `keep_failed`.

        Raises:
            ConfigError: another process is writing it.
        """
        if not is_first():
            yield self._last_checkpoint()
            return
        self.partial.mkdir(parents=True, exist_ok=True)
        with (self.partial / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"output_dir: another process is writing {self.directory}; expected no other process"
                ) from None
            identity = self.partial / "identity.json"
            text = json.dumps([self.format_name, self.stage, WRITER, self.config, self.inputs], sort_keys=True)
            same = identity.is_file() and identity.read_text(encoding="utf-8") == text
            if not (same and keep_trainer):
                for path in self.partial.iterdir():
                    if path.name != ".lock":
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                write_file(identity, text.encode())
            shutil.rmtree(self.result, ignore_errors=True)
            try:
                yield self._last_checkpoint()
            except BaseException:
                shutil.rmtree(self.result, ignore_errors=True)
                if not keep_failed:
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def _last_checkpoint(self) -> Path | None:
        found = []
        for path in self.trainer.glob("checkpoint-*"):
            try:  # the state is written last: a checkpoint without it was cut short
                found.append((int(json.loads((path / "trainer_state.json").read_text())["global_step"]), path))
            except (OSError, ValueError, KeyError):
                if is_first():
                    shutil.rmtree(path)
        return max(found)[1] if found else None

    def publish(self, *, counts: dict[str, int], details: dict[str, Any]) -> None:
        """Write a manifest of the files in `result`, last of all, and rename the directory into place."""
        if self.metrics.is_file():
            shutil.copyfile(self.metrics, self.result / "metrics.jsonl")
        found = [path.relative_to(self.result).as_posix() for path in self.result.rglob("*") if path.is_file()]
        for name in found:
            with (self.result / name).open("rb") as stream:
                os.fsync(stream.fileno())
        write_manifest(
            self.result,
            format=self.format_name,
            writer=WRITER,
            config=self.config,
            counts=counts,
            details=details | ({"stage": self.stage} if self.stage else {}),
            files=[self.result / name for name in found if name not in _UNLISTED],
            inputs=self.inputs,
        )
        self.result.rename(self.directory)
        parent = os.open(self.directory.parent, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
        shutil.rmtree(self.partial)


# decided by the machine that made the result: asking again on another machine is the same request
_MACHINE = {"runtime.num_threads", "runtime.device", "runtime.num_processes"}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _identities(inputs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((entry["role"], entry.get("manifest_sha256") or entry["sha256"]) for entry in inputs)


# ---- what a training run is made from

# how often something is written, or how many rows are scored at once, does not change the weights
_WITHOUT_EFFECT = ("log_every_steps", "eval_every_steps", "save_every_steps", "eval_batch_sequences", "report_to")


def result_config(config: TrainingRun) -> dict[str, Any]:
    """Return the settings for the manifest: names instead of paths, since inputs have hashes."""
    plain = as_mapping(config)
    del plain["model"], plain["output_dir"]
    plain.pop("encoding", None)  # it does not change the result
    for key in _WITHOUT_EFFECT:
        del plain["training"][key]
    for former, name in FORMER_NAMES.items():  # a result made before a setting was renamed is still the same result
        section, key = plain[name.partition(".")[0]], name.partition(".")[2]
        if key in section:
            section[former.partition(".")[2]] = section.pop(key)
    for key in ("train", "eval"):
        plain["data"][key] = [Path(path).name for path in plain["data"][key]]
    if plain["template"]["name"]:
        plain["template"]["name"] = Path(plain["template"]["name"]).name
    return plain


def result_inputs(config: TrainingRun, role: str) -> list[dict[str, Any]]:
    """Return manifest entries, with hashes, of the checkpoint, the data files (with `role`) and a template file."""
    artifact = Path(config.output_dir)
    entries = describe_input("checkpoint", Path(config.model), artifact)
    for path in dict.fromkeys(config.data.train):
        entries += describe_input(role, Path(path), artifact)
    for path in dict.fromkeys(config.data.eval):
        entries += describe_input("held_out", Path(path), artifact)
    if config.template.name and Path(config.template.name).is_file():
        entries += describe_input("template", Path(config.template.name), artifact)
    return entries
