"""Time the engine next to lm-evaluation-harness on the same texts: `make bench`, or `python bench/run.py`.

Both get the same (context, continuation) pairs of real tasks and the same model, in turn, and the log-probabilities are
compared. lm-evaluation-harness runs with its best settings: the fastest of a few batch sizes, and its `logits_cache`.
The limit is the bare model on as many tokens as our plan computes, in full batches. Writes results.json and results.md
next to this file.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from catwalk.backends.huggingface import HuggingFace
from catwalk.items import load_items, locate
from catwalk.model.plan import forward_tokens
from catwalk.requests import encode_pairs, item_pairs
from catwalk.tasks import TASK_SETS, TASKS
from catwalk.types import Pair, Prompt

HERE = Path(__file__).parent
FIVE_SHOT = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande")
TARGETS = {"zero-shot": 3.0, "5-shot": 5.0, "MMLU 5-shot letters": 4.0, "perplexity": 1.3, "generation": 1.0}
STEMS = ("abstract_algebra", "anatomy", "astronomy")


# ---- texts


def five_shot(data: Path, items: int) -> list[Pair]:
    """OLMES' 5-shot prompts of the core tasks, from the request sets."""
    pairs = []
    for task in FIVE_SHOT:
        rows = read(data / "eval/olmes_requests" / task / "rc_5shot/requests.jsonl.gz")
        conditional = [row for row in rows if row["doc_id"] < 1_000_000]
        chosen = set(list(dict.fromkeys(row["doc_id"] for row in conditional))[:items])
        requests = [row["request"] for row in conditional if row["doc_id"] in chosen]
        pairs += [Pair(context=one["context"], continuation=one["continuation"]) for one in requests]
    return pairs


def zero_shot(data: Path, items: int) -> list[Pair]:
    """OLMo's zero-shot prompts, with the unconditional requests."""
    pairs = []
    for name in TASK_SETS["core8"]:
        task = TASKS[name]
        for item in load_items(task, locate(task, data / "eval"))[:items]:
            pairs += item_pairs(item)
    return pairs


def mmlu_letters(data: Path, items: int) -> list[Pair]:
    """Three subjects of MMLU: five examples, four lettered choices."""
    shots, rows = read(data / "eval/mmlu/dev.jsonl.gz"), read(data / "eval/mmlu/validation.jsonl.gz")

    def ask(row: dict[str, Any]) -> str:
        lettered = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", row["choices"], strict=True))
        return f"{row['question'].strip()}\n{lettered}Answer:"

    pairs = []
    for subject in STEMS:
        examples = [f"{ask(row)} {'ABCD'[row['answer']]}\n\n" for row in shots if row["subject"] == subject]
        title = f"The following are multiple choice questions about {subject.replace('_', ' ')}.\n\n"
        for row in [row for row in rows if row["subject"] == subject][:items]:
            context = title + "".join(examples) + ask(row)
            pairs += [Pair(context=context, continuation=f" {letter}") for letter in "ABCD"]
    return pairs


def documents(data: Path, size_chars: int) -> list[str]:
    """Documents of the perplexity sources, up to a size."""
    texts: list[str] = []
    for path in sorted((data / "ppl").rglob("*.jsonl.gz")):
        texts += [row["text"] for row in read(path)[:6] if row["text"].strip()]
    total, kept = 0, []
    for text in texts:
        if total < size_chars:
            kept.append(text)
            total += len(text)
    return kept


