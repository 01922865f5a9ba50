"""The report: one self-contained page from the artifacts of a demo run. `python demo/report.py WORK OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import tables
from artifact import Artifact
from catwalk.page import cards, document, element, table
from catwalk.report import dot_table
from olmo_trainer.line_chart import line_chart

CHANCE = {"sciq": 0.25, "arc_easy": 0.25, "arc_challenge": 0.25, "openbookqa": 0.25}
"""Accuracy of guessing; 0.5 for the other tasks, which have two choices."""


def data_section(work: Path) -> list[str]:
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
    about = "Every rule: the documents that it would drop by itself, and those that it dropped after the rules above."
    kept = table(["source", "gathered", "kept", "tokens"], sources, total=True)
    replaced = table(["span", "spans", "bytes"], spans)
    return [
        element("h2", "Data"),
        element("p", about),
        cards(
            element("h3", "Funnel") + table(["rule", "alone", "in order", "documents left", "MB left"], rows),
            element("h3", "Tokens by source") + kept + element("h3", "Spans replaced") + replaced,
        ),
    ]


def training_section(work: Path) -> list[str]:
    """Loss and bits-per-byte curves of pretraining."""
    rows = tables.read_lines(work / "run" / "metrics.jsonl")
    loss = [("loss", tables.thinned(tables.curve(rows, "train/CrossEntropyLoss")))]
    bits = list(tables.bits_per_byte_by_source(rows).items())
    return [
        element("h2", "Pretraining"),
        cards(
            line_chart("Training loss, nats per token", loss, "step"),
            line_chart("Held-out bits per byte, mean over the domains of a source", bits, "step"),
        ),
    ]


def task_section(results: dict[str, dict]) -> list[str]:
    """Accuracy of each model on each task with its interval."""
    by_task = {name: {task["task"]: task for task in result["tasks"]} for name, result in results.items()}
    tasks = sorted(by_task["base"])
    dots, lines = [], []
    for task in tasks:
        metrics = {name: by_task[name][task]["metrics"][by_task[name][task]["primary_metric"]] for name in results}
        ranges = [(name, metric["value"], 1.96 * metric["stderr"]) for name, metric in metrics.items()]
        dots.append([(name, value, max(0.0, value - half), min(1.0, value + half)) for name, value, half in ranges])
        entry = by_task["base"][task]
        line = [task, entry["primary_metric"].removeprefix("acc_"), entry["items"]]
        lines.append([*line, *(f"{value:.2f} ± {half:.2f}" for _, value, half in ranges)])
    about = "Zero-shot accuracy with 95 % intervals over items; the dashed lines are guessing. A model this small is "
    about += "expected to stay near them: the differences show the size of the noise."
    chance = [CHANCE.get(task, 0.5) for task in tasks]
    shown = dot_table(["task", "metric", "n", *results], lines, dots, text=2, references=chance)
    return [element("h2", "Tasks"), element("p", about), shown]


def domain_section(results: dict[str, dict]) -> list[str]:
    """Bits per byte of every held-out domain, before and after training."""
    bits = {name: tables.domain_bits(result) for name, result in results.items()}
    domains = sorted(bits["base"], key=lambda domain: bits["base"][domain])
    better = sum(bits["base"][domain] < bits["untrained"][domain] for domain in domains)
    by_source: dict[str, list[tuple[str, str]]] = {}
    for domain in domains:
        by_source.setdefault(domain[0], []).append(domain)
    lines = [
        [source, len(group), *(f"{sum(bits[name][d] for d in group) / len(group):.3f}" for name in bits)]
        for source, group in sorted(by_source.items())
    ]
    pooled = [f"{tables.pooled_bits(result):.3f}" for result in results.values()]
    lines.append(["pooled over bytes", len(domains), *pooled])
    about = (
        "Bits per byte on held-out documents (lower is better). Every domain has the same weight in the mean of its "
    )
    about += f"source. Training helped in {better} of {len(domains)} domains."
    ends = ("untrained", "base")
    dots = [[(name, *[bits[name][domain]] * 3) for name in ends] for domain in domains]
    rows = [[" / ".join(filter(None, domain)), *(f"{bits[name][domain]:.3f}" for name in ends)] for domain in domains]
    means = table(["source", "domains", *bits], lines, total=True)
    return [element("h2", "Domains"), element("p", about), means, dot_table(["domain", *ends], rows, dots)]


def adaptation_section(work: Path) -> list[str]:
    """Curves of SFT and DPO, and three chats."""
    sft = tables.read_lines(work / "sft" / "metrics.jsonl")
    dpo = tables.read_lines(work / "dpo" / "metrics.jsonl")
    answers = tables.read_lines(work / "answers" / "answers.jsonl")
    train, held_out = tables.thinned(tables.curve(sft, "train/loss")), tables.curve(sft, "eval/loss")
    accuracy = tables.curve(dpo, "eval/rewards/accuracies")
    pairs = int(tables.curve(dpo, "eval/rows")[-1][1])
    plain = tables.curve(dpo, "eval/logps/accuracies")
    low, high = tables.share_interval(accuracy[-1][1], pairs)
    losses = f"held-out chats: base {held_out[0][1]:.3f}, after SFT {held_out[-1][1]:.3f}"
    shares = "by reward (the gain over the model before DPO, so it begins at 0.5): "
    shares += f"{accuracy[0][1]:.3f} before, {accuracy[-1][1]:.3f} after (95 % interval {low:.3f} to {high:.3f}, "
    shares += f"n = {pairs}); by probability: {plain[0][1]:.3f} before, {plain[-1][1]:.3f} after"
    sft_chart = line_chart("SFT: nats per assistant token", [("training", train), ("held-out", held_out)], "step")
    title = "DPO: share of held-out pairs with the quoted answer preferred to the plain one"
    dpo_chart = line_chart(title, [("by reward", accuracy), ("by probability", plain)], "step")
    speakers = {"question": "user", "answer": "model", "reference": "reference answer"}
    chats = [
        "".join(element("p", who, "note") + element("pre", row[field]) for field, who in speakers.items())
        for row in answers
    ]
    return [
        element("h2", "Adaptation"),
        cards(sft_chart + element("p", losses, "note"), dpo_chart + element("p", shares, "note")),
        element("h3", "Three chats with the final model"),
        cards(*chats, width_rem=18),
    ]


def cost_section(work: Path) -> list[str]:
    """Time, memory and energy of each stage, and the lineage."""
    stages = tables.stage_costs(work)
    rows = []
    for stage in stages:
        joules = stage["energy_joules"]
        energy = "not measured" if joules is None else f"{joules / 3600:.2f} Wh"
        rows.append([stage["name"], f"{stage['seconds']:.1f} s", f"{stage['peak_memory_bytes'] / 1e9:.2f} GB", energy])
    seconds, peak = sum(s["seconds"] for s in stages), max(s["peak_memory_bytes"] for s in stages)
    rows.append(["all", f"{seconds:.1f} s", f"{peak / 1e9:.2f} GB", ""])
    lineage = element("h3", "Lineage, from the chat model to the source files")
    lineage += element("pre", tables.lineage(work, "dpo"))
    costs = table(["stage", "time", "peak memory", "energy"], rows, total=True)
    return [element("h2", "Cost"), cards(costs, lineage)]


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
        (" → ".join(f"{tables.pooled_bits(results[m]):.2f}" for m in ("untrained", "base")), "held-out bits per byte"),
    ]
    page = document(
        "From text to chat model",
        element("p", "Every number comes from the run's artifacts; the lineage at the end lists them.", "note"),
        cards(*(element("b", value) + element("span", name, "note") for value, name in facts), width_rem=9),
        *training_section(work),
        *data_section(work),
        *domain_section(results),
        *task_section(results),
        *adaptation_section(work),
        *cost_section(work),
    )
    artifact = Artifact(output, "report")
    for name in (*(f"scores/{model}" for model in results), "domains", "answers", "dpo"):
        artifact.add_artifact("results" if name.startswith("scores") else name, work / name)
    artifact.write_bytes("index.html", page.encode())
    artifact.finish(config={}, counts={"models": len(results)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
