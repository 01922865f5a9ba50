"""Several processes, each with the whole model: `torchrun --nproc-per-node 2 -m catwalk run …`.

Rank 0 runs the command. The others follow: they load the models that it loads, and compute every n-th batch of what it
scores and generates. Plans and batches do not depend on the number of processes, so no bit of the results does.
"""

import atexit
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.distributed as dist

from catwalk.formats.contract import WorkError, first_line
from catwalk.model.generate import generate
from catwalk.model.load import Tokenizer
from catwalk.model.scorer import Scorer, Scores, collect
from catwalk.types import Prompt, Request

__all__ = ["Advance", "SharedScorer", "follow", "local_rank", "rank", "world_size"]

Advance = Callable[[int, int], None]


def rank() -> int:
    """Of this process."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Of this process on its machine: the number of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class SharedScorer:
    """A scorer, and the followers that share its work. `load` makes it, in every process.

    Raises:
        WorkError: a follower failed.
    """

    def __init__(self, load: Callable[[], tuple[Scorer, Tokenizer]]) -> None:
        self.scorer: Scorer
        self.tokenizer: Tokenizer
        [(self.scorer, self.tokenizer), *_] = self._together("load", load, load)

    def score(self, requests: Sequence[Request], advance: Advance | None = None) -> Scores:
        """As `Scorer.score`."""
        batches = self.scorer.plan(requests)
        mine = partial(self.scorer.compute, batches[:: world_size()], advance)
        computed: list[Any] = [None] * len(batches)
        for number, share in enumerate(self._together("score", requests, mine)):
            computed[number :: world_size()] = share
        return collect(len(requests), batches, computed)

    def generate(self, prompts: Sequence[Prompt], max_length_tokens: int, advance: Advance | None = None) -> list[str]:
        """As `generate`."""
        settings: dict[str, Any] = {
            "prompts": prompts,
            "max_length_tokens": max_length_tokens,
            "world_size": world_size(),
        }
        mine = partial(generate, self.scorer, self.tokenizer, advance=advance, **settings)
        return ["".join(texts) for texts in zip(*self._together("generate", settings, mine), strict=True)]

    @staticmethod
    def _together(what: str, given: Any, mine: Callable[[], Any]) -> list[Any]:
        """Do `mine` while the others do `what`; what every process found, by rank."""
        if world_size() == 1:
            return [mine()]
        _start()
        dist.broadcast_object_list([(what, given)])
        shares: list[Any] = [None] * world_size()
        try:
            found = mine()
        except Exception:
            dist.gather_object((None, None), shares)  # the others wait to be heard
            raise
        dist.gather_object((None, None), shares)
        for number, (_, problem) in enumerate(shares):
            if problem is not None:
                raise WorkError(f"rank {number}: {problem}", hint="its log says more")
        return [found, *(share for share, _ in shares[1:])]


def follow() -> None:
    """What every rank but 0 does, until rank 0 ends."""
    _start()
    scorer: Scorer | None = None
    tokenizer: Tokenizer | None = None
    while True:
        told: list[Any] = [None]
        dist.broadcast_object_list(told)
        what, given = told[0]
        found: Any = None
        try:
            if what == "stop":
                return
            if what == "load":
                scorer, tokenizer = given()
            elif scorer is not None and tokenizer is not None and what == "score":
                found = scorer.compute(scorer.plan(given)[rank() :: world_size()])
            elif scorer is not None and tokenizer is not None:
                found = generate(scorer, tokenizer, **given, rank=rank())
        except Exception as error:
            dist.gather_object((None, first_line(error)))
            raise
        dist.gather_object((found, None))


def _start() -> None:
    if not dist.is_initialized():
        dist.init_process_group("gloo")  # only objects in memory are sent, whatever the device
        if rank() == 0:
            atexit.register(_stop)


def _stop() -> None:
    dist.broadcast_object_list([("stop", None)])
    dist.destroy_process_group()
