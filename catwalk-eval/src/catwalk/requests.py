"""Items to pairs of texts, and pairs to requests: how a context and its continuation become token ids to score.

The rule is that of lm-evaluation-harness for causal models: white space at the end of the context moves to the
continuation, context + continuation is encoded as one text, and the tokens after the context's own are scored. Where a
token crosses the boundary (the encoding of the whole does not begin with the context's), everything from the first
differing token is scored, so that no text is lost. A continuation longer than the model's window is scored in several
windows, like a document.

Catwalk encoded the continuation by itself instead; `boundary="catwalk"` does so too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from catwalk.formats.contract import WorkError
from catwalk.metrics import round_logprob
from catwalk.model.load import Tokenizer
from catwalk.perplexity import windows
from catwalk.types import Boundary, Item, ItemScore, Likelihood, Pair, PairError, Prompt, Request

__all__ = ["EncodedPairs", "collect_score", "encode_pairs", "encode_prompts", "item_pairs", "move_space"]


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Distinct requests of pairs. `parts[i]` are those of pair i: one, or more for a continuation of several windows.

    `truncated[i]`: the context was cut on the left. `crossing[i]`: the first scored token begins in the context.
    """

    requests: list[Request]
    parts: list[list[int]]
    truncated: list[bool]
    crossing: list[bool]

    def pair_of(self, request: int) -> int:
        """The first pair that a request belongs to."""
        return next(pair for pair, parts in enumerate(self.parts) if request in parts)


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    prefix_id: int,
    max_length_tokens: int,
    boundary: Boundary = "whole",
) -> EncodedPairs:
    """Requests of all pairs; equal ones are scored once.

    `prefix_id` replaces an empty context. A tokenizer that begins every text with BOS does so here too.

    Raises:
        PairError: for a continuation without tokens, or a token without an embedding.
    """
    split = [move_space(pair) if boundary == "whole" else (pair.context, pair.continuation) for pair in pairs]
    contexts = list(dict.fromkeys(context for context, _ in split))
    context_ids = dict(zip(contexts, tokenizer.encode(contexts), strict=True))
    seconds = {one: one[0] + one[1] if boundary == "whole" else one[1] for one in dict.fromkeys(split)}
    second_ids = dict(zip(seconds, tokenizer.encode(list(seconds.values())), strict=True))
    lead = [tokenizer.bos_token_id] if tokenizer.starts_with_bos and tokenizer.bos_token_id is not None else []
    places: dict[Request, int] = {}
    parts: list[list[int]] = []
    truncated: list[bool] = []
    crossing: list[bool] = []
    for index, (context, continuation) in enumerate(split):
        before, scored = context_ids[context], second_ids[context, continuation]
        if boundary == "whole":
            length = _common_length(before, scored)
            crossing.append(length < len(before))
            before, scored = scored[:length], scored[length:]
        else:
            crossing.append(False)
        for ids in (before, scored):
            if ids and max(ids) >= tokenizer.embedding_rows:
                raise PairError(tokenizer.beyond(ids), index, hint="use the model's own tokenizer")
        if not scored:
            problem = f"the tokenizer produces no tokens for {pairs[index].continuation[:60]!r}; expected at least one"
            raise PairError(problem, index, hint="remove the item from its data, or use another tokenizer")
        before = [*lead, *before] or [prefix_id]
        # the last scored token is not an input, so the context may keep one token more than the window has left
        first = scored[:max_length_tokens]
        kept = before[-(max_length_tokens + 1 - len(first)) :]
        truncated.append(len(kept) < len(before))
        found = [Request(context=tuple(kept), continuation=tuple(first))]
        if len(first) < len(scored):
            found += windows(scored, kept[-1], max_length_tokens, "paloma-reference")[1:]
        parts.append([places.setdefault(request, len(places)) for request in found])
    return EncodedPairs(requests=list(places), parts=parts, truncated=truncated, crossing=crossing)


def move_space(pair: Pair) -> tuple[str, str]:
    """The pair with the white space at the end of its context at the beginning of the continuation."""
    bare = pair.context.rstrip()
    return bare, pair.context[len(bare) :] + pair.continuation


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return index
    return min(len(first), len(second))


# ---- prompts


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer, max_length_tokens: int) -> list[list[int]]:
    """The ids of prompts. One that leaves no room for its answer in the window is cut on the left.

    Raises:
        WorkError: a prompt has no tokens, or asks for more tokens than the window has.
    """
    lead = [tokenizer.bos_token_id] if tokenizer.starts_with_bos and tokenizer.bos_token_id is not None else []
    found = []
    cut = 0
    for index, (prompt, ids) in enumerate(zip(prompts, tokenizer.encode([one.text for one in prompts]), strict=True)):
        room = max_length_tokens - prompt.max_tokens
        if room < 1:
            problem = f"max_tokens: {prompt.max_tokens} leaves no room for a prompt in {max_length_tokens} tokens"
            raise WorkError(problem, hint="ask for fewer tokens")
        whole = [*lead, *ids]
        if not whole:
            raise WorkError(f"prompt {index}: the tokenizer produces no tokens; expected at least one")
        cut += len(whole) > room
        found.append(whole[-room:])
    if cut:
        log.warning("%d prompts were cut on the left to fit the window", cut)
    return found


# ---- items


def item_pairs(item: Item) -> list[Pair]:
    """An item's choices after their contexts, then after its unconditional context if it has one."""
    conditional = zip(item.contexts, item.continuations, strict=bool(item.continuations))
    pairs = [Pair(context=context, continuation=text) for context, text in conditional]
    if item.unconditional_context is not None:
        pairs += [Pair(context=item.unconditional_context, continuation=text) for text in item.continuations]
    return pairs


def collect_score(item: Item, answers: Sequence[Likelihood]) -> ItemScore:
    """Answers to `item_pairs` as scores, rounded for storage. Characters and bytes include the leading space."""
    count = len(item.continuations)
    sums = tuple(round_logprob(one.sum_logprob) for one in answers)
    return ItemScore(
        id=item.id,
        label=item.label,
        sum_logprobs=sums[:count],
        sum_logprobs_unconditional=sums[count:] or None,
        tokens=tuple(one.tokens for one in answers[:count]),
        chars=tuple(len(text) for text in item.continuations),
        bytes=tuple(len(text.encode()) for text in item.continuations),
    )
