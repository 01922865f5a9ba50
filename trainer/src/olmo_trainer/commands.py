"""The verbs of `olmo`: the work of each, and at the end the table of their arguments.

Nothing here imports torch before it must: requests are checked first, and torch takes seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .config.load import load_config
from .formats.checkpoint import inspect_checkpoint
from .formats.contract import ConfigError, Problem
from .progress import STOPPED_STATUS
from .settings import home_path

if TYPE_CHECKING:
    from .config.schema import RunConfig
    from .data.sources import TrainingData

__all__ = ["add_verbs"]


def _existing(path: Path, what: str) -> Path:
    """The path, which must exist."""
    if not path.exists():
        raise ConfigError(f"{path}: not found; expected {what}")
    return path


def _checkpoint(path: Path) -> Path:
    """A checkpoint directory, or the last complete checkpoint of a run directory."""
    _existing(path, "a checkpoint directory, or that of a run")
    steps = [folder for folder in path.glob("checkpoints/step-*") if (folder / "manifest.json").is_file()]
    return max(steps, key=lambda folder: int(folder.name.removeprefix("step-")), default=path)


def _new(path: Path) -> Path:
    """The path, which must not exist."""
    if any(sign in path.name for sign in "*?"):
        raise ConfigError(f"{path}: is a pattern; expected the name of one directory")
    if path.exists():
        raise ConfigError(f"{path}: already exists; expected a new directory", hint="remove it or name another")
    return path


def _wrong(*checked: tuple[str, object, bool, str]) -> list[Problem]:
    """A problem for each (flag, value, whether it is right, what is expected) that is not right."""
    return [Problem(f"{flag}: is {value}; expected {expected}") for flag, value, ok, expected in checked if not ok]


def _read_request(arguments: argparse.Namespace) -> tuple[RunConfig, TrainingData]:
    """The config and its data, checked before torch is imported, which takes seconds."""
    from .data.sources import open_training_data

    config = load_config(arguments.config, arguments.overrides)
    return config, open_training_data(config)


# ---- train, init, launch


def _check_dry_run(arguments: argparse.Namespace) -> None:
    pace, ranks = arguments.tokens_per_second, arguments.ranks
    problems = _wrong(
        ("--tokens-per-second", pace, pace is None or 0 < pace < math.inf, "a finite number above 0"),
        ("--ranks", ranks, ranks is None or ranks >= 1, "1 or more"),
    )
    given = [
        flag for flag, value in (("--json", arguments.json), ("--ranks", ranks), ("--tokens-per-second", pace)) if value
    ]
    if given and not arguments.dry_run:
        problems.append(Problem(f"{given[0]}: is given without --dry-run; expected both", "add --dry-run"))
    if problems:
        raise ConfigError(*problems)


def _train(arguments: argparse.Namespace) -> None:
    _check_dry_run(arguments)
    config, data = _read_request(arguments)
    if arguments.dry_run:
        from .plan import page, plan

        planned = plan(config, data, ranks=arguments.ranks, tokens_per_second=arguments.tokens_per_second)
        as_json = arguments.json
        sys.stdout.write(json.dumps(planned, indent=2, allow_nan=False) + "\n" if as_json else page(planned))
        return
    from .train import train

    final = train(config, data)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{final}\n")


def _init(arguments: argparse.Namespace) -> None:
    config, data = _read_request(arguments)
    destination = _new(arguments.destination)
    from .build import write_initial

    write_initial(config, data, destination)
    sys.stdout.write(f"{destination}\n")


def _launch(arguments: argparse.Namespace) -> None:
    problems = [
        Problem(f"--{name} is {value}; expected 1 or more")
        for name, value in (("nproc", arguments.nproc), ("nodes", arguments.nodes))
        if value < 1
    ]
    if arguments.nodes > 1 and arguments.rendezvous is None and not arguments.slurm:
        problems.append(Problem("--rendezvous is missing; expected HOST:PORT of one of the machines", "or use --slurm"))
    if problems:
        raise ConfigError(*problems)
    config, _ = _read_request(arguments)  # problems are reported here, once
    from .parallel import check_world

    check_world(config.train, arguments.nodes * arguments.nproc)
    if arguments.slurm:
        sys.stdout.write(slurm_script(arguments, name=os.path.basename(config.output_dir)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set it with a warning; train.num_threads decides
    command = torchrun_command(arguments)
    sys.stdout.flush()
    os.execv(command[0], command)


def torchrun_command(arguments: argparse.Namespace) -> list[str]:
    """torchrun with `olmo train`; the same on each of several machines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(arguments.nproc)]
    if arguments.nodes == 1:
        command.append("--standalone")
    else:
        command += ["--nnodes", str(arguments.nodes), "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", arguments.rendezvous, "--rdzv-id", os.path.basename(arguments.config)]
    return [*command, "-m", "olmo_trainer", "train", str(arguments.config), *arguments.overrides]


