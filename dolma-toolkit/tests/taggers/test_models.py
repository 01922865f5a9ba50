"""Taggers around Python packages, and the base of one's own fastText taggers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma

from dolma.core.data_types import Document, TextSlice, split_paragraphs, split_sentences
from dolma.core.ft_tagger import BaseFastTextTagger, Prediction
from dolma.core.registry import TaggerRegistry
from dolma.errors import ConfigError
from dolma.tagging.detectors import LanguageTagger, in_order
from dolma.tagging.workers import import_modules

TEXT = (
    "The quick brown fox jumps over the lazy dog, and then it goes home to sleep.\n"
    "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause.\n\n"
)
FIRST = TEXT.index("\n") + 1
LAST = len(TEXT) - 1


def _spans(name: str, text: str = TEXT) -> list[tuple[str, int, int, float]]:
    import_modules([])
    tagger: Any = TaggerRegistry.get(name)()
    return tagger.spans(Document(source="s", id="1", text=text))


def test_languages_that_tie_come_by_name() -> None:
    ties = [("sv", 0.0), ("af", 1e-9), ("en", 0.7), ("de", 0.3), ("bg", 0.0)]
    expected = ["en", "de", "af", "bg", "sv"]
    for rows in (ties, ties[::-1], sorted(ties)):
        assert [language for language, _ in in_order(rows)] == expected


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    class Broken(LanguageTagger):
        make_detector = staticmethod(lambda: lambda text: [("en", float("nan"))])
        likely_only = True

    with pytest.raises(ValueError, match="gives en the score nan; expected a finite number"):
        Broken().predict(Document(source="s", id="1", text="x"))


PACKAGES = {"cld2": "pycld2", "cld3": "gcld3", "langdetect": "langdetect", "lingua": "lingua"}


@pytest.mark.parametrize(
    "name",
    [
        "cld2_en_paragraph_with_doc_score_v2",
        "cld3_en_paragraph_with_doc_score_v2",
        "langdetect_en_paragraph_v1",
        "lingua_en_par_v1",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_english_paragraphs_and_their_opposites(name: str) -> None:
    pytest.importorskip(PACKAGES[name.split("_")[0]])
    found = _spans(name)
    paragraphs = [row for row in found if not row[0].startswith("doc")]
    places = [(kind, start, end) for kind, start, end, _ in paragraphs]
    expected = [("en", 0, FIRST), ("en", FIRST, LAST)]
    assert places == expected + [(f"not_{kind}", start, end) for kind, start, end in expected]
    scores = [score for *_, score in paragraphs]
    # lingua shares its confidence out among 75 languages
    assert scores[0] > 0.3
    assert scores[1] < 0.1
    assert scores[2:] == [1 - scores[0], 1 - scores[1]]
    if "doc_score" in name:
        mean = (FIRST * scores[0] + (LAST - FIRST) * scores[1]) / len(TEXT)
        assert [row[3] for row in found[4:]] == pytest.approx([mean, 1 - mean])


@pytest.mark.parametrize(("name", "german"), [("cld2_doc_v2", "ge"), ("langdetect_doc_v1", "de"), ("lingua_1e2", "de")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_language_of_a_document(name: str, german: str) -> None:
    pytest.importorskip(PACKAGES[name.split("_")[0]])
    text = TEXT[FIRST:].strip()
    found = _spans(name, text)
    kind, start, end, score = max(found, key=lambda row: row[3])
    assert (kind, start, end) == (german, 0, len(text))
    assert score > 0.9
    assert found == _spans(name, text)
    assert all(score == round(score, 2) for *_, score in found) or name != "lingua_1e2"
    for odd in ("", "\x00\x01", "1234", "😀"):
        assert all(0 <= row[3] <= 1 for row in _spans(name, odd))


def test_presidio_finds_what_it_recognizes() -> None:
    pytest.importorskip("presidio_analyzer")
    text = "Write to jo@example.com or call +1 415-555-2671 from 10.1.2.3 please."
    found = _spans("pii_presidio_v1", text)
    kinds = {kind: text[start:end] for kind, start, end, _ in found}
    assert kinds["EMAIL_ADDRESS"] == "jo@example.com"
    assert kinds["IP_ADDRESS"] == "10.1.2.3"
    assert "415-555-2671" in kinds["PHONE_NUMBER"]
    assert found[-1] == ("doc", 0, len(text), pytest.approx((len(found) - 1) / len(text.split())))
    assert _spans("pii_presidio_v1", "") == [("doc", 0, 0, -1.0)]
    assert [row[0] for row in _spans("pii_presidio_v1", f"{text} doi")] == ["EMAIL_ADDRESS", "doc"]


def test_a_missing_package_is_told_with_its_extra(dolma: Dolma, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module, extra in (
        ("cld3_en_doc_v2", "gcld3", "lang"),
        ("pii_presidio_v1", "presidio_analyzer", "presidio"),
        ("code_secrets_v1", "detect_secrets", "code"),
        ("code_starcoder_taggers_v2", "pygments", "code"),
    ):
        for known in [key for key in sys.modules if key.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, known)
        monkeypatch.setitem(sys.modules, module, None)
        error = dolma("tag", "--documents", "documents/*", "--taggers", name, code=2).err
        assert f"pip install 'dolma-toolkit[{extra}]'" in error


def test_names_alone_import_no_package() -> None:
    code = (
        "import sys; from dolma.tagging.workers import import_modules; import_modules([]); "
        "print({'pycld2', 'gcld3', 'langdetect', 'lingua', 'presidio_analyzer', 'pygments', 'bs4'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class _Own(BaseFastTextTagger):
    def predict_slice(self, text_slice: TextSlice) -> list[Prediction]:
        labels, scores = self.classifier.predict(text_slice.text.replace("\n", " "), k=-1)
        return [Prediction(label.removeprefix("__label__"), score) for label, score in zip(labels, scores, strict=True)]


def test_a_fasttext_tagger_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    rows = "".join(f"__label__{'ab'[n % 2]} word{n % 2} other{n % 5}\n" for n in range(200))
    (tmp_path / "train.txt").write_text(rows, "utf-8")
    model = str(tmp_path / "model.bin")
    trained = _Own.train(str(tmp_path / "train.txt"), model, word_vectors_dim=4, max_epochs=5, num_buckets=10)
    assert sorted(trained.labels) == ["__label__a", "__label__b"]
    text = "word0 é. Word1 is here.\n\nword1"
    found = {mode: _Own(model, mode).spans(Document("s", "1", text)) for mode in ("document", "paragraph", "sentence")}
    assert {row[1:3] for row in found["document"]} == {(0, len(text))}
    assert {text[row[1] : row[2]] for row in found["paragraph"]} == {"word0 é. Word1 is here.\n", "word1"}
    assert {text[row[1] : row[2]] for row in found["sentence"]} == {"word0 é.", "Word1 is here.", "word1"}
    assert json.dumps(found["document"]) == json.dumps(_Own(model, "document").spans(Document("s", "1", text)))
    with pytest.raises(ConfigError, match="not found"):
        _Own(str(tmp_path / "no.bin"), "document")
    with pytest.raises(ConfigError, match="model_mode"):
        _Own(model, "documents")
    with pytest.raises(ValueError, match="newline"):
        trained.predict("a\nb")


def test_slices() -> None:
    text = "a b\n \nc"
    assert [part.text for part in split_paragraphs(text)] == ["a b\n", "c"]
    assert [part.text for part in split_paragraphs(text, remove_empty=False)] == ["a b\n", " \n", "c"]
    assert [part.text for part in split_sentences("é One. Two?")] == ["é One.", "Two?"]
