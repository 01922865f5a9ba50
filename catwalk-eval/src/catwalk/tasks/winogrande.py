"""WinoGrande (Sakaguchi et al. 2020, arXiv:1907.10641): whom a blank means. The option stands in the context."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["WINOGRANDE"]


def _render(row: dict[str, Any], id: str) -> Item:
    before, after = row["sentence"].split("_", 1)
    options = (row["option1"], row["option2"])
    return Item(
        id=id,
        contexts=tuple(f"{before}{option}" for option in options),
        continuations=(f" {after.strip()}",) * 2,
        label=int(row["answer"]) - 1,
        texts=tuple(f"{before}{option}{after}" for option in options),
    )


WINOGRANDE = Task(
    name="winogrande",
    summary="whom a blank means; the option stands in the context, the rest of the sentence is scored",
    source="WinoGrande XL",
    licence="CC BY 4.0",
    arrow_directory="winogrande/winogrande_xl",
    primary_metric="acc_per_token",  # OLMo (arXiv:2402.00838) appendix
    fields={"sentence": str, "option1": str, "option2": str, "answer": str},
    render=_render,
)
