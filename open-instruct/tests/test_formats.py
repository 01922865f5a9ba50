"""Every vector of the formats that this package touches, through the command every package has."""

import json
from pathlib import Path

import pytest
from open_instruct.formats.__main__ import main
from open_instruct.formats.contract import zstd
from open_instruct.formats.manifest import describe_input, write_manifest

VECTORS = Path(__file__).parents[2] / "docs" / "formats" / "vectors"
FORMATS = ("manifest", "chat", "preference", "checkpoint")


def _cases(kind: str) -> list[tuple[str, Path]]:
    return [(name, case) for name in FORMATS for case in sorted((VECTORS / name / "v1" / kind).glob("*"))]


@pytest.mark.parametrize(("name", "case"), _cases("valid"), ids=lambda value: getattr(value, "name", value))
def test_valid_vector_validates_and_dumps_as_written(name, case, capsys):
    assert main(["validate", name, str(case / "data")]) == 0
    assert main(["dump", name, str(case / "data")]) == 0
    assert capsys.readouterr().out == (case / "dump.jsonl").read_text("utf-8")


@pytest.mark.parametrize(("name", "case"), _cases("invalid"), ids=lambda value: getattr(value, "name", value))
def test_invalid_vector_has_its_one_error(name, case, capsys):
    assert main(["validate", name, str(case / "data"), "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    expected = json.loads((case / "expect.json").read_text())
    assert [{key: error[key] for key in expected} for error in found] == [expected]


def test_vectors_exist():
    assert {name for name, _ in _cases("valid")} == {name for name, _ in _cases("invalid")} == set(FORMATS)


def test_validate_names_every_bad_row(tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": []}\n[]\n\n{"messages": 3}\n')
    assert main(["validate", "chat", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["empty_messages", "not_object", "not_json", "wrong_type"]
    assert lines[3].endswith(f'{path}:4: "messages" is a number; expected an array')


def test_unknown_format_is_a_wrong_request(tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["validate", "tokens", str(tmp_path)])
    assert caught.value.code == 2


def _artifact(directory: Path, name: str, text: str, inputs: list[dict[str, object]]) -> Path:
    directory.mkdir()
    (directory / "part.txt").write_text(text)
    write_manifest(
        directory,
        format=name,
        writer={"name": "test", "version": "1"},
        config={},
        counts={"items": 1},
        details={},
        files=[directory / "part.txt"],
        inputs=inputs,
    )
    return directory


def test_lineage_reaches_the_sources_and_stops_at_missing_artifacts(tmp_path, capsys):
    sources = []
    for index in range(5):
        (tmp_path / f"source-{index}").write_text(str(index))
        sources += describe_input("source", tmp_path / f"source-{index}", tmp_path / "first")
    first = _artifact(tmp_path / "first", "table", "a", sources)
    shared = describe_input("left", first, tmp_path / "second") + describe_input("right", first, tmp_path / "second")
    gone = {"role": "gone", "path": "../nowhere", "manifest_sha256": "0" * 64}
    second = _artifact(tmp_path / "second", "report", "b", [*shared, gone])
    assert main(["lineage", str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("report  items=1  test 1")
    assert "  gone: ../nowhere  not here  000000000000" in lines
    assert lines[2].startswith("  left: table")
    assert lines[-1].startswith("  right: table")
    assert lines[-1].endswith("(above)")
    assert "    source: 2 more (--all lists them)" in lines
    assert main(["lineage", str(second), "--all"]) == 0
    assert "2 more" not in capsys.readouterr().out


def test_lineage_refuses_an_input_that_changed(tmp_path, capsys):
    first = _artifact(tmp_path / "first", "table", "a", [])
    second = _artifact(tmp_path / "second", "report", "b", describe_input("table", first, tmp_path / "second"))
    manifest = first / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"items": 1', '"items": 2'))
    assert main(["lineage", str(second)]) == 1
    assert "checksum_mismatch" in capsys.readouterr().err


def test_compressed_rows_are_read_like_plain_ones(tmp_path, capsys):
    import bz2
    import gzip
    import lzma

    data = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}\n'
    whole = {
        "a.jsonl": data,
        "b.jsonl.gz": gzip.compress(data),
        "c.jsonl.bz2": bz2.compress(data),
        "d.jsonl.xz": lzma.compress(data),
        "e.jsonl.zst": zstd.compress(data),
    }
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
        assert main(["validate", "chat", str(tmp_path / name)]) == 0
        if name != "a.jsonl":
            (tmp_path / name).write_bytes(content[:-6])
            assert main(["validate", "chat", str(tmp_path / name)]) == 1
            assert capsys.readouterr().err.startswith("truncated "), name
