"""``tag`` and ``tokens`` beside dolma 1.2.1, where that is deterministic; each difference is named."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from dolma_corpus import Dolma, make_rows, read_rows, write_rows
from oracle import there

pytestmark = pytest.mark.oracle

END = 0


def theirs(*arguments: object) -> None:
    result = there([*arguments, "--debug"])
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture
def old_tokenizer(tokenizer_path: Path, tmp_path: Path) -> Path:
    """The tokenizer as dolma 1.2.1's older ``tokenizers`` writes it: merges as strings."""
    content = json.loads(tokenizer_path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path = tmp_path / "old_tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def documents_and_ids(directory: Path) -> dict[tuple[str, str], tuple[str, list[int]]]:
    """(file name, line) of every document to its id and tokens; the order of shards is not compared."""
    found = {}
    for path in sorted(directory.glob("*.npy")):
        ids = np.memmap(path, dtype="uint16", mode="r")
        with gzip.open(path.with_suffix(".csv.gz"), "rt", newline="") as file:
            for start, end, id, src, loc in csv.reader(file):
                found[os.path.basename(src), loc] = (id, ids[int(start) : int(end)].tolist())
    return found


@pytest.mark.parametrize(
    "settings",
    [{}, {"tokenizer.bos_token_id": 1}, {"tokenizer.segment_before_tokenization": True}],
    ids=["end", "begin_and_end", "segments"],
)
def test_tokens_are_those_of_dolma_1(
    dolma: Dolma, corpus: Path, old_tokenizer: Path, settings: dict[str, object]
) -> None:
    """Equal but for the order: 1.2.1 never applies its seed, so that two runs of it differ."""
    options: list[object] = ["--documents", f"{corpus}/documents/*.gz", f"{corpus}/documents/*/*.gz"]
    options += ["--tokenizer.name_or_path", old_tokenizer, "--tokenizer.eos_token_id", END]
    options += ["--dtype", "uint16", "--max_size", 100_000]
    for key, value in settings.items():
        options += [f"--{key}"] if value is True else [f"--{key}", value]
    dolma("tokens", *options, "--destination", corpus / "ours")
    theirs("tokens", *options, "--destination", corpus / "theirs")
    ours = documents_and_ids(corpus / "ours")
    assert len(ours) > 200
    assert ours == documents_and_ids(corpus / "theirs")


def test_text_that_spells_the_end_token_is_as_in_dolma_1_when_told(
    dolma: Dolma, tmp_path: Path, old_tokenizer: Path
) -> None:
    """1.2.1 lets such a text break its document in two; ours does with ``encode_special_tokens: false`` alone."""
    texts = ["to <|mail|> me", "the <|end|> of it", "at the end <|end|>", "<|end|>"]
    write_rows(tmp_path / "documents/a.jsonl.gz", [{"id": str(i), "text": text} for i, text in enumerate(texts)])
    options: list[object] = ["--documents", f"{tmp_path}/documents/*.gz", "--tokenizer.name_or_path", old_tokenizer]
    options += ["--tokenizer.eos_token_id", END, "--dtype", "uint16", "--max_size", 100_000]
    options += ["--no-tokenizer.encode_special_tokens"]
    dolma("tokens", *options, "--destination", tmp_path / "ours")
    theirs("tokens", *options, "--destination", tmp_path / "theirs")
    assert documents_and_ids(tmp_path / "ours") == documents_and_ids(tmp_path / "theirs")


MODULE = """
import dolma
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.taggers import BaseTagger


@dolma.add_tagger("vowels-v1")
class Vowels(BaseTagger):
    def predict(self, doc: Document) -> DocResult:
        places = [(i, c) for i, c in enumerate(doc.text) if c in "aeio"]
        spans = [Span(start=i, end=i + 1, type=f"is {c}", score=1 / (i + 1)) for i, c in places]
        return DocResult(doc=doc, spans=spans)
"""


@pytest.mark.parametrize("experiment", [None, "my-exp"])
def test_the_same_python_tagger_gives_the_same_rows(dolma: Dolma, tmp_path: Path, experiment: str | None) -> None:
    # a module name of its own: one process imports a name once
    module = tmp_path / f"vowels_of_{experiment is None}.py"
    module.write_text(MODULE)
    rows = [{**row, "metadata": {"n": 1}} for row in make_rows(150)]
    for side in ("ours", "theirs"):
        write_rows(tmp_path / side / "documents/x/a.jsonl.gz", rows)
    options = ["--taggers", "vowels-v1", "char_length_v1", "--tagger_modules", module]
    options += ["--experiment", experiment] if experiment else []
    dolma("tag", "--documents", tmp_path / "ours/documents/x/*.gz", *options)
    theirs("tag", "--documents", tmp_path / "theirs/documents/x/*.gz", *options)
    names = [experiment] if experiment else ["vowels_v1", "char_length_v1"]
    for name in names:
        found = [read_rows(tmp_path / side / f"attributes/{name}/x/a.jsonl.gz") for side in ("ours", "theirs")]
        assert found[0] == found[1]
        assert [list(row) for row in found[0]] == [list(row) for row in found[1]]
        assert [list(row["attributes"]) for row in found[0]] == [list(row["attributes"]) for row in found[1]]
    assert (
        json.loads((tmp_path / f"ours/attributes/{names[0]}/manifest.json").read_text())["counts"]["documents"] == 150
    )


def test_destination_gives_the_files_that_dolma_1_gives(dolma: Dolma, tmp_path: Path) -> None:
    """Over several directories; where all matches lie in one, 1.2.1 leaves its name out and ours does not."""
    for name in ("a", "b"):
        write_rows(tmp_path / f"texts/{name}/x.jsonl.gz", make_rows(20))
    for side, run in (("ours", dolma), ("theirs", theirs)):
        options = ["--taggers", "char_length_v1", "char_length_with_paragraphs_v1"]
        run("tag", "--documents", f"{tmp_path}/texts/*/*.gz", "--destination", tmp_path / side, *options)
    files = [
        {path.relative_to(tmp_path / side).as_posix(): read_rows(path) for path in (tmp_path / side).rglob("*.gz")}
        for side in ("ours", "theirs")
    ]
    assert files[0] == files[1]
    assert sorted(files[0]) == ["a/x.jsonl.gz", "b/x.jsonl.gz"]
