"""``dolma tag``: attribute files, taggers in Python, what is kept of an earlier run."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, read_rows, write_rows

from dolma.core.registry import TaggerRegistry

MODULE = '''
import dolma
from dolma.core.data_types import DocResult, Document, DocumentWithMetadata, Span
from dolma.core.taggers import BaseTagger, BaseTaggerWithMetadata


@dolma.add_tagger("letter_e")
class LetterE(BaseTagger):
    """Every e, with its share of the text."""

    def predict(self, doc: Document) -> DocResult:
        spans = [Span(i, i + 1, "letter e!", 1 / len(doc.text)) for i, c in enumerate(doc.text) if c == "e"]
        return DocResult(doc=doc, spans=spans)


@dolma.add_tagger("license-name")
class License(BaseTaggerWithMetadata):
    """What the metadata says."""

    @property
    def defaults(self) -> list[str]:
        return ["known"]

    def predict(self, doc: DocumentWithMetadata) -> DocResult:
        known = [Span(0, len(doc.text), "known", 1)] if doc.metadata.get("license") else []
        return DocResult(doc=doc, spans=known)


@dolma.add_tagger("fails")
class Fails(BaseTagger):
    def predict(self, doc: Document) -> DocResult:
        if doc.id.endswith("7"):
            raise KeyError("seven")
        return DocResult(doc=doc, spans=[])


@dolma.add_tagger("beyond")
class Beyond(BaseTagger):
    def predict(self, doc: Document) -> DocResult:
        return DocResult(doc=doc, spans=[Span(0, len(doc.text) + 1, "x")])
'''


COLLIDING = """
import dolma
from dolma.core.data_types import DocResult, Document, Span
from dolma.core.taggers import BaseTagger


def tagger(name, types):
    class Types(BaseTagger):
        def predict(self, doc: Document) -> DocResult:
            return DocResult(doc=doc, spans=[Span(0, 0, type) for type in types(doc.id)])

    Types.__qualname__ = name
    dolma.add_tagger(name)(Types)


