"""Write results.json and results.md of the bench."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from loader import tables

__all__ = ["write_report"]


def write_report(results: dict[str, Any], folder: Path) -> str:
    """Write both files; returns the text of the second."""
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = "\n".join(_lines(results)) + "\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def _lines(results: dict[str, Any]) -> list[str]:
    machine, monitoring = results["machine"], results["monitoring"]
    compiled = "torch.compile for all" if machine["compile"] else "no trainer compiled"
    setting = f"batches of {machine['batch']} windows, {machine['dtype']}, {machine['threads']} threads, {compiled}"
    place = f"{machine['device']}, {machine['cores']} cores, load {machine['load_at_start']} at the start"
    software = f"Python {machine['python']}, torch {machine['torch']}"
    heads = "shape|length|trainer|parameters|tokens/s, best|median|ratio|tokens per CPU s|ratio|share of peak|nats"
    heads = heads.split("|")
    lines = [
        "# Training speed compared with olmo-core, litgpt and Hugging Face's Trainer",
        "",
        f"`{machine['command']}`: {setting}; {machine['steps']} steps of each trainer, in turn. Measured on {place}, "
        f"{software}, in {machine['seconds']} s.",
        "",
        "Every trainer runs its own loop (ours: `olmo train` with its default monitoring), with torch's fused AdamW "
        "and gradients clipped to norm 1.0. litgpt and olmo-core compile in their scripts; `--compile` compiles all.",
        "",
        "- Ratios are of the medians, to the best peer.",
        "- Tokens per CPU second depend least on other work of the machine.",
        "- Share of the peak: relative to the best rate of square matrix products in the same minutes, with FLOPs "
        "counted as in model/architecture.py.",
        "- Nats: on the training batch, before and after.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    rows = results["speeds"]
    for row in rows:
        same_shape = [r for r in rows if (r["preset"], r["length"]) == (row["preset"], row["length"])]
        best, middle, of_cpu = _rates(row)
        peers = [_rates(other) for other in same_shape if other["trainer"] != "ours"]
        ratios = ["", ""]
        if row["trainer"] == "ours" and peers:
            ratios = [f"{mine / max(rate[i] for rate in peers):.2f}×" for i, mine in ((1, middle), (2, of_cpu))]
        share = f"{100 * row['flops_per_token'] * best / row['peak_flops']:.0f} %" if row["peak_flops"] else "unknown"
        name = "**ours**" if row["trainer"] == "ours" else f"{row['trainer']} {row['version']}"
        cells = [row["preset"], row["length"], name, f"{row['parameters']:,}", f"{best:,.0f}", f"{middle:,.0f}"]
        cells += [ratios[0], f"{of_cpu:,.0f}", ratios[1], share, f"{row['nats'][0]:.2f} → {row['nats'][1]:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    peaks = sorted({row["peak_flops"] / 1e9 for row in rows if row["peak_flops"]})
    lines += ["", f"Peak: {', '.join(f'{peak:.0f}' for peak in peaks)} GFLOP/s."] if peaks else []
    if monitoring:
        lines += [
            "",
            "## Monitoring",
            "",
            f"Judging steps, rows and console lines take {1e3 * monitoring['every_step_s']:.1f} ms per step, "
            f"statistics of all tensors {1e3 * monitoring['statistics_s']:.0f} ms in one step of 50: "
            f"{100 * monitoring['share']:.2f} % of a step of {monitoring['step_s']:.2f} s (target: below 2 %). Steps "
            f"with all monitoring except statistics, compared with steps without any, in turn: "
            f"{100 * monitoring['difference_of_medians']:+.1f} % (medians).",
            "",
            f"Waiting for data: {100 * monitoring['waiting_share']:.3f} % of a step (target: below 2 %).",
        ]
    if results["loader"]:
        lines += ["", "## Loader", "", "Windows of 2048 uint16 tokens in shuffled order, batches of 64.", ""]
        lines += tables(results["loader"])
    if not machine["device"].startswith("NVIDIA"):
        lines += ["", "It has not been run on a GPU, so there is no MFU figure."]
    return lines


def _rates(row: dict[str, Any]) -> tuple[float, float, float]:
    """Tokens per second, best and median, and median tokens per CPU second."""
    tokens = row["tokens"]
    seconds, of_cpu = row["seconds"], row["cpu_seconds"]
    return tokens / min(seconds), tokens / statistics.median(seconds), tokens / statistics.median(of_cpu)
