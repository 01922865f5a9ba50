"""The report: one self-contained page from the artifacts of a demo run. `python demo/report.py WORK OUTPUT`."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from pathlib import Path

import charts
import tables
from artifact import Artifact

CHANCE = {"sciq": 0.25, "arc_easy": 0.25, "arc_challenge": 0.25, "openbookqa": 0.25}
"""Accuracy of guessing; 0.5 for the other tasks, which have two choices."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers have thousands separators."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def cell(value: object) -> str:
    """One value as text."""
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def card(*parts: str) -> str:
    """A box around parts of a section."""
    return f'<div class="card">{"".join(parts)}</div>'


def data_section(work: Path) -> str:
    """The funnel of documents per rule, and token counts by source."""
    [stream] = tables.read_lines(work / "training" / ".dolma" / "funnel.ndjson")
    rows: list[list[object]] = [["gathered", "", "", stream["documents_in"], f"{stream['bytes_in'] / 1e6:.2f}"]]
    documents, size = stream["documents_in"], stream["bytes_in"]
    for rule in stream["rules"]:
        documents, size = documents - rule["documents_in_order"], size - rule["bytes_in_order"]
        dropped = [rule["documents_alone"], rule["documents_in_order"]]
        rows.append([tables.rule_name(rule["rule"]), *dropped, documents, f"{size / 1e6:.2f}"])
    spans = [[tables.rule_name(s["span"]), s["spans"], s["bytes"]] for s in stream["span_replacements"]]
    tokens = tables.tokens_by_source(work)
    sources = [
        [name, *(stream["sources"][name][key] for key in ("documents_in", "documents_out")), tokens[name]["tokens"]]
        for name in sorted(tokens)
    ]
    sources.append(["all", "", "", sum(count["tokens"] for count in tokens.values())])
    return (
        "<h2>Data</h2><p>For every rule: how many documents it would drop <i>alone</i>, and how many it dropped "
        "<i>in order</i>, after the rules above it.</p><div class='pair'>"
        + card("<h3>Funnel</h3>", table(["rule", "alone", "in order", "documents left", "MB left"], rows))
        + "<div>"
        + card("<h3>Tokens by source</h3>", table(["source", "gathered", "kept", "tokens"], sources))
        + "<br>"
        + card(f"<h3>Spans replaced</h3>{table(['span', 'spans', 'bytes'], spans)}")
        + "</div></div>"
    )


def training_section(work: Path) -> str:
    """Loss and bits-per-byte curves of pretraining."""
    rows = tables.read_lines(work / "run" / "metrics.jsonl")
    loss = tables.thinned(tables.curve(rows, "train/CrossEntropyLoss"))
    bits = tables.bits_per_byte_by_source(rows)
    return (
        "<h2>Pretraining</h2><div class='pair'>"
        + card("<h3>Training loss, nats per token</h3>", charts.line_chart({"loss": loss}, "step", "nats per token"))
        + card(
            "<h3>Held-out bits per byte, mean over the domains of a source</h3>",
            charts.line_chart(bits, "step", "bits per byte"),
        )
        + "</div>"
    )


def task_section(results: dict[str, dict]) -> str:
    """Accuracy of each model on each task with its interval."""
    names = list(results)
    by_task = {name: {task["task"]: task for task in result["tasks"]} for name, result in results.items()}
    tasks = sorted(by_task[names[0]])
    rows, lines = [], []
    for task in tasks:
        values: list[tuple[float, float] | None] = []
        line: list[object] = [
            task,
            by_task[names[0]][task]["items"],
            by_task[names[0]][task]["primary_metric"].removeprefix("acc_"),
        ]
        for name in names:
            entry = by_task[name][task]
            metric = entry["metrics"][entry["primary_metric"]]
            values.append((metric["value"], metric["stderr"]))
            line.append(f"{metric['value']:.2f} ± {1.96 * metric['stderr']:.2f}")
        rows.append((task, values))
        lines.append(line)
    picture = charts.interval_chart(rows, names, [CHANCE.get(task, 0.5) for task in tasks])
    return (
        "<h2>Tasks</h2><p>Zero-shot accuracy with 95 % intervals over items; the dashed lines are guessing. A model so "
        "small is expected to stay near them: the differences show the size of the noise.</p><div class='pair'>"
        + card(picture)
        + card(table(["task", "n", "metric", *names], lines))
        + "</div>"
    )


def domain_section(results: dict[str, dict]) -> str:
    """Bits per byte of every held-out domain, before and after training."""
    bits = {name: tables.domain_bits(result) for name, result in results.items()}
    domains = sorted(bits["base"], key=lambda domain: bits["base"][domain])
    rows = [(" / ".join(part for part in d if part), [bits["untrained"][d], bits["base"][d]]) for d in domains]
    better = sum(base < untrained for _, (untrained, base) in rows)
    by_source: dict[str, list[tuple[str, str]]] = {}
    for domain in domains:
        by_source.setdefault(domain[0], []).append(domain)
    lines = [
        [source, len(group), *(f"{sum(bits[name][d] for d in group) / len(group):.3f}" for name in bits)]
        for source, group in sorted(by_source.items())
    ]
    lines.append(
        ["pooled over bytes", len(domains), *(f"{tables.pooled_bits(result):.3f}" for result in results.values())]
    )
    return (
        f"<h2>Domains</h2><p>Bits per byte on held-out documents (lower is better). Training helped in {better} of "
        f"{len(rows)} "
        "domains. Every domain has the same weight in the mean of its source.</p><div class='pair'>"
        + card(charts.pair_chart(rows, ["untrained", "base"], "bits per byte"))
        + card(table(["source", "domains", *bits], lines))
        + "</div>"
    )


