"""A server on this machine with the Hub's answers, for repositories of models and data sets made in a test."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

__all__ = ["COMMIT", "Hub", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files[(repository, revision)]`: the files of a repository (`models/lab/olmo`, `datasets/lab/farm`).

    `asked` are the paths of the requests. `status` other than 200 is the answer to all of them. `damaged` files are
    sent with other bytes than their hash says. `commits` are those of the revisions.
    """

    files: dict[tuple[str, str], dict[str, bytes]]
    asked: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    commits: dict[str, str] = field(default_factory=dict)
    status: int = 200

    def commit(self, revision: str) -> str:
        """The commit of a revision."""
        return self.commits.get(revision, COMMIT)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Code, body and headers of the answer to a path."""
        parts = path.split("?")[0].strip("/").replace("%2F", "/")
        if self.status != 200:
            return self.status, b"{}", {}
        known = {repository for repository, _ in self.files}
        for (repository, revision), files in self.files.items():
            for name in (revision, self.commit(revision)):
                short = repository.removeprefix("models/")
                if parts == f"api/{repository}/tree/{name}":
                    entries = [
                        {"type": "file", "path": file, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                        for file, body in files.items()
                    ]
                    return 200, json.dumps(entries).encode(), {"Content-Type": "application/json"}
                if parts == f"api/{repository}/revision/{name}" or (name == "main" and parts == f"api/{repository}"):
                    siblings = [{"rfilename": file} for file in files]
                    info = {"id": repository.partition("/")[2], "sha": self.commit(revision), "siblings": siblings}
                    return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
                file = parts.removeprefix(f"{short}/resolve/{name}/")
                if file != parts and file in files:
                    body = files[file]
                    headers = {
                        "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
                        "X-Repo-Commit": self.commit(revision),
                    }
                    return 200, body[::-1] if file in self.damaged else body, headers
        of = next((one for one in known if one in parts or one.removeprefix("models/") in parts), None)
        return 404, b"{}", {"X-Error-Code": "RevisionNotFound" if of else "RepoNotFound"}


@contextmanager
def serve_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Let huggingface_hub ask this server, with an empty cache."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            code, body, headers = hub.answer(self.path)
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between its attempts
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
