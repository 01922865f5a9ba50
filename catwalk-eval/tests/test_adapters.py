"""LoRA adapters: the same scores as the merged checkpoint, a cell of their own, and what can be wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from catwalk.backends.opening import open_model
from catwalk.formats.contract import ConfigError
from catwalk.types import Pair

Build = Callable[[str], Path]
PAIRS = [Pair(context="The hen", continuation=" lays eggs"), Pair(context="The sea is", continuation=" salt")]


pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def adapter(build_checkpoint: Build, tmp_path: Path) -> Path:
    """A random LoRA adapter of the llama; its merged weights are in `merged` beside it."""
    peft = pytest.importorskip("peft")
    directory = build_checkpoint("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "merged" / name).write_bytes((directory / name).read_bytes())
    return tmp_path / "adapter"


def test_adapter_scores_like_the_merged_checkpoint(build_checkpoint: Build, adapter: Path) -> None:
    directory = build_checkpoint("llama")
    tuned, base = open_model(f"{directory},peft={adapter}"), open_model(str(directory))
    scores = [one.sum_logprob for one in tuned.score(PAIRS)]
    assert scores == pytest.approx(
        [one.sum_logprob for one in open_model(str(adapter.parent / "merged")).score(PAIRS)], abs=1e-4
    )
    assert scores != pytest.approx([one.sum_logprob for one in base.score(PAIRS)], abs=1e-2)
    assert tuned.identity != base.identity


def test_directory_without_an_adapter_is_an_error(build_checkpoint: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"peft: .*adapter_config.json not found"):
        open_model(f"{build_checkpoint('llama')},peft={tmp_path}").identity  # noqa: B018
