"""The command `open-instruct`: arguments in, exit code out. 0 done, 1 the work failed, 2 the request was wrong."""

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from os.path import expanduser

from . import __version__
from .config import (
    DpoConfig,
    RuntimeSettings,
    SamplingSettings,
    SequenceSettings,
    SftConfig,
    TemplateSettings,
    load_config,
)
from .formats.contract import ConfigError, FormatError, WorkError, report_error
from .openmp import limit_spinning
from .processes import count_processes, is_first
from .settings import home_path, rename_flags

__all__ = ["main", "prepare_process"]


def _train(options: argparse.Namespace) -> None:
    from .train import train

    kind: type[SftConfig | DpoConfig] = DpoConfig if options.command == "dpo" else SftConfig
    config = load_config(kind, options.config, options.overrides)
    if options.tokens_per_s is not None and not (options.dry_run and options.tokens_per_s > 0):
        raise ConfigError("--tokens-per-s: expected a number above 0, with --dry-run")
    for line in train(config, dry_run=options.dry_run, tokens_per_s=options.tokens_per_s):
        sys.stdout.write(line + "\n")


def _reward(options: argparse.Namespace) -> None:
    from .reward.config import RewardConfig
    from .reward.train import train_reward

    train_reward(load_config(RewardConfig, options.config, options.overrides))


def _grpo(options: argparse.Namespace) -> None:
    from .grpo.config import GrpoConfig
    from .grpo.train import train_grpo

    train_grpo(load_config(GrpoConfig, options.config, options.overrides))


def _chat(options: argparse.Namespace) -> None:
    from .chat.answer import Chatter, answer_file, talk

    if (options.input is None) != (options.output is None):
        raise ConfigError(
            "--input and --output: one of them is set; expected both or none",
            hint="--output - writes to standard output",
        )
    for name, value, least in (
        ("max-new-tokens", options.max_new_tokens, 1),
        ("temperature", options.temperature, 0),
        ("num-threads", options.num_threads if options.num_threads is not None else 1, 1),
    ):
        if value < least:
            raise ConfigError(f"--{name}: is {value}; expected {least} or more")
    if not 0 < options.top_p <= 1:
        raise ConfigError(f"--top-p: is {options.top_p}; expected a number above 0 and at most 1")
    sampling = SamplingSettings(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p, seed=options.seed
    )
    runtime = RuntimeSettings(device=options.device, num_threads=options.num_threads)
    chatter = Chatter(options.model, runtime, TemplateSettings(name=options.template))
    if options.input is not None:
        answer_file(chatter, options.input, options.output, sampling, options.system)
        return

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    talk(chatter, sys.stdin, sampling, options.system, write)


def _serve(options: argparse.Namespace) -> None:
    for name in ("batch", "waiting", "max_tokens", "request_s", "body_bytes", "shutdown_s"):
        least = 0 if name in ("waiting", "shutdown_s") else 1
        if getattr(options, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')}: is {getattr(options, name)}; expected {least} or more")
    try:
        from .serve.command import ServeSettings, serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"serve: needs the package {error.name}; expected the extra `serve`",
            hint="pip install 'open-instruct[serve]'",
        ) from error
    from .serve.generation import Limits

    settings = ServeSettings(**{field.name: getattr(options, field.name) for field in fields(ServeSettings)})
    serve(settings, Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)}))


def _eval(options: argparse.Namespace) -> None:
    if "hub:" in (options.model[:4], (options.opponent or "")[:4]):
        os.environ["HF_HUB_OFFLINE"] = "0"  # read when the library is imported
    from .evaluation.command import EvalSettings, evaluate
    from .evaluation.opening import Opening

    least = {"shots": 0, "limit": 1, "max_new_tokens": 1, "batch": 1, "temperature": 0, "num_threads": 1}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise ConfigError(f"--{name.replace('_', '-')}: is {value}; expected {low} or more")
    sampling = SamplingSettings(temperature=options.temperature, seed=options.seed)
    named = {field.name: getattr(options, field.name) for field in fields(EvalSettings) if hasattr(options, field.name)}
    runtime = RuntimeSettings(device=options.device, num_threads=options.num_threads)
    opening = Opening(template=options.template, dtype=options.dtype, batch=options.batch, runtime=runtime)
    settings = EvalSettings(**named | {"tasks": tuple(options.tasks), "sampling": sampling, "opening": opening})
    sys.stdout.write(evaluate(settings))


