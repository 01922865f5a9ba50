"""The whole chain on one machine: real text -> documents -> tokens -> model -> scores -> chat model -> one report.

This file is the table of contents: `stages()` lists every command in order, `run()` does what is not done yet. A stage
is done when its stamp names the same commands, settings and inputs as now and its outputs have the manifests they had
then; so a second run does nothing, a changed setting redoes what depends on it, and after a kill the next run goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from stage import Failed, Stage, Workplace

HERE = Path(__file__).resolve().parent
TASKS = ["sciq", "arc_easy", "arc_challenge", "boolq", "piqa", "copa", "winogrande", "openbookqa"]
ITEMS_PER_TASK = 200
VOCABULARY = 8192
SEED = 7


def stages(work: Workplace, corpus: list[str]) -> list[Stage]:
    """Every stage in order. Paths are relative to the work directory, which is where the commands run."""
    dolma, olmo, catwalk, paloma, instruct = (
        work.tool(n) for n in ("dolma", "olmo", "catwalk", "paloma", "open-instruct")
    )
    documents = "corpus/documents"
    options = ["--seed", SEED, "--bytes-per-domain", 10_000, "--splits", "test", "--whole-documents"]
    checkpoints = {"untrained": "untrained", "base": "base", "sft": "sft", "dpo": "dpo"}

    def score(name: str, expected_s: float) -> Stage:
        directory = checkpoints[name]
        command = [*catwalk, "run", "--model", directory, "--tasks", *TASKS, "--limit", ITEMS_PER_TASK, "--seed", SEED]
        command += ["--documents", "heldout/documents", "--output", f"scores/{name}"]
        return Stage(
            f"score {name}",
            [command],
            inputs=[directory, "heldout/documents"],
            outputs=[f"scores/{name}"],
            expected_s=expected_s,
        )

    return [
        Stage(
            "gather", [work.script("gather.py", "corpus", *corpus)], outputs=[documents], sources=corpus, expected_s=6
        ),
        Stage(
            "held-out text",
            [[*paloma, "build", "--documents", documents, "--output", "heldout/documents", *options]],
            inputs=[documents],
            outputs=["heldout/documents"],
            expected_s=2,
        ),
        Stage(
            "evaluation text",
            [[*catwalk, "documents", "--tasks", *TASKS, "--output", "evaluation"]],
            outputs=["evaluation/documents"],
            expected_s=3,
        ),
        Stage(
            "tag",
            [[*dolma, "-c", "configs/tag.yaml", "tag", "--processes", work.workers]],
            inputs=[documents],
            outputs=["corpus/attributes/rules"],
            configs=["tag.yaml"],
            expected_s=8,
        ),
        Stage(
            "dedupe",
            [[*dolma, "-c", "configs/dedupe.yaml", "dedupe", "--processes", work.workers]],
            inputs=[documents],
            outputs=["corpus/attributes/duplicates"],
            extra=["filters/duplicates.bin"],
            configs=["dedupe.yaml"],
            expected_s=2,
        ),
        Stage(
            "decontaminate",
            [
                [*dolma, "-c", f"configs/{step}-{unit}.yaml", "dedupe", "--processes", work.workers]
                for unit in ("documents", "paragraphs")
                for step in ("remember", "recognize")
            ],
            inputs=[documents, "heldout/documents", "evaluation/documents"],
            outputs=["corpus/attributes/held_out_documents", "corpus/attributes/held_out_paragraphs"],
            extra=[f"filters/held_out_{unit}.bin" for unit in ("documents", "paragraphs")]
            + [f"{root}/attributes" for root in ("heldout", "evaluation")],
            configs=[
                f"{step}-{unit}.yaml" for unit in ("documents", "paragraphs") for step in ("remember", "recognize")
            ],
            expected_s=4,
        ),
        Stage(
            "mix",
            [[*dolma, "-c", "configs/mix.yaml", "mix", "--processes", work.workers]],
            inputs=[documents]
            + [
                f"corpus/attributes/{name}"
                for name in ("rules", "duplicates", "held_out_documents", "held_out_paragraphs")
            ],
            outputs=["training"],
            configs=["mix.yaml"],
            expected_s=3,
        ),
        Stage(
            "tokenizer",
            [work.script("tokenizer.py", "training", "tokenizer", VOCABULARY)],
            inputs=["training"],
            outputs=["tokenizer"],
            expected_s=4,
        ),
        Stage(
            "tokens",
            [[*dolma, "-c", "configs/tokens.yaml", "tokens", "--processes", work.workers]],
            inputs=["training", "tokenizer"],
            outputs=["tokens"],
            configs=["tokens.yaml"],
            expected_s=2,
        ),
        Stage(
            "untrained model",
            [[*olmo, "init", "configs/train.yaml", "untrained"]],
            inputs=["tokens"],
            outputs=["untrained"],
            configs=["train.yaml"],
            expected_s=4,
        ),
        Stage(
            "train",
            [[*olmo, "train", "configs/train.yaml"], [*olmo, "export", "run", "base"]],
            inputs=["tokens", "heldout/documents"],
            outputs=["base"],
            extra=["run"],
            configs=["train.yaml"],
            expected_s=240,
        ),
        score("untrained", 25),
        score("base", 25),
        Stage(
            "chats",
            [work.script("chats.py", "conversations", "training", "heldout/documents")],
            inputs=["training", "heldout/documents"],
            outputs=[
                f"conversations/{kind}/{split}" for kind in ("chats", "preferences") for split in ("train", "heldout")
            ],
            expected_s=3,
        ),
        Stage(
            "sft",
            [[*instruct, "sft", "configs/sft.yaml"]],
            inputs=["base", "conversations/chats/train", "conversations/chats/heldout"],
            outputs=["sft"],
            configs=["sft.yaml"],
            expected_s=50,
        ),
        Stage(
            "dpo",
            [[*instruct, "dpo", "configs/dpo.yaml"]],
            inputs=["sft", "conversations/preferences/train", "conversations/preferences/heldout"],
            outputs=["dpo"],
            configs=["dpo.yaml"],
            expected_s=50,
        ),
        score("sft", 25),
        score("dpo", 25),
        Stage(
            "aggregate",
            [[*paloma, "aggregate", *(f"scores/{name}" for name in checkpoints), "--output", "domains"]],
            inputs=[f"scores/{name}" for name in checkpoints],
            outputs=["domains"],
            expected_s=2,
        ),
        Stage(
            "three answers",
            [work.script("answers.py", "dpo", "conversations/chats/heldout", "answers", *instruct)],
            inputs=["dpo", "conversations/chats/heldout"],
            outputs=["answers"],
            expected_s=15,
        ),
        Stage(
            "report",
            [work.script("report.py", ".", "report")],
            inputs=["domains", "answers", *(f"scores/{name}" for name in checkpoints)],
            outputs=["report"],
            scripts=["charts.py", "tables.py", "page.css"],
            expected_s=3,
        ),
    ]


def run(work: Workplace, corpus: list[str]) -> Path:
    """Do every stage that is not done; return the report's path.

    Raises Failed: when a stage's command fails or leaves no whole output.
    """
    plan = stages(work, corpus)
    missing = [stage for stage in plan if not work.is_done(stage)]
    expected = sum(stage.expected_s for stage in missing)
    started, pace = time.monotonic(), 1.0
    for number, stage in enumerate(plan, 1):
        if work.is_done(stage):
            work.say(f"[{number:2}/{len(plan)}] {stage.name}: done before")
            continue
        remaining = sum(s.expected_s for s in plan[number - 1 :] if not work.is_done(s))
        work.say(f"[{number:2}/{len(plan)}] {stage.name}  (eta of the whole {pace * remaining / 60:.1f} min)")
        work.perform(stage)
        behind = expected - remaining + stage.expected_s
        pace = (time.monotonic() - started) / max(behind, 1.0)
    return work.directory / "report" / "index.html"


def main() -> int:
    """The command: 0 done, 1 a stage failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=HERE / "work", help="where everything is written (default: demo/work)"
    )
    parser.add_argument(
        "--corpus", nargs="*", default=[], help="directories or files of documents instead of the Python installation"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of the data stages; the results do not depend on it"
    )
    arguments = parser.parse_args()
    corpus = [str(Path(path).resolve()) for path in arguments.corpus]
    for path in corpus:
        if not Path(path).exists():
            sys.stderr.write(f"error: CORPUS: {path} does not exist; expected a directory or file of documents\n")
            return 2
    if shutil.disk_usage(HERE).free < 2e9:
        sys.stderr.write("error: less than 2 GB of disk are free; expected room for the demo's artifacts\n")
        return 1
    try:
        work = Workplace(arguments.work.resolve(), HERE, arguments.workers)
        report = run(work, corpus)
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `make demo` goes on from here\n")
        return 1
    sys.stdout.write(f"report: {report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