def slurm_script(arguments: argparse.Namespace, name: str) -> str:
    """An sbatch script with a task per rank, which SLURM signals to save before the time limit, and a requeue."""
    options = {
        "job-name": name,
        "nodes": str(arguments.nodes),
        "ntasks-per-node": str(arguments.nproc),
        "signal": f"USR1@{arguments.stop_before}",
        "open-mode": "append",
    }
    options |= dict(option.removeprefix("--").partition("=")[::2] for option in arguments.sbatch)
    lines = [f"#SBATCH --{key}={value}" if value else f"#SBATCH --{key}" for key, value in options.items()]
    train = shlex.join([sys.executable, "-m", "olmo_trainer", "train", str(arguments.config), *arguments.overrides])
    rank = "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS"
    ranks = f"{rank} LOCAL_WORLD_SIZE={arguments.nproc}; exec {train}"
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#SBATCH --requeue",
            "",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
            "export MASTER_ADDR MASTER_PORT",
            f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(ranks)}",
            "status=$?",
            f"if [ $status -eq {STOPPED_STATUS} ]; then  # saved before the time limit",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            "exit $status",
            "",
        ]
    )


# ---- convert, export, fetch, soup

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TOLERANCE = 1e-4  # of the largest logit: float32 sums over some dozens of layers in another order


def _shard_bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*([KMG]B|)", text.upper())
    if match is None or not int(match[1]):
        raise ConfigError(f'--shard-size: is "{text}"; expected a size such as "5GB" or "500MB"')
    return int(match[1]) * _UNITS[match[2]]


def _convert(arguments: argparse.Namespace) -> None:
    shard_bytes = _shard_bytes(arguments.shard_size)
    inwards = arguments.direction == "hf2olmo"
    source = _existing(arguments.source, "a directory with a model")
    source = source if inwards else _checkpoint(source)
    destination = _new(arguments.destination)
    if arguments.verify and importlib.util.find_spec("transformers") is None:
        hint = "pip install 'olmo-trainer[convert]'"
        raise ConfigError("--verify: transformers is not installed; expected it, to compare logits", hint=hint)

    from .checkpoint.convert import export_checkpoint, import_checkpoint
    from .checkpoint.save import publish

    with publish(destination) as directory:
        if inwards:
            foreign = import_checkpoint(source, directory, arguments.dtype, shard_bytes, arguments.tokenizer)
            is_readable = bool(foreign.config)
        else:
            export_checkpoint(source, directory, arguments.dtype, shard_bytes)
            is_readable = True
        if arguments.verify:
            # compare across the conversion, unless transformers cannot read the source or its weights were rounded
            other = source if is_readable and arguments.dtype is None else directory
            _verify(*((directory, other) if inwards else (other, directory)))
    sys.stdout.write(f"{destination}\n")


def _verify(ours: Path, theirs: Path) -> None:
    """Compare our logits on one directory with those of transformers on another.

    Raises: RuntimeError: they differ.
    """
    from .checkpoint.convert import logit_difference
    from .checkpoint.save import final_name

    difference, largest = logit_difference(ours, theirs)
    is_finite = math.isfinite(difference)
    result = (
        f"logits differ by up to {difference:.1e}; the largest is {largest:.3g}" if is_finite else "logits overflow"
    )
    shown, reference = final_name(ours), final_name(theirs)
    if not is_finite or difference > _TOLERANCE * max(1.0, largest):
        raise RuntimeError(f"{shown}: {result}; expected those of transformers on {reference}; nothing was written")
    sys.stderr.write(f"verified: {result}: olmo on {shown}, transformers on {reference}\n")


