"""Precision and recall of classifiers, language and PII taggers on labelled data: `make accuracy`.

Prints Markdown and writes it to `accuracy.md` next to this file; `--data DIRECTORY` names the data. Taggers whose
package is not installed are skipped, and the tables say so.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pii_sentences import KINDS, sentences

from dolma.classifier import measures, tables, wilson

HERE = Path(__file__).parent
LANGUAGES = dict(
    pair.split(":")
    for pair in (
        "eng:en fra:fr deu:de spa:es ita:it por:pt nld:nl pol:pl rus:ru ukr:uk ces:cs swe:sv fin:fi hun:hu tur:tr "
        "ell:el ron:ro arb:ar heb:he hin:hi jpn:ja kor:ko cmn:zh vie:vi ind:id"
    ).split()
)
"""ISO 639-3 to the labels of the detectors."""
ENGLISH = {
    "ft_lang_id_en_doc_v2": "",
    "cld2_en_doc_v2": "pycld2",
    "cld3_en_doc_v2": "gcld3",
    "langdetect_doc_en_v1": "langdetect",
    "lingua_doc_en_v1": "lingua",
}
EVERY = {"ft_lang_id_doc_v1": "", "langdetect_doc_v1": "langdetect", "lingua_doc_v1": "lingua"}
PII = {
    "pii_international_with_accounts_v1": "",
    "pii_exact_v1": "",
    "pii_regex_v2": "",
    "pii_presidio_v1": "presidio_analyzer",
}
RECOGNIZERS = {
    "CREDIT_CARD": ("CreditCardRecognizer", "CREDIT_CARD"),
    "DATE_TIME": ("DateRecognizer", "DATE_TIME"),
    "DOMAIN_NAME": ("UrlRecognizer", "URL"),
    "IBAN_CODE": ("IbanRecognizer", "IBAN_CODE"),
    "US_DRIVER_LICENSE": ("UsLicenseRecognizer", "US_DRIVER_LICENSE"),
    "US_SSN": ("UsSsnRecognizer", "US_SSN"),
}
"""Labelled types that no tagger of dolma 1.2.1 looks for, and Presidio's recogniser and type."""
LEAST_SCORE = 0.3
"""Presidio gives guesses, such as any nine digits for a social security number, a score of 0.1 or less."""
OTHERS_TAKEN = 12
"""Every twelfth block of the languages that are not ``LANGUAGES`` is looked at: a slow detector takes milliseconds."""

Triples = Sequence[tuple[int, int, float]]


def main() -> None:
    """Makes all tables."""
    parser = argparse.ArgumentParser(description="Precision and recall of classifiers and taggers.")
    parser.add_argument("--data", type=Path, default=os.environ.get("SHARED_DATA"), help="default: $SHARED_DATA")
    arguments = parser.parse_args()
    if arguments.data is None or not arguments.data.is_dir():
        found = "is not set" if arguments.data is None else f"{arguments.data} not found"
        hint = "hint: docs/guide/testing.md says what it has to contain"
        sys.exit(f"error: SHARED_DATA: {found}; expected a directory with toxicity/, pii/ and web/\n{hint}")
    with tempfile.TemporaryDirectory(prefix="accuracy-") as name:
        work = Path(name)
        parts = [part(arguments.data, work) for part in (toxicity, quality, english, languages, pii, pii_by_script)]
    text = "\n".join(parts)
    sys.stdout.write(text)
    (HERE / "accuracy.md").write_text(f"# Accuracy: `make accuracy`\n\n{text}", "utf-8")


