"""Training and serving next to TRL and transformers on the same chats and models; writes results.json and results.md.

`make bench`, or `python bench/run.py`. Chats are real, with skewed lengths: `SHARED_DATA/sft`. Times are from start to
end, with reading, tokenising, the reference's log-probabilities and saving, after all imports. `transformers serve`
needs its own packages (`pip install 'transformers[serving]'`) and is left out without them.
"""

import argparse
import gzip
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
import psutil
import torch
from datasets import Dataset
from model import make_model
from open_instruct.__main__ import main
from open_instruct.chat.encode import ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

HERE = Path(__file__).parent
LENGTH, BATCH, MICRO, RATE, VOCABULARY = 1024, 32, 8, 1e-3, 4096
PROMPTS = ["Why?", "What is a list?", "Name a colour. " * 8, "Say three words. " * 16]


def read_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """The first rows of a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_base(work: Path, chats: Sequence[dict[str, Any]], device: str) -> Path:
    """A random model, small on a CPU and of a billion weights on a GPU, with a tokenizer of the chats' words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|padding|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator((message["content"] for row in chats for message in row["messages"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0], pad_token=special[1])
    tokenizer.chat_template = read_shipped("tulu")
    tokenizer.save_pretrained(work / "base")
    torch.manual_seed(0)
    hidden, layers, heads = (128, 4, 4) if device == "cpu" else (2048, 16, 16)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(work / "base")
    return work / "base"


def held_out_loss(model: Path, chats: Sequence[dict[str, Any]], device: str) -> float:
    """Nats per token of the answers, by plain forward passes."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = ConversationEncoder(tokenizer, ChatTemplate("tulu", read_shipped("tulu")))
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device).eval()
    nats, count = 0.0, 0
    for row in chats:
        encoded = encoder.encode_one(row["messages"])
        ids = torch.tensor([encoded.input_ids[:LENGTH]], device=device)
        trained = torch.tensor(encoded.trained[1:LENGTH], device=device)
        with torch.no_grad():
            logprobs = network(ids).logits[0, :-1].float().log_softmax(-1)
        own = logprobs.gather(1, ids[0, 1:, None])[:, 0][trained]
        nats, count = nats - float(own.sum()), count + len(own)
    return nats / count


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The highest resident memory of this process meanwhile, in GB, sampled; `[0.0]` becomes `[peak]`."""
    process, peak, going = psutil.Process(), [0.0], [True]

    def watch() -> None:
        while going[0]:
            peak[0] = max(peak[0], process.memory_info().rss / 1e9)
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield peak
        finally:
            going[0] = False


def measured(train: Callable[[Path], None], output: Path) -> dict[str, float]:
    """Seconds and peak memory of a training run."""
    shutil.rmtree(output, ignore_errors=True)
    with peak_memory() as peak:
        began = time.perf_counter()
        train(output)
        seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 2), "peak_gb": round(peak[0], 2)}


def ours(
    stage: str, base: Path, data: Path, device: str, batch: int, *more: str, micro: int = MICRO
) -> Callable[[Path], None]:
    """Our command."""

    def train(output: Path) -> None:
        config = output.with_suffix(".yaml")
        config.write_text(f"model: {base}\noutput_dir: {output}\ndata: {{train: [{data}]}}\n", encoding="utf-8")
        settings = {
            "template.name": "tulu",
            "sequence.max_length_tokens": LENGTH,
            "optimizer.learning_rate": RATE,
            "training.num_epochs": 1,
            "training.batch_sequences": batch,
            "training.micro_batch_sequences": micro,
            "runtime.device": device,
            "runtime.dtype": "float32" if device == "cpu" else "bfloat16",
        }
        assert main([stage, str(config), *(f"{name}={value}" for name, value in settings.items()), *more]) == 0

    return train


