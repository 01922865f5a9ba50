"""`catwalk run` from end to end: equal bytes, resuming, wrong requests, and what `catwalk verify` finds."""

import gzip
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.cells import Cells
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.manifest import MANIFEST, read_manifest, write_manifest
from conftest import write_jsonl

Build = Callable[[str], Path]
_FILES = ("results.json", "predictions.jsonl.gz", "items.jsonl.gz", "perplexity.jsonl.gz", "manifest.json")


def _arguments(model: Path, data: Path, documents: Path, output: Path, *more: str) -> list[str]:
    return [
        *("run", "--model", str(model), "--tasks", "copa", "sciq", "--data", str(data)),
        *("--documents", str(documents), "--output-dir", str(output), "--device", "cpu", *more),
    ]


@pytest.fixture
def request_for(build_checkpoint: Build, data_directory: Path, documents_directory: Path) -> Callable[..., list[str]]:
    """Arguments of a small run."""

    def arguments(output: Path, *more: str, model: Path | None = None) -> list[str]:
        return _arguments(model or build_checkpoint("olmo"), data_directory, documents_directory, output, *more)

    return arguments


def _bytes(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in _FILES]


def test_two_runs_give_equal_bytes_and_are_valid(request_for: Callable[..., list[str]], tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(request_for(tmp_path / name)) == 0
        assert formats_main(["validate", "results", str(tmp_path / name)]) == 0
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        [*_FILES, "config.yaml", "metrics.jsonl"]
    )
    assert main(["verify", str(tmp_path / "one"), str(tmp_path / "two")]) == 0


