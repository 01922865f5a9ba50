"""The command `olmo`: reads the request, sets up logging, turns errors into messages and exit statuses."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .config.errors import ConfigError, Problem
from .config.load import load_config
from .formats.errors import FormatError

if TYPE_CHECKING:
    from .config.schema import RunConfig
    from .data.sources import TrainingData

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="olmo", description="Pretrain language models from token shards.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    train = verbs.add_parser("train", help="train a model; the same command continues a run that was stopped")
    train.add_argument("config", type=Path, help="YAML file of the run")
    train.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that replace the file's")
    train.add_argument("--dry-run", action="store_true", help="print parameters, costs and batches, and stop")
    init = verbs.add_parser("init", help="write the untrained model of a config, to compare with")
    init.add_argument("config", type=Path, help="YAML file of the run")
    init.add_argument("destination", type=Path, help="directory to write")
    init.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that replace the file's")
    export = verbs.add_parser("export", help="copy a checkpoint without what only continues training")
    export.add_argument("checkpoint", type=Path, help="checkpoint directory, or that of a run for its last one")
    export.add_argument("destination", type=Path, help="directory to write")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; as they are by default")
    inspect = verbs.add_parser("inspect", help="which documents were in a step, or in which steps a document was")
    inspect.add_argument("run", type=Path, help="directory of a run")
    asked = inspect.add_mutually_exclusive_group(required=True)
    asked.add_argument("--step", type=int, help="print a JSON line for each stretch of a document in this step")
    asked.add_argument("--document", metavar="ID", help="print the steps that saw this document")
    inspect.add_argument("--rank", type=int, default=0, help="rank whose part of the step is wanted (default 0)")
    return parser


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse; `a.b=c` may also follow a flag, where argparse by itself would not take it."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    stray = [item for item in rest if item.startswith("-") or "=" not in item or not hasattr(arguments, "overrides")]
    if stray:
        parser.error(f"unrecognized arguments: {' '.join(stray)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise ConfigError(Problem(f"{path}: is not there; expected {what}"))
    return path


def _last_of_run(path: Path) -> Path:
    steps = [folder for folder in path.glob("checkpoints/step-*") if (folder / "manifest.json").is_file()]
    return max(steps, key=lambda folder: int(folder.name.removeprefix("step-")), default=path)


def _new(path: Path) -> Path:
    if path.exists():
        raise ConfigError(Problem(f"{path}: is there already; expected a new directory", "remove it or name another"))
    return path


def _request(arguments: argparse.Namespace) -> tuple[RunConfig, TrainingData, str]:
    """The config and its data, all checked before torch, which takes seconds, is imported."""
    from .data.sources import open_training_data

    where = str(arguments.config)
    config = load_config(arguments.config, arguments.overrides)
    return config, open_training_data(config.data, config.seed, where), where


def _train(arguments: argparse.Namespace) -> None:
    config, data, where = _request(arguments)
    if arguments.dry_run:
        from .build import plan

        sys.stdout.write(json.dumps(plan(config, data, where), indent=2) + "\n")
        return
    from .train import train

    sys.stdout.write(f"{train(config, data, where)}\n")


def _init(arguments: argparse.Namespace) -> None:
    config, data, where = _request(arguments)
    destination = _new(arguments.destination)
    from .build import write_initial

    write_initial(config, data, destination, where)
    sys.stdout.write(f"{destination}\n")


def _export(arguments: argparse.Namespace) -> None:
    source = _last_of_run(_existing(arguments.checkpoint, "a checkpoint directory, or that of a run"))
    destination = _new(arguments.destination)
    from .checkpoint.export import export_checkpoint

    export_checkpoint(source, destination, arguments.dtype)
    sys.stdout.write(f"{destination}\n")


def _inspect(arguments: argparse.Namespace) -> None:
    from .provenance import documents_of_step, open_run, steps_of_document

    config, data = open_run(_existing(arguments.run, "the directory of a run"))
    if arguments.document is not None:
        rows = steps_of_document(config, data, arguments.document)
    else:
        rows = documents_of_step(config, data, arguments.step, arguments.rank)
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def _say(message: str, hint: str | None = None) -> None:
    sys.stderr.write(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 the work failed, 2 the request was wrong."""
    arguments = _arguments(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        {"train": _train, "init": _init, "export": _export, "inspect": _inspect}[arguments.verb](arguments)
    except ConfigError as error:
        for problem in error.problems:
            _say(problem.message, problem.hint)
        return 2
    except FormatError as error:
        _say(str(error), error.hint)
        return 1
    except (OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):
            return 1
        logging.getLogger(__name__).debug("details", exc_info=True)
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("stopped", "run the same command to continue from the last checkpoint")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
