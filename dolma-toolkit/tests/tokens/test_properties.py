"""What holds for any text: ends, round trips, sizes, the same documents at any number of threads."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, artifact_hashes, write_rows
from token_shards import END, options, read_shards
from tokenizers import Tokenizer

ALPHABETS = (
    "abc the of ,.;\n",
    "ÄöÜ ßéñ İıſK\r\n\t",
    "東京日本語\u3000。",
    "😀👩\u200d🚀🏳️\u200d🌈 \U0001f1e9\U0001f1ea",
    "e\u0301a\u0308\u0327 \u202e\ufeff\u200b",
    "\0\x01\x1f\x7f\x85\ud7ff\ue000\uffff\U0010ffff x",
    "<|end|><|pad|> |<>",
)


def random_rows(seed: int, count: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        letters = draw.choice(ALPHABETS) + draw.choice(ALPHABETS)
        pieces = [draw.choice([letters, letters, "<|end|>", " <|pad|>"]) for _ in range(draw.randrange(3))]
        text = "".join(draw.choice(letters) for _ in range(draw.randrange(60))) + "".join(pieces)
        rows.append({"id": f'{number},"é"', "text": text})
    return rows


@pytest.mark.parametrize("seed", range(6))
def test_any_text_comes_back(
    dolma: Dolma, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    size = random.Random(seed).randrange(600, 3000)
    rows = {}
    for name in ("a", "b", "c/d"):
        path = f"documents/{name}.jsonl"
        written = random_rows(seed * 10 + len(rows), 60)
        write_rows(tmp_path / path, written)
        rows |= {(path, str(line)): row for line, row in enumerate(written, start=1)}
    hashes, found = [], []
    for processes in (1, 2, 8):
        place = f"out{processes}"
        settings = {"max_size": size, "seed": seed, "batch_size": 20, "processes": processes}
        dolma(*options(tokenizer_path, place, **settings, **{"tokenizer.encode_special_tokens": True}))
        hashes.append(artifact_hashes(tmp_path / place))
        found.append(Counter((row["src"], row["loc"], tuple(ids)) for row, ids in read_shards(tmp_path / place)))
    assert hashes[0] == hashes[1] == hashes[2]
    assert found[0] == found[1] == found[2]
    assert all(path.stat().st_size <= size for path in (tmp_path / "out1").glob("*.npy"))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    seen = set()
    for row, ids in read_shards(tmp_path / "out1"):
        assert ids.index(END) == len(ids) - 1
        text = rows[row["src"], row["loc"]]["text"]
        assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == text.strip()
        assert row["id"] == rows[row["src"], row["loc"]]["id"]
        seen.add((row["src"], row["loc"]))
    assert seen == {place for place, row in rows.items() if row["text"].strip()}


def model(**changes: Any) -> dict[str, Any]:
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "<|end|>": 5}
    return {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"], ["ab", "c"]]} | changes


def file(**changes: Any) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    rooms = {"normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": None}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        **rooms,
        "model": model(),
    } | changes


def token(**changes: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": 5, "content": "<|end|>", "special": True, **flags} | changes


HOSTILE: dict[str, Any] = {
    "empty": "",
    "number": 7,
    "list": [],
    "without_model": {"version": "1.0"},
    "vocabulary_of_strings": file(model=model(vocab={"a": "0"})),
    "negative_id": file(model=model(vocab={"a": -1, "b": 1})),
    "id_beyond_32_bits": file(model=model(vocab={"a": 1 << 40, "b": 1})),
    "merge_of_unknown_tokens": file(model=model(merges=[["x", "y"]])),
    "merge_into_an_unknown_token": file(model=model(merges=[["b", "a"]])),
    "merge_of_three": file(model=model(merges=["a b c"])),
    "merges_of_numbers": file(model=model(merges=[[1, 2]])),
    "merges_are_a_string": file(model=model(merges="a b")),
    "unknown_kind": file(model=model(type="Magic")),
    "damaged_expression": file(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": False}
    ),
    "added_token_without_id": file(added_tokens=[{"content": "x"}]),
    "added_token_of_a_list": file(added_tokens=[token(content=["x"])]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_tokenizer_is_an_error_that_names_it(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": "a b c abc"}])
    content = HOSTILE[name]
    (tmp_path / "damaged.json").write_text(content if isinstance(content, str) else json.dumps(content))
    result = dolma(*options(Path("damaged.json"), "out"), code=2)
    assert 'tokenizer.name_or_path: is "damaged.json", which is' in result.err
    assert "panicked" not in result.err
    assert not list(tmp_path.glob("out/*.npy"))


# usable, if strange: what they spell is encoded or refused, and nothing breaks
STRANGE: dict[str, Any] = {
    "merges_in_a_circle": file(
        model=model(vocab={"a": 0, "aa": 1, "aaa": 2, "<|end|>": 5}, merges=[["a", "a"], ["aa", "a"], ["a", "aa"]])
    ),
    "merge_stands_twice": file(model=model(merges=[["a", "b"], ["a", "b"]])),
    "empty_merges": file(model=model(merges=[])),
    "two_tokens_of_one_id": file(model=model(vocab={"a": 0, "b": 0, "c": 0, "<|end|>": 5}, merges=[])),
    "empty_vocabulary": file(model=model(vocab={}, merges=[])),
    "huge_id": file(model=model(vocab={"a": 0, "b": 1, "c": (1 << 32) - 1, "<|end|>": 5}, merges=[])),
    "empty_added_token": file(added_tokens=[token(id=0, content="")]),
    "added_token_far_away": file(added_tokens=[token(id=4_000_000_000)]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_tokenizer_gives_shards_or_an_error(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": "a b c aaaa abc"}, {"id": "2", "text": "ab"}])
    (tmp_path / "strange.json").write_text(json.dumps(STRANGE[name]))
    result = dolma(*options(Path("strange.json"), "out"), code=None)
    assert "panicked" not in result.err
    assert result.code in (0, 1, 2)
    if result.code == 2:
        assert "strange.json" in result.err or "tokenizer.eos_token_id" in result.err
    if result.code == 0:
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["counts"]["documents"] == len(read_shards(tmp_path / "out", manifest["details"]["dtype"]))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_tokenizer_is_an_error(
    dolma: Dolma, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": "a"}])
    whole = tokenizer_path.read_bytes()
    (tmp_path / "cut.json").write_bytes(whole[: int(len(whole) * kept)])
    assert 'is "cut.json", which is not a tokenizer' in dolma(*options(Path("cut.json"), "out"), code=2).err
