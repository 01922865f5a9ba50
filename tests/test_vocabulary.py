"""The glossary and the table of settings in docs/index.md, held against help texts, settings and pages."""

import dataclasses
import importlib
import re
import typing
from typing import Any

import pytest
from repository import PACKAGES, ROOT, blocks, tracked

SETTINGS = {
    "olmo": ["olmo_trainer.config.schema:RunConfig"],
    "catwalk": ["catwalk.config:RunConfig"],
    "paloma": ["paloma.build:BuildConfig", "paloma.controls:Controls"],
    "open-instruct": ["open_instruct.config:SftConfig", "open_instruct.config:DpoConfig"],
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = (
        (ROOT / "docs" / "index.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    """The words in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def names(tool: str) -> set[str]:
    """The names of all settings of a tool, without their groups."""
    found: set[str] = set()
    waiting: list[Any] = []
    for place in SETTINGS[tool]:
        module, _, kind = place.partition(":")
        waiting.append(getattr(importlib.import_module(module), kind))
    seen = set(waiting)
    while waiting:
        kind = waiting.pop()
        found |= {field.name for field in dataclasses.fields(kind)}
        for hint in typing.get_type_hints(kind).values():
            inner = {part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)}
            waiting += inner - seen
            seen |= inner
    return found


@pytest.mark.parametrize("tool", SETTINGS)
def test_shared_settings_have_one_name(tool: str) -> None:
    own = names(tool)
    of_tool = [row for row in rows("Settings") if tool in row[2].split(", ")]
    assert of_tool
    for name, _, _, _ in of_tool:
        assert set(quoted(name)) & own, f"{tool} has no {name}"
    former = {word for row in rows("Settings") for word in quoted(row[3])}
    assert own & former == set()


def test_help_and_examples_avoid_other_words() -> None:
    words = [re.escape(word) + r"(?![\w./-])" for row in rows("Glossary") for word in quoted(row[2])]
    former = [word for row in rows("Settings") for word in quoted(row[3]) if word != "output"]  # which dolma has
    words += [rf"{word}\s?[:=]" for word in former]
    pattern = re.compile("|".join(rf"(?<![\w./-]){word}" for word in words), re.IGNORECASE)
    pages = ("docs/guide/", "README", *(f"{package.folder}/README" for package in PACKAGES))
    texts = {}
    for name in tracked():
        if name.startswith("docs/reference/") or (name.endswith((".yaml", ".yml")) and "presets" not in name):
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
        elif name.endswith(".md") and name.startswith(pages):
            texts[name] = "\n".join(block.text for block in blocks(name))
    assert len(texts) > 20
    found = [f"{name}: {match[0]}" for name, text in texts.items() for match in pattern.finditer(text)]
    assert found == []