def _export(arguments: argparse.Namespace) -> None:
    source, destination = _checkpoint(arguments.checkpoint), _new(arguments.destination)
    from .checkpoint.convert import export_checkpoint
    from .checkpoint.save import publish

    with publish(destination) as directory:
        export_checkpoint(source, directory, arguments.dtype)
    sys.stdout.write(f"{destination}\n")


def _fetch(arguments: argparse.Namespace) -> None:
    destination = _new(arguments.destination)
    from .checkpoint.mirror import fetch

    fetch(arguments.url, destination)
    sys.stdout.write(f"{destination}\n")


def _soup(arguments: argparse.Namespace) -> None:
    sources = [_checkpoint(path) for path in arguments.checkpoints]
    if len(sources) < 2:
        raise ConfigError(f"command line: names {len(sources)} checkpoint; expected two or more to average")
    destination = _new(arguments.destination)
    from .checkpoint.convert import average_checkpoints

    average_checkpoints(sources, destination)
    sys.stdout.write(f"{destination}\n")


# ---- generate


def _check_generate(arguments: argparse.Namespace) -> None:
    problems = _wrong(
        ("--max-tokens", arguments.max_tokens, arguments.max_tokens >= 1, "1 or more"),
        ("--temperature", arguments.temperature, 0 <= arguments.temperature < math.inf, "a finite number, 0 or more"),
        ("--top-p", arguments.top_p, 0 < arguments.top_p <= 1, "more than 0, at most 1"),
        ("--chunk", arguments.chunk, arguments.chunk >= 1, "1 or more"),
    )
    for prompt in arguments.prompt:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            problems.append(Problem(f"--prompt: is not UTF-8 at character {error.start}; expected text"))
    if problems:
        raise ConfigError(*problems)


def _generate(arguments: argparse.Namespace) -> None:
    _check_generate(arguments)
    directory = _checkpoint(arguments.checkpoint)
    found = inspect_checkpoint(directory)
    tokenizer = found.tokenizer
    import torch

    from .checkpoint.restore import read_model
    from .model.generate import generate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, _ = read_model(directory)
    model.to(device)
    ends, longest = set(found.stop_token_ids), found.max_positions
    before = found.document_prefix
    first = None if before is None else found.special_token_id(before)
    for prompt in arguments.prompt:
        ids: list[int] = tokenizer.encode(prompt, add_special_tokens=False).ids
        if first is not None and (found.starts_with_bos or not ids):  # an empty prompt starts like a document
            ids = [first, *ids]
        if not ids:
            raise ConfigError("--prompt: is empty; expected text, as the model has no token to start from")
        if max(ids) >= model.shape.embedding_rows:
            what = f"--prompt: contains token {max(ids)}, beyond the embedding of {model.shape.embedding_rows} rows"
            raise ConfigError(f"{what} of {directory}; expected text without it")
        if longest is not None and len(ids) + arguments.max_tokens > longest:
            sys.stderr.write(f"note: the text may grow longer than {longest} tokens\n")
        new: list[int] = []
        for chosen_B in generate(
            model,
            torch.tensor([ids], device=device),
            arguments.max_tokens,
            vocabulary=tokenizer.get_vocab_size(),
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
            chunk=arguments.chunk,
        ):
            new.append(int(chosen_B))
            if new[-1] in ends:
                break
        text = tokenizer.decode([token for token in new if token not in ends])
        row = {"prompt": prompt, "completion": text, "tokens": new, "ended": new[-1] in ends}
        sys.stdout.write((json.dumps(row, ensure_ascii=False) if arguments.json else text) + "\n")


# ---- import-config, inspect, report


def _import(arguments: argparse.Namespace) -> None:
    from .config.olmo import import_run

    pairs = [tuple(text.partition("=")[::2]) for text in arguments.replace]
    if any(not old or not new for old, new in pairs):
        raise ConfigError(f"--replace: is {arguments.replace}; expected OLD=NEW")
    text, notes = import_run(_existing(arguments.file, "a YAML file of OLMo"), pairs)
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    sys.stdout.write(text)