def _sample(options: argparse.Namespace) -> None:
    from .sample.command import SampleSettings, sample

    for name, low in (("max_new_tokens", 1), ("temperature", 0), ("batch", 1), ("min_margin", 0)):
        if getattr(options, name) < low:
            raise ConfigError(f"--{name.replace('_', '-')}: is {getattr(options, name)}; expected {low} or more")
    if not 0 < options.top_p <= 1:
        raise ConfigError(f"--top-p: is {options.top_p}; expected a number above 0 and at most 1")
    names = ("max_new_tokens", "temperature", "top_p", "seed")
    sampling = SamplingSettings(**{name: getattr(options, name) for name in names})
    named = {one.name: getattr(options, one.name) for one in fields(SampleSettings) if hasattr(options, one.name)}
    runtime = RuntimeSettings(device=options.device, num_threads=options.num_threads)
    sample(SampleSettings(**named | {"prompts": tuple(options.prompts), "sampling": sampling, "runtime": runtime}))


def _inspect(options: argparse.Namespace) -> None:
    from .inspect_data import inspect_data

    lines = inspect_data(
        options.data,
        checkpoint=options.checkpoint,
        template=options.template,
        max_length_tokens=options.max_length_tokens,
        row=options.row,
        color=options.color == "always"
        or (options.color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")),
    )
    for line in lines:
        sys.stdout.write(line + "\n")


def _convert(options: argparse.Namespace) -> None:
    if options.hub:
        os.environ["HF_HUB_OFFLINE"] = "0"  # read when the library is imported
    from .convert.command import convert

    convert(
        options.paths,
        options.output_dir,
        shape_name=options.shape,
        format_name=options.to,
        source=options.source,
        hub=options.hub,
        ghost_attention=options.ghost_attention,
    )


def _mix(options: argparse.Namespace) -> None:
    from .mix import mix

    mix(
        options.sources,
        options.output_dir,
        format_name=options.format,
        seed=options.seed,
        decontaminate=options.decontaminate,
        ngram_words=options.ngram_words,
        threshold=options.threshold,
        checkpoint=options.checkpoint,
        template=options.template,
    )


def _merge(options: argparse.Namespace) -> None:
    from .merge import merge

    merge(options.base, options.adapter, options.output, options.dtype)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="open-instruct", description="Turn a checkpoint into a chat model.")
    parser.add_argument("--version", action="version", version=f"open-instruct {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
        command.set_defaults(run=run)
        return command

    for name, run, text in (
        ("sft", _train, "supervised fine-tuning on chats"),
        ("dpo", _train, "direct preference optimization on pairs of answers"),
        ("reward", _reward, "train a reward model on pairs of answers"),
        ("grpo", _grpo, "reinforcement learning on prompts whose answers a program can verify"),
    ):
        command = add(name, run, text)
        command.add_argument("config", type=home_path, help="YAML file with the settings")
        command.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="settings that override the file, such as training.max_steps=100",
        )
        if run is _train:
            command.add_argument(
                "--dry-run",
                action="store_true",
                help="only say what would be trained: rows, trained tokens, steps and memory",
            )
            command.add_argument("--tokens-per-s", type=float, help="pace for the time that --dry-run says")

    sampling, runtime = SamplingSettings(), RuntimeSettings()
    shown = " (default: %(default)s)"
    text = "talk to a checkpoint in the terminal, or answer a file of chats"
    chat = add("chat", _chat, text, " In the terminal, /new starts a new conversation.")
    chat.add_argument("model", type=home_path, help="checkpoint directory")
    chat.add_argument("--system", help="system message")
    chat.add_argument(
        "--max-new-tokens", type=int, default=sampling.max_new_tokens, help="longest answer, in tokens" + shown
    )
    chat.add_argument(
        "--temperature",
        type=float,
        default=sampling.temperature,
        help="sampling temperature; 0 = greedy decoding" + shown,
    )
    chat.add_argument(
        "--top-p",
        type=float,
        default=sampling.top_p,
        help="sample from the most likely tokens whose probabilities sum to this" + shown,
    )
    chat.add_argument("--seed", type=int, default=sampling.seed, help="seed of the sampling" + shown)
    chat.add_argument(
        "--template",
        type=expanduser,
        help="name of a shipped template, or a .jinja file (default: the checkpoint's template)",
    )
    chat.add_argument("--device", choices=["auto", "cpu", "cuda"], default=runtime.device, help="device" + shown)
    chat.add_argument("--num-threads", type=int, help="CPU threads (default: torch's choice)")
    chat.add_argument("--input", type=expanduser, metavar="FILE", help="answer the prompts of these chat rows")
    chat.add_argument("--output", type=expanduser, metavar="FILE", help="file for the answers; - for standard output")

    text = "serve a checkpoint: a chat page and an OpenAI-compatible API"
    serve = add("serve", _serve, text, " Beyond this machine, requests need a token.")
    serve.add_argument("model", type=home_path, help="checkpoint directory")
    serve.add_argument("--name", help="name of the model in the API (default: the directory's)")
    serve.add_argument(
        "--template",
        type=expanduser,
        help="name of a shipped template, or a .jinja file (default: the checkpoint's template)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at" + shown)
    serve.add_argument("--port", type=int, default=8000, help="port; 0 = any free one" + shown)
    serve.add_argument(
        "--token-file",
        type=home_path,
        help="file with the tokens that requests may carry, one a line (default: none on this machine, else a new one)",
    )
    serve.add_argument(
        "--feedback", type=home_path, metavar="DIR", help="collect users' feedback as preference rows in this directory"
    )
    serve.add_argument(
        "--consent-file",
        type=home_path,
        help="text that users agree to before feedback is stored (default: a short one)",
    )
    serve.add_argument("--batch", type=int, default=16, help="sequences to generate at the same time" + shown)
    serve.add_argument("--waiting", type=int, default=128, help="sequences that may wait; others get 429" + shown)
    serve.add_argument("--max-tokens", type=int, default=2048, help="longest answer, in tokens" + shown)
    serve.add_argument("--request-s", type=float, default=300.0, help="longest time for a request, in seconds" + shown)
    serve.add_argument("--body-bytes", type=int, default=1 << 20, help="largest body of a request" + shown)
    serve.add_argument(
        "--shutdown-s", type=float, default=30.0, help="time for running answers when the server is ended" + shown
    )
    serve.add_argument("--device", choices=["auto", "cpu", "cuda"], default=runtime.device, help="device" + shown)
    serve.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="data type of the weights" + shown
    )
    serve.add_argument("--num-threads", type=int, help="CPU threads (default: torch's choice)")

    text = "evaluate a chat model on benchmarks in local files"
    more = " Prints the scores; the results are also for `catwalk report`. Run again, it does only what is missing."
    evaluation = add("eval", _eval, text, more)
    evaluation.add_argument(
        "--model",
        required=True,
        help="checkpoint directory, hub:OWNER/NAME[@REVISION], or the address of an OpenAI-compatible API (http://…/v1)",
    )
    evaluation.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK", help="benchmarks, separated by spaces or commas"
    )
    evaluation.add_argument("--data", type=home_path, required=True, metavar="DIR", help="directory with their files")
    evaluation.add_argument("--output-dir", type=home_path, required=True, help="new directory for the results")
    evaluation.add_argument(
        "--cells",
        type=home_path,
        metavar="DIR",
        help="directory for finished answers, which runs may share (default: OUTPUT_DIR.cells until all is done)",
    )
    evaluation.add_argument("--name", help="name of the model in the results (default: the directory's)")
    evaluation.add_argument("--served-model", metavar="NAME", help="which model of the API (default: the only one)")
    evaluation.add_argument(
        "--prompts", choices=["chat", "text"], default="chat", help="messages in the template, or plain texts" + shown
    )
    evaluation.add_argument(
        "--template",
        type=expanduser,
        help="name of a shipped template, or a .jinja file (default: the checkpoint's template)",
    )
    evaluation.add_argument("--shots", type=int, help="examples in a prompt (default: the benchmark's usual number)")
    evaluation.add_argument("--limit", type=int, help="only the first items of each task (default: all)")
    evaluation.add_argument(
        "--max-new-tokens", type=int, help="longest answer, in tokens (default: the benchmark's usual length)"
    )
    evaluation.add_argument(
        "--temperature", type=float, default=0.0, help="sampling temperature; 0 = greedy decoding" + shown
    )
    evaluation.add_argument("--seed", type=int, default=sampling.seed, help="seed of the sampling" + shown)
    evaluation.add_argument(
        "--allow-code", action="store_true", help="run programs that the model wrote, in a sandbox (humaneval)"
    )
    evaluation.add_argument(
        "--classifier", type=home_path, metavar="FILE", help="fastText model that finds toxic texts (toxicity)"
    )
    evaluation.add_argument(
        "--toxic-label", default="toxic", metavar="LABEL", help="the classifier's label for them" + shown
    )
    evaluation.add_argument(
        "--judge", metavar="ADDRESS", help="OpenAI-compatible API of the model that compares answers (mt_bench)"
    )
    evaluation.add_argument("--judge-model", metavar="NAME", help="which model of that API (default: the only one)")
    evaluation.add_argument(
        "--opponent",
        type=expanduser,
        metavar="MODEL",
        help="model to compare with, named as --model, or a JSONL file of its answers (mt_bench)",
    )
    evaluation.add_argument("--batch", type=int, default=16, help="answers to generate at the same time" + shown)
    evaluation.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="data type of the weights" + shown
    )
    evaluation.add_argument("--device", choices=["auto", "cpu", "cuda"], default=runtime.device, help="device" + shown)
    evaluation.add_argument("--num-threads", type=int, help="CPU threads (default: torch's choice)")

    text = "draw several answers to each prompt; write the best, or the best and the worst, as rows to train on"
    more = " Answers are scored by a reward model, or by the verifiers that the prompts name (docs/formats/chat.md)."
    drawing = add("sample", _sample, text, more)
    drawing.add_argument("model", type=home_path, help="checkpoint directory")
    drawing.add_argument("prompts", nargs="+", type=expanduser, help="files or directories of chat rows")
    drawing.add_argument("--output-dir", type=home_path, required=True, help="new directory for the rows")
    drawing.add_argument(
        "--reward", type=home_path, metavar="DIR", help="reward model that scores the answers (default: verifiers)"
    )
    drawing.add_argument(
        "--to", choices=["chat", "preference"], default="chat", help="best answers, or pairs of best and worst" + shown
    )
    drawing.add_argument("--count", type=int, default=8, help="answers to each prompt" + shown)
    drawing.add_argument(
        "--min-score", type=float, help="lowest score of a chosen answer (default: none; by a verifier: above 0)"
    )
    drawing.add_argument(
        "--min-margin", type=float, default=0.0, help="least difference of the scores of a pair" + shown
    )
    drawing.add_argument(
        "--template",
        type=expanduser,
        help="name of a shipped template, or a .jinja file (default: the checkpoint's template)",
    )
    drawing.add_argument(
        "--max-new-tokens",
        type=int,
        default=sampling.max_new_tokens,
        help="longest answer, in tokens; one that does not end is left out" + shown,
    )
    drawing.add_argument("--temperature", type=float, default=1.0, help="sampling temperature" + shown)
    drawing.add_argument(
        "--top-p",
        type=float,
        default=sampling.top_p,
        help="sample from the most likely tokens whose probabilities sum to this" + shown,
    )
    drawing.add_argument("--seed", type=int, default=sampling.seed, help="seed of the sampling" + shown)
    drawing.add_argument("--batch", type=int, default=32, help="answers to generate at the same time" + shown)
    drawing.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="data type of the weights" + shown
    )
    drawing.add_argument("--device", choices=["auto", "cpu", "cuda"], default=runtime.device, help="device" + shown)
    drawing.add_argument("--num-threads", type=int, help="CPU threads (default: torch's choice)")

    inspect = add("inspect", _inspect, "show what training would see: sources, lengths, masks")
    inspect.add_argument("data", type=expanduser, help="a YAML file with settings, or a file or directory of rows")
    inspect.add_argument(
        "--checkpoint", type=expanduser, help="directory with the tokenizer (default: the model in the YAML file)"
    )
    inspect.add_argument("--row", type=int, help="show the tokens of this row, counted from 0; T marks trained tokens")
    inspect.add_argument(
        "--template",
        type=expanduser,
        help="name of a shipped template, or a .jinja file (default: as in the YAML file, else the checkpoint's)",
    )
    inspect.add_argument(
        "--color", choices=["auto", "always", "never"], default="auto", help="show trained tokens in green" + shown
    )
    inspect.add_argument(
        "--max-length-tokens",
        type=int,
        help=f"longest sequence (default: as in the YAML file, else {SequenceSettings().max_length_tokens})",
    )

    text = "convert rows of other projects to chats or pairs"
    convert = add("convert", _convert, text, " Rows without use are counted and written to OUTPUT_DIR.dropped.jsonl.")
    convert.add_argument(
        "paths", nargs="*", type=expanduser, metavar="PATH", help="JSON Lines, JSON or Parquet files, or directories"
    )
    convert.add_argument("--output-dir", type=expanduser, required=True, help="new directory")
    convert.add_argument(
        "--from",
        dest="shape",
        metavar="SHAPE",
        help="shape of the rows, such as alpaca, sharegpt, oasst-tree, flan or hh-rlhf (default: detected)",
    )
    convert.add_argument(
        "--to", choices=["chat", "preference"], help="format of the result (default: chat where possible)"
    )
    convert.add_argument("--source", help="source of the rows (default: as in the row, else the file's name)")
    convert.add_argument(
        "--ghost-attention",
        action="store_true",
        help="of a chat with a system message, train the last answer only (Llama 2)",
    )
    convert.add_argument(
        "--hub", action="append", metavar="OWNER/NAME[@REVISION]", help="also a data set to download from the Hub"
    )

    mix = add("mix", _mix, "sample rows from several files into one directory")
    amount = (
        "a file or directory and how much of it: =500 takes 500 rows, =0.5 half, =2.0 each twice (default: all);"
        " =0.5@7 chooses them by the seed 7; or a .yaml file with a list of these, sources"
    )
    mix.add_argument("sources", nargs="+", type=expanduser, metavar="PATH[=AMOUNT]", help=amount)
    mix.add_argument(
        "--decontaminate",
        nargs="+",
        type=expanduser,
        metavar="PATH",
        help="remove rows whose prompts repeat these evaluations: catwalk's documents, chats, rows with a question",
    )
    mix.add_argument("--ngram-words", type=int, default=8, help="words in a row that must match" + shown)
    mix.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="share of the words, of the shorter of the two texts, that must match" + shown,
    )
    mix.add_argument("--checkpoint", type=expanduser, help="directory with a tokenizer, to count tokens")
    mix.add_argument("--template", type=expanduser, help="template to count with (default: the checkpoint's)")
    mix.add_argument("--output-dir", type=expanduser, required=True, help="new directory")
    mix.add_argument("--format", choices=["chat", "preference"], default="chat", help="format of the rows" + shown)
    mix.add_argument("--seed", type=int, default=0, help="seed of the choice and order of rows" + shown)

    merge = add("merge", _merge, "merge a peft adapter into its base checkpoint")
    merge.add_argument("base", type=expanduser, help="checkpoint directory")
    merge.add_argument("adapter", type=expanduser, help="directory with adapter_config.json")
    merge.add_argument("output", type=expanduser, help="new checkpoint directory")
    merge.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="dtype of all saved weights (default: as in the base)"
    )
    return parser


