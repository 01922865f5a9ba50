"""Our trainers next to TRL's own, unchanged, on the same rows: the same losses and gradients."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import chat_rows, pair_rows
from datasets import Dataset
from open_instruct.chat.encode import IGNORED, ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.config import DpoConfig, PairDataSettings, PreferenceLoss, SftConfig, load_config
from open_instruct.data import PairExample, SftExample
from open_instruct.losses import pair_losses
from open_instruct.trainers import dpo_trainer, sft_trainer
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

# transformers' new name for this argument is too new for us; peft asks transformers under an old one
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing.*:FutureWarning", "ignore:.*is_gradient_checkpointing:FutureWarning"
)
STEP = "training: {max_steps: 1, batch_sequences: 8, micro_batch_sequences: %d, log_every_steps: 1}\n"


def _model(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def _encoder(directory: Path) -> ConversationEncoder:
    return ConversationEncoder(AutoTokenizer.from_pretrained(directory), ChatTemplate("tulu", read_shipped("tulu")))


def _sft_examples(directory: Path) -> list[SftExample]:
    encoded = _encoder(directory).encode([row["messages"] for row in chat_rows(8)])
    return [SftExample(row.input_ids, row.labels, 1, "s", f"f:{number}") for number, row in enumerate(encoded)]


def _pair_examples(directory: Path) -> list[PairExample]:
    encoder, made = _encoder(directory), []
    for number, row in enumerate(pair_rows(8)):
        prompt = row["chosen"][:-1]
        answers = [encoder.encode_answer(prompt, row[side][-1]["content"]) for side in ("chosen", "rejected")]
        made.append(PairExample(encoder.encode_prompt(prompt), *answers, "s", f"f:{number}"))
    return made


def _gradients(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Run one step without changing the weights; return the logged loss and the gradients before the update."""
    found: dict[str, torch.Tensor] = {}

    def keep(optimizer: Any, *_: Any) -> None:
        for name, parameter in trainer.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.detach().clone()

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return losses[0], found


def _assert_equal(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-6, rel=2e-6)
    assert one[1].keys() == other[1].keys() != set()
    # float32 has seven digits, and some losses have large gradients
    scale = max(1.0, float(torch.stack([gradient.norm() for gradient in other[1].values()]).norm()))
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).abs().max() <= 1e-6 * scale, name


