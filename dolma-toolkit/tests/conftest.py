"""What the tests share: the command in this process, documents, a tokenizer, and what only some machines have."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from dolma_corpus import Dolma, Result, find_shared_data, make_rows, write_rows


@pytest.fixture
def dolma(capsys: pytest.CaptureFixture[str]) -> Dolma:
    """Runs ``dolma`` with these arguments in this process."""
    from dolma.__main__ import main

    def run(*arguments: object, code: int | None = 0) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        found = exit.value.code if isinstance(exit.value.code, int) else 0
        result = Result(found, captured.out, captured.err)
        assert "Traceback" not in result.err
        assert code is None or result.code == code, result.err
        return result

    return run


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``documents/`` with three packed files in a nested tree; it is the current directory's."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(["a.jsonl.gz", "web/b.jsonl.gz", "web/deep/c.jsonl"]):
        write_rows(tmp_path / "documents" / name, make_rows(120, 1000 * index))
    return tmp_path


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 322 entries; ``<|end|>`` is 0, ``<|pad|>`` 1, ``<|mail|>`` 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|pad|>", "<|mail|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["text"] for row in make_rows(300)], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


class Served(NamedTuple):
    """A server of files on this machine."""

    address: str
    folder: Path
    asked: list[str]
    """Paths that were asked for."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serves ``served/`` in the test's directory."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served(f"http://127.0.0.1:{server.server_port}", folder, asked)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of real data; without one the test is skipped."""
    return find_shared_data()