def prompts(data: Path, items: int) -> list[Prompt]:
    """Questions of GSM8K after one example."""
    rows = read(next(iter(sorted((data / "eval/gsm8k").glob("*.jsonl.gz")))))
    shot = "Question: Two hens lay three eggs each. How many eggs?\nAnswer: 2 times 3 is 6. The answer is 6.\n\n"
    return [
        Prompt(text=f"{shot}Question: {row['question']}\nAnswer:", stop=("\n\n",), max_tokens=48)
        for row in rows[:items]
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ---- models


def make_model(kind: str, directory: Path, tokenizer: Path) -> Path:
    """A random model of about 77 million parameters with the vocabulary of GPT-NeoX."""
    directory.mkdir()
    sizes = {"vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
    sizes |= {"num_attention_heads": 8, "max_position_embeddings": 2048, "eos_token_id": 0, "bos_token_id": None}
    kinds = {"llama": transformers.LlamaConfig, "olmo2": transformers.Olmo2Config}
    torch.manual_seed(0)
    config = kinds[kind](**sizes, pad_token_id=None, tie_word_embeddings=False)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token="<|endoftext|>")
    wrapped.save_pretrained(directory)
    return directory


class Peer:
    """lm-evaluation-harness's HFLM on the same model."""

    def __init__(self, directory: Path, device: str, batch_size: int | str) -> None:
        from lm_eval.models.huggingface import HFLM

        self.lm = HFLM(
            pretrained=str(directory), device=device, batch_size=batch_size, dtype="float32", logits_cache=True
        )

    def score(self, pairs: list[Pair]) -> list[float]:
        return [one[0] for one in self.lm.loglikelihood(self.instances(pairs), disable_tqdm=True)]

    def perplexity(self, texts: list[str]) -> list[float]:
        from lm_eval.api.instance import Instance

        asked = [
            Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=index)
            for index, text in enumerate(texts)
        ]
        return list(self.lm.loglikelihood_rolling(asked, disable_tqdm=True))

    def generate(self, asked: list[Prompt]) -> list[str]:
        from lm_eval.api.instance import Instance

        settings = [{"until": list(one.stop), "max_gen_toks": one.max_tokens, "do_sample": False} for one in asked]
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(one.text, given), idx=index)
            for index, (one, given) in enumerate(zip(asked, settings, strict=True))
        ]
        return list(self.lm.generate_until(requests, disable_tqdm=True))

    @staticmethod
    def instances(pairs: list[Pair]) -> list[Any]:
        from lm_eval.api.instance import Instance

        return [
            Instance(request_type="loglikelihood", doc={}, arguments=(pair.context, pair.continuation), idx=index)
            for index, pair in enumerate(pairs)
        ]