def theirs(
    stage: str, base: Path, rows: Sequence[dict[str, Any]], device: str, batch: int, **more: Any
) -> Callable[[Path], None]:
    """TRL's trainer; its defaults but for the device's type of numbers and what both share."""
    shared: dict[str, Any] = {
        "per_device_train_batch_size": min(MICRO, batch),
        "gradient_accumulation_steps": batch // min(MICRO, batch),
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "warmup_steps": 0.03 if stage == "sft" else 0.1,  # below 1, a share of the steps
        "max_length": LENGTH,
        "report_to": "none",
        "save_strategy": "no",
        "bf16": device != "cpu",
        "use_cpu": device == "cpu",
    }

    def train(output: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(base)
        network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if stage == "sft":
            chosen = [{"messages": row["messages"]} for row in rows]
            config = SFTConfig(output_dir=str(output), assistant_only_loss=True, **shared, **more)
            trainer = SFTTrainer(
                model=network, args=config, train_dataset=Dataset.from_list(chosen), processing_class=tokenizer
            )
        else:
            pairs = [{name: row[name] for name in ("chosen", "rejected")} for row in rows]
            trainer = DPOTrainer(
                model=network,
                args=DPOConfig(output_dir=str(output), **shared, **more),
                train_dataset=Dataset.from_list(pairs),
                processing_class=tokenizer,
            )
        trainer.train()
        trainer.save_model(str(output))

    return train


def compare_training(shared: Path, work: Path, device: str, rows: int, repeat: int) -> dict[str, Any]:
    """SFT and DPO on the same rows, one run of each after the other, the fastest of each."""
    chats = read_rows(shared / "oasst_en_messages.jsonl.gz", rows + 32)
    pairs = read_rows(shared / "oasst_en_preferences.jsonl.gz", rows)
    training, held_out = chats[32:], chats[:32]
    base = make_base(work, chats, device)
    encoder = ConversationEncoder(AutoTokenizer.from_pretrained(base), ChatTemplate("tulu", read_shipped("tulu")))

    def tokens(conversations: Sequence[Any]) -> int:
        return sum(min(LENGTH, len(encoder.encode_one(one).input_ids)) for one in conversations)

    sft_tokens = tokens([row["messages"] for row in training])
    dpo_tokens = tokens([row[side] for row in pairs for side in ("chosen", "rejected")])
    packed = max(1, round(BATCH * sft_tokens / len(training) / LENGTH))  # as many rows in a step as without packing
    chat_file, pair_file = write_rows(work / "chats.jsonl", training), write_rows(work / "pairs.jsonl", pairs)
    plain = {"gradient_checkpointing": False}
    runs: dict[str, tuple[int, Callable[[Path], None]]] = {
        "sft, ours packed": (
            sft_tokens,
            ours("sft", base, chat_file, device, packed, "sequence.packing=true", micro=1),
        ),
        "sft, ours": (sft_tokens, ours("sft", base, chat_file, device, BATCH)),
        "sft, TRL": (sft_tokens, theirs("sft", base, training, device, BATCH)),
        "sft, TRL without checkpointing": (sft_tokens, theirs("sft", base, training, device, BATCH, **plain)),
        "dpo, ours": (dpo_tokens, ours("dpo", base, pair_file, device, BATCH)),
        "dpo, TRL": (dpo_tokens, theirs("dpo", base, pairs, device, BATCH)),
        "dpo, TRL without checkpointing": (dpo_tokens, theirs("dpo", base, pairs, device, BATCH, **plain)),
    }
    found: dict[str, Any] = {}
    first = write_rows(work / "first.jsonl", training[:2])
    measured(ours("sft", base, first, device, 1, micro=1), work / "first")  # what is imported late is not measured
    for _ in range(repeat):
        for name, (count, train) in runs.items():
            output = work / re.sub(r"\W+", "-", name)
            one = measured(train, output)
            one["tokens_per_s"] = round(count / one["seconds"])
            if name.startswith("sft"):
                one["held_out_nats"] = round(held_out_loss(output, held_out, device), 4)
            if name not in found or one["seconds"] < found[name]["seconds"]:
                found[name] = one
            sys.stderr.write(f"{name}: {one}\n")
    found["untrained"] = {"held_out_nats": round(held_out_loss(base, held_out, device), 4)}
    return found


# ---- serving


@contextmanager
def server(command: Sequence[str], address: str) -> Iterator[str]:
    """A server, from when it answers until SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    httpx.get(f"{address}/health", timeout=5)
                    break
                except httpx.TransportError:
                    assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                    time.sleep(0.2)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def asked(address: str, model: str, requests: int, tokens: int) -> float:
    """Tokens per second of chats that are asked at once, after one that is not counted."""

    def ask(number: int) -> int:
        messages = [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}]
        body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=600)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["completion_tokens"])

    ask(0)
    began = time.perf_counter()
    with ThreadPoolExecutor(requests) as pool:
        count = sum(pool.map(ask, range(requests)))
    return count / (time.perf_counter() - began)


def generated(model: Path, requests: int, tokens: int, batch: int) -> float:
    """Tokens per second of plain `generate`, so many prompts in a batch."""
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    texts = [f"<|user|>\n{PROMPTS[number % len(PROMPTS)]}\n<|assistant|>\n" for number in range(requests)]
    began = time.perf_counter()
    for start in range(0, requests, batch):
        inputs = tokenizer(texts[start : start + batch], return_tensors="pt", padding=True)
        with torch.no_grad():
            network.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return requests * tokens / (time.perf_counter() - began)


def compare_serving(work: Path, requests: int, tokens: int) -> dict[str, float | None]:
    """Tokens per second of one model on the CPU."""
    model = make_model(work, hidden=128, layers=4)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = read_shipped("tulu")
    tokenizer.save_pretrained(model)
    port = free_port()
    scripts = Path(sys.executable).parent
    command = [str(scripts / "open-instruct"), "serve", str(model), "--port", str(port), "--device", "cpu"]
    found: dict[str, float | None] = {
        "generate, one at a time": generated(model, requests, tokens, 1),
        "generate, one batch": generated(model, requests, tokens, requests),
    }
    with server(command, f"http://127.0.0.1:{port}") as address:
        found["open-instruct serve"] = asked(address, model.name, requests, tokens)
    found["transformers serve"] = None
    if find_spec("fastapi"):
        port = free_port()
        options = ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
        with server([str(scripts / "transformers"), "serve", *options], f"http://127.0.0.1:{port}") as address:
            found["transformers serve"] = asked(address, str(model), requests, tokens)
    return {name: None if value is None else round(value, 1) for name, value in found.items()}


# ---- report


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, with the ratios that the targets are about."""
    training, serving = results["training"], results["serving"]
    lines = ["# open-instruct next to TRL and transformers", "", results["machine"], "", "## Training", ""]
    lines += ["| run | tokens/s | seconds | peak GB | held-out nats |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, one in training.items():
        cells = [str(one.get(key, "–")) for key in ("tokens_per_s", "seconds", "peak_gb", "held_out_nats")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ratio | tokens/s | target |", "| --- | ---: | ---: |"]
    for name, other, target in (
        ("sft, ours packed", "sft, TRL", 1.5),
        ("sft, ours packed", "sft, TRL without checkpointing", 1.5),
        ("dpo, ours", "dpo, TRL", 1.2),
        ("dpo, ours", "dpo, TRL without checkpointing", 1.2),
    ):
        ratio = training[name]["tokens_per_s"] / training[other]["tokens_per_s"]
        lines.append(f"| {name} / {other} | {ratio:.2f} | {target} |")
    lines += ["", "## Serving", "", "| server | tokens/s |", "| --- | ---: |"]
    lines += [f"| {name} | {'not installed' if value is None else value} |" for name, value in serving.items()]
    return "\n".join(lines) + "\n"


def bench() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256, help="chats, and pairs")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each, of which the fastest counts")
    parser.add_argument("--requests", type=int, default=16, help="chats at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device of the training")
    options = parser.parse_args()
    if "SHARED_DATA" not in os.environ:
        sys.stderr.write("SHARED_DATA is not set; nothing to train on (docs/guide/testing.md)\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        serving = compare_serving(work, options.requests, options.tokens)
        sys.stderr.write(f"{serving}\n")
        shared = Path(os.environ["SHARED_DATA"]) / "sft"
        training = compare_training(shared, work, options.device, options.rows, options.repeat)
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}; "
        f"{options.rows} rows, {options.requests} requests of {options.tokens} tokens"
    )
    results = {"machine": machine, "training": training, "serving": serving}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(table(results), encoding="utf-8")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    bench()
