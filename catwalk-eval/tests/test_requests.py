"""From text to requests to rows: boundaries, spaces, truncation, and which requests share a row."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from catwalk.formats.checkpoint import inspect_checkpoint
from catwalk.formats.contract import WorkError
from catwalk.model.load import Tokenizer, load_tokenizer
from catwalk.model.scorer import Row, batches, separate_rows, shared_rows
from catwalk.requests import build_requests, collect_scores
from catwalk.types import Item, Request
from hypothesis import given, settings
from hypothesis import strategies as st

Build = Callable[[str], Path]


def _item(context: str, *continuations: str) -> Item:
    return Item(id="0", contexts=(context,) * len(continuations), continuations=continuations, label=0, texts=())


@pytest.fixture
def tokenizer(build_checkpoint: Build) -> Tokenizer:
    return load_tokenizer(inspect_checkpoint(build_checkpoint("olmo")))


def test_white_space_at_the_end_of_a_context_moves_to_the_continuation(tokenizer: Tokenizer) -> None:
    spaced = build_requests([_item("The hen ", "lays")], tokenizer, 0, 64)
    plain = build_requests([_item("The hen", " lays")], tokenizer, 0, 64)
    assert spaced.requests[spaced.conditional[0][0]] == plain.requests[plain.conditional[0][0]]
    assert tokenizer.backend.decode(list(plain.requests[0].continuation)) == " lays"


def test_context_and_continuation_together_are_the_whole_text(tokenizer: Tokenizer) -> None:
    built = build_requests([_item("Größe, naïve", " façade", " 東京")], tokenizer, 0, 64)
    for index, text in zip(built.conditional[0], (" façade", " 東京"), strict=True):
        request = built.requests[index]
        assert [*request.context, *request.continuation] == tokenizer.encode(["Größe, naïve" + text])[0]


def test_token_across_the_boundary_is_scored_and_counted(tokenizer: Tokenizer) -> None:
    # "The" is one token and "T" another: a choice "he" that completes it cannot be cut from its context
    whole, context = tokenizer.encode(["The", "T"])
    assert whole[0] != context[0]
    built = build_requests([_item("sea T", "he")], tokenizer, 0, 64)
    assert built.crossings == 1
    request = built.requests[built.conditional[0][0]]
    assert [*request.context, *request.continuation] == tokenizer.encode(["sea The"])[0]
    assert tokenizer.backend.decode(list(request.context)) == "sea"


def test_empty_context_is_the_prefix_token(tokenizer: Tokenizer) -> None:
    built = build_requests([_item("", " hen")], tokenizer, 1, 64)
    assert built.requests[built.conditional[0][0]].context == (1,)


def test_equal_requests_are_one(tokenizer: Tokenizer) -> None:
    built = build_requests([_item("a", " x", " y"), _item("a", " y", " x"), _item("Answer:", " x")], tokenizer, 0, 64)
    # a|x, a|y, Answer:|x, Answer:|y
    assert len(built.requests) == 4
    assert built.conditional == [[0, 1], [1, 0], [built.unconditional[0][0]]]


def test_long_contexts_are_cut_on_the_left_and_counted(tokenizer: Tokenizer) -> None:
    context = "sea " * 100
    built = build_requests([_item(context, " hen lays", " egg")], tokenizer, 0, 16)
    assert built.truncated == 1
    for index in built.conditional[0]:
        request = built.requests[index]
        assert len(request.context) + len(request.continuation) == 17


def test_choice_longer_than_the_window_is_scored_in_several(tokenizer: Tokenizer) -> None:
    items = [_item("sea salt", " egg" * 20, " hen")]
    built = build_requests(items, tokenizer, 0, 8)
    tokens = tokenizer.encode(["sea salt" + " egg" * 20])[0][len(tokenizer.encode(["sea salt"])[0]) :]
    first = built.conditional[0][0]
    parts = [built.requests[index] for index in (first, *built.further[first])]
    assert len(parts) > 2
    assert [token for part in parts for token in part.continuation] == tokens
    assert all(len(part.context) + len(part.continuation) - 1 <= 8 for part in parts)
    assert len(built.further) == 2  # after its context, and after "Answer:"
    (score,) = collect_scores(items, built, [-1.0 * (index + 1) for index in range(len(built.requests))])
    assert score.tokens[0] == len(tokens)
    assert score.sum_logprobs[0] == -sum(1.0 + index for index in (first, *built.further[first]))
    assert built.item_of(built.further[first][-1]) == 0


def test_error_of_a_choice_without_tokens_names_its_item(tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    known = {"sea": 2, "hen": 3, "Answer": 4, ":": 5}
    for model, problem in (
        (models.BPE({letter: 2 + n for n, letter in enumerate("seahnAwr:")}, []), "produces no tokens"),
        (models.WordLevel(known, unk_token="?"), "cannot encode"),
    ):
        backend = Backend(model)
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        words = dataclasses.replace(tokenizer, backend=backend)
        assert build_requests([_item("sea", " hen")], words, 0, 8).requests
        with pytest.raises(WorkError, match=problem) as caught:
            build_requests([_item("sea", " hen", " 12")], words, 0, 8)
        assert " 12" in str(caught.value)


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
    built = build_requests([_item("The hen", " lays")], tokenizer, 0, 64)
    assert all(request.context[0] == 1 for request in built.requests)
    assert all(request.context[1] != 1 for request in built.requests)


_TOKENS = st.lists(st.integers(1, 9), min_size=1, max_size=7).map(tuple)
_REQUESTS = st.lists(
    st.builds(lambda context, continuation: Request(context=context, continuation=continuation), _TOKENS, _TOKENS),
    min_size=1,
    max_size=30,
)


def _read_back(rows: list[Row], count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The tokens that each request's scored positions see, and those that they predict, from the meaning of a row."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())] * count
    for row in rows:
        segments = np.zeros_like(row.tokens) if row.segments is None else row.segments
        for request in dict.fromkeys(row.requests.tolist()):
            last = int(row.scored[row.requests == request][-1])
            visible = [
                index for index in range(last + 1) if row.segments is None or segments[index] in (0, segments[last])
            ]
            assert row.position_ids[visible].tolist() == list(range(len(visible)))
            seen[request] = (tuple(row.tokens[visible].tolist()), tuple(row.targets[row.requests == request].tolist()))
    return seen


@given(_REQUESTS)
@settings(max_examples=60, deadline=None)
def test_rows_represent_the_requests(requests: list[Request]) -> None:
    expected = [(request.context + request.continuation[:-1], request.continuation) for request in requests]
    assert _read_back(separate_rows(requests), len(requests)) == expected
    assert _read_back(shared_rows(requests), len(requests)) == expected


@given(_REQUESTS, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_batches_contain_every_row_once_within_the_budget(requests: list[Request], budget: int) -> None:
    rows = shared_rows(requests)
    found = list(batches(rows, budget))
    assert sorted(index for batch in found for index in batch.requests.tolist()) == sorted(
        index for row in rows for index in row.requests.tolist()
    )
    for batch in found:
        assert batch.tokens.size <= budget or len(batch.tokens) == 1
        predicted_from = batch.tokens.reshape(-1)[batch.scored[batch.index]]
        assert len(predicted_from) == len(batch.targets)


def test_context_is_computed_once_for_all_choices() -> None:
    requests = [Request(context=(1,) * 50, continuation=(2, 3, index)) for index in range(4)]
    assert [len(row.tokens) for row in shared_rows(requests)] == [50 + 4 * 2]
    assert sum(len(row.tokens) for row in separate_rows(requests)) == 4 * 52


def test_one_token_choices_add_no_tokens() -> None:
    requests = [Request(context=(1, 2, 3), continuation=(index,)) for index in (7, 8)]
    (row,) = shared_rows(requests)
    assert row.tokens.tolist() == [1, 2, 3]
    assert row.scored.tolist() == [2, 2]


def test_many_continuations_of_one_context_are_split_into_rows() -> None:
    requests = [Request(context=(1, 2), continuation=(3,) * 11) for _ in range(100)]
    rows = shared_rows(requests)
    assert len(rows) > 1
    assert max(len(row.tokens) for row in rows) <= 384
