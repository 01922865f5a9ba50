"""``dolma presets``: every recipe runs, and each of its rules drops the document that was made for it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, read_rows, write_rows
from presets.recipe_documents import (
    C4_ALONE,
    EDITS,
    FINEWEB,
    FRENCH,
    GOOD,
    GOPHER,
    MAILS,
    PAPER,
    PROSE,
    REFINEDWEB,
)

from dolma import _native
from dolma.commands.presets import names, parts

DOLMA = {**GOPHER, "ft_lang_id_en_doc_v2__en": FRENCH, "pii_international_v1__doc_count": MAILS}
RULES: dict[str, dict[str, str]] = {
    "c4": C4_ALONE,
    "fineweb": FINEWEB,
    "gopher": PAPER,
    "refinedweb": REFINEDWEB,
    "dolma-v1.5": DOLMA,
    "dolma-v1.6": {**DOLMA, "bff_duplicate_docs": GOOD},
    "dolma-v1.7": {
        **DOLMA,
        "bff_duplicate_docs": GOOD,
        "dedupe_para_ngrams": "\n".join(["What follows was said on the ferry by several people.", *PROSE[:5]]),
    },
}


def run(dolma: Dolma, name: str, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The funnel, what was kept and what was dropped by a preset."""
    write_rows(Path("documents/a.jsonl.gz"), rows)
    for part, text in parts(name, "documents/*.gz", "kept").items():
        path = Path(f"{part}.yaml")
        if part == "mix":
            text = text.replace('path: "kept"', 'path: "kept"\n      keep_dropped: "dropped"')
        path.write_text(text, "utf-8")
        dolma("-c", path, part.split("_")[0])
    [funnel] = read_rows(Path("kept/.dolma/funnel.ndjson"))
    found = [[row for file in sorted(Path(d).glob("*.gz")) for row in read_rows(file)] for d in ("kept", "dropped")]
    return funnel, found[0], found[1]


@pytest.mark.parametrize("name", sorted(names()))
def test_each_rule_drops_its_document(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dolma: Dolma) -> None:
    monkeypatch.chdir(tmp_path)
    rules = RULES[name]
    rows = [{"id": "good", "text": GOOD, "source": "s"}]
    rows += [{"id": rule, "text": text, "source": "s"} for rule, text in rules.items()]
    funnel, kept, dropped = run(dolma, name, rows)
    reasons = {row["id"]: row["metadata"]["dropped_by"] for row in dropped}
    assert [(rule, reason) for rule, reason in reasons.items() if not matches(rule, reason)] == []
    assert [row["id"] for row in kept] == ["good"]
    assert [row["text"] for row in kept] == [GOOD]
    fired = {rule["rule"]: rule["documents_in_order"] for rule in funnel["rules"]}
    assert {rule: count for rule, count in fired.items() if count != 1 and "bytes" not in rule} == {}
    assert len(reasons) == len(rules)


@pytest.mark.parametrize("name", sorted(EDITS))
def test_lines_are_taken_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dolma: Dolma) -> None:
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, line in enumerate(EDITS[name]):
        text = "\n".join([*PROSE[:4], line, *PROSE[4:]])
        rows.append({"id": str(number), "text": text, "source": "s"})
    _, kept, dropped = run(dolma, name, rows)
    assert [(row["id"], row["metadata"]["dropped_by"]) for row in dropped] == []
    assert [row["text"].replace("\n\n", "\n") for row in kept] == [GOOD] * len(rows)


def matches(rule: str, reason: str) -> bool:
    """Whether the key of the rule, and its comparison where there are two, stand in the reason."""
    key, _, comparison = rule.partition(" ")
    return key in reason and comparison in reason


def test_every_threshold_has_its_source() -> None:
    for name in names():
        lines = "---\n".join(parts(name).values()).splitlines()
        for before, line in itertools.pairwise(lines):
            if line.strip().startswith('- "') or line.strip().startswith("- {"):
                assert before.strip().startswith(("#", "- {")), f"{name}: {line}"


