"""Remote documents, from a server of our own."""

import functools
import http.server
import json
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, write_rows


@pytest.fixture
def address(tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_rows(served.folder / "documents/a.jsonl.gz", make_rows(40))
    write_rows(served.folder / "documents/b.jsonl", make_rows(10, 100))
    return str(served.address)


def test_remote_documents_are_tokenized_under_their_names(
    dolma: Dolma, tmp_path: Path, address: str, tokenizer_path: Path
) -> None:
    names = [f"{address}/documents/a.jsonl.gz", f"{address}/documents/b.jsonl"]
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    dolma("tokens", "--documents", *names, "--destination", "remote", *tokenizer)
    dolma("tokens", "--documents", "served/documents/*", "--destination", "local", *tokenizer)
    remote, local = artifact_hashes(tmp_path / "remote"), artifact_hashes(tmp_path / "local")
    assert remote["part-0-00000.npy"] == local["part-0-00000.npy"]
    manifest = json.loads((tmp_path / "remote/manifest.json").read_text())
    assert [entry["path"] for entry in manifest["inputs"] if entry["role"] == "documents"] == names


def test_remote_documents_are_tagged_into_the_destination(dolma: Dolma, tmp_path: Path, address: str) -> None:
    name = f"{address}/documents/a.jsonl.gz"
    arguments = ["tag", "--documents", name, "--taggers", "char_length_v1"]
    dolma(*arguments, "--destination", "out", "--work_dir.input", "copies")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["documents"] == 40
    assert len(list((tmp_path / "copies").iterdir())) == 1
    assert "expected a destination" in dolma(*arguments, code=2).err


def test_remote_file_that_is_not_there_exits_2(dolma: Dolma, address: str) -> None:
    arguments = ["tag", "--taggers", "char_length_v1", "--destination", "out"]
    result = dolma(*arguments, "--documents", f"{address}/documents/c.jsonl.gz", code=2)
    assert 'c.jsonl.gz", which cannot be read' in result.err
    assert "expected a remote name without wildcards" in dolma(*arguments, "--documents", f"{address}/*", code=2).err
    assert "expected a path or one of http://" in dolma(*arguments, "--documents", "ftp://a/b", code=2).err


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Is busy at first, and cuts the connection in the middle of a file; ranges are answered."""

    busy = 2
    requests: ClassVar[list[str | None]] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        Flaky.requests.append(requested)
        if Flaky.busy:
            Flaky.busy -= 1
            self.send_error(503)
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"strong"')
        self.end_headers()
        whole = start > len(data) // 2
        self.wfile.write(data[start:] if whole else data[start : start + len(data) // 3])
        self.close_connection = True

    def end_headers(self) -> None:
        if self.command == "HEAD":
            self.send_header("ETag", '"strong"')
        super().end_headers()


def test_a_copy_goes_on_after_refusals_and_cuts(dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dolma.files import remote

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    write_rows(tmp_path / "served/documents/a.jsonl", make_rows(900))
    Flaky.busy, Flaky.requests = 2, []
    handler = functools.partial(Flaky, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        name = f"http://127.0.0.1:{server.server_port}/documents/a.jsonl"
        arguments = ["tag", "--documents", name, "--taggers", "char_length_v1"]
        dolma(*arguments, "--destination", "out", "--work_dir.output", "work")
        server.shutdown()
        thread.join()
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["documents"] == 900
    assert Flaky.requests[:3] == [None, None, None]
    assert [requested is None for requested in Flaky.requests[3:]] == [False, False]
    assert not list((tmp_path / "work").rglob("a.jsonl"))
    dolma("tag", "--documents", "served/documents/a.jsonl", "--taggers", "char_length_v1", "--destination", "local")
    assert (tmp_path / "out/a.jsonl").read_bytes() == (tmp_path / "local/a.jsonl").read_bytes()


def test_copies_that_the_disk_cannot_hold_are_refused_before_the_first(
    dolma: Dolma, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    arguments = ["tag", "--taggers", "char_length_v1", "--destination", "out", "--work_dir.output", "work"]
    result = dolma(*arguments, "--documents", f"{address}/documents/a.jsonl.gz", code=2)
    assert "work_dir.output: work has room for 100 B; expected" in result.err
    assert not list(Path("work").rglob("*.gz"))
