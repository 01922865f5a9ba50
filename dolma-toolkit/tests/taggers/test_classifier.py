"""Taggers of fastText models of one's own: keys, units and numbers, beside dolma 1.2.1 where it is here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma
from oracle import there

fasttext = pytest.importorskip("fasttext", reason="needs the extra classifier")

LABELS = {
    "jigsaw_hatespeech_document_v2": ("toxic", "non_toxic"),
    "jigsaw_nsfw_document_v1": ("nsfw", "non-nsfw"),
    "dclm-oh-eli5": ("hq", "cc"),
    "dolma17-quality": ("wiki", "cc", "books"),
    "code_composition": ("code", "prose", "other"),
}
CLASSES = {
    "jigsaw_hatespeech_document_v2": "jigsaw.FastTextJigsawHatespeechDocumentTagger",
    "jigsaw_nsfw_document_v1": "jigsaw.FastTextJigsawNsfwDocumentTagger",
    "dclm-oh-eli5": "quality.DclmQualityClassifier",
    "dolma17-quality": "quality.Dolma17QualityClassifier",
    "code_composition": "code_composition.CodeProseCompositionClassifier",
}
ORACLE = """
import importlib, json, sys
name, model, documents = sys.argv[1:]
module, _, cls = name.partition(".")
cls = getattr(importlib.import_module("dolma.taggers." + module), cls)
cls.MODEL_PATH = model
tagger = cls()
from dolma.core.data_types import Document
for line in open(documents, encoding="utf-8"):
    row = json.loads(line)
    spans = tagger.predict(Document(source="", id=row["id"], text=row["text"])).spans
    print(json.dumps([[span.type, span.start, span.end, span.score] for span in spans]))
