"""vLLM's requests and answers, without an engine: this machine has no GPU."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.backends.opening import open_model
from catwalk.backends.vllm import answer_options, prompt_score, score_options
from catwalk.formats.contract import ConfigError
from catwalk.types import Prompt, Request

_INSTALLED = importlib.util.find_spec("vllm") is not None


@dataclass
class Logprob:
    """The fields of vllm.logprobs.Logprob, for machines without vLLM."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


def _kinds() -> list[Any]:
    """vLLM's own class, and both of its containers, where it is installed."""
    if not _INSTALLED:
        return [pytest.param(Logprob, list, id="fields")]
    from vllm.logprobs import FlatLogprobs
    from vllm.logprobs import Logprob as Own

    def flat(positions: Any) -> Any:
        found = FlatLogprobs()
        for one in positions:
            found.append(one)
        return found

    return [pytest.param(Own, list, id="own"), pytest.param(Own, flat, id="flat")]


@pytest.mark.parametrize(("kind", "container"), _kinds())
def test_scores_are_read_from_a_prompts_log_probabilities(kind: Any, container: Callable[[Any], Any]) -> None:
    positions = [
        None,
        {7: kind(-9.0, 40, "x"), 3: kind(-0.1, 1, "y")},
        {5: kind(-0.25, 1, " a")},
        {9: kind(-2.0, 2, " b"), 5: kind(-0.5, 1, " a")},
    ]
    answer = container(positions)
    assert prompt_score(answer, Request(context=(1, 7), continuation=(5, 9))) == (-2.25, False)
    assert prompt_score(container(positions[:3]), Request(context=(1, 7), continuation=(5,))) == (-0.25, True)
    assert prompt_score(answer, Request(context=(1,), continuation=(7, 5, 9))) == (-11.25, False)
    for damaged, message in (
        (None, "0 log-probabilities for 4 tokens"),
        (container(positions[:3]), "3 log-probabilities for 4 tokens"),
        (container([*positions[:3], {9: kind(-math.inf, 640)}]), "is -inf; expected a finite number"),
        (container([*positions[:3], {9: kind(math.nan, 1)}]), "is nan; expected a finite number"),
        (container([*positions[:3], {5: kind(-0.5, 1)}]), "is None; expected a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            prompt_score(damaged, Request(context=(1, 7), continuation=(5, 9)))


def test_requests_are_greedy_and_end_where_the_prompt_says() -> None:
    assert score_options()["prompt_logprobs"] == 1
    assert score_options()["max_tokens"] == 1
    prompt = Prompt(text="a", stop=("\n", "Q:"), max_tokens=5)
    wanted = {"temperature": 0.0, "max_tokens": 5, "stop_token_ids": [2], "stop": ["\n", "Q:"]}
    assert answer_options(prompt, (2,)) == wanted
    assert "stop" not in answer_options(Prompt(text="a", stop=(), max_tokens=5), ())


@pytest.mark.skipif(not _INSTALLED, reason="needs vllm")
def test_vllm_takes_these_options() -> None:
    from vllm import SamplingParams

    for options in (score_options(), answer_options(Prompt(text="a", stop=("b",), max_tokens=5), (2,))):
        found = SamplingParams(**options)
        assert {name: getattr(found, name) for name in options} == options


@pytest.mark.skipif(_INSTALLED, reason="vllm is installed")
def test_a_model_of_vllm_names_the_extra(
    build_checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"vllm:{build_checkpoint('llama')}"
    arguments = ["run", "--model", model, "--tasks", "copa", "--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert 'hint: pip install "catwalk-eval[vllm]"' in capsys.readouterr().err
    for spec, message in (
        (f"vllm:{tmp_path / 'absent'}", "not found; expected a checkpoint directory after vllm:"),
        (f"{model},tensor_parallel_size=x", 'tensor_parallel_size is "x"'),
        (f"{model},peft=a", 'unknown option "peft" of vllm:'),
    ):
        with pytest.raises(ConfigError, match=message):
            open_model(spec)
