"""``dolma train-classifier``: what it writes, that it writes the same again, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from dolma_corpus import Dolma

from dolma import _native
from dolma.classifier import Row, evaluate, measures, read_rows, split, training_line, wilson
from dolma.errors import FormatError
from dolma.files.paths import Source

fasttext = pytest.importorskip("fasttext", reason="needs the extra classifier")

FAST = ("--dimension", 8, "--epochs", 12, "--buckets", 500, "--learning_rate", 0.5)


def labelled(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Short texts about two subjects, with words that both have, newlines and accents."""
    source = random.Random(seed)
    subjects = {"food": "bread soup crème salt oven plate".split(), "boats": "sail mast oar harbour keel naïve".split()}
    common = [f"{word}{number}" for word in "the and of with a to".split() for number in range(60)]
    rows = []
    for _ in range(n):
        label = source.choice(sorted(subjects))
        words = source.choices(subjects[label], k=2) + source.choices(common, k=6)
        source.shuffle(words)
        rows.append((" ".join(words[:4]) + "\n" + " ".join(words[4:]), label))
    return rows


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in labelled(400))
    return path


def test_a_model_its_measures_and_the_same_again(dolma: Dolma, train_file: Path, tmp_path: Path) -> None:
    first = dolma("train-classifier", "--train", train_file, "--destination", tmp_path / "one", *FAST, "--quantize")
    second = dolma("train-classifier", "--train", train_file, "--destination", tmp_path / "two", *FAST, "--quantize")
    assert first.out == second.out
    assert "| boats" in first.out
    assert "| food ≥" in first.out
    for name in ("model.bin", "model.ftz", "evaluation.json", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    assert manifest["counts"]["train_rows"] + manifest["counts"]["test_rows"] == 400
    assert [row["role"] for row in manifest["inputs"]] == ["train"]
    evaluation = json.loads((tmp_path / "one" / "evaluation.json").read_bytes())["model.bin"]
    assert evaluation["accuracy"] > 0.9
    metrics = [json.loads(line) for line in (tmp_path / "one" / ".dolma/metrics.ndjson").read_text().splitlines()]
    assert metrics[-1]["done"]
    assert metrics[-1]["model.bin.accuracy"] == evaluation["accuracy"]
    again = dolma("train-classifier", "--train", train_file, "--destination", tmp_path / "one", *FAST, "--quantize")
    assert "finished before" in again.err
    assert again.out == first.out
    other = dolma("train-classifier", "--train", train_file, "--destination", tmp_path / "one", code=2)
    assert "other settings" in other.err
    assert "--ignore_existing" in other.err


@pytest.mark.parametrize("loss", ["softmax", "hs", "ova", "ns"])
def test_native_inference_gives_the_numbers_of_the_package(
    dolma: Dolma, train_file: Path, tmp_path: Path, loss: str
) -> None:
    options = (*FAST, "--quantize", "--loss", loss, "--min_chars", 2, "--max_chars", 3)
    dolma("train-classifier", "--train", train_file, "--destination", tmp_path / "out", *options)
    for name in ("model.bin", "model.ftz"):
        path = str(tmp_path / "out" / name)
        theirs, ours = fasttext.FastText._FastText(path), _native.FastText(path)
        for text, _ in [*labelled(50, seed=1), ("", ""), ("unseen wörds", "")]:
            line = text.replace("\n", " ")
            expected = {label: score for score, label in theirs.f.predict(line + "\n", -1, 0.0, "strict")}
            found = dict(ours.predict(line))
            assert found.keys() == expected.keys()
            assert found == pytest.approx(expected, abs=1e-5)


def test_csv_labels_renamed_and_left_out(dolma: Dolma, tmp_path: Path) -> None:
    for name, seed in (("train.csv", 0), ("test.csv", 1)):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["no", "body", "class"])
            writer.writerows(
                [number, text, number % 7 and {"food": 1, "boats": 2}[label]]
                for number, (text, label) in enumerate(labelled(140, seed))
            )
    arguments = ("--text_field", "body", "--label_field", "class", "--label_map", "1=eat", "2=row", "0=")
    places = ("--train", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--destination", tmp_path / "out")
    dolma("train-classifier", *places, *arguments, *FAST)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["counts"] == {"train_rows": 120, "test_rows": 120}
    assert sorted(manifest["details"]["labels"]) == ["eat", "row"]


def test_bad_rows_and_requests_are_told(dolma: Dolma, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "a"}\nno\n{"text": ["a"], "label": 1}\n', "utf-8")
    result = dolma("train-classifier", "--train", path, "--destination", tmp_path / "out", code=1)
    assert f'{path}:2: "label" is missing' in result.err
    assert f"{path}:3" in result.err
    assert f'{path}:4: "text" is not text' in result.err
    assert not (tmp_path / "out" / "manifest.json").exists()
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}\n', "utf-8")
    places = ("--train", path, "--test", path, "--destination", tmp_path / "out")
    assert "two or more" in dolma("train-classifier", *places, code=2).err
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n', "utf-8")
    small = dolma("train-classifier", *places, "--quantize", "--buckets", 10, code=2)
    assert "remove quantize" in small.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == []
    assert "did you mean" in dolma("train-classifier", "--epoch", 3, code=2).err


