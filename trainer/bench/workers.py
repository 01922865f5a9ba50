"""One trainer in its own process and its own loop, which gets the batch of a step when the bench says so.

    python bench/workers.py NAME        jobs come on stdin, one JSON object per line (run.py writes them)

Every trainer asks for the next batch when it is done with the last, so the time between two requests is a whole step:
forward, backward, clipping, update, and all other work of its loop. All have the same decoder, torch's fused AdamW,
gradients clipped to norm 1.0, a constant rate, and one batch in memory that is repeated.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

RATE = 1e-3
_OUT = os.fdopen(os.dup(1), "w")  # what packages print goes to stderr, see main


class Done(Exception):
    """The bench is done; leaves a trainer's loop from within its data."""


def tell(**what: Any) -> None:
    """Send a line to the bench."""
    _OUT.write(json.dumps(what) + "\n")
    _OUT.flush()


class Pace:
    """Hands out the batch (B, T + 1), one step at a time, and reports the seconds between."""

    def __init__(self, job: dict[str, Any]) -> None:
        draw = torch.Generator().manual_seed(0)
        self.tokens_BT = torch.randint(1, job["vocabulary"], (job["batch"], job["length"] + 1), generator=draw)
        self._synchronize = torch.cuda.synchronize if job["device"] == "cuda" else lambda: None
        self._begun: tuple[float, float] | None = None
        self.steps = 0

    def begin(self, model: Any, nats: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        """Report a model that is about to train; `nats` is its mean loss, from inputs and labels (B, T) each."""

        @torch.no_grad()
        def measured() -> float:
            tokens_BT = self.tokens_BT.to(next(model.parameters()).device)
            return float(nats(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()))

        self._nats = measured
        tell(parameters=sum(parameter.numel() for parameter in model.parameters()), nats=measured())

    def wait(self) -> None:
        """Report the last step and wait for permission to do the next one."""
        self._synchronize()
        if self._begun is None:
            tell(seconds=None)
        else:
            tell(seconds=time.perf_counter() - self._begun[0], cpu_seconds=time.process_time() - self._begun[1])
        if sys.stdin.readline().strip() != "go":
            tell(nats=self._nats())
            raise Done
        self.steps += 1
        self._begun = time.perf_counter(), time.process_time()

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.wait()
            yield self.tokens_BT


def entropy(logits_BTV: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Mean nats of the labels."""
    return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten())


def ours(job: dict[str, Any], folder: Path) -> None:
    """`olmo train` itself, with its shards on disk; finally reports the time for monitoring and waiting for data."""
    import numpy as np
    from monitoring import Watched, without_monitoring
    from olmo_trainer import train as loop
    from olmo_trainer.config.schema import RunConfig
    from olmo_trainer.data.order import DataOrder
    from olmo_trainer.data.sources import SpecialTokens, TrainingData, open_directories, window_sources
    from olmo_trainer.settings import build

    pace, tokenizer = Pace(job), folder / "tokenizer.json"
    tokenizer.write_text("{}", encoding="utf-8")
    (folder / "tokens").mkdir()
    pace.tokens_BT.numpy().astype(np.uint32).tofile(folder / "tokens" / "0.npy")
    settings: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "model": job["model"],
        "data": {
            "sources": [{"path": str(folder / "tokens"), "dtype": "uint32", "eos_token_id": 0}],
            "sequence_length": job["length"] + 1,
        },
        "optimizer": {"learning_rate": RATE},
        "schedule": {"kind": "constant"},
        "train": {
            "steps": 10**6,
            "batch_windows": job["batch"],
            "device": job["device"],
            "num_threads": job["threads"],
            "dtype": job["dtype"],
            "compile": job["compile"],
        },
        "logging": {"statistics_every_steps": job["statistics_every_steps"]},
    }
    config = build(RunConfig, settings, "bench")
    sources = tuple(window_sources(config.data, open_directories(config.data)))
    data = TrainingData(
        sources=sources,
        order=DataOrder([len(sources[0])], None, seed=0),
        tokenizer_path=tokenizer,
        tokenizer_sha256="",
        vocab_size=job["vocabulary"],
        special=SpecialTokens(eos=0, bos=None, pad=None),
        sequence_length=config.data.sequence_length,
    )
    watched, open_loader = Watched(), loop.open_loader

    def paced_loader(config: Any, parts: Any, *rest: Any) -> Any:
        loader, model = open_loader(config, parts, *rest), parts.model
        pace.begin(model, lambda inputs_BT, labels_BT: entropy(model.logits(inputs_BT), labels_BT))
        read = loader.next

        def following() -> Any:
            pace.wait()
            batch = read()
            watched.seconds["waiting for data"] += loader.waited_s
            return batch

        loader.next = following
        return loader

    loop.open_loader = paced_loader
    (without_monitoring if job["bare"] else watched.take_times)(loop)
    try:
        loop.train(config, data)
    finally:
        loop.open_loader = open_loader
        tell(**watched.seconds, steps=pace.steps)


def hf_trainer(job: dict[str, Any], folder: Path) -> None:
    """transformers' Trainer; its training loop with its defaults."""
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

    pace = Pace(job)
    config = AutoConfig.for_model(
        job["model"]["family"],
        **{name: value for name, value in job["model"].items() if name not in ("family", "norm_eps")},
        rms_norm_eps=job["model"].get("norm_eps", 1e-6),
        vocab_size=job["vocabulary"],
        max_position_embeddings=job["length"] + 1,
        use_cache=False,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    class InMemory(Trainer):
        def get_train_dataloader(self) -> Any:
            return Batches()

    class Batches:
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for tokens_BT in pace:
                inputs_BT = tokens_BT[:, :-1].contiguous()
                yield {"input_ids": inputs_BT, "labels": inputs_BT}

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=job["batch"],
        max_steps=10**6,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=job["dtype"] == "bfloat16",
        torch_compile=job["compile"],
        use_cpu=job["device"] == "cpu",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = InMemory(model, arguments)
    pace.begin(model, lambda inputs_BT, labels_BT: entropy(model(inputs_BT).logits, labels_BT))
    trainer.train()


def litgpt(job: dict[str, Any], folder: Path) -> None:
    """`litgpt pretrain`'s loop `fit`; its main compiles the model."""
    import lightning
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import fit, initialize_weights

    pace, shape = Pace(job), job["model"]
    fabric = lightning.Fabric(
        accelerator=job["device"], devices=1, precision="bf16-mixed" if job["dtype"] == "bfloat16" else "32-true"
    )
    reordered = shape["family"] == "olmo2"
    config = Config(
        block_size=job["length"],
        padded_vocab_size=job["vocabulary"],
        n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"],
        n_query_groups=shape["num_key_value_heads"],
        n_embd=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape.get("norm_eps", 1e-6),
        mlp_class_name="LLaMAMLP",
        **({"norm_qk": True, "norm_qk_type": "olmo2", "norm_1": False, "norm_2": False} if reordered else {}),
        **({"post_attention_norm": True, "post_mlp_norm": True} if reordered else {}),
    )
    with fabric.init_module(empty_init=True):
        plain = GPT(config)
    initialize_weights(fabric, plain, n_layer=config.n_layer, n_embd=config.n_embd)
    model = fabric.setup(torch.compile(plain) if job["compile"] else plain)
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    )
    pace.begin(plain, lambda inputs_BT, labels_BT: entropy(plain(inputs_BT), labels_BT))
    fit(
        fabric=fabric,
        devices=1,
        state={"model": model, "optimizer": optimizer, "iter_num": 0, "step_count": 0},
        train_dataloader=pace,
        val_dataloader=[pace.tokens_BT.to(fabric.device)],
        out_dir=folder,
        tokenizer_dir=None,
        train=TrainArgs(
            save_interval=None,
            log_interval=1,
            global_batch_size=job["batch"],
            micro_batch_size=job["batch"],
            lr_warmup_steps=0,
            max_tokens=10**12,
            max_norm=1.0,
            min_lr=RATE,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1),
    )


def olmo_core(job: dict[str, Any], folder: Path) -> None:
    """OLMo-core's Trainer with its default callbacks; its scripts compile the model."""
    from olmo_core.config import DType
    from olmo_core.data.data_loader import DataLoaderBase
    from olmo_core.nn.feed_forward import FeedForwardConfig
    from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig
    from olmo_core.optim import AdamWConfig
    from olmo_core.train import Duration, TrainerConfig
    from olmo_core.train.train_module import TransformerTrainModuleConfig

    pace, shape = Pace(job), job["model"]
    reordered = shape["family"] == "olmo2"
    config = TransformerConfig.llama_like(
        d_model=shape["hidden_size"],
        vocab_size=job["vocabulary"],
        n_layers=shape["num_hidden_layers"],
        n_heads=shape["num_attention_heads"],
        layer_norm_eps=shape.get("norm_eps", 1e-6),
        rope_theta=10_000,
        feed_forward=FeedForwardConfig(hidden_size=shape["intermediate_size"], bias=False, dtype=DType.float32),
        qk_norm=reordered,
        block_name=TransformerBlockType.reordered_norm if reordered else TransformerBlockType.default,
    )
    model = config.build(init_device=job["device"])
    module = TransformerTrainModuleConfig(
        rank_microbatch_size=job["batch"] * job["length"],
        max_sequence_length=job["length"],
        optim=AdamWConfig(lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
        compile_model=job["compile"],
        autocast_precision=DType.bfloat16 if job["dtype"] == "bfloat16" else None,
        max_grad_norm=1.0,
    ).build(model, device=torch.device(job["device"]))

    class InMemory(DataLoaderBase):
        total_batches = None

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            pass

        def reshuffle(self, epoch: int | None = None, **_: Any) -> None:
            self._epoch = epoch

        def get_mock_batch(self) -> dict[str, Any]:
            return {"input_ids": pace.tokens_BT[:, :-1].contiguous()}

        def global_num_tokens_in_batch(self, batch: dict[str, Any]) -> int:
            return int(batch["input_ids"].numel())

        def _iter_batches(self) -> Iterator[dict[str, Any]]:
            for tokens_BT in pace:
                yield {"input_ids": tokens_BT[:, :-1].to(job["device"])}

    loader = InMemory(work_dir=str(folder), global_batch_size=job["batch"] * job["length"])
    trainer = TrainerConfig(
        save_folder=str(folder), max_duration=Duration.steps(10**6), no_checkpoints=True, device=job["device"]
    ).build(module, loader)
    pace.begin(model, lambda inputs_BT, labels_BT: entropy(model(inputs_BT), labels_BT))
    trainer.fit()


TRAINERS = {"ours": ours, "hf-trainer": hf_trainer, "litgpt": litgpt, "olmo-core": olmo_core}
PACKAGES = {"ours": "olmo-trainer", "hf-trainer": "transformers", "litgpt": "litgpt", "olmo-core": "ai2-olmo-core"}


def main(name: str) -> None:
    os.dup2(2, 1)  # what a package prints is not for the bench
    tell(version=importlib.metadata.version(PACKAGES[name]), torch=torch.__version__)
    for line in sys.stdin:
        job = json.loads(line)
        torch.set_num_threads(job["threads"])
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
            TRAINERS[name](job, Path(folder))
        torch._dynamo.reset()
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1])
