"""Sentence-pair and sentence tasks of GLUE (arXiv:1804.07461) and SuperGLUE (arXiv:1905.00537)."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["COMMITMENT_BANK", "MRPC", "RTE", "SST2"]


def _item(id: str, context: str, choices: tuple[str, ...], label: int, texts: tuple[str, ...]) -> Item:
    return Item(
        id=id,
        contexts=(context,) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=label,
        texts=texts,
    )


def _rte(row: dict[str, Any], id: str) -> Item:
    context = f"{row['sentence1']}\nQuestion: {row['sentence2']} True or False?\nAnswer:"
    # label 0 is entailment
    return _item(id, context, ("True", "False"), row["label"], (row["sentence1"], row["sentence2"]))


def _commitment_bank(row: dict[str, Any], id: str) -> Item:
    context = f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False or Neither?\nAnswer:"
    # labels: 0 entailment, 1 contradiction, 2 neutral
    return _item(id, context, ("True", "False", "Neither"), row["label"], (row["premise"], row["hypothesis"]))


def _mrpc(row: dict[str, Any], id: str) -> Item:
    context = (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:"
    )
    return _item(id, context, ("no", "yes"), row["label"], (row["sentence1"], row["sentence2"]))


def _sst2(row: dict[str, Any], id: str) -> Item:
    sentence = row["sentence"].strip()
    context = f"{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return _item(id, context, ("negative", "positive"), row["label"], (sentence,))


_PAIR: dict[str, type] = {"sentence1": str, "sentence2": str, "label": int}

# Catwalk scores these four without normalisation
RTE = Task(
    name="rte",
    summary="does the first sentence entail the second",
    source="GLUE, RTE",
    licence="not stated",
    arrow_directory="glue/rte",
    primary_metric="acc_raw",
    fields=_PAIR,
    render=_rte,
)
COMMITMENT_BANK = Task(
    name="commitment_bank",
    summary="is the author committed to an embedded clause",
    source="SuperGLUE, CommitmentBank",
    licence="not stated",
    arrow_directory="super_glue/cb",
    primary_metric="acc_raw",
    fields={"premise": str, "hypothesis": str, "label": int},
    render=_commitment_bank,
)
MRPC = Task(
    name="mrpc",
    summary="do two sentences say the same",
    source="GLUE, MRPC",
    licence="not stated",
    arrow_directory="glue/mrpc",
    primary_metric="acc_raw",
    fields=_PAIR,
    render=_mrpc,
)
SST2 = Task(
    name="sst2",
    summary="sentiment of a film review's sentence",
    source="GLUE, SST-2",
    licence="not stated",
    arrow_directory="glue/sst2",
    primary_metric="acc_raw",
    fields={"sentence": str, "label": int},
    render=_sst2,
)
