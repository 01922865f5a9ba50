"""Personal data by `pii_international_*`, compared with Python's ipaddress and libphonenumber."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from dolma_corpus import Dolma, read_rows, write_rows
from pii_sentences import KINDS, sentences

from dolma.core.data_types import Document
from dolma.core.registry import TaggerRegistry

NAME = "pii_international_with_accounts_v1"
Hits = list[tuple[str, str]]


def found(dolma: Dolma, texts: Sequence[str], folder: Path, name: str = NAME) -> list[Hits]:
    """(type, text of the span) of each text's hits, in their order."""
    write_rows(folder / "documents/a.jsonl.gz", [{"id": str(at), "text": text} for at, text in enumerate(texts)])
    dolma("tag", "--documents", f"{folder}/documents/*", "--taggers", name, "--experiment", "e")
    rows = []
    for row, text in zip(read_rows(folder / "attributes/e/a.jsonl.gz"), texts, strict=True):
        spans = {key.split("__")[2]: spans for key, spans in row["attributes"].items()}
        assert spans.pop("doc_count") == [[0, len(text), sum(map(len, spans.values())) - len(spans["doc_frac"])]]
        del spans["doc_frac"]
        hits = sorted((start, end, kind) for kind, of_kind in spans.items() for start, end, _ in of_kind)
        rows.append([(kind, text[start:end]) for start, end, kind in hits])
    return rows


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _addresses(count: int) -> list[str]:
    """Addresses, and texts that miss being one."""
    chance = random.Random(5)
    candidates = []
    while len(candidates) < count:
        groups = chance.choice((chance.randint(2, 9), 8))
        if chance.random() < 0.4:
            numbers = [
                str(chance.choice((0, 1, 9, 10, 99, 255, 256, 300, "01"))) for _ in range(chance.choice((3, 4, 4, 5)))
            ]
            candidate = ".".join(numbers)
        else:
            parts = [f"{chance.getrandbits(16):x}" for _ in range(groups)]
            if chance.random() < 0.6:
                parts[chance.randrange(groups)] = ""
            if chance.random() < 0.1:
                parts[0] = "g1"
            candidate = ":".join(parts)
            candidate = f":{candidate}" if candidate.startswith(":") else candidate
            candidate = f"{candidate}:" if candidate.endswith(":") else candidate
        # scopes of programs look like addresses without digits
        if any(character.isdigit() for character in candidate):
            candidates.append(candidate)
    return candidates


def test_addresses_are_those_of_ipaddress(dolma: Dolma, tmp_path: Path) -> None:
    candidates = _addresses(4000)
    are = [_is_address(candidate) for candidate in candidates]
    assert 500 < sum(are) < 3500
    hits = found(dolma, [f"é 日 at {candidate}, to" for candidate in candidates], tmp_path)
    for candidate, is_one, row in zip(candidates, are, hits, strict=True):
        assert [hit for hit in row if hit[0] == "IP_ADDRESS"] == [("IP_ADDRESS", candidate)] * is_one, candidate


def test_examples_of_every_region_are_found(dolma: Dolma, tmp_path: Path) -> None:
    phonenumbers = pytest.importorskip("phonenumbers")
    kinds = (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE)
    formats = phonenumbers.PhoneNumberFormat
    examples = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for number in filter(None, (phonenumbers.example_number_for_type(region, kind) for kind in kinds)):
            for form, lead in ((formats.E164, ""), (formats.INTERNATIONAL, ""), (formats.NATIONAL, "Phone: ")):
                written = phonenumbers.format_number(number, form)
                # shorter ones are those of an exchange
                if form != formats.NATIONAL or sum(map(str.isdigit, written)) >= 7:
                    examples.append((region, f"é {lead}{written}, or", written))
    hits = found(dolma, [text for _, text, _ in examples], tmp_path)
    missed = [
        (region, written, row)
        for (region, _, written), row in zip(examples, hits, strict=True)
        if row != [("PHONE_NUMBER", written)]
    ]
    assert len(examples) > 1200
    assert len(missed) < len(examples) * 0.01, missed


def test_numbers_of_other_things_are_not_found(dolma: Dolma, tmp_path: Path) -> None:
    texts = [
        "In 2001-12-24 it was 12:30:45, on 24.12.2001 too, or 1999-2004, pp. 345-378.",
        "Version 1.2.3.4.5 costs $1,234,567.89, 12345678 of 100 000 000, 3.14159265358979.",
        "ISBN 0-306-40615-2, ISSN 0317-8471, doi 10.1000/0207 946 0958, GTIN 4006381333931.",
        "4111111111111112 and GB28NWBK60161331926819 fail, and 666-05-1120 is none; std::fs::read, a::b.",
        "0101 0100 1000 1111 0000 and 012 345 678 901 234 567 stand in a table.",
    ]
    assert found(dolma, texts, tmp_path) == [[] for _ in texts]