"""


def _train(path: Path, labels: tuple[str, ...]) -> Path:
    source = random.Random(3)
    with (path / "train.txt").open("w", encoding="utf-8") as file:
        for _ in range(300):
            label = source.randrange(len(labels))
            words = source.choices([f"w{label}{number}" for number in range(5)], k=3)
            words += source.choices("for x in range : the a of".split(), k=4)
            file.write(f"__label__{labels[label]} {' '.join(words)}\n")
    model = fasttext.train_supervised(
        input=str(path / "train.txt"), dim=6, epoch=10, bucket=100, wordNgrams=2, thread=1, seed=1, verbose=0
    )
    model.save_model(str(path / "model.bin"))
    return path / "model.bin"


def _documents(path: Path) -> list[str]:
    source = random.Random(5)
    words = [f"w{label}{number}" for label in range(3) for number in range(5)] + [
        "the",
        "x",
        "naïve",
        "😀",
        "\u2028",
        "a\tb",
    ]
    texts = ["one", " w00 w01\n\nw10 w11 the\r\n x\n"]
    for _ in range(40):
        lines = (" ".join(source.choices(words, k=source.randrange(8))) for _ in range(source.randrange(1, 9)))
        texts.append("\n".join(lines) + "w00")
    target = path / "documents" / "a.jsonl"
    target.parent.mkdir()
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(n), "text": text, "source": "s"}) + "\n" for n, text in enumerate(texts))
    return texts


def _rows(path: Path, name: str) -> list[dict[str, Any]]:
    lines = (path / "attributes" / name / "a.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["attributes"] for line in lines]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.oracle
def test_rows_are_those_of_dolma(dolma: Dolma, tmp_path: Path, name: str) -> None:
    model = _train(tmp_path, LABELS[name])
    _documents(tmp_path)
    documents = tmp_path / "documents" / "a.jsonl"
    dolma("tag", "--documents", documents, "--taggers", name, "--experiment", "e", "--resources", f"{name}={model}")
    done = there([CLASSES[name], model, documents], ORACLE)
    assert done.returncode == 0, done.stderr
    rows = _rows(tmp_path, "e")
    expected = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(expected) > 40
    for row, spans in zip(rows, expected, strict=True):
        keyed: dict[str, list[list[float]]] = {}
        for kind, start, end, score in spans:
            kind = "".join(c if c.isascii() and c.isalnum() else "_" for c in kind)
            keyed.setdefault(f"e__{name.replace('-', '_')}__{kind}", []).append([start, end, score])
        assert list(row) == list(keyed)
        for key, found in row.items():
            assert found == [pytest.approx(span, abs=2e-5) for span in keyed[key]], key


def test_documents_paragraphs_and_sentences(dolma: Dolma, tmp_path: Path) -> None:
    model = _train(tmp_path, ("a", "b"))
    text = "W00 é w01. Mr. X has w10!\nOn it goes.\n\nw00"
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.jsonl").write_text(json.dumps({"id": "1", "text": text}) + "\n", "utf-8")
    names = [f"fasttext_{unit}_v1" for unit in ("document", "paragraph", "sentence")]
    resources = {name: str(model) for name in names}
    settings = {"documents": [str(tmp_path / "documents" / "a.jsonl")], "taggers": names, "resources": resources}
    (tmp_path / "tag.json").write_text(json.dumps({**settings, "experiment": "e"}), "utf-8")
    dolma("-c", tmp_path / "tag.json", "tag")
    [row] = _rows(tmp_path, "e")
    places = {name: [text[start:end] for start, end, _ in row[f"e__{name}__a"]] for name in names}
    assert places["fasttext_document_v1"] == [text]
    assert places["fasttext_paragraph_v1"] == ["W00 é w01. Mr. X has w10!\n", "On it goes.\n", "w00"]
    assert places["fasttext_sentence_v1"] == ["W00 é w01.", "Mr. X has w10!", "On it goes.", "w00"]
    for one, other in zip(row["e__fasttext_sentence_v1__a"], row["e__fasttext_sentence_v1__b"], strict=True):
        assert one[2] + other[2] == pytest.approx(1, abs=1e-3)
    manifest = json.loads((tmp_path / "attributes" / "e" / "manifest.json").read_bytes())
    assert set(manifest["config"]["resources_sha256"]) == set(names)


def test_a_model_that_is_missing_or_none_is_told(dolma: Dolma, tmp_path: Path) -> None:
    _documents(tmp_path)
    command = ("tag", "--documents", tmp_path / "documents" / "a.jsonl", "--taggers", "dclm-oh-eli5")
    error = dolma(*command, code=2).err
    assert "resources.dclm-oh-eli5" in error
    assert "huggingface.co/mlfoundations" in error
    other = dolma(*command, "--resources", f"dclm-oh-eli5={tmp_path / 'documents' / 'a.jsonl'}", code=1).err
    assert "is not a fastText model" in other


def test_labels_of_any_script_have_keys_of_their_own(dolma: Dolma, tmp_path: Path) -> None:
    model = _train(tmp_path, ("好评", "差评", "👍", "a-b"))
    _documents(tmp_path)
    command = ("tag", "--documents", tmp_path / "documents" / "a.jsonl", "--taggers", "fasttext_document_v1")
    dolma(*command, "--experiment", "实验", "--resources", f"fasttext_document_v1={model}")
    keys = {key for row in _rows(tmp_path, "实验") for key in row}
    assert keys == {f"实验__fasttext_document_v1__{label}" for label in ("好评", "差评", "👍", "a_b")}


def test_labels_with_the_same_key_are_refused(dolma: Dolma, tmp_path: Path) -> None:
    model = _train(tmp_path, ("a-b", "a b".replace(" ", "."), "c"))
    _documents(tmp_path)
    command = ("tag", "--documents", tmp_path / "documents" / "a.jsonl", "--taggers", "fasttext_document_v1")
    error = dolma(*command, "--resources", f"fasttext_document_v1={model}", code=2).err
    assert 'resources.fasttext_document_v1: names a model whose labels "' in error
    assert not (tmp_path / "attributes" / "fasttext_document_v1" / "a.jsonl").exists()


def test_a_weight_that_is_not_a_number_is_an_error(dolma: Dolma, tmp_path: Path) -> None:
    model = _train(tmp_path, ("a", "b"))
    data = bytearray(model.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"
    model.write_bytes(data)
    _documents(tmp_path)
    command = ("tag", "--documents", tmp_path / "documents" / "a.jsonl", "--taggers", "fasttext_document_v1")
    error = dolma(*command, "--resources", f"fasttext_document_v1={model}", code=1).err
    assert "has the weight NaN; expected a finite number" in error
