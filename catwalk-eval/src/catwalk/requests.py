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
from catwalk.types import BeginsWith, Boundary, Item, ItemScore, Likelihood, Pair, PairError, Prompt, Request

__all__ = ["EncodedPairs", "collect_score", "encode_pairs", "encode_prompts", "item_pairs", "move_space", "unusual"]


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Distinct requests of pairs. `parts[i]` are those of pair i: one, or more for a continuation of several windows.

    `truncated[i]`: the context was cut on the left. `crossing[i]`: the first scored token begins in the context.
    `bos[i]`: whether the input begins with one BOS token, if the tokenizer begins texts with it.
    """

    requests: list[Request]
    parts: list[list[int]]
    truncated: list[bool]
    crossing: list[bool]
    bos: list[BeginsWith]

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
    seconds = [context * (boundary == "whole") + continuation for context, continuation in split]
    rendered = [pair.rendered for pair in pairs]
    context_ids = _encoded(tokenizer, [context for context, _ in split], rendered)
    second_ids = _encoded(tokenizer, seconds, rendered)
    lead = _lead(tokenizer)
    places: dict[Request, int] = {}
    parts: list[list[int]] = []
    truncated: list[bool] = []
    crossing: list[bool] = []
    begins: list[BeginsWith] = []
    for index, (before, scored) in enumerate(zip(context_ids, second_ids, strict=True)):
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
        before = _led(before, lead, rendered[index]) or [prefix_id]
        # the last scored token is not an input, so the context may keep one token more than the window has left
        first = scored[:max_length_tokens]
        kept = before[-(max_length_tokens + 1 - len(first)) :]
        truncated.append(len(kept) < len(before))
        begins.append(_begins(kept, tokenizer.bos_token_id, bool(lead)))
        found = [Request(context=tuple(kept), continuation=tuple(first))]
        if len(first) < len(scored):
            found += windows(scored, kept[-1], max_length_tokens, "paloma-reference")[1:]
        parts.append([places.setdefault(request, len(places)) for request in found])
    return EncodedPairs(requests=list(places), parts=parts, truncated=truncated, crossing=crossing, bos=begins)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], rendered: Sequence[bool]) -> list[list[int]]:
    """The ids of each text; equal texts are encoded once."""
    found: dict[tuple[str, bool], list[int]] = {}
    for kind in (False, True):
        chosen = list(dict.fromkeys(text for text, one in zip(texts, rendered, strict=True) if one == kind))
        ids = tokenizer.encode(chosen, rendered=kind) if chosen else []
        found |= {(text, kind): own for text, own in zip(chosen, ids, strict=True)}
    return [found[one] for one in zip(texts, rendered, strict=True)]


def _lead(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts before every text."""
    return [tokenizer.bos_token_id] if tokenizer.starts_with_bos and tokenizer.bos_token_id is not None else []


def _led(ids: list[int], lead: list[int], rendered: bool) -> list[int]:
    """The ids after `lead`, which a chat template may have written already."""
    return ids if rendered and lead and ids[:1] == lead else [*lead, *ids]


def _begins(ids: Sequence[int], bos: int | None, expected: bool) -> BeginsWith:
    if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
        return "doubled"
    return "missing" if expected and ids[0] != bos else "right"


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
    lead = _lead(tokenizer)
    found = []
    cut = doubled = 0
    encoded = _encoded(tokenizer, [one.text for one in prompts], [one.rendered for one in prompts])
    for index, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True)):
        room = max_length_tokens - prompt.max_tokens
        if room < 1:
            problem = f"max_tokens: {prompt.max_tokens} leaves no room for a prompt in {max_length_tokens} tokens"
            raise WorkError(problem, hint="ask for fewer tokens")
        whole = _led(ids, lead, prompt.rendered)
        if not whole:
            raise WorkError(f"prompt {index}: the tokenizer produces no tokens; expected at least one")
        cut += len(whole) > room
        doubled += _begins(whole, tokenizer.bos_token_id, bool(lead)) == "doubled"
        found.append(whole[-room:])
    if cut:
        log.warning("%d prompts were cut on the left to fit the window", cut)
    if doubled:
        log.warning("%d prompts begin with two BOS tokens", doubled)
    return found


# ---- items


def item_pairs(item: Item) -> list[Pair]:
    """An item's choices after their contexts, then after its unconditional context if it has one."""
    conditional = zip(item.contexts, item.continuations, strict=bool(item.continuations))
    pairs = [Pair(context=context, continuation=text, rendered=item.rendered) for context, text in conditional]
    if item.unconditional_context is not None:
        free = item.unconditional_context
        pairs += [Pair(context=free, continuation=text, rendered=item.rendered) for text in item.continuations]
    return pairs


def unusual(pairs: Sequence[Pair], answers: Sequence[Likelihood]) -> dict[str, int]:
    """Counts of what may change a number's meaning: by context, or by pair."""
    found = list(zip(pairs, answers, strict=True))
    return {
        "truncated_contexts": len({pair.context for pair, one in found if one.truncated}),
        "border_crossings": len({pair for pair, one in found if one.crossing}),
        "windowed_choices": len({pair for pair, one in found if one.windows > 1}),
        "missing_bos": len({pair.context for pair, one in found if one.bos == "missing"}),
        "doubled_bos": len({pair.context for pair, one in found if one.bos == "doubled"}),
    }


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