def _plain(directory: Path, micro_batch: int) -> dict[str, Any]:
    """TRL's arguments for one step of eight rows."""
    return {
        "output_dir": str(directory / "trl"),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": 8 // micro_batch,
        "max_steps": 1,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-4,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def _config(kind: Any, folder: Path, micro_batch: int, *overrides: str) -> Any:
    path = folder / "c.yaml"
    path.write_text(
        f"model: m\noutput_dir: o\ndata: {{train: [d]}}\n{STEP % micro_batch}"
        "optimizer: {learning_rate: 0.0001, warmup_fraction: 0.0, max_grad_norm: 0.0}\nruntime: {device: cpu}\n"
    )
    return load_config(kind, path, list(overrides))


def _ours(kind: Any, base: Path, folder: Path, micro_batch: int, *overrides: str) -> tuple[float, dict[str, Any]]:
    config, tokenizer = _config(kind, folder, micro_batch, *overrides), AutoTokenizer.from_pretrained(base)
    if kind is SftConfig:
        trainer = sft_trainer(config, "cpu", folder / "t", _model(base), tokenizer, _sft_examples(base), 128)
    else:
        trainer = dpo_trainer(config, "cpu", folder / "t", _model(base), tokenizer, _pair_examples(base))
    return _gradients(trainer)


@pytest.fixture
def base(checkpoint: Any) -> Path:
    return Path(checkpoint("llama"))


# ---- sft


def test_sft_has_the_loss_and_gradients_of_trl(base, tmp_path):
    rows = _sft_examples(base)
    theirs = SFTTrainer(
        model=_model(base),
        args=SFTConfig(**_plain(tmp_path, 8), dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
        ),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    expected = _gradients(theirs)
    _assert_equal(_ours(SftConfig, base, tmp_path, 8), expected)
    _assert_equal(_ours(SftConfig, base, tmp_path, 1), expected)
    packed = ["sequence.packing=true", "training.batch_sequences=5"]
    _assert_equal(_ours(SftConfig, base, tmp_path, 5, *packed), expected)
    _assert_equal(_ours(SftConfig, base, tmp_path, 1, *packed), expected)


@pytest.mark.parametrize("reduction", ["token", "sum", "example"])
def test_sft_weighs_tokens_or_conversations_as_asked(base, tmp_path, reduction):
    model, sums, lengths = _model(base), [], []
    for row in _sft_examples(base):
        logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        sums.append(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        lengths.append(int((labels != IGNORED).sum()))
    assert len(set(lengths)) > 3
    losses = {
        "token": sum(sums) / sum(lengths),
        "sum": sum(sums) / 8,
        "example": sum(total / length for total, length in zip(sums, lengths, strict=True)) / 8,
    }
    loss: Any = losses[reduction]
    loss.backward()
    expected = (loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()})
    tolerance = {"token": 1, "sum": 20, "example": 1}[reduction]  # a sum over twenty tokens is twenty times larger
    for micro_batch, *more in ([8], [1], [5, "sequence.packing=true", "training.batch_sequences=5"]):
        value, gradients = _ours(SftConfig, base, tmp_path, micro_batch, f"loss_reduction={reduction}", *more)
        assert value == pytest.approx(expected[0], abs=1e-6 * tolerance)
        for name, gradient in gradients.items():
            assert (gradient - expected[1][name]).abs().max() <= 1e-6 * tolerance, name


# ---- dpo

TRL_KINDS = ["sigmoid", "sigmoid_norm", "ipo", "robust", "hinge", "apo_zero", "apo_down", "sppo_hard", "nca_pair"]


def _trl_dpo(base: Path, folder: Path, kind: str, smoothing: float, reference: Path) -> DPOTrainer:
    rows = _pair_examples(base)

    class WithIds(DPOTrainer):
        def _prepare_dataset(self, dataset, *_, **__):
            return dataset

    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return WithIds(
        model=_model(base),
        ref_model=_model(reference),
        args=DPOConfig(**_plain(folder, 8), loss_type=[kind], beta=0.3, label_smoothing=smoothing),
        train_dataset=Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in names}),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


@pytest.mark.parametrize("kind", TRL_KINDS)
def test_dpo_has_the_loss_and_gradients_of_trl(base, tmp_path, kind):
    """The policy is its own reference, where the losses still have gradients; TRL's `sigmoid_norm` is `dpo_norm`."""
    smoothing = 0.1 if kind == "robust" else 0.0
    expected = _gradients(_trl_dpo(base, tmp_path, kind, smoothing, base))
    options = [f"loss.kind={kind}", "loss.beta=0.3", f"loss.label_smoothing={smoothing}"]
    for micro_batch, precompute in ((8, "true"), (2, "false")):
        more = f"loss.precompute_reference={precompute}"
        _assert_equal(_ours(DpoConfig, base, tmp_path, micro_batch, *options, more), expected)


def _by_hand(
    kind: str, c: float, r: float, lengths: tuple[int, int], beta: float, smooth: float, gamma: float
) -> float:
    """The papers' formulas, in plain numbers: c and r are gains of a pair."""

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def smoothed(x: float) -> float:
        return -(1 - smooth) * math.log(sigma(x)) - smooth * math.log(sigma(-x))

    cn, rn = c / lengths[0], r / lengths[1]
    x = beta * (c - r)
    return {
        "sigmoid": smoothed(x),
        "sigmoid_norm": smoothed(beta * (cn - rn)),
        "simpo": smoothed(beta * (cn - rn) - gamma * beta),
        "robust": (-(1 - smooth) * math.log(sigma(x)) + smooth * math.log(sigma(-x))) / (1 - 2 * smooth),
        "hinge": max(0.0, 1 - x),
        "ipo": (cn - rn - 1 / (2 * beta)) ** 2,
        "apo_zero": 1 - sigma(beta * c) + sigma(beta * r),
        "apo_down": sigma(beta * c) + 1 - sigma(x),
        "sppo_hard": (c - 1 / (2 * beta)) ** 2 + (r + 1 / (2 * beta)) ** 2,
        "nca_pair": -math.log(sigma(beta * c)) - (math.log(sigma(-beta * c)) + math.log(sigma(-beta * r))) / 2,
    }[kind]


@pytest.mark.parametrize("kind", [*TRL_KINDS, "simpo"])
def test_preference_loss_is_the_formula(kind):
    smooth = 0.2 if kind in ("sigmoid", "sigmoid_norm", "simpo", "robust") else 0.0
    loss = PreferenceLoss(kind=kind, beta=0.7, label_smoothing=smooth, gamma_beta_ratio=0.4)
    generator = torch.Generator().manual_seed(1)
    gains = tuple(torch.randn(2, 6, generator=generator, dtype=torch.float64) * 3)
    lengths = (torch.tensor([3, 1, 7, 4, 5, 2]), torch.tensor([2, 6, 1, 4, 9, 3]))
    found = pair_losses(loss, (gains[0], gains[1]), lengths)
    for index in range(6):
        n = (int(lengths[0][index]), int(lengths[1][index]))
        expected = _by_hand(kind, float(gains[0][index]), float(gains[1][index]), n, beta=0.7, smooth=smooth, gamma=0.4)
        assert float(found[index]) == pytest.approx(expected, abs=1e-12)


def test_simpo_needs_no_reference(base, tmp_path):
    options = ["loss.kind=simpo", "loss.beta=2.0", "loss.gamma_beta_ratio=0.3"]
    model, losses = _model(base), []
    for row in _pair_examples(base):
        averages = []
        for answer in (row.chosen_ids, row.rejected_ids):
            log_probs = model(torch.tensor([row.prompt_ids + answer])).logits[0].log_softmax(-1)
            start = len(row.prompt_ids) - 1
            averages.append(log_probs[range(start, start + len(answer)), answer].mean())
        losses.append(-logsigmoid(2 * (averages[0] - averages[1]) - 0.6))
    loss = torch.stack(losses).mean()
    loss.backward()
    expected = (loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()})
    for micro_batch, precompute in ((8, "true"), (2, "false")):
        more = f"loss.precompute_reference={precompute}"
        _assert_equal(_ours(DpoConfig, base, tmp_path, micro_batch, *options, more), expected)


def test_settings_of_a_loss_that_do_not_fit_are_refused(base, tmp_path):
    settings = {"model": "m", "output_dir": "o", "data": PairDataSettings(train=["d"])}
    for kind in ("ipo", "hinge", "apo_zero"):
        problems = DpoConfig(**settings, loss=PreferenceLoss(kind=kind, label_smoothing=0.1)).problems()
        assert ["loss.label_smoothing" in str(problem) for problem in problems] == [True]
    assert DpoConfig(**settings, loss=PreferenceLoss(kind="simpo", gamma_beta_ratio=-1)).problems()
