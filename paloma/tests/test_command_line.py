"""Wrong requests and broken data: a message with file and line, a hint, the exit code, no half-written output."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paloma.__main__ import main
from results_files import domain, results, write_documents, write_results

from paloma import __version__

GOOD = [{"id": f"{n}", "text": f"text number {n}", "source": "s"} for n in range(30)]


def build(tmp_path: Path, *flags: str, rows: Any = GOOD) -> int:
    documents = write_documents(tmp_path / "in" / "d.jsonl.gz", rows)
    return main(["build", "--documents", str(documents), "--output-dir", str(tmp_path / "out"), *flags])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ["are both missing; expected one of them"]),
        (("--bytes-per-domain", "0"), ['"bytes_per_domain" is 0; expected at least 1']),
        (("--tokens-per-domain", "5"), ["--tokens-per-domain: no --tokenizer is given"]),
        (("--tokens-per-domain", "5", "--tokenizer", "nowhere.json"), ["nowhere.json not found"]),
        (("--bytes-per-domain", "9", "--splits", "a", "a"), ["\"splits\" is ['a', 'a']"]),
        (("--bytes-per-domain", "9", "--splits", "../up"), ['"splits" contains "../up"']),
        (("--bytes-per-domain", "9", "--min-documents-per-domain", "99"), ["none of 1 domains is large enough"]),
        (
            ("--bytes-per-domain", "0", "--min-size-per-domain", "-1"),
            ['"bytes_per_domain" is 0', '"min_size_per_domain" is -1'],
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_wrong_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: list[str]
) -> None:
    assert build(tmp_path, *flags) == 2
    captured = capsys.readouterr()
    for text in expected:
        assert text in captured.err
    assert captured.err.count("hint: ") <= 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_unknown_key_error_suggests_the_nearest_and_all_problems_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("bytes_per_doman: 5\nseed: many\nsplits: [val]\nx: 1\n")
    assert build(tmp_path, "--config", str(config)) == 2
    err = capsys.readouterr().err
    assert f'error: {config}: unknown setting "bytes_per_doman"\nhint: did you mean "bytes_per_domain"?' in err
    assert f'error: {config}: unknown setting "x"\nhint: known settings: tokens_per_domain, bytes_per_domain, ' in err
    assert f'error: {config}: "seed" is "many"; expected an integer' in err


def test_former_flag_is_accepted_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    documents = write_documents(tmp_path / "in" / "d.jsonl.gz", GOOD)
    request = ["build", "--documents", str(documents), "--bytes-per-domain", "50"]
    assert main([*request, f"--output={tmp_path / 'a'}"]) == 0
    assert "--output is deprecated; use --output-dir" in caplog.text
    assert main([*request, "--output-dir", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("bytes_per_domain: 5\nseed: 3\nsplits: [val]\n")
    assert build(tmp_path, "--config", str(config), "--bytes-per-domain", "50") == 0
    resolved = json.loads((tmp_path / "out" / "manifest.json").read_text())["config"]
    assert (resolved["bytes_per_domain"], resolved["seed"], resolved["splits"]) == (50, 3, ["val"])


@pytest.mark.parametrize(
    "content", ["[1, 2]", "a: [", "\x00", "seed: 1\nseed: 2"], ids=["list", "cut", "binary", "twice"]
)
def test_broken_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(content)
    assert build(tmp_path, "--config", str(config)) == 2
    assert capsys.readouterr().err.startswith(f"error: {config}:")


def test_broken_row_error_has_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*GOOD[:3], {"id": "x", "text": 5, "source": "s"}]
    assert build(tmp_path, "--bytes-per-domain", "50", rows=rows) == 1
    assert 'd.jsonl.gz:4: "text" is a number; expected a string\nhint: ' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_truncated_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_documents(tmp_path / "in" / "d.jsonl.gz", GOOD * 20)
    path.write_bytes(path.read_bytes()[:-30])
    assert (
        main(["build", "--documents", str(path), "--output-dir", str(tmp_path / "out"), "--bytes-per-domain", "9"]) == 1
    )
    assert "ends early" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_document_without_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{key: value for key, value in row.items() if key != "source"} for row in GOOD]
    assert build(tmp_path, "--bytes-per-domain", "50", rows=rows) == 1
    assert "hint: name it with --default-source" in capsys.readouterr().err
    assert build(tmp_path, "--bytes-per-domain", "50", "--default-source", "mine", rows=rows) == 0
    assert (tmp_path / "out" / "mine" / "val").is_dir()


def test_one_id_for_two_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*GOOD, {"id": "0", "text": "another", "source": "s"}]
    assert build(tmp_path, "--bytes-per-domain", "50000", rows=rows) == 1
    assert '"id" is "0" for two texts of "s"' in capsys.readouterr().err


def test_only_an_artifact_is_overwritten_and_only_on_request(tmp_path: Path) -> None:
    assert build(tmp_path, "--bytes-per-domain", "50") == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    assert build(tmp_path, "--bytes-per-domain", "60") == 2
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert build(tmp_path, "--bytes-per-domain", "60", "--overwrite") == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() != before
    (tmp_path / "out" / "manifest.json").unlink()
    assert build(tmp_path, "--bytes-per-domain", "60", "--overwrite") == 2
    assert (tmp_path / "out" / "domains.csv").exists()


def test_controls_with_unknown_and_wrong_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "r", results(domain("a")))
    controls = tmp_path / "c.yaml"
    controls.write_text("training: {order_fixd: true}\nsuit: {}\n")
    assert main(["check", str(folder), "--controls", str(controls)]) == 2
    err = capsys.readouterr().err
    assert 'did you mean "training.order_fixed"?' in err
    assert 'did you mean "suite"?' in err
    for setting, message in (
        ("decontamination: mostly", '"training.decontamination" is "mostly"; expected "full" or "partial" or "none"'),
        ("removal_rate: 7", '"training.removal_rate" is 7.0; expected 0 to 1'),
    ):
        controls.write_text(f"training: {{{setting}}}\n")
        assert main(["check", str(folder), "--controls", str(controls)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not JSON"),
        ('{"format": "results", "version": 3}', '"version" is 3; expected 1 to 1'),
        ('{"format": "submission", "version": 1}', '"controls" is missing; expected an object'),
    ],
    ids=["not json", "newer", "submission"],
)
def test_broken_results(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    assert main(["aggregate", str(path), "--output-dir", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "hint: " in captured.err
    assert not (tmp_path / "out").exists()


def test_results_without_perplexity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "r", results())
    assert main(["aggregate", str(folder), "--output-dir", str(tmp_path / "out")]) == 1
    assert '"perplexity" is empty' in capsys.readouterr().err


def test_missing_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "aggregate", "report"):
        assert main([command, str(tmp_path / "no"), "--output-dir", str(tmp_path / "out")]) == 2
        assert "no: not found" in capsys.readouterr().err


def test_unknown_flag_is_a_wrong_request() -> None:
    with pytest.raises(SystemExit) as error:
        main(["build", "--colour", "red"])
    assert error.value.code == 2


def test_formats_command_exits_2_for_unsupported_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from paloma.formats.__main__ import main as formats

    with pytest.raises(SystemExit) as error:
        formats(["dump", "tokens", str(tmp_path)])
    assert error.value.code == 2
    assert formats(["dump", "document", str(tmp_path / "no")]) == 2
    assert "not found" in capsys.readouterr().err


def test_help_needs_neither_tokenizers_nor_numpy() -> None:
    code = (
        "import sys\nfrom paloma.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'numpy', 'tokenizers', 'torch'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "build" in done.stdout
    assert done.stderr.strip() == "set()"


def test_version_matches_the_distribution() -> None:
    from importlib.metadata import version

    assert version("paloma-eval") == __version__


def test_shipped_settings_are_read(tmp_path: Path) -> None:
    from paloma.build import BuildConfig
    from paloma.controls import Controls
    from paloma.settings import load

    folder = Path(__file__).parents[1] / "configs"
    kinds = {"build.yaml": BuildConfig, "controls.yaml": Controls, "suite.yaml": BuildConfig}
    assert sorted(kinds) == sorted(path.name for path in folder.iterdir())
    for name, kind in kinds.items():
        load(kind, folder / name)
    assert load(Controls, folder / "controls.yaml").suite.vocabulary_sha256


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf{"id": "a", "text": "x"}', "byte-order mark"),
        ('{"id": "a", "text": "x"}'.encode("utf-16"), "UTF-16"),
        (b'{"id": "a", "text": "caf\xe9"}', "not UTF-8 (byte 0xE9 at 24)"),
        (b'{"id": "a", "text": "x", "metadata": {"n": NaN}}', "contains NaN"),
        (b'{"id": "a", "text": "x \\ud83d y"}', "half of a surrogate pair"),
        (b"\x1f\x8b\x08", "is gzip data"),
        (b"\n", "is blank"),
    ],
)
def test_error_explains_why_a_line_is_not_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, expected: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    target = ["--output-dir", str(tmp_path / "o"), "--bytes-per-domain", "9"]
    assert main(["build", "--documents", str(path), *target]) == 1
    err = capsys.readouterr().err
    assert f"{path}:" in err
    assert expected in err


def test_tilde_pattern_and_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "in" / "d.jsonl", GOOD)
    assert main(["build", "--documents=~/in", "--output-dir=~/out", "--bytes-per-domain", "9"]) == 0
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert not (tmp_path / "~").exists()
    with pytest.raises(SystemExit) as caught:
        main(["build", "--documents=~/in", "--output-dir=out/*", "--bytes-per-domain", "9"])
    assert caught.value.code == 2
    assert "out/* is a pattern; expected one path" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe")
    assert main(["build", "--documents", "pipe", "--output-dir", "o", "--bytes-per-domain", "9"]) == 1
    assert "pipe: is a named pipe" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "kind"), [("qwen.tiktoken", "tiktoken"), ("tokenizer.model", "SentencePiece")])
def test_error_names_other_tokenizer_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    (tmp_path / name).write_bytes(b"IQ== 0\n")
    assert build(tmp_path, "--tokens-per-domain", "5", "--tokenizer", str(tmp_path / name)) == 2
    assert f"is a {kind} file; expected a tokenizer.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "bad", "cause"),
    [
        ('"nll_nats": 30.0', '"nll_nats": 0.0', '"perplexity.0.nll_nats" is 0 for 10 tokens'),
        ('"nll_nats": 30.0', '"nll_nats": NaN', "contains NaN"),
        ('"nll_nats": 30.0', '"nll_nats": null', '"perplexity.0.nll_nats" is null'),
        ('"stderr": 0.1', '"stderr": Infinity', "contains Infinity"),
        ('"stderr": 0.1', '"stderr": 1e999', "not JSON"),
    ],
)
def test_impossible_numbers_are_not_aggregated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, bad: str, cause: str
) -> None:
    good = write_results(tmp_path / "good", results(domain("a"), name="good"))
    broken = write_results(tmp_path / "broken", results(domain("a"), name="broken"))
    content = (broken / "results.json").read_text()
    assert text in content
    (broken / "results.json").write_text(content.replace(text, bad))
    for command in (["aggregate", str(good), str(broken), "--output-dir", str(tmp_path / "t")], ["check", str(broken)]):
        assert main(command) == 1
        assert cause in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
