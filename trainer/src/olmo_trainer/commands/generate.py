"""`olmo generate`."""

from __future__ import annotations

import argparse
import json
import math
import sys

from ..config.errors import ConfigError, Problem
from ..formats.inspection import inspect_checkpoint
from .request import Verbs, existing, last_of_run, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    generate = verbs.add_parser("generate", help="continue a text with a checkpoint")
    generate.add_argument("checkpoint", type=place, help="checkpoint directory, or that of a run for its last one")
    generate.add_argument("--prompt", action="append", required=True, help="text to continue; may be given many times")
    generate.add_argument("--max-tokens", type=int, default=64, help="new tokens at most (64)")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    generate.add_argument("--top-p", type=float, default=1.0, help="draw from the tokens with this share (1)")
    generate.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    generate.add_argument("--chunk", type=int, default=512, help="tokens of the prompt read at a time (512)")
    generate.add_argument("--json", action="store_true", help="a line of JSON for each prompt, with the token ids")
    generate.set_defaults(work=_generate)


def _check(arguments: argparse.Namespace) -> None:
    wanted = [
        ("--max-tokens", arguments.max_tokens, arguments.max_tokens >= 1, "1 or more"),
        ("--temperature", arguments.temperature, 0 <= arguments.temperature < math.inf, "a finite number, 0 or more"),
        ("--top-p", arguments.top_p, 0 < arguments.top_p <= 1, "more than 0, at most 1"),
        ("--chunk", arguments.chunk, arguments.chunk >= 1, "1 or more"),
    ]
    problems = [Problem(f"{name}: is {value}; expected {text}") for name, value, ok, text in wanted if not ok]
    for prompt in arguments.prompt:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            problems.append(Problem(f"--prompt: is not UTF-8 at character {error.start}; expected text"))
    if problems:
        raise ConfigError(*problems)


def _generate(arguments: argparse.Namespace) -> None:
    _check(arguments)
    directory = last_of_run(existing(arguments.checkpoint, "a checkpoint directory, or that of a run"))
    found = inspect_checkpoint(directory)
    tokenizer = found.tokenizer
    import torch

    from ..checkpoint.restore import read_model
    from ..model.generate import generate

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
            raise ConfigError(Problem("--prompt: is empty; expected text, as the model has no token to start from"))
        if max(ids) >= model.shape.embedding_rows:
            what = f"--prompt: contains token {max(ids)}, beyond the embedding of {model.shape.embedding_rows} rows"
            raise ConfigError(Problem(f"{what} of {directory}; expected text without it"))
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
