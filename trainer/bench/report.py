"""results.json and results.md of the bench."""

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
    heads = "shape|length|trainer|parameters|tokens/s, best|median|ratio|tokens a CPU s|ratio|of the peak|nats".split(
        "|"
    )
    lines = [
        "# Training speed beside olmo-core, litgpt and Hugging Face's Trainer",
        "",
        f"`{machine['command']}`: {setting}; {machine['steps']} steps of each trainer, in turn. Measured on {place}, "
        f"{software}, in {machine['seconds']} s.",
        "",
        "Every trainer runs its own loop (ours: `olmo train` with its default monitoring), AdamW by torch's fused "
        "kernel, the bound 1.0 on the gradient's norm. litgpt and olmo-core compile in their scripts; `--compile` has "
        "all do so. Ratios are of the medians, to the best peer. Tokens a CPU second depend least on what else the "
        "machine does. Of the peak: share of the best rate of square matrix products found in the same minutes, "
        "FLOPs counted as model/architecture.py does. Nats: on the batch that is trained on, before and after.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    rows = results["speeds"]
    for row in rows:
        beside = [r for r in rows if (r["preset"], r["length"]) == (row["preset"], row["length"])]
        best, middle, of_cpu = _rates(row)
        peers = [_rates(other) for other in beside if other["trainer"] != "ours"]
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
            f"Judging, rows and lines take {1e3 * monitoring['every_step_s']:.1f} ms a step, statistics of all tensors "
            f"{1e3 * monitoring['statistics_s']:.0f} ms in one step of 50: {100 * monitoring['share']:.2f} % of a step "
            f"of {monitoring['step_s']:.2f} s (bar: 2 %). Steps with all but statistics beside steps without any, in "
            f"turn: {100 * monitoring['difference_of_medians']:+.1f} % by medians.",
            f"Waiting for data: {100 * monitoring['waiting_share']:.3f} % of a step (bar: 2 %).",
        ]
    if results["loader"]:
        lines += ["", "## Loader", "", "Windows of 2048 uint16 tokens in shuffled order, batches of 64.", ""]
        lines += tables(results["loader"])
    if not machine["device"].startswith("NVIDIA"):
        lines += ["", "On a GPU it has not been run: no figure of MFU is claimed."]
    return lines


def _rates(row: dict[str, Any]) -> tuple[float, float, float]:
    """Tokens a second, best and median, and tokens a CPU second, median."""
    tokens = row["tokens"]
    seconds, of_cpu = row["seconds"], row["cpu_seconds"]
    return tokens / min(seconds), tokens / statistics.median(seconds), tokens / statistics.median(of_cpu)