# ---- measuring


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def bare_forward_s(backend: HuggingFace, tokens: int) -> float:
    """Wall seconds of the bare decoder on so many tokens, in full causal batches."""
    scorer = backend.scorer
    rows, length = max(1, backend.batch_tokens // 128), 128
    batch = torch.randint(0, scorer.vocab_size, (rows, length), device=scorer.device)
    with torch.inference_mode():
        scorer.model.get_decoder()(batch, use_cache=False)
        started = time.perf_counter()
        count = max(1, min(8, tokens // batch.numel()))
        for _ in range(count):
            scorer.model.get_decoder()(batch, use_cache=False)
        if scorer.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / (count * batch.numel()) * tokens


def plan_figures(backend: HuggingFace, pairs: list[Pair]) -> dict[str, float]:
    """Tokens that our plan computes, and that separate rows would; the share of padding."""
    encoded = encode_pairs(pairs, backend.tokenizer, backend.tokenizer.prefix_id(backend.prefix), 2048)
    shared = backend.scorer.plan(encoded.requests)
    separate = replace(backend.scorer, limits=replace(backend.scorer.limits, packed_length=0, copies=False))
    real = sum(len(row.tokens) for batch in shared for row in batch.rows)
    return {
        "requests": len(encoded.requests),
        "forward_tokens": forward_tokens(shared),
        "forward_tokens_separate": forward_tokens(separate.plan(encoded.requests)),
        "padding_share": 1 - real / sum(batch.size_tokens for batch in shared),
    }


def compare(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, difference: Callable[[Any, Any], float]
) -> dict[str, Any]:
    """Both in turn; the best of each."""
    best = {"ours": (float("inf"), 0.0), "theirs": (float("inf"), 0.0)}
    found = {}
    for _ in range(rounds):
        for who, work in (("ours", ours), ("theirs", theirs)):
            found[who], wall_s, cpu_s = timed(work)
            best[who] = min(best[who], (wall_s, cpu_s))
    ratio = best["theirs"][0] / best["ours"][0]
    sys.stderr.write(f"{name}: {best['ours'][0]:.1f} s, lm-eval {best['theirs'][0]:.1f} s, {ratio:.1f} times\n")
    return {
        "work": name,
        "ours_s": best["ours"][0],
        "theirs_s": best["theirs"][0],
        "ours_cpu_s": best["ours"][1],
        "theirs_cpu_s": best["theirs"][1],
        "ratio": ratio,
        "largest_difference": difference(found["ours"], found["theirs"]),
    }


def best_batch_size(directory: Path, device: str, pairs: list[Pair]) -> int | str:
    """The fastest of a few on a sample; `auto` on a GPU."""
    if device.startswith("cuda"):
        return "auto"
    times = {}
    for size in (1, 4, 16):
        peer = Peer(directory, device, size)
        times[size] = timed(partial(peer.score, pairs))[1]
    return min(times, key=lambda size: times[size])


def measure(kind: str, directory: Path, data: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one model."""
    backend = HuggingFace(directory, device=options.device)
    backend.scorer  # noqa: B018 loads the model
    works = {
        "zero-shot": zero_shot(data, options.items),
        "5-shot": five_shot(data, max(1, options.items // 2)),
        "MMLU 5-shot letters": mmlu_letters(data, options.items),
    }
    size = best_batch_size(directory, options.device, works["zero-shot"][:: max(1, len(works["zero-shot"]) // 80)])
    peer = Peer(directory, options.device, size)

    def largest(first: list[float], second: list[float]) -> float:
        return max(abs(one - other) for one, other in zip(first, second, strict=True))

    rows = []
    for name, pairs in works.items():
        row = compare(
            name,
            lambda pairs=pairs: [one.sum_logprob for one in backend.score(pairs)],
            lambda pairs=pairs: peer.score(pairs),
            options.rounds,
            largest,
        )
        row |= plan_figures(backend, pairs)
        row["limit_s"] = bare_forward_s(backend, int(row["forward_tokens"]))
        rows.append(row)
    texts = documents(data, options.items * 4000)
    rows.append(
        compare(
            "perplexity",
            lambda: backend.documents(texts),
            lambda: peer.perplexity(texts),
            options.rounds,
            # of a token: a document of thousands adds up as many roundings
            lambda first, second: largest(
                [one.sum_logprob / one.tokens for one in first],
                [total / one.tokens for one, total in zip(first, second, strict=True)],
            ),
        )
    )
    asked = prompts(data, options.items)
    rows.append(
        compare(
            "generation",
            lambda: backend.generate(asked),
            lambda: peer.generate(asked),
            options.rounds,
            lambda first, second: float(sum(one != other for one, other in zip(first, second, strict=True))),
        )
    )
    for row in rows:
        target = TARGETS[row["work"]]
        row |= {"model": kind, "lm_eval_batch_size": size, "target": target, "met": row["ratio"] >= target}
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "# catwalk compared with lm-evaluation-harness",
        "",
        "Seconds of one call, the best of the rounds, on the same texts and model. *Limit* is the bare decoder on the",
        "tokens of our plan, in full batches, without logits. *Difference* is the largest of a log-probability, for",
        "perplexity of a token; for generation it counts other texts.",
        "",
        "| model | work | ours, s | lm-eval, s | ratio | target | met | difference | requests/s | forward tokens "
        "| separate | padding | limit, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["model"], row["work"], f"{row['ours_s']:.2f}", f"{row['theirs_s']:.2f}", f"{row['ratio']:.1f}×"]
        cells += [f"{row['target']:g}×", "yes" if row["met"] else "no", f"{row['largest_difference']:.2g}"]
        if "requests" in row:
            cells += [f"{row['requests'] / row['ours_s']:,.0f}", f"{row['forward_tokens']:,}"]
            cells += [f"{row['forward_tokens_separate']:,}", f"{row['padding_share']:.0%}", f"{row['limit_s']:.2f}"]
        else:
            cells += [""] * 5
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print the table, write results.json and results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20, help="items of a task (default: 20)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, in turn (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--model", type=Path, help="a checkpoint directory to measure besides the random models")
    parser.add_argument("--only", nargs="+", choices=("llama", "olmo2"), default=["llama", "olmo2"])
    options = parser.parse_args()
    if "SHARED_DATA" not in os.environ or find_spec("lm_eval") is None:
        sys.stderr.write("error: SHARED_DATA or lm_eval not found; expected both\nhint: docs/guide/testing.md\n")
        return 2
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    data = Path(os.environ["SHARED_DATA"])
    tokenizer = data / "tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = {kind: make_model(kind, Path(folder) / kind, tokenizer) for kind in options.only}
        if options.model:
            models[options.model.name] = options.model
        for kind, directory in models.items():
            rows += measure(kind, directory, data, options)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__}
    about |= {"python": platform.python_version(), "peak_mb": peak_mb, "device": options.device, "items": options.items}
    text = table(rows) + "\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + "\n"
    (HERE / "results.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