tagger("one-key", lambda id: ["a b", "a-b"])
tagger("one_key", lambda id: ["x"])
tagger("one_key__deeper", lambda id: ["x"])
tagger("long", lambda id: ["er__x"])
tagger("long__er", lambda id: ["x"])
tagger("by_row", lambda id: ["a b" if int(id) < 2 else "a_b"])
tagger("scripts", lambda id: ["好评", "差评", "é", "è"])
tagger("surrogate", lambda id: ["\\ud800"])
"""


def colliding(dolma: Dolma, folder: Path, *taggers: str, code: int, experiment: str = "e") -> str:
    (folder / "colliding.py").write_text(COLLIDING, "utf-8")
    for name, first in (("a", 0), ("b", 2)):
        write_rows(folder / f"documents/{name}.jsonl", [{"id": str(first + n), "text": "t"} for n in range(2)])
    command = ("tag", "--documents", f"{folder}/documents/*", "--tagger_modules", folder / "colliding.py")
    sys.modules.pop("colliding", None)
    done = dolma(*command, "--experiment", experiment, "--debug", "--taggers", *taggers, code=code)
    for name in ("one-key", "one_key", "one_key__deeper", "long", "long__er", "by_row", "scripts", "surrogate"):
        TaggerRegistry.remove(name)
    return done.err


def test_taggers_with_the_same_key_are_refused_before_the_work(dolma: Dolma, tmp_path: Path) -> None:
    error = colliding(dolma, tmp_path, "one-key", "one_key", code=2)
    assert 'taggers.1: is "one_key", which would write the same attribute keys as "one-key"' in error
    assert not (tmp_path / "attributes").exists()


def test_experiments_with_the_same_key_are_refused_before_the_work(dolma: Dolma, tmp_path: Path) -> None:
    for experiment in ("a b", "实验", "测试"):
        colliding(dolma, tmp_path, "scripts", code=0, experiment=experiment)
    error = colliding(dolma, tmp_path, "scripts", code=2, experiment="a-b")
    assert 'experiment: is "a-b", which would write the same attribute keys as' in error
    assert not (tmp_path / "attributes/a-b").exists()
    [row, _] = read_rows(tmp_path / "attributes/实验/a.jsonl")
    assert [*row["attributes"]] == [f"实验__scripts__{kind}" for kind in ("好评", "差评", "é", "è")]


def test_span_types_of_one_key_are_an_error(dolma: Dolma, tmp_path: Path) -> None:
    error = colliding(dolma, tmp_path, "one-key", code=1)
    assert 'a.jsonl:1: document "0": the span types "a b" and "a-b" both have the key "e__one_key__a_b"' in error
    error = colliding(dolma, tmp_path, "long", "long__er", code=1, experiment="f")
    assert 'the taggers "long" and "long__er" both wrote the key "f__long__er__x"' in error
    # in files that are each valid
    error = colliding(dolma, tmp_path, "by_row", code=1, experiment="g")
    assert 'the span types "a b" and "a_b" both have the key "g__by_row__a_b"' in error
    assert not (tmp_path / "attributes/g/manifest.json").exists()
    assert "a type that is valid UTF-8" in colliding(dolma, tmp_path, "surrogate", code=1, experiment="h")


@pytest.fixture
def module(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (corpus / "my_taggers.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_taggers.py"
    sys.modules.pop("my_taggers", None)
    for name in ("letter_e", "license-name", "fails", "beyond"):
        TaggerRegistry.remove(name)


def attribute_files(root: Path, name: str) -> dict[str, list[dict[str, object]]]:
    directory = root / "attributes" / name
    manifest = json.loads((directory / "manifest.json").read_text())
    return {entry["path"]: read_rows(directory / entry["path"]) for entry in manifest["files"]}


def test_one_directory_a_tagger_beside_the_documents(dolma: Dolma, corpus: Path) -> None:
    dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1", "c4_v2")
    assert sorted(path.name for path in (corpus / "attributes").iterdir()) == ["c4_v2", "char_length_v1"]
    files = attribute_files(corpus, "char_length_v1")
    assert sorted(files) == ["a.jsonl.gz", "web/b.jsonl.gz", "web/deep/c.jsonl"]
    for name, rows in files.items():
        documents = read_rows(corpus / "documents" / name)
        assert [row["id"] for row in rows] == [document["id"] for document in documents]
        for row, document in zip(rows, documents, strict=True):
            length = len(document["text"])
            key = "char_length_v1__char_length_v1__length"
            assert list(row) == ["id", "attributes", "source"]
            assert row["attributes"] == {key: [[0, length, length]]}
    manifest = json.loads((corpus / "attributes/char_length_v1/manifest.json").read_text())
    assert manifest["format"] == "attributes"
    assert manifest["counts"] == {"documents": 360, "spans": 360}
    assert manifest["details"] == {"documents": "../../documents", "keys": ["char_length_v1__char_length_v1__length"]}
    assert [entry["path"] for entry in manifest["inputs"]] == [f"../../documents/{name}" for name in sorted(files)]


def test_attributes_of_a_document_artifact_name_its_manifest(dolma: Dolma, corpus: Path) -> None:
    import hashlib

    from dolma.formats.contract import canonical_json

    files = []
    for path in sorted((corpus / "documents").rglob("*.jsonl*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(corpus / "documents").as_posix()
        files.append({"path": name, "size_bytes": path.stat().st_size, "sha256": digest})
    manifest = {"format": "document", "version": 1, "writer": {"name": "test", "version": "1"}, "config": {}}
    manifest |= {"counts": {}, "details": {}, "files": files, "inputs": []}
    data = canonical_json(manifest).encode()
    (corpus / "documents/manifest.json").write_bytes(data)
    dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1")
    inputs = json.loads((corpus / "attributes/char_length_v1/manifest.json").read_text())["inputs"]
    identity = hashlib.sha256(data).hexdigest()
    assert inputs == [{"role": "documents", "path": "../../documents", "manifest_sha256": identity}]
    from dolma.formats.__main__ import main

    assert main(["validate", "attributes", str(corpus / "attributes/char_length_v1")]) == 0


def test_experiment_puts_native_and_python_taggers_into_one_file(dolma: Dolma, corpus: Path, module: str) -> None:
    taggers = ["letter_e", "char_length_v1", "license-name"]
    modules = ["--tagger_modules", module]
    dolma("tag", "--documents", "documents/a.jsonl.gz", "--taggers", *taggers, *modules, "--experiment", "my-exp")
    rows = attribute_files(corpus, "my-exp")["a.jsonl.gz"]
    documents = read_rows(corpus / "documents/a.jsonl.gz")
    for row, document in zip(rows, documents, strict=True):
        text = document["text"]
        wanted = {}
        if "e" in text:
            share = round(1 / len(text), 5)
            wanted["my_exp__letter_e__letter_e_"] = [[i, i + 1, share] for i, c in enumerate(text) if c == "e"]
        wanted["my_exp__char_length_v1__length"] = [[0, len(text), len(text)]]
        wanted["my_exp__license_name__known"] = []
        assert row["attributes"] == wanted
        assert list(row["attributes"]) == list(wanted)


def test_python_tagger_sees_metadata(dolma: Dolma, corpus: Path, module: str) -> None:
    rows = [{"id": "1", "text": "a", "metadata": {"license": "MIT"}}, {"id": "2", "text": "b", "metadata": None}]
    write_rows(corpus / "documents/m.jsonl", rows)
    arguments = ["--documents", "documents/m.jsonl", "--taggers", "license-name", "--tagger_modules", module]
    dolma("tag", *arguments, "--debug")
    found = [row["attributes"] for row in attribute_files(corpus, "license_name")["m.jsonl"]]
    assert found == [{"license_name__license_name__known": [[0, 1, 1.0]]}, {"license_name__license_name__known": []}]


@pytest.mark.processes
def test_bytes_do_not_depend_on_workers(dolma: Dolma, corpus: Path, module: str) -> None:
    taggers = ["--taggers", "gopher_v2", "letter_e", "pii_regex_v1", "--tagger_modules", module]
    for processes in (1, 2, 4):
        arguments = [
            "--documents",
            "documents/**/*",
            *taggers,
            "--experiment",
            f"e{processes}",
            "--processes",
            processes,
        ]
        dolma("tag", *arguments)
    first, *others = [
        {
            name: gzip.decompress((corpus / f"attributes/e{processes}" / name).read_bytes()).replace(
                f"e{processes}__".encode(), b"e__"
            )
            for name in ("a.jsonl.gz", "web/b.jsonl.gz")
        }
        for processes in (1, 2, 4)
    ]
    assert all(other == first for other in others)


def test_manifest_is_equal_at_any_number_of_workers(dolma: Dolma, corpus: Path) -> None:
    hashes = []
    for processes in (1, 2, 5):
        arguments = ["--documents", "documents/**/*", "--taggers", "gopher_v1", "c4_v1", "--experiment", "e"]
        dolma("tag", *arguments, "--processes", processes, "--ignore_existing")
        hashes.append(artifact_hashes(corpus / "attributes/e"))
    assert hashes[0] == hashes[1] == hashes[2]


def test_second_run_does_nothing_and_a_changed_document_file_is_tagged_again(dolma: Dolma, corpus: Path) -> None:
    arguments = ["tag", "--documents", "documents/**/*", "--taggers", "char_length_v1"]
    dolma(*arguments)
    directory = corpus / "attributes/char_length_v1"
    before = artifact_hashes(directory)
    times = {name: (directory / name).stat().st_mtime_ns for name in before if name != "manifest.json"}
    assert "0 files (3 were finished before)" in dolma(*arguments).err
    assert artifact_hashes(directory) == before
    assert times == {name: (directory / name).stat().st_mtime_ns for name in times}
    write_rows(corpus / "documents/a.jsonl.gz", make_rows(50))
    assert "1 files (2 were finished before)" in dolma(*arguments).err
    assert len(attribute_files(corpus, "char_length_v1")["a.jsonl.gz"]) == 50
    assert "3 files (0 were finished before)" in dolma(*arguments, "--ignore_existing").err


def test_new_document_file_joins_the_finished_ones(dolma: Dolma, corpus: Path) -> None:
    dolma("tag", "--documents", "documents/a.jsonl.gz", "--taggers", "char_length_v1")
    dolma("tag", "--documents", "documents/web/**/*", "--taggers", "char_length_v1")
    apart = artifact_hashes(corpus / "attributes/char_length_v1")
    dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1", "--ignore_existing")
    assert artifact_hashes(corpus / "attributes/char_length_v1") == apart
    assert len(apart) == 4


def test_other_settings_in_the_same_experiment_are_refused(dolma: Dolma, corpus: Path) -> None:
    dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1", "--experiment", "e")
    before = artifact_hashes(corpus / "attributes/e")
    result = dolma("tag", "--documents", "documents/**/*", "--taggers", "c4_v2", "--experiment", "e", code=2)
    assert "made with other settings" in result.err
    assert "hint: " in result.err
    assert artifact_hashes(corpus / "attributes/e") == before
    dolma("tag", "--documents", "documents/**/*", "--taggers", "c4_v2", "--experiment", "e", "--ignore_existing")


def test_files_of_other_tools_are_not_overwritten(dolma: Dolma, corpus: Path) -> None:
    theirs = write_rows(corpus / "attributes/char_length_v1/a.jsonl.gz", [{"id": "1", "attributes": {}}])
    data = theirs.read_bytes()
    arguments = ["tag", "--documents", "documents/a.jsonl.gz", "--taggers", "char_length_v1"]
    assert "by another tool" in dolma(*arguments, code=2).err
    assert theirs.read_bytes() == data
    dolma(*arguments, "--ignore_existing")
    assert theirs.read_bytes() != data


@pytest.mark.processes
@pytest.mark.parametrize("tagger", ["gopher_v2", "letter_e"])
def test_kill_and_run_again_gives_the_same_bytes(dolma: Dolma, corpus: Path, module: str, tagger: str) -> None:
    for index in range(8):
        write_rows(corpus / f"documents/many/{index}.jsonl.gz", make_rows(600, index * 600))
    arguments = ["tag", "--documents", "documents/**/*", "--taggers", tagger, "--tagger_modules", module]
    records = corpus / "attributes" / tagger / ".dolma/progress.ndjson"
    killed = 0
    for wanted in (1, 4):
        process = subprocess.Popen([sys.executable, "-m", "dolma", *arguments], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (records.exists() and records.read_text().count('"keys"') >= wanted):
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    dolma(*arguments)
    after = artifact_hashes(corpus / "attributes" / tagger)
    dolma(*arguments, "--ignore_existing")
    assert artifact_hashes(corpus / "attributes" / tagger) == after
    assert len(after) == 12


def test_destination_takes_the_place_of_the_derived_one(dolma: Dolma, corpus: Path) -> None:
    (corpus / "documents").rename(corpus / "texts")
    arguments = ["--documents", "texts/a.jsonl.gz", "texts/web/**/*", "--taggers", "char_length_v1", "c4_v2"]
    dolma("tag", *arguments, "--destination", "out/a", "out/web")
    assert (corpus / "out/a/a.jsonl.gz").exists()
    assert (corpus / "out/web/deep/c.jsonl").exists()
    keys = json.loads((corpus / "out/web/manifest.json").read_text())["details"]["keys"]
    assert {key.split("__")[0] for key in keys} == {"char_length_v1", "c4_v2"}
    assert "has 1 entries; expected 2" in dolma("tag", *arguments, "--destination", "out", code=2).err
    assert 'has no directory "documents"' in dolma("tag", *arguments, code=2).err


def test_bad_rows_of_several_files_are_told_together(dolma: Dolma, corpus: Path) -> None:
    (corpus / "documents/x.jsonl").write_text('{"id":"1","text":"a"}\n{"id":"2"}\n{"id":"3","text":4}\n')
    whole = (corpus / "documents/a.jsonl.gz").read_bytes()
    (corpus / "documents/a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    result = dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1", code=1)
    assert 'error: documents/x.jsonl:2: "text" is missing; expected a string' in result.err
    assert 'error: documents/x.jsonl:3: "text" is a number; expected a string' in result.err
    assert "error: documents/a.jsonl.gz: the compressed file ends early" in result.err
    assert result.err.count("hint: ") == 2
    directory = corpus / "attributes/char_length_v1"
    assert {row["code"] for row in read_rows(directory / ".dolma/errors.ndjson")} == {
        "missing_field",
        "wrong_type",
        "truncated",
    }
    # what was right is kept, and what was wrong left nothing
    assert sorted(p.name for p in directory.rglob("*.jsonl*") if p.name[0] not in ".e") == ["b.jsonl.gz", "c.jsonl"]
    assert not (directory / "manifest.json").exists()
    (corpus / "documents/x.jsonl").unlink()
    (corpus / "documents/a.jsonl.gz").write_bytes(whole)
    assert (
        "1 files (2 were finished before)"
        in dolma("tag", "--documents", "documents/**/*", "--taggers", "char_length_v1").err
    )
    assert not (directory / ".dolma/errors.ndjson").exists()


def test_failing_python_tagger_is_told_with_document_and_line(dolma: Dolma, corpus: Path, module: str) -> None:
    arguments = ["--documents", "documents/a.jsonl.gz", "--tagger_modules", module, "--processes", "2"]
    result = dolma("tag", *arguments, "--taggers", "fails", code=1)
    assert 'error: documents/a.jsonl.gz:8: tagger "fails" failed on document "d,7": KeyError: \'seven\'' in result.err
    assert "my_taggers.py:" in result.err
    assert "and 2 more" in result.err
    result = dolma("tag", *arguments, "--taggers", "beyond", code=1)
    assert 'tagger "beyond" returned the span [0, 4, 1.0]' in result.err
    assert not (corpus / "attributes/fails/manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--taggers", "gopher_v3"], 'taggers.0: is "gopher_v3", which is not a tagger\nhint: did you mean "gopher_v'),
        (["--taggers", "c4_v2", "c4_v2"], 'taggers.1: is "c4_v2" again'),
        ([], "taggers: is empty"),
        (["--taggers", "c4_v2", "--experiment", "1st"], 'experiment: is "1st"'),
        (["--taggers", "c4_v2", "--processes", "0"], "processes: is 0; expected at least 1"),
        (["--taggers", "c4_v2", "--tagger_modules", "no.such.module"], "tagger_modules.0: is"),
        (["--taggers", "c4_v2", "--profile.steps", "3"], "profile.steps: is 3"),
        (["--taggers", "c4_v2", "--compression.input", "rar"], 'compression.input: is "rar"'),
    ],
)
def test_wrong_request_exits_2(dolma: Dolma, corpus: Path, arguments: list[str], message: str) -> None:
    result = dolma("tag", "--documents", "documents/**/*", *arguments, code=2)
    assert f"error: {message}" in result.err
    assert not (corpus / "attributes").exists()


def test_patterns_that_match_nothing_are_all_named(dolma: Dolma, corpus: Path) -> None:
    result = dolma("tag", "--documents", "documents/*.zst", "gone.gz", "--taggers", "c4_v2", code=2)
    assert 'error: documents.0: is "documents/*.zst", which matches no file' in result.err
    assert 'error: documents.1: is "gone.gz", which was not found' in result.err


def test_profile_tells_where_the_time_goes(dolma: Dolma, corpus: Path, module: str) -> None:
    arguments = ["--documents", "documents/a.jsonl.gz", "--taggers", "letter_e", "--tagger_modules", module]
    result = dolma("tag", *arguments, "--profile.enable", "--profile.sort_key", "cumulative")
    assert "my_taggers.py" in result.out
    dolma("tag", *arguments, "--ignore_existing", "--profile.enable", "--profile.output", "profile.txt")
    assert "function calls" in (corpus / "profile.txt").read_text()


def test_dryrun_prints_the_settings_and_writes_nothing(dolma: Dolma, corpus: Path) -> None:
    import yaml

    result = dolma("tag", "--documents", "documents/**/*", "--taggers", "c4_v2", "--dryrun")
    assert yaml.safe_load(result.out)["taggers"] == ["c4_v2"]
    assert not (corpus / "attributes").exists()
    # what is printed is a file that gives the same settings
    (corpus / "again.yaml").write_text(result.out)
    assert dolma("-c", "again.yaml", "tag").out == result.out


@pytest.mark.processes
def test_interrupt_stops_soon_and_says_what_is_kept(corpus: Path) -> None:
    for index in range(6):
        write_rows(corpus / f"documents/many/{index}.jsonl.gz", make_rows(20_000, index * 20_000))
    arguments = ["tag", "--documents", "documents/**/*", "--taggers", "gopher_v2", "repetitions_v1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dolma", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs with interrupts ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = corpus / "attributes/gopher_v2/.dolma/progress.ndjson"
    while process.poll() is None and not records.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.splitlines() == ["interrupted; finished files are kept, and the same command resumes from there"]
    assert not (corpus / "attributes/gopher_v2/manifest.json").exists()


BAD = ['{"id":"x"}', "no json", '{"id":"y","text":NaN}']


def with_bad_rows(path: Path, rows: list[dict[str, Any]], bad: list[str]) -> None:
    """A bad row before each of the first rows."""
    lines = [json.dumps(row) for row in rows]
    mixed = [line for pair in zip(bad, lines, strict=False) for line in pair] + lines[len(bad) :]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(mixed) + "\n")


def test_bad_rows_are_left_out_as_far_as_allowed_and_listed(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_bad_rows(tmp_path / "documents/a.jsonl", make_rows(50, 1), BAD)
    with_bad_rows(tmp_path / "documents/b.jsonl", make_rows(50, 60), BAD[:1])
    (tmp_path / "t.py").write_text(
        "import dolma\n@dolma.add_tagger('mine')\nclass C(dolma.BaseTagger):\n"
        "    def predict(self, doc): return dolma.DocResult(doc, [dolma.Span(0, 0, 'x')])\n"
    )
    mine = ["--taggers", "char_length_v1", "mine", "--tagger_modules", "t.py", "--debug"]
    command = ["tag", "--documents", "documents/*", "--experiment", "e", *mine]
    assert "b.jsonl:1" in dolma(*command, code=1).err
    for allowed in (3, 1):
        err = dolma(*command, "--skip-bad-rows", allowed, code=1).err
        assert f"more than the {allowed} rows that skip_bad_rows allows" in err
    assert "4 rows could not be read and were skipped" in dolma(*command, "--skip_bad_rows", 4, "--processes", 2).err
    ids = [row["id"] for row in read_rows(tmp_path / "attributes/e/a.jsonl")]
    assert ids == [row["id"] for row in make_rows(50, 1)]
    assert all(row["attributes"]["e__mine__x"] for row in read_rows(tmp_path / "attributes/e/a.jsonl"))
    counts = json.loads((tmp_path / "attributes/e/manifest.json").read_text())["counts"]
    assert counts == {"documents": 100, "rows_skipped": 4, "spans": 200}
    (listed,) = tmp_path.rglob("skipped.ndjson")
    rows = read_rows(listed)
    places = [(row["path"].removeprefix("documents/"), row["line"]) for row in rows]
    assert places == [("a.jsonl", 1), ("a.jsonl", 3), ("a.jsonl", 5), ("b.jsonl", 1)]
    assert [row["code"] for row in rows] == ["missing_field", "not_json", "not_json", "missing_field"]
    assert "NaN" in rows[2]["message"]
    # finished files are not read again, and their rows still count
    hashes = artifact_hashes(tmp_path / "attributes/e")
    with_bad_rows(tmp_path / "documents/c.jsonl", make_rows(5, 200), BAD[:1])
    assert "more than the 4 rows that skip_bad_rows allows" in dolma(*command, "--skip_bad_rows", 4, code=1).err
    dolma(*command, "--skip_bad_rows", 5)
    assert len(read_rows(listed)) == 5
    assert artifact_hashes(tmp_path / "attributes/e").items() >= {
        (name, digest) for name, digest in hashes.items() if name != "manifest.json"
    }


def test_rows_without_id_get_one_from_file_and_line(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "documents/web/a.jsonl"
    write_rows(path, [{"text": "a"}, {"id": "own", "text": "b"}, {"id": None, "text": "c"}])
    tag = ["tag", "--documents", "documents/**/*.jsonl", "--taggers", "char_length_v1", "--experiment", "e"]
    assert '"id" is missing' in dolma(*tag, code=1).err
    dolma(*tag, "--generate_ids")
    expected = ["web/a.jsonl:1", "own", "web/a.jsonl:3"]
    assert [row["id"] for row in read_rows(tmp_path / "attributes/e/web/a.jsonl")] == expected
    filter = ["--bloom_filter.file", "f.bin", "--bloom_filter.size_in_bytes", 100_000]
    keys = ["--dedupe.documents.attribute_name", "d", "--dedupe.documents.key", "$.text"]
    # the same in every working directory
    monkeypatch.chdir(tmp_path / "documents")
    dolma("dedupe", "--documents", path, *keys, *filter, "--generate_ids")
    assert [row["id"] for row in read_rows(tmp_path / "attributes/d/web/a.jsonl")] == expected


def test_a_tagger_that_fails_on_rows_names_file_and_row_once(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", make_rows(40, 1))
    result = dolma("tag", "--documents", "documents/*", "--taggers", "cc_re", "--experiment", "e", code=1)
    assert result.err.count("metadata.html") == 1
    assert 'documents/a.jsonl:1: tagger "cc_re" looks at metadata.html' in result.err
    assert "(and 39 more rows like it)" in result.err