def test_equal_texts_fall_on_one_side_and_words_that_fasttext_would_obey_are_left_out() -> None:
    rows = [Row(text, label) for text, label in labelled(300)]
    train, test = split(rows + rows[::-1], 0.2, 7)
    assert not {row.text for row in train} & {row.text for row in test}
    assert 60 < len(test) < 180
    assert training_line(Row("a\n__label__b </s>\tc", "x")) == "__label__x a c\n"


def test_measures_and_their_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    row = measures(hits=6, found=8, n=10)
    assert (row["precision"], row["recall"], row["f1"]) == (0.75, 0.6, 0.6667)
    assert row["f1_95"][0] < row["f1"] < row["f1_95"][1]
    scored = [{"a": 0.9, "b": 0.1}, {"a": 0.6, "b": 0.4}, {"a": 0.2, "b": 0.8}]
    found = evaluate(["a", "b", "b"], scored, [0.5, 0.7])
    assert found["labels"]["a"]["precision"] == 0.5
    assert found["labels"]["b"]["recall"] == 0.5
    assert [row["found"] for row in found["thresholds"]["a"]] == [2, 1]


def test_a_trainer_that_another_package_overwrote_is_refused_with_the_cure(tmp_path: Path) -> None:
    """fasttext-predict writes files of the same names; without the check training would fail on an attribute."""
    (tmp_path / "fasttext").mkdir()
    (tmp_path / "fasttext" / "__init__.py").write_text("")
    (tmp_path / "fasttext" / "FastText.py").write_text("# of another package")
    record = tmp_path / "fasttext_community-9.0.dist-info" / "RECORD"
    record.parent.mkdir()
    (record.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: fasttext-community\nVersion: 9.0\n")
    record.write_text("fasttext/FastText.py,sha256=AAAA,20\nfasttext_community-9.0.dist-info/METADATA,,\n")
    code = 'from dolma.core.extras import fasttext_trainer; fasttext_trainer("train")'
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fasttext-community is overwritten by another package" in done.stderr
    assert "pip install --force-reinstall --no-deps fasttext-community" in done.stderr


@pytest.mark.parametrize(
    ("name", "head", "row", "encoding"),
    [
        ("a.csv", "text,label\r\n", '"{text}\r\nsecond, line",{label}\r\n', "utf-8-sig"),
        ("a.csv", "text;label\r\n", '"{text}, with a comma";{label}\r\n', "utf-8-sig"),
        ("a.csv", "sep=;\r\ntext;label\r\n", "{text};{label}\r\n", "utf-8"),
        ("a.tsv", "id\ttext\tlabel\n", "1\t{text}\t{label}\n", "utf-8"),
        ("a.txt", "", "__label__{label} {text}\n", "utf-8-sig"),
        ("a.jsonl", "", "{text} __label__{label}\n", "utf-8"),
        ("a.jsonl", "", '{{"text":"{text}","label":"{label}"}}\n', "utf-8-sig"),
    ],
)
def test_rows_of_tables_and_of_fasttext_are_read(tmp_path: Path, name: str, head: str, row: str, encoding: str) -> None:
    texts = [("good é", "pos"), ("bad ü", "neg")]
    if row.startswith("{text} __label__"):  # the label may be anywhere, if the first line shows the format
        head = "__label__pos good é\n__label__neg bad ü\n"
        row = ""
    content = head + "".join(row.format(text=text, label=label) for text, label in texts)
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    rows = read_rows([Source(str(path), str(path), str(path))], "text", "label", {})
    assert [(found.label, found.text.split()[0]) for found in rows] == [("pos", "good"), ("neg", "bad")]
    assert ("second, line" in rows[0].text) == ("second" in row)


def test_a_line_with_two_labels_and_a_row_with_too_many_cells_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("__label__a __label__b x\n__label__a y\n")
    (tmp_path / "b.csv").write_text("text,label\nx,a,more\n")
    for name, expected in (("a.txt", "a.txt:1: the line has 2 labels"), ("b.csv", "b.csv:2: the row has more cells")):
        with pytest.raises(FormatError) as error:
            read_rows([Source(str(tmp_path / name), str(tmp_path / name), name)], "text", "label", {})
        assert expected in str(error.value)
