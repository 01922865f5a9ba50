"""``dolma train-classifier``: labelled texts to a fastText model and its precision and recall."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.classifier import LABEL_PREFIX, Row, evaluate, read_rows, split, tables, train
from dolma.config import REQUIRED, WorkDir, at_least, setting, shown_and_done
from dolma.core.extras import fasttext_trainer, fasttext_version
from dolma.errors import ConfigError, Problem, raises_dolma_errors
from dolma.files.paths import Source, expand, is_remote
from dolma.formats.contract import canonical_json
from dolma.formats.files import sha256_of
from dolma.formats.manifest import MANIFEST, check_files, read_manifest, write_manifest
from dolma.places import InputPattern, OutputDirectory
from dolma.records import Reporter, error_log, save_config
from dolma.staging import with_remote_paths

__all__ = ["Config", "run"]

log = logging.getLogger(__name__)

LOSSES = ("softmax", "hs", "ova", "ns")
_PLACES = ("train", "test", "destination", "work_dir", "ignore_existing", "dryrun")
"""Settings that the result does not depend on, or that its inputs record."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma train-classifier``."""

    train: list[InputPattern] = setting(
        REQUIRED, "labelled files or patterns: .jsonl, .csv, .tsv or fastText lines, compressed or not"
    )
    test: list[InputPattern] = setting([], "labelled files to measure on (default: a share of train)")
    destination: OutputDirectory = setting(REQUIRED, "directory for the model, evaluation.json and the manifest")
    text_field: str = setting("text", "field or column of the text")
    label_field: str = setting("label", "field or column of the label")
    label_map: list[str] = setting([], "`label=name` renames a label, `label=` drops its rows")
    test_fraction: float = setting(0.1, "share of the texts to measure on where test is empty")
    thresholds: list[float] = setting([0.1, 0.25, 0.5, 0.75, 0.9, 0.95], "probabilities of the threshold table")
    learning_rate: float = setting(0.1, "learning rate")
    dimension: int = setting(100, "length of the vectors")
    epochs: int = setting(25, "passes over the training rows")
    min_count: int = setting(1, "rarest word that gets a vector")
    word_ngrams: int = setting(2, "longest word n-gram that gets a vector")
    min_chars: int = setting(0, "shortest part of a word that gets a vector")
    max_chars: int = setting(0, "longest part of a word that gets a vector; 0 for none")
    buckets: int = setting(200_000, "vectors shared by word n-grams and parts of words")
    loss: str = setting("softmax", "softmax, hs, ova or ns")
    quantize: bool = setting(False, "also write a compressed model.ftz")
    cutoff: int = setting(0, "vectors that the compressed model keeps; 0 for all")
    seed: int = setting(0, "seed of the split and of the training")
    ignore_existing: bool = setting(False, "train again and replace another result")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        yield from at_least(1, dimension=self.dimension, epochs=self.epochs, min_count=self.min_count)
        yield from at_least(1, word_ngrams=self.word_ngrams, buckets=self.buckets)
        yield from at_least(0, min_chars=self.min_chars, max_chars=self.max_chars, cutoff=self.cutoff, seed=self.seed)
        if not 0 < self.learning_rate <= 10:
            yield Problem("learning_rate", f"is {self.learning_rate}; expected more than 0, at most 10")
        if not 0 < self.test_fraction < 1:
            yield Problem("test_fraction", f"is {self.test_fraction}; expected more than 0 and less than 1")
        if self.loss not in LOSSES:
            yield Problem("loss", f'is "{self.loss}"; expected one of {", ".join(LOSSES)}')
        if self.cutoff and not self.quantize:
            yield Problem("cutoff", "is set; expected quantize too", "add --quantize")
        for index, threshold in enumerate(self.thresholds):
            if not 0 <= threshold <= 1:
                yield Problem(f"thresholds.{index}", f"is {threshold}; expected 0 to 1")
        for index, entry in enumerate(self.label_map):
            if "=" not in entry or entry.startswith("="):
                yield Problem(f"label_map.{index}", f'is "{entry}"; expected label=name')


@with_remote_paths()
@raises_dolma_errors
def run(config: Config) -> None:
    """Trains and measures, unless the same was done before; prints the tables to stdout."""
    if shown_and_done(config):
        return
    directory = Path(config.destination)
    test_files = expand(config.test, "test") if config.test else []
    _make(config, directory, expand(config.train, "train"), test_files)