def test_data_in_every_script_is_found_and_nothing_else(dolma: Dolma, tmp_path: Path) -> None:
    labelled = list(sentences())
    assert {kind for one in labelled for *_, kind in one.spans} == {*KINDS.values()}
    hits = found(dolma, [one.text for one in labelled], tmp_path, "pii_international_v1")
    wrong = []
    for one, row in zip(labelled, hits, strict=True):
        expected = [(kind, one.text[start:end]) for start, end, kind in one.spans]
        if row != expected:
            wrong.append((one.script, one.text, row))
    assert not wrong, f"{len(wrong)} of {len(labelled)}: {wrong[:20]}"


def test_files_versions_and_sections_are_not_found(dolma: Dolma, tmp_path: Path) -> None:
    texts = [
        "logo@2x.png, icon@3x.webp, image@2x-dark.svg; user@file.py; npm i @scope/pkg@1.2.3 name@1.0.0",
        "git clone git@github.com:org/repo.git; https://jo:secret@host.org/; https://medium.com/@jo.dev",
        "version 1.2.3.4, § 3.2.1.1, Chrome/120.0.0.0, 1.2.3.4.5, Version=4.0.0.0, lib-1.2.3.4.jar",
        "4.2.1.3 Results\n4.2.1.4 Methods",
        "版本1.2.3.4，第3.2.1.1节，버전 1.2.3.4，バージョン1.2.3.4",
    ]
    for name in ("pii_international_v1", "pii_exact_v1"):
        assert found(dolma, texts, tmp_path / name, name) == [[] for _ in texts]


def test_long_texts_take_time_by_their_length(dolma: Dolma, tmp_path: Path) -> None:
    texts = [part * (200_000 // len(part)) for part in ("a@", "1。", "１．", "a.", "电话1", "v-", "+1 ", "@a.b", "é.")]
    assert found(dolma, texts, tmp_path, "pii_international_v1")[0] == []


def test_accounts_are_chosen_by_the_name(dolma: Dolma, tmp_path: Path) -> None:
    text = "Card 4111 1111 1111 1111, GB29NWBK60161331926819, 078-05-1120, +44 20 7946 0958, jo@b.co, fe80::1"
    every = found(dolma, [text], tmp_path / "a")[0]
    glued = found(dolma, ["卡号4111111111111111，카드5500005555555559로GB29NWBK60161331926819和"], tmp_path / "c")[0]
    assert [kind for kind, _ in glued] == ["CREDIT_CARD", "CREDIT_CARD", "IBAN_CODE"]
    kinds = ["CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS"]
    assert [kind for kind, _ in every] == kinds
    assert found(dolma, [text], tmp_path / "b", "pii_international_v1")[0] == every[3:]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pii_regex_v3", "pii_exact_v1"),
        ("pii_regex_v4", "pii_international_v1"),
        ("pii_regex_with_accounts_v4", NAME),
    ],
)
def test_an_old_name_finds_the_same_and_keeps_its_attribute_name(
    dolma: Dolma, tmp_path: Path, old: str, new: str
) -> None:
    text = "jo@b.co, (206) 555-0100, 10.0.0.255, +44 20 7946 0958, card 4111 1111 1111 1111"
    path = tmp_path / "documents" / "a.jsonl"
    write_rows(path, [{"id": "1", "text": text}])
    result = dolma("tag", "--documents", path, "--taggers", old, new)
    assert f'"{old}" is deprecated: use "{new}"' in result.err
    (before,), (after,) = (read_rows(tmp_path / "attributes" / name / "a.jsonl") for name in (old, new))
    assert {key.replace(new, old): spans for key, spans in after["attributes"].items()} == before["attributes"]
    assert all(key.startswith(f"{old}__{old}__") for key in before["attributes"])
    document = Document("s", "1", text)
    spans = [TaggerRegistry.get(name)().predict(document).spans for name in (old, new)]
    assert spans[0] == spans[1]
    assert TaggerRegistry.has(old)
    listed = dict(line.split("\t") for line in dolma("list").out.splitlines())
    assert listed[new].endswith(f"(old name: {old})")
    assert old not in listed