OPTIONAL = {
    "dolma-v1.5": ["jigsaw_hatespeech_sentence_v2", "jigsaw_nsfw_sencence_v2"],
    "dolma-v1.6": ["tokenizer_repetitions_v2r2", "jigsaw_hatespeech_sentence_v2", "jigsaw_nsfw_sencence_v2"],
    "dolma-v1.7": ["tokenizer_repetitions_v2r2", "jigsaw_hatespeech_sentence_v2", "jigsaw_nsfw_sencence_v2"],
}


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_optional_lines_name_their_files_and_have_their_rules(name: str) -> None:
    every = {part: yaml.safe_load(text.replace("# optional ", "")) for part, text in parts(name).items()}
    always = yaml.safe_load(parts(name)["tag"])
    assert [tagger for tagger in every["tag"]["taggers"] if tagger not in always["taggers"]] == OPTIONAL[name]
    assert sorted(every["tag"]["resources"]) == sorted(OPTIONAL[name])
    needy = {tagger for tagger, *_ in _native.tagger_needs()}
    assert {*OPTIONAL[name]} <= needy
    [stream] = every["mix"]["streams"]
    rules = json.dumps([stream["filter"]["exclude"], stream["span_replacement"]])
    experiment = every["tag"]["experiment"]
    assert [tagger for tagger in OPTIONAL[name] if f"{experiment}__{tagger}__" not in rules] == []


@pytest.mark.parametrize("name", ["dolma-v1.6", "dolma-v1.7"])
def test_the_rule_of_repeated_tokens_can_be_switched_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dolma: Dolma, tokenizer_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = json.dumps(str(tokenizer_path))
    # other lines than in the first document, and one word to the rules of Gopher, so that no other rule fires
    texts = {"good": PROSE[:4], "repeated": [*PROSE[4:], "\u2603" * 150]}
    rows = [{"id": id, "text": "\n".join(lines), "source": "s"} for id, lines in texts.items()]
    write_rows(Path("documents/a.jsonl.gz"), rows)
    for part, text in parts(name, "documents/*.gz", "kept").items():
        lines = [line for line in text.splitlines() if "optional" not in line or "jigsaw" not in line]
        switched_on = "\n".join(lines).replace("# optional ", "").replace("gpt-neox-20b/tokenizer.json", tokenizer)
        Path(f"{part}.yaml").write_text(switched_on, "utf-8")
        dolma("-c", f"{part}.yaml", part.split("_")[0])
    kept = [row["id"] for file in sorted(Path("kept").glob("*.gz")) for row in read_rows(file)]
    [funnel] = read_rows(Path("kept/.dolma/funnel.ndjson"))
    fired = [rule["rule"] for rule in funnel["rules"] if rule["documents_in_order"]]
    assert kept == ["good"]
    assert len(fired) == 1
    assert "tokenizer_repetitions_v2r2" in fired[0]


def test_list_and_show(dolma: Dolma) -> None:
    listed = [line.split("\t")[0] for line in dolma("presets", "list").out.splitlines()]
    assert listed == sorted(names())
    shown = dolma("presets", "show", "dolma-v1.6", "--documents", 'a"b/*.gz', "--output", "o").out
    documents = list(yaml.safe_load_all(shown))
    assert len(documents) == 4
    assert documents[0]["documents"] == documents[3]["streams"][0]["documents"] == ['a"b/*.gz']
    assert documents[3]["streams"][0]["output"]["path"] == "o"
    assert dolma("presets", "show", "dolma-v1.6", "mix").out == parts("dolma-v1.6")["mix"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "gofer"], 'name: is "gofer", which is not a preset'),
        (["show"], "name: is missing; expected a preset"),
        (["shew"], 'did you mean "show"?'),
        ([], "action: is missing; expected list or show"),
        (["show", "dolma-v1.5", "mixx"], 'did you mean "mix"?'),
    ],
)
def test_what_is_not_there(arguments: list[str], message: str, dolma: Dolma) -> None:
    assert message in dolma("presets", *arguments, code=2).err
