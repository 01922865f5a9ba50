"""Checkpoints from a Hub: a server on this machine with the Hub's answers, the cache, and what can be missing."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from catwalk.formats.contract import ConfigError, WorkError
from catwalk.hub import download_checkpoint

Build = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(build_checkpoint: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub with the model `lab/olmo` at revisions `main` and `step1`; the paths that it was asked for."""
    files = {path.name: path.read_bytes() for path in build_checkpoint("olmo").iterdir()}
    files["pytorch_model.bin"] = b"a pickle"
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            asked.append(self.path)
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:5] == ["api", "models", "lab", "olmo", "tree"] and parts[-1] in ("step1", COMMIT):
                entries = [
                    {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for name, body in files.items()
                ]
                return self._answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
            if parts[:4] == ["api", "models", "lab", "olmo"] and parts[-1] in ("main", "step1", COMMIT):
                siblings = [{"rfilename": name} for name in files]
                body = json.dumps({"id": "lab/olmo", "sha": COMMIT, "siblings": siblings}).encode()
                return self._answer(200, body, {"Content-Type": "application/json"})
            if parts[:3] == ["lab", "olmo", "resolve"] and parts[-1] in files:
                body = files[parts[-1]]
                etag = hashlib.sha256(body).hexdigest()
                return self._answer(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            kind = "RevisionNotFound" if parts[2:4] == ["lab", "olmo"] else "RepoNotFound"
            return self._answer(404, b"{}", {"X-Error-Code": kind})

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    from huggingface_hub import constants

    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_checkpoint_is_downloaded_once_and_equal(hub: list[str], build_checkpoint: Build) -> None:
    found = download_checkpoint("lab/olmo", "step1", offline=False)
    assert not (found / "pytorch_model.bin").exists()
    for path in build_checkpoint("olmo").iterdir():
        assert (found / path.name).read_bytes() == path.read_bytes()
    hub.clear()
    assert download_checkpoint("lab/olmo", "step1", offline=True) == found
    assert hub == []


def test_model_of_the_hub_scores_like_its_directory(hub: list[str], build_checkpoint: Build) -> None:
    from catwalk.backends.opening import open_model
    from catwalk.backends.specs import parse_spec
    from catwalk.types import Pair

    pairs = [Pair(context="The hen", continuation=" lays eggs")]
    found = open_model("hub:lab/olmo@step1").score(pairs)
    assert found == open_model(str(build_checkpoint("olmo"))).score(pairs)
    assert parse_spec("hub:lab/olmo@step1").name == "olmo-step1"


def test_what_is_missing_is_named(hub: list[str]) -> None:
    with pytest.raises(ConfigError, match="model: hub:lab/olmo@step9: not found on the Hub"):
        download_checkpoint("lab/olmo", "step9", offline=False)
    with pytest.raises(ConfigError, match="model: hub:lab/none@main: not found on the Hub"):
        download_checkpoint("lab/none", "main", offline=False)
    with pytest.raises(ConfigError, match="model: hub:lab/olmo@main: not in the cache"):
        download_checkpoint("lab/olmo", "main", offline=True)


def test_no_network_is_an_error_that_names_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WorkError, match="model: hub:lab/olmo@main: "):
        download_checkpoint("lab/olmo", "main", offline=False)