def _make(config: Config, directory: Path, train_files: Sequence[Source], test_files: Sequence[Source]) -> None:
    start = time.monotonic()
    fasttext_trainer("train-classifier")  # before rows are read
    version = fasttext_version()
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in _PLACES}
    settings |= {"command": "train-classifier", "trainer": version}
    used = _inputs("train", train_files, directory) + _inputs("test", test_files, directory)
    if not config.ignore_existing and _is_finished(directory, settings, used):
        log.info("train-classifier  %s was finished before", directory)
        sys.stdout.write(_shown(json.loads((directory / "evaluation.json").read_bytes())))
        return
    with error_log(directory):
        train_rows, test_rows = _rows(config, train_files, test_files)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    partial = directory / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        names = train(train_rows, config, partial)
        evaluation = {name: _measured(partial / name, test_rows, config.thresholds) for name in names}
        (partial / "evaluation.json").write_text(canonical_json(evaluation), "utf-8")
        _publish(partial, directory, settings, used, [*names, "evaluation.json"], train_rows, test_rows)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    save_config(config, [directory])
    reporter = Reporter("train-classifier", [directory])
    seconds = time.monotonic() - start
    first = evaluation[names[0]]
    counts = {"train_rows": len(train_rows), "test_rows": len(test_rows)}
    counts |= {f"{name}.{key}": evaluation[name][key] for name in names for key in ("accuracy", "macro_f1")}
    text = f"{len(train_rows)} rows  accuracy {first['accuracy']} on {len(test_rows)} others  {directory / names[-1]}"
    reporter.finish(seconds, counts, text)
    sys.stdout.write(_shown(evaluation))


def _rows(config: Config, train_files: Sequence[Source], test_files: Sequence[Source]) -> tuple[list[Row], list[Row]]:
    renamed = dict(entry.split("=", 1) for entry in config.label_map)
    rows = read_rows(train_files, config.text_field, config.label_field, renamed)
    if test_files:
        test = read_rows(test_files, config.text_field, config.label_field, renamed)
    else:
        rows, test = split(rows, config.test_fraction, config.seed)
    counted = Counter(row.label for row in rows)
    problems = []
    if len(counted) < 2:
        found = ", ".join(f'"{label}"' for label in counted) or "none"
        problems.append(Problem("train", f"has {len(counted)} labels ({found}); expected two or more"))
    if not test:
        problems.append(
            Problem("test" if test_files else "test_fraction", "leaves no row to measure on; expected some")
        )
    strange = sorted({row.label for row in test} - set(counted))
    if strange and counted:
        problems.append(Problem("test", f'has the label "{strange[0]}"; expected those of train: {sorted(counted)}'))
    if problems:
        raise ConfigError(problems)
    return rows, test


def _inputs(role: str, sources: Sequence[Source], directory: Path) -> list[dict[str, Any]]:
    rows = []
    for source in sources:
        path = source.name if is_remote(source.name) else os.path.relpath(source.name, directory)
        size_bytes = Path(source.path).stat().st_size
        rows.append({"role": role, "path": path, "sha256": sha256_of(Path(source.path)), "size_bytes": size_bytes})
    return sorted(rows, key=lambda row: str(row["path"]))


def _is_finished(directory: Path, settings: Mapping[str, Any], used: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the directory has the results of this run.

    Raises:
        ConfigError: it has other results.
    """
    if not (directory / MANIFEST).exists():
        return False
    manifest = read_manifest(directory)
    same_inputs = [row["sha256"] for row in sorted(manifest.inputs, key=_role)] == [row["sha256"] for row in used]
    if manifest.config != settings or not same_inputs:
        problem = f'is "{directory}", which has the result of other settings or inputs; expected an empty directory'
        raise ConfigError([Problem("destination", problem, "choose another directory, or --ignore_existing")])
    return not any(check_files(manifest, checksums=True))


def _role(row: Mapping[str, Any]) -> tuple[bool, str]:
    return row["role"] != "train", row["path"]


def _measured(path: Path, rows: Sequence[Row], thresholds: Sequence[float]) -> dict[str, Any]:
    model = _native.FastText(str(path))
    scored = []
    for row in rows:
        line = row.text.replace("\n", " ")
        scored.append({label.removeprefix(LABEL_PREFIX): score for label, score in model.predict(line)})
    return evaluate([row.label for row in rows], scored, thresholds)


def _publish(
    partial: Path,
    directory: Path,
    settings: Mapping[str, Any],
    used: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    train_rows: Sequence[Row],
    test_rows: Sequence[Row],
) -> None:
    for name in names:
        os.replace(partial / name, directory / name)
    write_manifest(
        directory,
        format="report",
        writer={"name": "dolma-toolkit", "version": _native.__version__},
        files=[directory / name for name in names],
        config=settings,
        counts={"train_rows": len(train_rows), "test_rows": len(test_rows)},
        details={"labels": dict(Counter(row.label for row in train_rows))},
        inputs=used,
    )


def _shown(evaluation: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {tables(rows)}" for name, rows in evaluation.items())


if __name__ == "__main__":  # `python -m dolma.commands.train_classifier` is `dolma train-classifier`
    from dolma.__main__ import main

    main(["train-classifier", *sys.argv[1:]])
