"""`paloma build`: layout, splits, sizes, and equal samples from any division into files."""

import csv
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from paloma.__main__ import main
from paloma.build import BuildConfig, build
from paloma.formats.__main__ import main as formats
from paloma.formats.document import document_files, read_documents
from results_files import write_documents

Rows = list[dict[str, Any]]


def mini_paloma(domains: int = 300, documents: int = 14) -> Rows:
    """Hundreds of domains in three sources, with texts in several scripts."""
    words = ["alpha", "béta", "гамма", "δέλτα", "東京", "😀", "the", "of", "and", "to"]
    rows: Rows = []
    for number in range(domains):
        source = ("forums", "papers", "web")[number % 3]
        for index in range(documents):
            draw = random.Random(f"{number} {index}")
            text = " ".join(draw.choices(words, k=draw.randint(3, 30)))
            row: dict[str, Any] = {"id": f"{number}-{index}", "text": text, "source": source, "added": "2024-01-01"}
            owner = row.setdefault("metadata", {}) if number % 2 else row  # the format allows both
            owner["subdomain"] = f"domain_{number:03d}"
            rows.append(row)
    return rows


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in ("metrics.jsonl", "manifest.json"))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def rows_of(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_mini_paloma_of_300_domains(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "in" / "all.jsonl.gz", mini_paloma())
    output = tmp_path / "out"
    assert main(["build", "--documents", str(corpus), "--output-dir", str(output), "--bytes-per-domain", "200"]) == 0
    assert sorted(p.name for p in output.iterdir()) == [
        "domains.csv",
        "forums",
        "manifest.json",
        "metrics.jsonl",
        "papers",
        "web",
    ]
    assert formats(["validate", "document", str(output)]) == 0
    with (output / "domains.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    manifest = json.loads((output / "manifest.json").read_text())
    dropped = manifest["details"]["dropped_domains"]
    assert len(table) == 2 * (300 - len(dropped))
    assert len(dropped) < 5  # all 14 documents in one split: 300 / 2^13 expected
    assert all(int(row["bytes"]) <= 200 for row in table)
    assert sum(int(row["documents"]) for row in table) == manifest["counts"]["documents"]
    val = rows_of(output / "papers" / "val" / "papers_00000000.jsonl.gz")
    test = rows_of(output / "papers" / "test" / "papers_00000000.jsonl.gz")
    assert not {row["id"] for row in val} & {row["id"] for row in test}
    whole = [row["text"] + row["metadata"].get("truncated_portion", "") for row in val]
    assert not set(whole) & {row["text"] + row["metadata"].get("truncated_portion", "") for row in test}
    assert set(val[0]) == {"id", "text", "source", "subdomain", "added", "metadata"}
    assert all(row["subdomain"] == f"domain_{int(row['id'].split('-')[0]):03d}" for row in val)


def test_sample_does_not_depend_on_files_or_their_order(tmp_path: Path) -> None:
    rows = mini_paloma(60)
    one = write_documents(tmp_path / "one" / "all.jsonl", rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    for number in range(7):
        write_documents(tmp_path / "many" / f"{number}.jsonl.gz", shuffled[number::7])
    config = BuildConfig(bytes_per_domain=150)
    build([one], tmp_path / "a", config, None, overwrite=False)
    build([tmp_path / "many"], tmp_path / "b", config, None, overwrite=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    build([one], tmp_path / "c", BuildConfig(bytes_per_domain=150, seed=1), None, overwrite=False)
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_sample_of_a_sample_is_the_same(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "in.jsonl", mini_paloma(30))
    config = BuildConfig(bytes_per_domain=10**9)
    build([corpus], tmp_path / "a", config, None, overwrite=False)
    build([tmp_path / "a"], tmp_path / "b", config, None, overwrite=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_equal_texts_are_taken_once_and_never_in_two_splits(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "text": f"text {n % 20}", "source": "s"} for n in range(200)]
    build(
        [write_documents(tmp_path / "in.jsonl", rows)],
        tmp_path / "o",
        BuildConfig(bytes_per_domain=10**6),
        None,
        overwrite=False,
    )
    texts = [document.text for document in read_documents(document_files(tmp_path / "o"))]
    assert sorted(texts) == sorted({row["text"] for row in rows})


def test_one_split_whole_documents_and_one_domain(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "in.jsonl", mini_paloma(30))
    config = BuildConfig(bytes_per_domain=300, splits=("val",), whole_documents=True, one_domain=("web",))
    build([corpus], tmp_path / "o", config, None, overwrite=False)
    web = rows_of(tmp_path / "o" / "web" / "val" / "web_00000000.jsonl.gz")
    sizes = [len(row["text"].encode()) for row in web]
    assert sum(sizes) >= 300 > sum(sizes[:-1])
    assert not any("truncated_portion" in row["metadata"] or "subdomain" in row for row in web)
    assert (
        len({row["subdomain"] for row in rows_of(tmp_path / "o" / "papers" / "val" / "papers_00000000.jsonl.gz")}) == 10
    )


def test_tokens_are_counted_and_the_last_document_is_cut_at_the_target(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({word: n for n, word in enumerate(["[UNK]", "a", "b", "c"])}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [{"id": f"{n}", "text": f"a b c {n} a", "source": "s"} for n in range(50)]
    output = tmp_path / "o"
    arguments = ["--tokens-per-domain", "23", "--tokenizer", str(tmp_path / "tokenizer.json"), "--splits", "val"]
    source = str(write_documents(tmp_path / "in.jsonl", rows))
    assert main(["build", "--documents", source, "--output-dir", str(output), *arguments]) == 0
    found = rows_of(output / "s" / "val" / "s_00000000.jsonl.gz")
    assert [len(row["text"].split()) for row in found] == [5, 5, 5, 5, 3]
    assert found[-1]["text"] == "a b c"
    assert found[-1]["metadata"]["truncated_portion"].endswith(" a")
    assert "val,5,23," in (output / "domains.csv").read_text()


@pytest.mark.skipif("SHARED_DATA" not in os.environ, reason="needs real data: set SHARED_DATA (docs/guide/testing.md)")
def test_real_documents_without_manifest(tmp_path: Path) -> None:
    data = Path(os.environ["SHARED_DATA"])
    paths = [data / "ppl" / "reddit", data / "corpus" / "genesis", data / "corpus" / "wiki"]
    build(paths, tmp_path / "o", BuildConfig(bytes_per_domain=20_000), None, overwrite=False)
    assert formats(["validate", "document", str(tmp_path / "o")]) == 0
    assert len(list((tmp_path / "o").glob("*/*/*.jsonl.gz"))) == 6


def test_sources_beyond_ascii_get_folders_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"id": f"{source} {n}", "text": f"{source} text {n}", "source": source}
        for source in ("好评", "差评", "naïve", "a b", "v1.0")
        for n in range(12)
    ]
    corpus = write_documents(tmp_path / "in" / "d.jsonl", rows)
    output = tmp_path / "out"
    assert main(["build", "--documents", str(corpus), "--output-dir", str(output), "--bytes-per-domain", "20"]) == 0
    folders = sorted(path.name for path in output.iterdir() if path.is_dir())
    assert folders == sorted(["%E5%A5%BD%E8%AF%84", "%E5%B7%AE%E8%AF%84", "na%C3%AFve", "a_b", "v1.0"])
    sources = {document.source for document in read_documents(document_files(output))}
    assert sources == {
        "好评",
        "差评",
        "naïve",
        "a b",
        "v1.0",
    }


def test_sources_that_share_a_folder_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(n), "text": f"t {n}", "source": ("a b", "a_b")[n % 2]} for n in range(4)]
    corpus = write_documents(tmp_path / "in" / "d.jsonl", [*rows, {"id": "broken"}])
    assert (
        main(["build", "--documents", str(corpus), "--output-dir", str(tmp_path / "o"), "--bytes-per-domain", "9"]) == 2
    )
    assert 'the sources "a b" and "a_b" share the folder a_b' in capsys.readouterr().err


def test_documents_are_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(n), "text": f"text {n}", "source": "s"} for n in range(20)]
    corpus = write_documents(tmp_path / "in" / "d.jsonl", rows)
    (tmp_path / "in" / "loop").symlink_to("..")
    (tmp_path / "in" / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    target = ["--output-dir", str(tmp_path / "o"), "--bytes-per-domain", "50", "--splits", "val"]
    assert main(["build", "--documents", str(corpus), str(tmp_path / "in" / "loop" / "in" / "d.jsonl"), *target]) == 2
    assert "is listed twice" in capsys.readouterr().err
    assert main(["build", "--documents", str(corpus.parent), *target]) == 0
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["details"]["seen"]["documents"] == 20
    (tmp_path / "in" / "more.parquet").write_bytes(b"PAR1")
    assert main(["build", "--documents", str(corpus.parent), *target, "--overwrite"]) == 1
    assert "more.parquet: .parquet files are not supported" in capsys.readouterr().err


def test_tokenizer_counts_the_whole_text(tmp_path: Path) -> None:
    from paloma.build import Tokens
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    backend = Tokenizer(WordLevel({"a": 0, "<": 1, "s": 2, ">": 3, "?": 4}, unk_token="?"))
    backend.pre_tokenizer = Split("", "isolated")
    backend.add_special_tokens([AddedToken("<s>", special=True)])
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokens(tmp_path / "tokenizer.json").size("aaaa<s>") == 7
