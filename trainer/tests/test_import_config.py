"""Run files of OLMo: the shapes, durations and rates that they mean come out in this trainer's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from olmo_trainer.__main__ import main
from olmo_trainer.config.load import load_config
from olmo_trainer.config.published import apply_preset
from olmo_trainer.config.schema import ModelConfig, RunConfig
from olmo_trainer.model.architecture import architecture_of, total_parameters
from olmo_trainer.settings import build

FIRST = """
run_name: first
seed: 6198
wandb: {name: "${run_name}", project: small}
model:
  {d_model: 2048, n_heads: 16, n_layers: 16, mlp_ratio: 8, weight_tying: true, alibi: false, rope: true,
   init_fn: mitchell, flash_attention: true, attention_dropout: 0.0, include_bias: false, block_type: sequential,
   layer_norm_type: default, layer_norm_with_affine: false, bias_for_layer_norm: false, activation_type: swiglu,
   max_sequence_length: 2048, vocab_size: 50280, embedding_size: 50304, eos_token_id: 50279, pad_token_id: 1}
optimizer: {name: adamw, learning_rate: 4.0e-4, weight_decay: 0.1, betas: [0.9, 0.95], metrics_log_interval: 10}
scheduler: {name: cosine_with_warmup, t_warmup: 2000, grad_clip_warmup_steps: 1000, grad_clip_warmup_factor: 10}
tokenizer: {identifier: tokenizers/first.json, truncate_direction: right}
save_folder: ${path.choose:${oc.env:NOT_SET_HERE,no_exist}/checkpoints,/results}/${run_name}
save_interval: 1000
save_num_checkpoints_to_keep: 9
max_duration: 739_328
global_train_batch_size: 2048
device_train_microbatch_size: 8
device_eval_batch_size: ${device_train_microbatch_size}
precision: amp_bf16
max_grad_norm: 1.0
evaluators: [{label: piqa, type: downstream}]
data:
  num_workers: 0
  paths: ["s3://bucket/a/part-0.npy", "s3://bucket/b/part-0.npy", "s3://bucket/a/part-1.npy", "s3://bucket/b/part-0.npy"]
"""
SECOND = """
run_name: second
model:
  {d_model: 4096, n_heads: 32, n_layers: 32, mlp_hidden_size: 22016, weight_tying: false, alibi: false, rope: true,
   rope_theta: 500000, include_bias: false, block_type: sequential, layer_norm_type: rms, layer_norm_with_affine: true,
   layer_norm_eps: 1e-6, bias_for_layer_norm: false, attention_layer_norm: true, attention_layer_norm_with_affine: true,
   norm_after: true, activation_type: swiglu, max_sequence_length: 4096, vocab_size: 100278, embedding_size: 100352,
   eos_token_id: 100257, pad_token_id: 100277, init_fn: normal, init_std: 0.02, init_cutoff_factor: 3}
