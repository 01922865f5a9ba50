"""The command line: ``dolma [-c FILE] COMMAND --dotted.key value``, as in dolma 1.x.

Options come from the dataclass of the command; only the module of the command that runs is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

from dolma.config import load, read_file
from dolma.errors import ConfigError, Problem, nearest

__all__ = ["ALIASES", "COMMANDS", "SUBCOMMANDS", "run"]

COMMANDS = {
    "extract": "Extract text from web archives (WARC, WET, ARC) and HTML.",
    "tag": "Find scored spans in documents with taggers; `dolma list` prints their names.",
    "dedupe": "Mark duplicate documents or paragraphs with a Bloom filter.",
    "mix": "Filter documents by their attributes, replace spans, write new documents.",
    "tokens": "Turn documents into token shards.",
    "decontaminate": "Find evaluation items in training documents, remove those documents, certify it.",
    "run": "Run several of these commands over documents that are read once.",
    "reshard": "Merge and split token shards, sources sampled and repeated.",
    "stat": "Summarize the distribution of attributes.",
    "train-classifier": "Train and measure a fastText classifier on labelled texts.",
    "list": "Print the names of the taggers.",
    "presets": "Print published recipes as settings of tag, dedupe and mix.",
}
SUBCOMMANDS = {
    "extract": "Extract text from web archives (WARC, WET, ARC) and HTML.",
    "tokens decode": "Show documents of token shards: text, ids and where they come from.",
    "tokens pack": "Pack documents of token shards into sequences of one length.",
    "tokens export": "Write token shards as the files of other trainers.",
}
"""Other words after a command are its settings."""
ALIASES = {"dedup": "dedupe", "warc": "extract"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([Problem("command line", message, f"`{self.prog} --help` lists the options")])


def run(argv: Sequence[str]) -> None:
    """Runs one command.

    Raises:
        ConfigError: the command line or the file is wrong.
        SystemExit: after ``--help`` and ``--version``.
    """
    head, command, rest = _split(argv)
    options = _global_parser().parse_args(head)
    if command is None:
        raise ConfigError([Problem("command line", f"names no command; expected one of {', '.join(COMMANDS)}")])
    name = ALIASES.get(command, command)
    if name not in COMMANDS:
        problem = Problem("command line", f'"{command}" is not a command', nearest(command, [*COMMANDS, *ALIASES]))
        raise ConfigError([problem])
    if rest and f"{name} {rest[0]}" in SUBCOMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name == "run" and rest and not rest[0].startswith("-"):
        rest = ["--config", *rest]  # `dolma run pipeline.yaml`
    config, function = _command(name)
    parser = _command_parser(name, config)
    known, unknown = parser.parse_known_args([_underscored(argument, parser) for argument in rest])
    if unknown:
        raise ConfigError(_unknown_options(unknown, parser))
    overrides = vars(known)
    path = overrides.pop("config_file", None) or options.config
    function(load(config, read_file(path) if path else {}, overrides))


def _command(name: str) -> tuple[type[Any], Callable[[Any], None]]:
    """``Config`` and ``run`` of the command's module; ``PackConfig`` and ``pack`` for ``tokens pack``.

    The first is a frozen dataclass of ``dolma.config.setting`` fields. The second does the work and raises ConfigError,
    FormatError, ProblemsError or OSError.
    """
    command, _, subcommand = name.partition(" ")
    module = importlib.import_module(f"dolma.commands.{command.replace('-', '_')}")
    return getattr(module, f"{subcommand.title()}Config"), getattr(module, subcommand or "run")


def _underscored(argument: str, parser: argparse.ArgumentParser) -> str:
    """``--skip-bad-rows`` as ``--skip_bad_rows``, if a setting has that name."""
    name, equals, value = argument.partition("=")
    known = name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name
    known = "--dryrun" if known == "--dry_run" else known
    return f"{known}{equals}{value}" if known in parser._option_string_actions else argument


def _split(argv: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """Global options, the command, and what follows it."""
    arguments = list(argv)
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        index += 2 if arguments[index] in ("-c", "--config") else 1
    if index >= len(arguments):
        return arguments, None, []
    return arguments[:index], arguments[index], arguments[index + 1 :]


def _global_parser() -> argparse.ArgumentParser:
    table = "\n".join(f"  {name:<16} {text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="dolma",
        usage="dolma [-c FILE] COMMAND [--key value ...]",
        description="Curate text for language models: tag, deduplicate, mix and tokenize documents.",
        epilog=f"commands:\n{table}\n\n`dolma COMMAND --help` lists the settings of a command; `dedup` is `dedupe`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML or JSON file of settings; options win over it")
    parser.add_argument("--version", action="version", version=_version())
    return parser


def _version() -> str:
    from dolma import _native

    return f"dolma-toolkit {_native.__version__}"


def _command_parser(name: str, config: type[Any]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"dolma {name}",
        usage=f"dolma [-c FILE] {name} [--key value ...]",
        description=(COMMANDS | SUBCOMMANDS)[name],
        epilog=_file_settings(config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-c", "--config", dest="config_file", metavar="FILE", help="YAML or JSON file of settings")
    _add_options(parser, config, "")
    return parser


def _add_options(parser: argparse.ArgumentParser, config: type[Any], prefix: str) -> None:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        cls, key = _without_none(hints[field.name]), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(cls):
            _add_options(parser, cast(type, cls), f"{key}.")
            continue
        text = _help(field)
        if field.metadata.get("positional"):
            parser.add_argument(key, nargs="?", metavar=key.upper(), help=text)
        elif cls is bool:
            parser.add_argument(f"--{key}", dest=key, action="store_true", help=text)
            parser.add_argument(f"--no-{key}", dest=key, action="store_false", help=argparse.SUPPRESS)
        elif typing.get_origin(cls) is list:
            if dataclasses.is_dataclass(typing.get_args(cls)[0]):
                continue  # a list of mappings is written in a file
            parser.add_argument(f"--{key}", dest=key, nargs="*", metavar="VALUE", help=text)
        else:
            parser.add_argument(f"--{key}", dest=key, metavar="VALUE", help=text)


def _file_settings(config: type[Any]) -> str | None:
    """Settings in lists of mappings. They have no option, so only a file can set them."""
    width = shutil.get_terminal_size().columns - 2
    lines: list[str] = []
    for key, field in _listed(config, "", in_list=False):
        first = f"  {key}"
        column = 24
        first = first.ljust(column) if len(first) < column - 1 else f"{first}\n{' ' * column}"
        rest = textwrap.wrap(_help(field).replace("%%", "%"), max(20, width - column))
        lines.append(first + f"\n{' ' * column}".join(rest))
    return "\n".join(["only in a file (`-c FILE`); `[]` is each item of a list:", *lines]) if lines else None


def _listed(config: type[Any], prefix: str, *, in_list: bool) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        cls, key = _without_none(hints[field.name]), f"{prefix}{field.name}"
        item = typing.get_args(cls)[0] if typing.get_origin(cls) is list else None
        if dataclasses.is_dataclass(item):
            yield from _listed(cast(type, item), f"{key}[].", in_list=True)
        elif dataclasses.is_dataclass(cls) and cast(type, cls).__name__ != "Config":
            yield from _listed(cast(type, cls), f"{key}.", in_list=in_list)
        elif in_list:  # the settings of a whole command have a page of their own
            yield key, field


def _without_none(cls: Any) -> Any:
    if typing.get_origin(cls) in (typing.Union, types.UnionType):
        present = [argument for argument in typing.get_args(cls) if argument is not type(None)]
        # a string or a list of strings is a list on the command line
        lists = [argument for argument in present if typing.get_origin(argument) is list]
        return (lists or present)[0]
    return cls


def _help(field: dataclasses.Field[Any]) -> str:
    text = str(field.metadata.get("help", "")).replace("%", "%%")
    if field.metadata.get("required"):
        return f"{text} (required)"
    default = field.default
    if default is dataclasses.MISSING or default is None or default == "":
        return text
    return f"{text} (default: {default})".replace("\n", "\\n")


def _unknown_options(unknown: Sequence[str], parser: argparse.ArgumentParser) -> list[Problem]:
    known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
    problems = []
    for argument in unknown:
        if argument.startswith("-"):
            name = argument.split("=")[0].lstrip("-")
            problems.append(Problem(f"--{name}", "unknown setting", nearest(name, known)))
    return problems or [Problem("command line", f"has the stray arguments {' '.join(unknown)}")]
