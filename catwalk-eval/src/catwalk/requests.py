"""Items to requests: how text becomes token ids to score, and how scores return to the items.

The rule is that of lm-evaluation-harness for causal models: white space at the end of the context moves to the
continuation, context + continuation is encoded as one text, and the tokens after the context's own are scored. Where a
token crosses the boundary (the encoding of the whole does not begin with the context's), everything from the first
differing token is scored, so that no text is lost; such items are counted. A continuation longer than the model's
window is scored in several windows, like a document, and counted too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from catwalk.formats.contract import WorkError
from catwalk.metrics import round_logprob
from catwalk.model.load import Tokenizer
from catwalk.perplexity import windows
from catwalk.types import UNCONDITIONAL_CONTEXT, Item, ItemScore, Request

__all__ = ["ItemRequests", "build_requests", "collect_scores"]


@dataclass(frozen=True, kw_only=True)
class ItemRequests:
    """Distinct requests of a task's items. `conditional[i][k]` and `unconditional[i][k]` are indices into `requests`.

    `further[index]` are the later windows of a continuation longer than one. `truncated` counts contexts cut on the
    left, `crossings` continuations whose first token begins in the context.
    """

    requests: list[Request]
    conditional: list[list[int]]
    unconditional: list[list[int]]
    further: dict[int, list[int]]
    truncated: int
    crossings: int

    def windows_of(self, request: int) -> list[int]:
        """A request and the later windows of its continuation."""
        return [request, *self.further.get(request, ())]

    def item_of(self, request: int) -> int:
        """Index of the first item that a request belongs to."""
        first = next((first for first, rest in self.further.items() if request in rest), request)
        return _first_item(self.conditional, self.unconditional, first)


def build_requests(items: Sequence[Item], tokenizer: Tokenizer, prefix_id: int, max_length_tokens: int) -> ItemRequests:
    """Requests of every choice, after the item's context and after just "Answer:".

    `prefix_id` replaces an empty context. A tokenizer that begins every text with BOS does so here too.

    Raises:
        WorkError: naming the item whose choice has no tokens, or a token without an embedding.
    """
    pairs: dict[tuple[str, str], int] = {}
    conditional = [
        [_pair_index(pairs, context, text) for context, text in zip(item.contexts, item.continuations, strict=True)]
        for item in items
    ]
    unconditional = [[_pair_index(pairs, UNCONDITIONAL_CONTEXT, text) for text in item.continuations] for item in items]
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    context_ids = dict(zip(contexts, tokenizer.encode(contexts), strict=True))
    whole_ids = tokenizer.encode([context + continuation for context, continuation in pairs])
    lead = [tokenizer.bos_token_id] if tokenizer.starts_with_bos and tokenizer.bos_token_id is not None else []
    requests: list[Request] = []
    long: list[tuple[int, tuple[int, ...], list[int]]] = []
    truncated: set[tuple[int, ...]] = set()
    crossings = 0
    for index, ((context, continuation), ids) in enumerate(zip(pairs, whole_ids, strict=True)):
        boundary = _common_length(context_ids[context], ids)
        crossings += boundary < len(context_ids[context])
        before = [*lead, *ids[:boundary]] or [prefix_id]
        scored = ids[boundary:]
        if not scored or max(ids) >= tokenizer.embedding_rows:
            item = items[_first_item(conditional, unconditional, index)]
            where = f'item "{item.id}", choice "{continuation[:60]}"'
            tokenizer.check(ids, where)
            problem = f"{where}: the tokenizer produces no tokens; expected at least one"
            raise WorkError(problem, hint="remove the item from its data, or use another tokenizer")
        # the last scored token is not an input, so the context may keep one token more than the window has left
        first = scored[:max_length_tokens]
        kept = before[-(max_length_tokens + 1 - len(first)) :]
        if len(kept) < len(before):
            truncated.add(tuple(before))
        requests.append(Request(context=tuple(kept), continuation=tuple(first)))
        if len(first) < len(scored):
            long.append((index, tuple(kept), scored))
    further: dict[int, list[int]] = {}
    for index, context_tokens, scored in long:
        rest = windows(scored, context_tokens[-1], max_length_tokens, "paloma-reference")[1:]
        further[index] = list(range(len(requests), len(requests) + len(rest)))
        requests += rest
    return ItemRequests(
        requests=requests,
        conditional=conditional,
        unconditional=unconditional,
        further=further,
        truncated=len(truncated),
        crossings=crossings,
    )


def _first_item(conditional: list[list[int]], unconditional: list[list[int]], request: int) -> int:
    pairs = zip(conditional, unconditional, strict=True)
    return next(index for index, (one, other) in enumerate(pairs) if request in (*one, *other))


def _pair_index(pairs: dict[tuple[str, str], int], context: str, continuation: str) -> int:
    bare = context.rstrip()
    return pairs.setdefault((bare, context[len(bare) :] + continuation), len(pairs))


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return index
    return min(len(first), len(second))


def collect_scores(items: Sequence[Item], built: ItemRequests, sums: Sequence[float]) -> list[ItemScore]:
    """Sums of requests as scores of items, rounded for storage. Characters and bytes include the leading space."""

    def total(index: int) -> float:
        return round_logprob(sum(sums[part] for part in built.windows_of(index)))

    def length(index: int) -> int:
        return sum(len(built.requests[part].continuation) for part in built.windows_of(index))

    scores = []
    for item, with_context, without in zip(items, built.conditional, built.unconditional, strict=True):
        scores.append(
            ItemScore(
                id=item.id,
                label=item.label,
                sum_logprobs=tuple(total(index) for index in with_context),
                sum_logprobs_unconditional=tuple(total(index) for index in without),
                tokens=tuple(length(index) for index in with_context),
                chars=tuple(len(text) for text in item.continuations),
                bytes=tuple(len(text.encode()) for text in item.continuations),
            )
        )
    return scores