softmax_auxiliary_loss: true
auxiliary_loss_multiplier: 1e-5
optimizer: {name: adamw, learning_rate: 3.0e-4, eps: 1e-8, decay_norm_and_bias: true, decay_embeddings: false}
scheduler: {name: cosine_with_warmup, units: tokens, t_warmup: 8388608000, t_max: 5e12, warmup_min_lr: 0.0}
max_duration: 2e12T
stop_at: 400_000
global_train_batch_size: 1024
device_train_microbatch_size: 2
max_grad_norm_ratio: null
load_path: ${path.last_checkpoint:PLACE/checkpoints}
data:
  memmap_dtype: uint32
  generate_doc_lengths: true
  instance_filter: {repetition_max_period: 13, repetition_min_period: 1, repetition_max_count: 32}
  paths: ${path.glob:PLACE/tokens/*.npy}
"""

_SEVEN = "4096, n_heads: 32, n_layers: 32, mlp_hidden_size: 22016, weight_tying: false"
_CLIPPED = f"{_SEVEN}, clip_qkv: 8.0"
_ONE = "2048, n_heads: 16, n_layers: 16, mlp_ratio: 8"
_OLMOE = "2048, n_heads: 16, n_layers: 16, mlp_ratio: 1"
_THIRTEEN = "5120, n_heads: 40, n_layers: 40, mlp_hidden_size: 27648"


def imported(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[RunConfig, str]:
    (tmp_path / "official.yaml").write_text(text.replace("PLACE", str(tmp_path)))
    assert main(["import-config", str(tmp_path / "official.yaml"), *flags]) == 0
    told = capsys.readouterr()
    (tmp_path / "run.yaml").write_text(told.out)
    return load_config(tmp_path / "run.yaml", []), told.err


def test_a_run_of_olmo_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, notes = imported(FIRST, tmp_path, capsys, "--replace", "s3://bucket=/local")
    assert total_parameters(architecture_of(run.model, 0)) == 1_176_764_416
    assert (run.model.family, run.model.init.scheme, run.seed) == ("olmo", "mitchell", 6198)
    # the code's own defaults: eps 1e-5, and a warmup that begins at a tenth of the peak
    assert (run.optimizer.learning_rate, run.optimizer.eps, run.optimizer.decay_norms) == (4e-4, 1e-5, False)
    assert (run.optimizer.clip_warmup_steps, run.optimizer.clip_warmup_factor) == (1000, 10)
    assert (run.schedule.kind, run.schedule.warmup, run.schedule.final_ratio) == ("cosine", 2000, 0.1)
    assert run.schedule.warmup_min_lr == pytest.approx(4e-5)
    assert (run.train.steps, run.train.batch_windows, run.train.micro_batch_windows) == (739_328, 2048, 8)
    assert (run.train.dtype, run.train.z_loss, run.checkpoint.keep_last) == ("bfloat16", 0.0, 9)
    assert [source.path for source in run.data.sources] == ["/local/a", "/local/b"]
    assert {(source.dtype, source.eos_token_id) for source in run.data.sources} == {("uint16", 50279)}
    assert (run.data.sequence_length, run.data.order, run.data.tokenizer) == (2048, "legacy", "tokenizers/first.json")
    assert (run.wandb.project, run.wandb.name) == ("small", "first")
    assert "1 files are listed more than once" in notes
    assert "skipped settings: evaluators" in notes


def test_a_run_of_olmo_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "part-0.npy").write_bytes(b"")
    for step in (5, 40, 300):
        (tmp_path / "checkpoints" / f"step{step}-unsharded").mkdir(parents=True)
    run, notes = imported(SECOND, tmp_path, capsys)
    shape = architecture_of(run.model, 0)
    assert total_parameters(shape) == 7_298_617_344
    preset = apply_preset({"preset": "olmo2-7b"}, "test")
    assert {name: getattr(run.model, name) for name in preset if name != "preset"} == {
        name: value for name, value in preset.items() if name != "preset"
    }
    assert (run.schedule.units, run.schedule.t_max, run.schedule.warmup_min_lr) == ("tokens", 5e12, 0.0)
    assert (run.train.duration, run.train.steps, run.train.stop_at) == ("2e12T", None, "400000 steps")
    assert (run.train.z_loss, run.optimizer.eps, run.optimizer.decay_norms) == (1e-5, 1e-8, True)
    assert [(source.path, source.dtype) for source in run.data.sources] == [(str(tmp_path / "tokens"), "uint32")]
    assert run.data.document_mask
    assert run.data.window_filter is not None
    assert f"load_path {tmp_path}/checkpoints/step300-unsharded" in notes


@pytest.mark.parametrize(
    ("preset", "text", "changes"),
    [
        ("olmo1-7b", FIRST, {"2048, n_heads: 16, n_layers: 16, mlp_ratio: 8, weight_tying: true": _SEVEN}),
        ("olmo1-7b-0724", FIRST, {"2048, n_heads: 16, n_layers: 16, mlp_ratio: 8, weight_tying: true": _CLIPPED}),
        ("olmo2-1b", SECOND, {"4096, n_heads: 32, n_layers: 32, mlp_hidden_size: 22016": _ONE}),
        ("olmo2-13b", SECOND, {"4096, n_heads: 32, n_layers: 32, mlp_hidden_size: 22016": _THIRTEEN}),
    ],
)
def test_official_shapes_are_the_presets(
    preset: str, text: str, changes: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in changes.items():
        text = text.replace(f"d_model: {old}", f"d_model: {new}")
    run, _ = imported(text, tmp_path, capsys)
    model = build(ModelConfig, apply_preset({"preset": preset}, "test"), "test")
    assert architecture_of(run.model, 0) == architecture_of(model, run.model.embedding_size or 0)
    assert run.model.init.scheme == model.init.scheme


def test_a_run_of_olmoe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SECOND.replace("block_type: sequential", "block_type: moe, moe_top_k: 8, moe_num_experts: 64")
    text = text.replace("d_model: 4096, n_heads: 32, n_layers: 32, mlp_hidden_size: 22016", f"d_model: {_OLMOE}")
    text = text.replace("norm_after: true", "norm_after: false, moe_zloss_weight: 0.002, moe_loss_weight: 0.03")
    text = text.replace("eps: 1e-6", "eps: 1e-5").replace("rope_theta: 500000, ", "").replace("100278", "50280")
    text = text.replace("100352", "50304").replace("eos_token_id: 100257", "eos_token_id: 0")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "part-0.npy").write_bytes(b"")
    run, _ = imported(text, tmp_path, capsys)
    model = build(ModelConfig, apply_preset({"preset": "olmoe-1b-7b"}, "test"), "test")
    shape, preset = architecture_of(run.model, 0), architecture_of(model, 50304)
    assert total_parameters(shape) == total_parameters(preset) == 6_919_161_856
    assert shape.routing is not None
    assert (shape.routing.balance_weight, shape.routing.z_weight) == (0.03, 0.002)
    assert {source.eos_token_id for source in run.data.sources} == {50279}  # OLMoE's own file says 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: cosine_with_warmup", "name: staircase", '"scheduler.name" is staircase; expected cosine_with_warmup'),
        ("block_type: sequential", "block_type: mamba", '"model.block_type" is mamba; expected sequential or moe'),
        ("alibi: false", "alibi: true", '"model.alibi" is true; expected false or null'),
        ("amp_bf16", "amp_fp16", '"precision" is amp_fp16; expected amp_bf16 or fp32'),
        ("${run_name}", "${no_name}", "${no_name} refers to no setting"),
        ("optimizer:", "optimiser:", '"model" and "optimizer" are needed'),
    ],
)
def test_what_has_no_place_here_is_refused(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "official.yaml").write_text(FIRST.replace(old, new))
    assert main(["import-config", str(tmp_path / "official.yaml")]) == 2
    told = capsys.readouterr()
    assert (told.out, message in told.err) == ("", True), told.err
