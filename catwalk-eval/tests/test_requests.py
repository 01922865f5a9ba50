"""From text to requests to rows: boundaries, spaces, truncation, and which requests share a row."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catwalk.formats.checkpoint import inspect_checkpoint
from catwalk.model.load import Tokenizer, load_tokenizer
from catwalk.model.plan import Batch, Limits, Row, forward_tokens, plan, visible
from catwalk.questions import ItemQuestions
from catwalk.requests import encode_pairs
from catwalk.rows import derived_row, task_row
from catwalk.types import Item, Likelihood, Pair, PairError, Request
from hypothesis import given, settings
from hypothesis import strategies as st

Build = Callable[[str], Path]


def _pairs(context: str, *continuations: str) -> list[Pair]:
    return [Pair(context=context, continuation=text) for text in continuations]


@pytest.fixture
def tokenizer(build_checkpoint: Build) -> Tokenizer:
    return load_tokenizer(inspect_checkpoint(build_checkpoint("olmo")))


def test_white_space_at_the_end_of_a_context_moves_to_the_continuation(tokenizer: Tokenizer) -> None:
    spaced = encode_pairs(_pairs("The hen ", "lays"), tokenizer, 0, 64)
    plain = encode_pairs(_pairs("The hen", " lays"), tokenizer, 0, 64)
    assert spaced.requests == plain.requests
    assert tokenizer.decode(plain.requests[0].continuation) == " lays"


def test_context_and_continuation_together_are_the_whole_text(tokenizer: Tokenizer) -> None:
    encoded = encode_pairs(_pairs("Größe, naïve", " façade", " 東京"), tokenizer, 0, 64)
    for (index,), text in zip(encoded.parts, (" façade", " 東京"), strict=True):
        request = encoded.requests[index]
        assert [*request.context, *request.continuation] == tokenizer.encode(["Größe, naïve" + text])[0]


def test_token_across_the_boundary_is_scored_and_marked(tokenizer: Tokenizer) -> None:
    # "The" is one token and "T" another: a choice "he" that completes it cannot be cut from its context
    whole, context = tokenizer.encode(["The", "T"])
    assert whole[0] != context[0]
    encoded = encode_pairs([*_pairs("sea T", "he"), *_pairs("sea", " The")], tokenizer, 0, 64)
    assert encoded.crossing == [True, False]
    request = encoded.requests[0]
    assert [*request.context, *request.continuation] == tokenizer.encode(["sea The"])[0]
    assert tokenizer.decode(request.context) == "sea"


def test_catwalk_encodes_the_continuation_by_itself(tokenizer: Tokenizer) -> None:
    encoded = encode_pairs(_pairs("sea T", "he"), tokenizer, 0, 64, "catwalk")
    context, continuation = tokenizer.encode(["sea T", "he"])
    assert encoded.requests == [Request(context=tuple(context), continuation=tuple(continuation))]
    assert encoded.crossing == [False]


def test_empty_context_is_the_prefix_token(tokenizer: Tokenizer) -> None:
    assert encode_pairs(_pairs("", " hen"), tokenizer, 1, 64).requests[0].context == (1,)


def test_equal_requests_are_one(tokenizer: Tokenizer) -> None:
    pairs = [*_pairs("a", " x", " y"), *_pairs("a", " y", " x"), *_pairs("a ", "x")]
    encoded = encode_pairs(pairs, tokenizer, 0, 64)
    assert len(encoded.requests) == 2
    assert encoded.parts == [[0], [1], [1], [0], [0]]
    assert encoded.pair_of(1) == 1


def test_long_contexts_are_cut_on_the_left_and_marked(tokenizer: Tokenizer) -> None:
    encoded = encode_pairs([*_pairs("sea " * 100, " hen lays", " egg"), *_pairs("sea", " egg")], tokenizer, 0, 16)
    assert encoded.truncated == [True, True, False]
    for request in encoded.requests[:2]:
        assert len(request.context) + len(request.continuation) == 17


def test_choice_longer_than_the_window_is_scored_in_several(tokenizer: Tokenizer) -> None:
    encoded = encode_pairs(_pairs("sea salt", " egg" * 20, " hen"), tokenizer, 0, 8)
    tokens = tokenizer.encode(["sea salt" + " egg" * 20])[0][len(tokenizer.encode(["sea salt"])[0]) :]
    parts = [encoded.requests[index] for index in encoded.parts[0]]
    assert len(parts) > 2
    assert len(encoded.parts[1]) == 1
    assert [token for part in parts for token in part.continuation] == tokens
    assert all(len(part.context) + len(part.continuation) - 1 <= 8 for part in parts)
    assert encoded.pair_of(encoded.parts[0][-1]) == 0


def test_error_of_a_choice_without_tokens_has_its_index(tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.BPE({letter: 2 + n for n, letter in enumerate("seahnAwr:")}, []))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = dataclasses.replace(tokenizer, backend=backend)
    assert encode_pairs(_pairs("sea", " hen"), words, 0, 8).requests
    with pytest.raises(PairError, match="produces no tokens for ' 12'") as caught:
        encode_pairs(_pairs("sea", " hen", " 12"), words, 0, 8)
    assert caught.value.pair == 1


def test_pairs_of_items_are_counted_back_to_their_item() -> None:
    items = [
        Item(
            id=id, contexts=("c",) * count, continuations=(" x",) * count, label=0, texts=(), unconditional_context=free
        )
        for id, count, free in (("a", 2, "Answer:"), ("b", 3, None), ("c", 2, "So:"))
    ]
    questions = ItemQuestions(name="made", split="test", primary_metric="acc_raw", items=items)
    contexts = ["c", "c", "Answer:", "Answer:", "c", "c", "c", "c", "c", "So:", "So:"]
    assert [pair.context for pair in questions.pairs] == contexts
    owners = [questions.where(pair).split('"')[1] for pair in range(len(contexts))]
    assert owners == ["a"] * 4 + ["b"] * 3 + ["c"] * 4


def test_an_item_without_unconditional_context_has_no_such_number() -> None:
    free = {"bare": None, "asked": "Answer:"}
    items = [
        Item(id=id, contexts=("c",) * 2, continuations=(" x", " yy"), label=1, texts=(), unconditional_context=free[id])
        for id in free
    ]
    answers = [Likelihood(sum_logprob=-float(n + 1), tokens=1, greedy=False) for n in range(6)]
    made = ItemQuestions(name="made", split="test", primary_metric="acc_raw", items=items)
    bare, asked = made.collect(answers, []).rows
    assert [choice["sum_logprob_unconditional"] for choice in bare["choices"]] == [None, None]
    assert [choice["sum_logprob_unconditional"] for choice in asked["choices"]] == [-5.0, -6.0]
    assert "acc_unconditional" not in bare["predicted"]
    assert asked["predicted"]["acc_unconditional"] == 0
    assert [derived_row(row) for row in (bare, asked)] == [bare, asked]
    assert "acc_unconditional" in task_row("made", "test", "acc_raw", [asked])["metrics"]
    assert "acc_unconditional" not in task_row("made", "test", "acc_raw", [bare, asked])["metrics"]


def test_tokenizer_that_begins_with_bos_does_so_here(build_checkpoint: Build, tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    directory = tmp_path / "bos"
    shutil.copytree(build_checkpoint("olmo"), directory)
    backend = Backend.from_file(str(directory / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    backend.save(str(directory / "tokenizer.json"))
    tokenizer = load_tokenizer(inspect_checkpoint(directory))
    assert tokenizer.starts_with_bos
    (request,) = encode_pairs(_pairs("The hen", " lays"), tokenizer, 0, 64).requests
    assert request.context[0] == 1
    assert request.context[1] != 1


# ---- plans

_TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=7).map(tuple)
_REQUESTS = st.lists(
    st.builds(lambda context, continuation: Request(context=context, continuation=continuation), _TOKENS, _TOKENS),
    min_size=1,
    max_size=30,
)
_LIMITS = st.builds(
    Limits,
    batch_tokens=st.integers(1, 60),
    row_tokens=st.integers(1, 40),
    branch_tokens=st.integers(1, 40),
    trunk_tokens=st.integers(1, 6),
    packed_length=st.sampled_from([None, 0, 6]),
    copies=st.booleans(),
    trunks=st.booleans(),
)


def _read_back(batches: list[Batch], count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The tokens that each request's last scored place sees, and those predicted, from the meaning of a plan."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())] * count
    for batch in batches:
        for row in batch.rows:
            mask = visible(row, len(row.tokens))
            for request in dict.fromkeys(row.requests.tolist()):
                assert seen[request] == ((), ()), "scored twice"
                places = row.scored[row.requests == request].tolist()
                path = [place for place in range(len(row.tokens)) if mask[places[-1], place]]
                assert path[-len(places) :] == places
                first = len(batch.trunk)
                assert row.position_ids[path].tolist() == list(range(first, first + len(path)))
                tokens = (*batch.trunk, *row.tokens[path].tolist())
                seen[request] = (tokens, tuple(row.targets[row.requests == request].tolist()))
    return seen


@given(_REQUESTS, _LIMITS)
@settings(max_examples=300, deadline=None)
def test_plans_represent_the_requests(requests: list[Request], limits: Limits) -> None:
    expected = [(request.context + request.continuation[:-1], request.continuation) for request in requests]
    found = plan(requests, limits)
    assert _read_back(found, len(requests)) == expected
    for batch in found:
        assert batch.size_tokens <= max(limits.batch_tokens, limits.branch_tokens) or len(batch.rows) == 1
        assert len(batch.rows) == 1 or len({row.parents is None for row in batch.rows}) == 1
        assert not batch.trunk or batch.copied or len(batch.rows) == 1


def _sizes(requests: list[Request], **limits: Any) -> int:
    return forward_tokens(plan(requests, Limits(batch_tokens=512, **limits)))


def test_context_is_computed_once_for_all_choices() -> None:
    requests = [Request(context=(1,) * 50, continuation=(index, 3, 2)) for index in range(4)]
    assert _sizes(requests, row_tokens=100) == 50 + 4 * 2
    assert _sizes(requests, packed_length=0) == 4 * 52


def test_part_of_a_continuation_is_shared_too() -> None:
    requests = [Request(context=(1,) * 50, continuation=(2, 3, index)) for index in range(4)]
    assert _sizes(requests, row_tokens=100) == 52


def test_one_token_choices_add_no_tokens() -> None:
    requests = [Request(context=(1, 2, 3), continuation=(index,)) for index in (7, 8)]
    for limits in (Limits(batch_tokens=99), Limits(batch_tokens=99, packed_length=0)):
        ((row,),) = (batch.rows for batch in plan(requests, limits))
        assert row.tokens.tolist() == [1, 2, 3]
        assert row.scored.tolist() == [2, 2]
        assert row.parents is None


def test_few_shot_examples_are_computed_once() -> None:
    examples = tuple(range(100, 400))
    requests = [
        Request(context=(*examples, item, item), continuation=(choice, 1)) for item in range(90) for choice in (1, 2)
    ]
    assert _sizes(requests) == len(examples) + 90 * (2 + 2)
    assert _sizes(requests, packed_length=0, copies=True) < len(examples) + 90 * 2 * 4
    assert _sizes(requests, packed_length=0) == 180 * 303


def test_row_of_padding_sees_itself() -> None:
    row = Row(
        tokens=np.array([1, 2]),
        position_ids=np.array([0, 1]),
        parents=np.array([-1, -1]),
        scored=np.array([0]),
        targets=np.array([1]),
        requests=np.array([0]),
    )
    assert visible(row, 3).tolist() == np.eye(3, dtype=bool).tolist()
