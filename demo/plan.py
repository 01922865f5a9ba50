"""Every stage of the demo in order: its commands, what they read and what they write."""

from __future__ import annotations

import dataclasses

from stage import Stage, Workplace
from tables import MODELS

TASKS = ["sciq", "arc_easy", "arc_challenge", "boolq", "piqa", "copa", "winogrande", "openbookqa"]
VOCABULARY = 8192
SEED = 7


@dataclasses.dataclass(frozen=True)
class Size:
    """How much each expensive stage does; an empty list leaves the settings files as they are."""

    items_per_task: int = 150
    train: tuple[str, ...] = ()
    adapt: tuple[str, ...] = ()


QUICK = Size(
    items_per_task=8,
    train=("train.steps=16", "schedule.warmup=4", "validation.every_steps=8", "checkpoint.every_steps=8"),
    adapt=("training.max_steps=6", "training.eval_every_steps=3"),
)
"""Enough to check that every stage runs; the models learn nothing."""


def stages(work: Workplace, corpus: list[str], size: Size) -> list[Stage]:
    """Every stage in order. Paths are relative to the work directory, which is where the commands run.

    `expected_s` is the processor time that a stage took on 2026-11-30, divided by the cores that it keeps busy.
    """
    dolma, olmo, catwalk, paloma, instruct = (
        work.tool(n) for n in ("dolma", "olmo", "catwalk", "paloma", "open-instruct")
    )
    documents = "corpus/documents"
    held_out, scores = "heldout/documents", [f"scores/{model}" for model in MODELS]
    tagged = [
        f"corpus/attributes/{name}" for name in ("rules", "duplicates", "held_out_documents", "held_out_paragraphs")
    ]
    remember = [f"remember-{unit}.yaml" for unit in ("documents", "paragraphs")]
    filters = [f"filters/held_out_{unit}.bin" for unit in ("documents", "paragraphs")]

    sample = f"--seed {SEED} --bytes-per-domain 8000 --splits test --whole-documents".split()

    def dolma_stage(verb: str, config: str) -> list:
        return [*dolma, "-c", f"configs/{config}", verb, "--processes", work.workers]

    def score(model: str) -> Stage:
        options = (
            f"--limit {size.items_per_task} --seed {SEED} --documents {held_out} --output-dir scores/{model}".split()
        )
        return Stage(
            f"score {model}",
            [[*catwalk, "run", "--model", model, "--tasks", *TASKS, *options]],
            inputs=[model, held_out],
            outputs=[f"scores/{model}"],
            expected_s=18,
        )

    return [
        Stage(
            "gather", [work.script("gather.py", "corpus", *corpus)], outputs=[documents], sources=corpus, expected_s=5
        ),
        Stage(
            "held-out text",
            [[*paloma, "build", "--documents", documents, "--output-dir", held_out, *sample]],
            inputs=[documents],
            outputs=[held_out],
            expected_s=1,
        ),
        Stage(
            "evaluation text",
            [[*catwalk, "documents", "--tasks", *TASKS, "--output-dir", "evaluation"]],
            outputs=["evaluation/documents"],
            expected_s=1,
        ),
        Stage(
            "remember",
            [dolma_stage("dedupe", config) for config in remember],
            inputs=[held_out, "evaluation/documents"],
            outputs=[
                f"{root}/attributes/remembered_{unit}"
                for root in ("heldout", "evaluation")
                for unit in ("documents", "paragraphs")
            ],
            extra=filters,
            configs=remember,
            expected_s=1,
        ),
        Stage(
            "curate",
            [dolma_stage("run", "curate.yaml")],
            inputs=[documents, held_out, "evaluation/documents"],
            outputs=[*tagged, "training"],
            extra=["filters/duplicates.bin"],
            configs=["curate.yaml"],
            expected_s=3,
        ),
        Stage(
            "tokenizer",
            [work.script("tokenizer.py", "training", "tokenizer", VOCABULARY)],
            inputs=["training"],
            outputs=["tokenizer"],
            expected_s=2,
        ),
        Stage(
            "tokens",
            [dolma_stage("tokens", "tokens.yaml")],
            inputs=["training", "tokenizer"],
            outputs=["tokens"],
            configs=["tokens.yaml"],
            expected_s=2,
        ),
        Stage(
            "untrained model",
            [[*olmo, "init", "configs/train.yaml", "untrained", *size.train]],
            inputs=["tokens"],
            outputs=["untrained"],
            configs=["train.yaml"],
            expected_s=4,
        ),
        Stage(
            "train",
            [[*olmo, "train", "configs/train.yaml", *size.train], [*olmo, "export", "run", "base"]],
            inputs=["tokens", held_out],
            outputs=["base"],
            extra=["run"],
            configs=["train.yaml"],
            expected_s=140,
        ),
        score("untrained"),
        score("base"),
        Stage(
            "chats",
            [work.script("chats.py", "conversations", "training", held_out)],
            inputs=["training", held_out],
            outputs=[
                f"conversations/{kind}/{split}" for kind in ("chats", "preferences") for split in ("train", "heldout")
            ],
            expected_s=2,
        ),
        Stage(
            "sft",
            [[*instruct, "sft", "configs/sft.yaml", *size.adapt]],
            inputs=["base", "conversations/chats/train", "conversations/chats/heldout"],
            outputs=["sft"],
            configs=["sft.yaml"],
            expected_s=26,
        ),
        Stage(
            "dpo",
            [[*instruct, "dpo", "configs/dpo.yaml", *size.adapt]],
            inputs=["sft", "conversations/preferences/train", "conversations/preferences/heldout"],
            outputs=["dpo"],
            configs=["dpo.yaml"],
            expected_s=20,
        ),
        score("sft"),
        score("dpo"),
        Stage(
            "aggregate",
            [[*paloma, "aggregate", *scores, "--output-dir", "domains"]],
            inputs=scores,
            outputs=["domains"],
            expected_s=1,
        ),
        Stage(
            "three answers",
            [work.script("answers.py", "dpo", "conversations/chats/heldout", "answers", *instruct)],
            inputs=["dpo", "conversations/chats/heldout"],
            outputs=["answers"],
            expected_s=6,
        ),
        Stage(
            "report",
            [work.script("report.py", ".", "report")],
            inputs=["domains", "answers", *scores],
            outputs=["report"],
            scripts=["tables.py"],
            expected_s=1,
        ),
    ]