def _inspect(arguments: argparse.Namespace) -> None:
    from .data.provenance import Provenance

    for name in ("limit", "world_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: is {value}; expected 1 or more")
    provenance = Provenance(
        _existing(arguments.run, "the directory of a run"),
        arguments.data,
        unchecked=arguments.unchecked,
        documents=arguments.documents,
        world_size=arguments.world_size,
    )
    if arguments.data_indices is not None:
        provenance.write_data_indices(arguments.data_indices)
        return
    if arguments.document is not None:
        found = provenance.steps_of_document(arguments.document, text=arguments.text)
    else:
        found = (
            row
            for step in arguments.step
            for row in provenance.documents_of_step(step, arguments.rank, text=arguments.text)
        )
    for row in islice(found, arguments.limit):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def _report(arguments: argparse.Namespace) -> None:
    _existing(arguments.run / "metrics.jsonl", "the metrics of a run")
    from .formats.contract import write_file
    from .metrics.report import render_report

    destination = arguments.output or arguments.run / "report.html"
    write_file(destination, render_report(arguments.run).encode())
    sys.stdout.write(f"{destination}\n")


# ---- arguments

_CONFIG: dict[str, Any] = {"type": home_path, "help": "YAML file of the run"}
_OVERRIDES: dict[str, Any] = {
    "nargs": "*",
    "metavar": "a.b=c",
    "help": "settings that override the file, such as train.steps=100",
}
_DESTINATION: dict[str, Any] = {"type": home_path, "help": "directory to write"}
_CHECKPOINT: dict[str, Any] = {
    "type": home_path,
    "help": "checkpoint directory, or run directory for its last checkpoint",
}
_DTYPE: dict[str, Any] = {
    "choices": ("float32", "bfloat16"),
    "help": "dtype of the weights (default: unchanged)",
}
_FOREIGN = "directory in the layout of Hugging Face, OLMo or OLMo-core"


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _parser(verbs: Verbs, name: str, text: str) -> argparse.ArgumentParser:
    """A parser with the same text in the list of commands and at the top of its own help."""
    return verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def add_verbs(verbs: Verbs) -> None:
    """Add all verbs; each parser sets `work`, a function of the parsed arguments."""

    def verb(name: str, work: Callable[[argparse.Namespace], None], help: str) -> Callable[..., argparse.Action]:
        parser = _parser(verbs, name, help)
        parser.set_defaults(work=work)
        return parser.add_argument

    add = verb("train", _train, "train a model; the same command resumes a stopped run")
    add("config", **_CONFIG)
    add("overrides", **_OVERRIDES)
    add("--dry-run", action="store_true", help="print costs, memory and batches, then exit")
    add("--json", action="store_true", help="with --dry-run: print JSON")
    text = "with --dry-run: number of processes (default: as few as the config allows)"
    add("--ranks", type=int, metavar="N", help=text)
    text = "with --dry-run: speed of all processes together, to estimate time and energy"
    add("--tokens-per-second", type=float, metavar="N", help=text)

    add = verb("init", _init, "write the untrained model of a config, for comparisons")
    add("config", **_CONFIG)
    add("destination", **_DESTINATION)
    add("overrides", **_OVERRIDES)

    add = verb("launch", _launch, "train with several processes; --slurm prints an sbatch script")
    add("config", **_CONFIG)
    add("overrides", **_OVERRIDES)
    add("--nproc", type=int, default=1, help="processes per machine, usually one per GPU (default: %(default)s)")
    add("--nodes", type=int, default=1, help="number of machines (default: %(default)s)")
    add("--rendezvous", metavar="HOST:PORT", help="address of one of the machines, if there are several")
    add("--slurm", action="store_true", help="print an sbatch script instead of starting the processes")
    text = "with --slurm: an sbatch option, such as time=24:00:00; repeatable"
    add("--sbatch", action="append", default=[], metavar="OPTION", help=text)
    text = "with --slurm: save this many seconds before the time limit (default: %(default)s)"
    add("--stop-before", type=int, default=300, metavar="S", help=text)

    text = "convert to or from Hugging Face and OLMo checkpoints; --verify compares logits"
    convert = _parser(verbs, "convert", text)
    directions = convert.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    inwards = _parser(directions, "hf2olmo", f"write a checkpoint to train from, given a {_FOREIGN}")
    inwards.add_argument("source", type=home_path, help=_FOREIGN)
    inwards.add_argument("--tokenizer", type=home_path, help="tokenizer.json, if the source has none")
    outwards = _parser(directions, "olmo2hf", "write a Hugging Face directory from a checkpoint of a run")
    outwards.add_argument("source", **_CHECKPOINT)
    for direction in (inwards, outwards):
        direction.set_defaults(work=_convert)
        direction.add_argument("destination", **_DESTINATION)
        direction.add_argument("--dtype", **_DTYPE)
        text = "maximum file size, such as 5GB (default: one file)"
        direction.add_argument("--shard-size", metavar="SIZE", help=text)
        direction.add_argument("--verify", action="store_true", help="compare logits with transformers")

    add = verb("export", _export, "copy a checkpoint without its training state")
    add("checkpoint", **_CHECKPOINT)
    add("destination", **_DESTINATION)
    add("--dtype", **_DTYPE)

    add = verb("fetch", _fetch, "download a checkpoint from remote storage")
    add("url", help="URL of a checkpoint, or of a run, such as s3://bucket/run")
    add("destination", **_DESTINATION)

    add = verb("generate", _generate, "continue a text with a checkpoint")
    add("checkpoint", **_CHECKPOINT)
    add("--prompt", action="append", required=True, help="text to continue; repeatable")
    add("--max-tokens", type=int, default=64, help="maximum number of new tokens (default: %(default)s)")
    text = "sampling temperature; 0 = greedy decoding (default: %(default)g)"
    add("--temperature", type=float, default=0.0, help=text)
    text = "sample from the most likely tokens whose probabilities sum to this (default: %(default)g)"
    add("--top-p", type=float, default=1.0, help=text)
    add("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    add("--chunk", type=int, default=512, help="prompt tokens processed at a time (default: %(default)s)")
    add("--json", action="store_true", help="print JSON lines with the token ids")

    add = verb("soup", _soup, "average the weights of several checkpoints of one model")
    text = "checkpoint directories, or run directories for their last checkpoints"
    add("checkpoints", type=home_path, nargs="+", help=text)
    add("destination", **_DESTINATION)

    add = verb("import-config", _import, "convert a run file of allenai/OLMo to a config")
    add("file", type=home_path, help="YAML file of allenai/OLMo")
    add("--replace", action="append", default=[], metavar="OLD=NEW", help="replace text in data paths")

    inspect = _parser(verbs, "inspect", "list the documents of a step, or the steps that saw a document")
    inspect.set_defaults(work=_inspect)
    inspect.add_argument("run", type=home_path, help="run directory, or its order.json")
    add = inspect.add_mutually_exclusive_group(required=True).add_argument
    add("--step", type=int, nargs="+", help="print the documents of these steps")
    add("--document", metavar="ID", help="print the steps that saw this document")
    add("--data-indices", type=home_path, metavar="DIR", help="write OLMo's rank<r>.tsv.gz of all steps")
    add = inspect.add_argument
    add("--rank", type=int, help="print only the part of this rank (default: all)")
    add("--world-size", type=int, help="number of ranks that divided the batch (default: as in order.json)")
    text = "where a source is now; repeat for each source, in order"
    add("--data", type=home_path, action="append", default=[], help=text)
    add("--documents", type=home_path, help="directory of the document files, to add their source and URL")
    add("--text", action="store_true", help="print the text too, as the model saw it")
    add("--limit", type=int, help="maximum number of lines")
    add("--unchecked", action="store_true", help="do not check the sha256 of the shards")

    add = verb("report", _report, "write an HTML page about a run: curves, config, data, lineage, energy")
    add("run", type=home_path, help="run directory, finished or not")
    add("--output", type=home_path, help="file to write (default: report.html in the run)")