def dolma(*arguments: object) -> None:
    """Runs the command."""
    subprocess.run([sys.executable, "-m", "dolma", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def present(taggers: Mapping[str, str]) -> tuple[list[str], str]:
    """The taggers whose package is installed, and a line about the others."""
    found = [name for name, package in taggers.items() if not package or importlib.util.find_spec(package)]
    missing = [f"`{name}` ({package})" for name, package in taggers.items() if name not in found]
    return found, f"\nNot installed: {', '.join(missing)}.\n" if missing else ""


def classifier(title: str, work: Path, *arguments: object) -> str:
    """Trains, and shows the measures."""
    if importlib.util.find_spec("fasttext") is None:
        return f"## {title}\n\nNot installed: fasttext-community.\n"
    dolma("train-classifier", "--destination", work / title, *arguments)
    evaluation = json.loads((work / title / "evaluation.json").read_bytes())
    blocks = [f"`{name}`: {tables(rows)}" for name, rows in evaluation.items()]
    return f"## {title}\n\n" + "\n".join(blocks)


def toxicity(data: Path, work: Path) -> str:
    """Tweets: hate speech and offensive language against the rest."""
    files = [data / "toxicity" / f"davidson_{part}.csv.gz" for part in ("train", "dev")]
    columns = ("--text_field", "tweet", "--label_field", "class", "--label_map", "0=toxic", "1=toxic", "2=non_toxic")
    return classifier(
        "Toxicity", work, "--train", files[0], "--test", files[1], *columns, "--quantize", "--cutoff", 20_000
    )


def quality(data: Path, work: Path) -> str:
    """Web pages labelled by the majority of their readers."""
    train = data / "web" / "quality_labels" / "quality_train.jsonl.gz"
    options = ("--label_map", "0=low", "1=high", "--test_fraction", 0.3, "--epochs", 100)
    return classifier("Quality", work, "--train", train, *options)


def tagged(work: Path, name: str, rows: Iterable[tuple[str, str]], taggers: Sequence[str]) -> dict[str, list[Any]]:
    """Spans by type of each row, for each tagger."""
    documents = work / name / "documents" / "rows.jsonl"
    documents.parent.mkdir(parents=True)
    with documents.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": id, "text": text, "source": name}) + "\n" for id, text in rows)
    found: dict[str, list[Any]] = {}
    for tagger in taggers:
        dolma("tag", "--documents", documents, "--taggers", tagger)
        lines = (work / name / "attributes" / tagger / "rows.jsonl").read_text("utf-8").splitlines()
        attributes = [json.loads(line)["attributes"] for line in lines]
        found[tagger] = [{key.split("__", 2)[2]: spans for key, spans in row.items()} for row in attributes]
    return found


def _blocks(data: Path) -> list[dict[str, Any]]:
    with gzip.open(data / "web" / "langid" / "udhr_odd.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        row
        for row in rows
        if row["text"].strip() and (row["iso639_3"] in LANGUAGES or row["block"] % OTHERS_TAKEN == 1)
    ]


def english(data: Path, work: Path) -> str:
    """English or not, at the 0.5 of Dolma's mixes."""
    rows = _blocks(data)
    taggers, missing = present(ENGLISH)
    found = tagged(work, "english", ((str(n), row["text"]) for n, row in enumerate(rows)), taggers)
    right = [row["iso639_3"] == "eng" for row in rows]
    lines = ["| tagger | English | found | precision | recall | F1 |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name in taggers:
        said = [spans["en"][0][2] >= 0.5 for spans in found[name]]
        row = measures(sum(a and b for a, b in zip(right, said, strict=True)), sum(said), sum(right))
        cells = " | ".join(_cell(row[key], row[f"{key}_95"]) for key in ("precision", "recall", "f1"))
        lines.append(f"| `{name}` | {row['n']} | {row['found']} | {cells} |")
    head = f"## English or not\n\n{len(rows)} blocks of the Universal Declaration of Human Rights, score ≥ 0.5:\n\n"
    return head + "\n".join(lines) + "\n" + missing


def languages(data: Path, work: Path) -> str:
    """The best language of each block of the languages that all detectors know."""
    rows = [row for row in _blocks(data) if row["iso639_3"] in LANGUAGES]
    taggers, missing = present(EVERY)
    found = tagged(work, "languages", ((str(n), row["text"]) for n, row in enumerate(rows)), taggers)
    right = [LANGUAGES[row["iso639_3"]] for row in rows]
    lines = ["| tagger | accuracy | macro precision | macro recall | least F1 |", "| --- | ---: | ---: | ---: | --- |"]
    for name in taggers:
        best = [max(spans, key=lambda key: spans[key][0][2], default="") for spans in found[name]]
        # one writes the script behind the language
        best = [language.split("_")[0].split("-")[0] for language in best]
        hits = sum(a == b for a, b in zip(right, best, strict=True))
        each = {}
        for language in sorted(set(right)):
            both = sum(a == b == language for a, b in zip(right, best, strict=True))
            each[language] = measures(both, best.count(language), right.count(language))
        precision = sum(row["precision"] or 0 for row in each.values()) / len(each)
        recall = sum(row["recall"] for row in each.values()) / len(each)
        worst = sorted(each, key=lambda language: each[language]["f1"])[:3]
        least = ", ".join(f"{language} {each[language]['f1']:.3f}" for language in worst)
        accuracy = _cell(hits / len(rows), wilson(hits, len(rows)))
        lines.append(f"| `{name}` | {accuracy} | {precision:.3f} | {recall:.3f} | {least} |")
    head = f"## Languages\n\n{len(rows)} blocks in {len(set(right))} languages, the best label of each:\n\n"
    return head + "\n".join(lines) + "\n" + missing


def pii(data: Path, work: Path) -> str:
    """Spans of a type that overlap labelled ones of it."""
    labelled = []
    for name in ("presidio_synth_v2", "presidio_generated_small"):
        with gzip.open(data / "pii" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            labelled += [json.loads(line) for line in file]
    taggers, missing = present(PII)
    texts = [row["full_text"] for row in labelled]
    found = tagged(work, "pii", ((str(n), text) for n, text in enumerate(texts)), taggers)
    if importlib.util.find_spec("presidio_analyzer"):
        found["Presidio"] = recognized(texts)
    lines = ["| type | by | labelled | found | precision | recall |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    kinds = {span["entity_type"] for row in labelled for span in row["spans"]}
    known = kinds & {key for rows in found.values() for row in rows for key in row}
    for kind in sorted(known):
        gold = [
            [(s["start_position"], s["end_position"], 1.0) for s in row["spans"] if s["entity_type"] == kind]
            for row in labelled
        ]
        for name, rows in found.items():
            mine = [row.get(kind, []) for row in rows]
            if not any(mine):
                continue
            right = sum(_overlaps(span, others) for spans, others in zip(mine, gold, strict=True) for span in spans)
            seen = sum(_overlaps(span, others) for spans, others in zip(gold, mine, strict=True) for span in spans)
            n, num = sum(map(len, gold)), sum(map(len, mine))
            cells = f"{_cell(right / num, wilson(right, num))} | {_cell(seen / n, wilson(seen, n))}"
            lines.append(f"| {kind} | {f'`{name}`' if name in PII else name} | {n} | {num} | {cells} |")
    counted = "a span counts where it overlaps a labelled one of its type"
    head = f"## Personal data\n\n{len(labelled)} synthetic sentences; {counted}:\n\n"
    nobody = f"\nFound by none of them: {', '.join(sorted(kinds - known))}.\n"
    return head + "\n".join(lines) + "\n" + nobody + missing


def pii_by_script(_data: Path, work: Path) -> str:
    """Spans that equal labelled ones, by script."""
    labelled = list(sentences())
    taggers, missing = present(PII)
    found = tagged(work, "scripts", ((str(n), one.text) for n, one in enumerate(labelled)), taggers)
    lines = ["| script | by | labelled | found | precision | recall |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for script in [*dict.fromkeys(one.script for one in labelled), "all"]:
        rows = [n for n, one in enumerate(labelled) if script in (one.script, "all")]
        for name in taggers:
            gold = {(n, *span) for n in rows for span in labelled[n].spans}
            mine = {
                (n, start, end, kind)
                for n in rows
                for kind in KINDS.values()
                for start, end, _ in found[name][n].get(kind, [])
            }
            hits = len(gold & mine)
            measured = measures(hits, len(mine), len(gold))
            cells = " | ".join(_cell(measured[key], measured[f"{key}_95"]) for key in ("precision", "recall"))
            lines.append(f"| {script} | `{name}` | {len(gold)} | {len(mine)} | {cells} |")
    head = (
        f"## Personal data by script\n\n{len(labelled)} sentences of `bench/pii_sentences.py`, written for this table. "
        "A span counts if its ends and type are exactly as labelled:\n\n"
    )
    return head + "\n".join(lines) + "\n" + missing


def recognized(texts: Sequence[str]) -> list[dict[str, Triples]]:
    """Spans of Presidio's recognisers by labelled type, of each text."""
    package = importlib.import_module("presidio_analyzer.predefined_recognizers")
    makers = {kind: (getattr(package, name)(), entity) for kind, (name, entity) in RECOGNIZERS.items()}
    rows: list[dict[str, Triples]] = []
    for text in texts:
        row = {}
        for kind, (recognizer, entity) in makers.items():
            spans = [hit for hit in recognizer.analyze(text, [entity], None) or [] if hit.score >= LEAST_SCORE]
            row[kind] = [(hit.start, hit.end, hit.score) for hit in recognizer.remove_duplicates(spans)]
        rows.append({kind: spans for kind, spans in row.items() if spans})
    return rows


def _overlaps(span: tuple[int, int, float], others: Triples) -> bool:
    return any(span[0] < other[1] and other[0] < span[1] for other in others)


def _cell(value: float | None, interval: Sequence[float]) -> str:
    return "-" if value is None else f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


if __name__ == "__main__":
    main()