def adaptation_section(work: Path) -> str:
    """Curves of SFT and DPO, and three chats."""
    sft = tables.read_lines(work / "sft" / "metrics.jsonl")
    dpo = tables.read_lines(work / "dpo" / "metrics.jsonl")
    answers = tables.read_lines(work / "answers" / "answers.jsonl")
    train, held_out = tables.thinned(tables.curve(sft, "train/loss")), tables.curve(sft, "eval/loss")
    accuracy = tables.curve(dpo, "eval/rewards/accuracies")
    pairs = int(tables.curve(dpo, "eval/rows")[-1][1])
    plain = tables.curve(dpo, "eval/logps/accuracies")
    low, high = tables.share_interval(accuracy[-1][1], pairs)
    chats = "".join(
        f'<div class="chat"><div class="who">user</div><pre>{html.escape(row["question"])}</pre>'
        f'<div class="who">model</div><pre>{html.escape(row["answer"])}</pre>'
        f'<div class="who">reference answer</div><pre>{html.escape(row["reference"])}</pre></div>'
        for row in answers
    )
    return (
        "<h2>Adaptation</h2><div class='pair'>"
        + card(
            "<h3>SFT: nats per assistant token</h3>",
            charts.line_chart({"training": train, "held-out": held_out}, "step", "nats per token"),
            f'<p class="note">held-out chats: base {held_out[0][1]:.3f}, after SFT {held_out[-1][1]:.3f}</p>',
        )
        + card(
            "<h3>DPO: share of held-out pairs with the quoted answer preferred to the plain one</h3>",
            charts.line_chart({"by reward": accuracy, "by probability": plain}, "step", "share of pairs"),
            f'<p class="note">by reward (the gain over the model before DPO, so it begins at 0.5): '
            f"{accuracy[0][1]:.3f} before, {accuracy[-1][1]:.3f} after "
            f"(95 % interval {low:.3f} to {high:.3f}, n = {pairs}); "
            f"by probability: {plain[0][1]:.3f} before, {plain[-1][1]:.3f} after</p>",
        )
        + "</div><h3>Three chats with the final model</h3>"
        + card(chats)
    )


def cost_section(work: Path) -> str:
    """Time, memory and energy of each stage, and the lineage."""
    stages = tables.stage_costs(work)
    rows = []
    for stage in stages:
        joules = stage["energy_joules"]
        energy = "not measured" if joules is None else f"{joules / 3600:.2f} Wh"
        rows.append([stage["name"], f"{stage['seconds']:.1f} s", f"{stage['peak_memory_bytes'] / 1e9:.2f} GB", energy])
    rows.append(
        [
            "all",
            f"{sum(s['seconds'] for s in stages):.1f} s",
            f"{max(s['peak_memory_bytes'] for s in stages) / 1e9:.2f} GB",
            "",
        ]
    )
    return (
        "<h2>Cost</h2><div class='pair'>"
        + card(table(["stage", "time", "peak memory", "energy"], rows))
        + card(
            "<h3>Lineage, from the chat model to the source files</h3>",
            f"<pre>{html.escape(tables.lineage(work, 'dpo'))}</pre>",
        )
        + "</div>"
    )


def main(work: Path, output: Path) -> None:
    """Write `index.html` and its manifest."""
    results = tables.scores(work)
    model = results["base"]["model"]
    tokens = tables.read_json(work / "tokens" / "manifest.json")["counts"]
    seen = tables.read_json(work / "base" / "manifest.json")["details"]["tokens_seen"]
    facts = [
        (f"{tokens['documents']:,}", "documents after curation"),
        (f"{tokens['tokens'] / 1e6:.2f} M", "tokens in the shards"),
        (f"{seen / 1e6:.2f} M", "tokens trained on"),
        (f"{model['parameters'] / 1e6:.2f} M", "parameters"),
        (
            f"{tables.pooled_bits(results['untrained']):.2f} → {tables.pooled_bits(results['base']):.2f}",
            "held-out bits per byte",
        ),
    ]
    boxes = "".join(f'<div class="fact"><b>{value}</b><span>{name}</span></div>' for value, name in facts)
    style = (Path(__file__).parent / "page.css").read_text("utf-8")
    body = "".join(
        [
            data_section(work),
            training_section(work),
            domain_section(results),
            task_section(results),
            adaptation_section(work),
            cost_section(work),
        ]
    )
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>From text to chat model</title><style>{style}</style></head><body><h1>From text to chat model</h1>"
        "<p class='note'>Every number comes from the run's artifacts; the lineage at the end lists them.</p>"
        f"<div class='facts'>{boxes}</div>{body}</body></html>\n"
    )
    artifact = Artifact(output, "report")
    for name in (*(f"scores/{model}" for model in results), "domains", "answers", "dpo"):
        artifact.add_artifact("results" if name.startswith("scores") else name, work / name)
    artifact.write_bytes("index.html", page.encode())
    artifact.finish(config={}, counts={"models": len(results)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