def test_finished_results_are_not_rewritten(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    before = (output / MANIFEST).stat().st_mtime_ns
    assert main(request_for(output)) == 0
    assert (output / MANIFEST).stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(request_for(output, "--limit", "3")) == 2
    assert "contains another artifact" in capsys.readouterr().err
    assert (output / MANIFEST).stat().st_mtime_ns == before


def test_manifest_names_the_checkpoint_and_every_input(
    with_manifest: Path, request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(request_for(tmp_path / "out", model=with_manifest)) == 0
    manifest = read_manifest(tmp_path / "out", "results")
    checkpoint = [entry for entry in manifest.inputs if entry["role"] == "checkpoint"]
    identity = read_manifest(with_manifest).identity
    assert checkpoint == [{"role": "checkpoint", "path": "../checkpoint", "manifest_sha256": identity}]
    assert [entry["path"] for entry in manifest.inputs if entry["role"] == "task_data"] == [
        "copa/validation.jsonl.gz",
        "sciq/validation.jsonl.gz",
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["model"]["manifest_sha256"] == identity
    assert str(tmp_path) not in (tmp_path / "out" / MANIFEST).read_text(encoding="utf-8")
    capsys.readouterr()
    assert formats_main(["lineage", str(tmp_path / "out")]) == 0
    parameters = read_parameters(with_manifest)
    assert f"checkpoint: checkpoint ../checkpoint  parameters={parameters} " in capsys.readouterr().out


def read_parameters(directory: Path) -> int:
    """The number of parameters in its manifest."""
    count: int = read_manifest(directory).counts["parameters"]
    return count


def test_stopped_run_resumes_to_the_same_bytes(
    request_for: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(request_for(tmp_path / "whole")) == 0

    def stop(self: Cells, *rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Cells, "keep_documents", stop)
        assert main(request_for(tmp_path / "part")) == 130
    assert not (tmp_path / "part" / MANIFEST).exists()
    assert len(list((tmp_path / "part" / "work").iterdir())) == 2
    scored: list[str] = []
    original = Cells.keep_task
    monkeypatch.setattr(Cells, "keep_task", lambda self, key, part: (scored.append(key), original(self, key, part))[1])
    assert main(request_for(tmp_path / "part")) == 0
    assert scored == []
    assert _bytes(tmp_path / "part") == _bytes(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_process_resumes(
    request_for: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert main(request_for(tmp_path / "whole")) == 0
    rename = os.replace

    def killed_at_the_second_part(source: Path, target: Path) -> None:
        if list(output.glob("work/*.json")):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_at_the_second_part)
        process = multiprocessing.get_context("fork").Process(target=main, args=(request_for(output),))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(output.glob("work/*.json"))) == 1
    assert main(request_for(output)) == 0
    assert _bytes(output) == _bytes(tmp_path / "whole")


def test_kept_parts_of_another_model_are_not_used(
    build_checkpoint: Build, request_for: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Cells, "remove", lambda self: None)
        assert main(request_for(output)) == 0
    (output / MANIFEST).unlink()
    other = tmp_path / "other" / "model"
    shutil.copytree(build_checkpoint("olmo2"), other)
    assert main(request_for(output, model=other)) == 0
    assert main(request_for(tmp_path / "fresh", model=other)) == 0
    assert (output / "predictions.jsonl.gz").read_bytes() == (tmp_path / "fresh" / "predictions.jsonl.gz").read_bytes()


def _change(output: Path, edit: Callable[[Any], None]) -> None:
    path = output / "results.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_verify_notices_a_changed_metric(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    _change(output, lambda value: value["tasks"][0]["metrics"]["acc_raw"].update(value=0.9999))
    capsys.readouterr()
    assert main(["verify", str(output)]) == 1
    assert "results.json" in capsys.readouterr().err  # the manifest's size or hash
    (output / MANIFEST).unlink()
    assert main(["verify", str(output)]) == 1
    assert "copa.metrics.acc_raw.value is 0.9999; expected" in capsys.readouterr().err


def _predictions(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(output / "predictions.jsonl.gz", "rt", encoding="utf-8")]


def test_verify_notices_changed_rows(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    (output / MANIFEST).unlink()
    rows = _predictions(output)
    rows[0]["predicted"]["acc_raw"] = 1 - rows[0]["predicted"]["acc_raw"]
    write_jsonl(output / "predictions.jsonl.gz", rows)
    capsys.readouterr()
    assert main(["verify", str(output)]) == 1
    assert "copa item 0.predicted.acc_raw is" in capsys.readouterr().err


def test_overrides_win_over_flags_and_flags_over_yaml(request_for: Callable[..., list[str]], tmp_path: Path) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("limit: 2\nseed: 5\nmax_length_tokens: 100\n", encoding="utf-8")
    assert main(request_for(tmp_path / "out", "--config", str(settings), "--seed", "6", "max_length_tokens=90")) == 0
    config = read_manifest(tmp_path / "out").config
    assert (config["limit"], config["seed"], config["max_length_tokens"]) == (2, 6, 90)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [task["items"] for task in results["tasks"]] == [2, 2]


def test_run_of_only_documents_and_of_only_tasks(
    build_checkpoint: Build, data_directory: Path, documents_directory: Path, tmp_path: Path
) -> None:
    model = ["--model", str(build_checkpoint("olmo2")), "--device", "cpu"]
    alone = tmp_path / "documents-alone"
    assert main(["run", *model, "--documents", str(documents_directory), "--output-dir", str(alone)]) == 0
    tasks = ["--tasks", "winogrande", "--data", str(data_directory)]
    assert main(["run", *model, *tasks, "--output-dir", str(tmp_path / "tasks-alone")]) == 0
    assert main(["verify", str(alone), str(tmp_path / "tasks-alone")]) == 0


def test_verify_rejects_impossible_numbers(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    (output / MANIFEST).unlink()
    whole = {path: path.read_bytes() for path in output.iterdir()}

    def verify() -> str:
        capsys.readouterr()
        assert main(["verify", str(output)]) == 1
        for path, content in whole.items():
            path.write_bytes(content)
        return capsys.readouterr().err

    def no_bits(value: Any) -> None:
        value["perplexity"][0].update(nll_nats=0.0)
        value["perplexity"][0]["bits_per_byte"].update(value=0.0)

    _change(output, no_bits)
    assert '"perplexity.0.nll_nats" is 0 for' in verify()
    _change(output, lambda value: value["perplexity"][0]["bits_per_byte"].update(value=None))
    assert '"perplexity.0.bits_per_byte.value" is None; the sums give' in verify()
    _change(output, lambda value: value["tasks"][0]["metrics"]["acc_raw"].update(value=math.nan))
    assert "NaN" in verify()
    _change(output, lambda value: value["perplexity"].clear())
    assert "perplexity is []; expected [" in verify()
    (output / "perplexity.jsonl.gz").unlink()
    assert "perplexity.jsonl.gz not found; expected the document rows" in verify()
    rows = _predictions(output)
    write_jsonl(output / "predictions.jsonl.gz", [*rows, rows[0]])
    assert "copa item 0 appears 2 times" in verify()
    rows[0]["choices"][0]["sum_logprob"] = -math.inf
    write_jsonl(output / "predictions.jsonl.gz", rows)
    assert "predictions.jsonl.gz:1:" in verify()
    write_jsonl(output / "perplexity.jsonl.gz", [{"source": "s", "subdomain": "", "id": "x", "tokens": 3}])
    assert "perplexity.jsonl.gz:1: " in verify()
    counts = dict.fromkeys(("tokens", "bytes", "chars", "words"), 0)
    row = {"source": "s", "subdomain": "", "id": "x", **counts, "nll_nats": 1.0}
    write_jsonl(output / "perplexity.jsonl.gz", [row])
    assert '"nll_nats" is 1.0 for 0 tokens' in verify()


def _samples(root: Path) -> Path:
    """A sample of two splits in the layout of `paloma build`."""
    for split, word in (("val", "hen"), ("test", "sea")):
        rows = [{"id": f"{split}-{n}", "text": f"the {word} {n}", "source": "mine"} for n in range(3)]
        write_jsonl(root / "mine" / split / "mine_00000000.jsonl.gz", rows)
    return root


def _domains(output: Path) -> list[tuple[str, int]]:
    value = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return [(value["inference"]["split"], domain["documents"]) for domain in value["perplexity"]]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_splits_are_not_mixed(
    build_checkpoint: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], with_manifest: bool
) -> None:
    root = _samples(tmp_path / "sample")
    if with_manifest:  # which has its own names for splits
        (root / "mine" / "test").rename(root / "mine" / "final")
        files = sorted(root.rglob("*.jsonl.gz"))
        writer = {"name": "paloma-eval", "version": "1"}
        about = {"format": "document", "writer": writer, "config": {"splits": ["val", "final"]}}
        write_manifest(root, files=files, counts={"documents": 6}, details={}, inputs=[], **about)
    other = "final" if with_manifest else "test"
    base = ["run", "--model", str(build_checkpoint("olmo")), "--device", "cpu", "--documents"]
    assert main([*base, str(root), "--output-dir", str(tmp_path / "a")]) == 0
    assert f"scoring the split val, skipping {other} (choose with --split)" in capsys.readouterr().err
    assert _domains(tmp_path / "a") == [("val", 3)]
    assert main([*base, str(root), "--output-dir", str(tmp_path / "b"), "--split", other]) == 0
    assert _domains(tmp_path / "b") == [(other, 3)]
    assert main([*base, str(root), "--output-dir", str(tmp_path / "c"), "--split", "dev"]) == 2
    assert f"the documents have {other}, val" in capsys.readouterr().err
    # paths of different splits are an error, since none may be skipped
    both = [str(root / "mine" / "val"), str(root / "mine" / other)]
    if not with_manifest:
        assert main([*base, *both, "--output-dir", str(tmp_path / "d")]) == 2
        assert "the paths belong to the splits val, test; expected a single split" in capsys.readouterr().err
        assert main([*base, both[1], "--output-dir", str(tmp_path / "e")]) == 0
        assert _domains(tmp_path / "e") == [("test", 3)]


def test_documents_are_counted_once(
    build_checkpoint: Build, documents_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--model", str(build_checkpoint("olmo")), "--device", "cpu", "--documents", str(documents_directory)]
    again = str(documents_directory / ".." / documents_directory.name / "a.jsonl.gz")
    assert main([*base, again, "--output-dir", str(tmp_path / "x")]) == 2
    assert "is listed twice" in capsys.readouterr().err
    shutil.copytree(documents_directory, tmp_path / "copy")
    assert main([*base, str(tmp_path / "copy"), "--output-dir", str(tmp_path / "y")]) == 0
    text = capsys.readouterr().err
    assert "5 of 10 repeat the source and id of an earlier one" in text
    assert "both have the domain prose/rivers" in text


def test_links_pipes_and_side_files(
    build_checkpoint: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--model", str(build_checkpoint("olmo")), "--device", "cpu", "--documents"]
    root, far = tmp_path / "d", tmp_path / "far"
    write_jsonl(root / "deep" / "a.jsonl.gz", [{"id": "a", "text": "hen"}])
    write_jsonl(far / "b.jsonl.gz", [{"id": "b", "text": "sea"}])
    (root / "deep" / "loop").symlink_to("..")
    (root / "linked").symlink_to(far)
    for name in (".progress.jsonl", "skipped.jsonl"):
        (root / name).write_text("{}\n", encoding="utf-8")
    assert main([*base, str(root), "--output-dir", str(tmp_path / "x")]) == 0
    assert _domains(tmp_path / "x") == [(None, 2)]
    os.mkfifo(tmp_path / "pipe")
    assert main([*base, str(tmp_path / "pipe"), "--output-dir", str(tmp_path / "y")]) == 1
    assert "is a named pipe" in capsys.readouterr().err
    (root / "c.jsonl.br").write_bytes(b"x")
    assert main([*base, str(root), "--output-dir", str(tmp_path / "y")]) == 1
    assert "c.jsonl.br: .br files are not supported" in capsys.readouterr().err
    assert main([*base, str(far), f"--output-dir={tmp_path}/y/*"]) == 2
    assert "is a pattern" in capsys.readouterr().err


def test_tilde_is_the_home_directory(build_checkpoint: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "d" / "a.jsonl.gz", [{"id": "a", "text": "hen"}])
    model = ["--model", str(build_checkpoint("olmo")), "--device", "cpu"]
    assert main(["run", *model, "--documents=~/d", "--output-dir=~/out"]) == 0
    assert main(["report", "~/out", "--output-dir=~/page"]) == 0
    assert main(["verify", "~/out"]) == 0
    assert (tmp_path / "page" / "report.md").is_file()
    assert not (tmp_path / "~").exists()


def _with_bos(checkpoint: Path, **settings: Any) -> Path:
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    return checkpoint


def test_default_prefix_comes_from_the_checkpoint(
    build_checkpoint: Build, documents_directory: Path, tmp_path: Path
) -> None:
    def score(name: str, model: Path, *more: str) -> dict[str, Any]:
        arguments = ["run", "--model", str(model), "--name", "m", "--documents", str(documents_directory)]
        assert main([*arguments, "--device", "cpu", "--output-dir", str(tmp_path / name), *more]) == 0
        value: dict[str, Any] = json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))
        return value

    plain = build_checkpoint("olmo")
    bos = _with_bos(Path(shutil.copytree(plain, tmp_path / "bos")), add_bos_token=True)
    asked, own = score("asked", plain, "--prefix", "bos"), score("own", bos)
    assert own["perplexity"] == asked["perplexity"]
    assert own["inference"]["prefix"] == "bos"
    assert "begins a text with bos" in own["inference"]["prefix_reason"]
    assert asked["inference"]["prefix_reason"] == "requested"
    assert score("plain", plain)["inference"]["prefix"] == "eos"
    # an eos only in generation_config.json
    lone = _with_bos(Path(shutil.copytree(plain, tmp_path / "lone")), eos_token=None, bos_token=None)
    config = json.loads((lone / "config.json").read_text(encoding="utf-8")) | {"eos_token_id": None}
    (lone / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (lone / "generation_config.json").write_text('{"eos_token_id": [0, 7]}', encoding="utf-8")
    assert score("lone", lone)["perplexity"] == score("eos", plain, "--prefix", "eos")["perplexity"]


def test_tokenizer_json_is_used_for_any_tokenizer_class(build_checkpoint: Build, tmp_path: Path) -> None:
    from catwalk.model.load import load_tokenizer
    from tokenizers import Tokenizer

    model = _with_bos(Path(shutil.copytree(build_checkpoint("llama"), tmp_path / "m")), tokenizer_class="GPT2Tokenizer")
    path = model / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, value["pre_tokenizer"]],
    }
    value["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(value), encoding="utf-8")
    text = "In 2023 don't </s> <|endoftext|>\n\n\ndef f(x):\n    return 12345\n"
    raw = Tokenizer.from_file(str(path))
    raw.no_truncation()
    raw.encode_special_tokens = True
    (ids,) = load_tokenizer(model).encode([text])
    assert ids == raw.encode(text, add_special_tokens=False).ids
    assert 0 not in ids  # the spelling of a special token is text
    assert len(ids) > 4