def prepare_process() -> None:
    """Keep the libraries off the network, off the terminal and on one device. Must run before they are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # also silences TRL's telemetry
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    limit_spinning()
    if count_processes() == 1:
        # TRL's trainers refuse torch.nn.DataParallel, which transformers uses if it sees several devices
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    for name in ("transformers", "trl", "accelerate", "datasets", "peft", "torch", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(transformers|trl|accelerate|peft|torch|datasets|multiprocess)(\..*)?")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    former = {"--output": "--output-dir"} if given[:1] == ["mix"] else {}
    options = _parser().parse_args(rename_flags(given, former))
    level = logging.INFO if is_first() else logging.ERROR
    logging.basicConfig(stream=sys.stderr, level=level, format="%(message)s")
    prepare_process()
    try:
        if count_processes() > 1 and options.command not in ("sft", "dpo"):
            raise ConfigError(
                f"WORLD_SIZE: is {count_processes()}; expected 1, only sft and dpo run in several processes",
                hint="start this command without accelerate launch or torchrun",
            )
        options.run(options)
    except (ConfigError, WorkError, FormatError) as error:
        return report_error(error)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads the output any more; this silences Python's complaint
        return 0
    except KeyboardInterrupt:
        return report_error(WorkError("interrupted", hint="run the same command again to start over or to resume"))
    except Exception as error:
        failure = _file_failure(error)
        if failure is None:
            raise
        return report_error(failure)
    return 0


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and torch have errors of their own for a failed write
_FULL_TEXTS = (
    "No space left on device",
    "quota exceeded",
    "File too large",
    "PytorchStreamWriter failed",
    "file write failed",
)
_MAKE_ROOM = "free some space and run the same command again; it resumes from the last save, or starts over"


def _file_failure(error: Exception) -> WorkError | None:
    """Describe an error of the file system, such as a full disk; None for any other error, which is a bug."""
    where = getattr(error, "filename", None)
    if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_TEXTS):
        message = f"{where or 'the output directory'}: the disk is full; expected space for the result"
        return WorkError(message, hint=_MAKE_ROOM)
    if isinstance(error, OSError) and error.strerror:
        return WorkError(f"{where or 'a file'}: {error.strerror[0].lower() + error.strerror[1:]}")
    return None


if __name__ == "__main__":
    sys.exit(main())
