"""A server on loopback that answers what ``huggingface_hub`` asks about one dataset."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["COMMIT", "REPOSITORY", "hub"]

REPOSITORY = "made/corpus"
COMMIT = hashlib.sha1(b"commit").hexdigest()


def _described(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    data = path.read_bytes()
    found: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.suffix == ".gz":
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The address of a server whose only dataset has the files of ``folder``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
            if path.startswith(files):
                self._send_file(folder / path.removeprefix(files).partition("/")[2])
            elif path.startswith(f"{api}/tree/"):
                above = folder / path.removeprefix(f"{api}/tree/").partition("/")[2]
                recursive = "recursive=true" in self.path.lower()
                found = sorted(above.rglob("*") if recursive else above.iterdir()) if above.is_dir() else []
                self._send_json([_described(folder, one) for one in found] if above.is_dir() else None)
            elif path.startswith(f"{api}/paths-info/"):
                given = json.loads(body)["paths"]
                self._send_json([_described(folder, folder / one) for one in given if (folder / one).exists()])
            elif path.startswith(api):
                self._send_json({"id": REPOSITORY, "sha": COMMIT, "private": False, "siblings": [], "tags": []})
            else:
                self._send_json(None)

        do_GET = do_POST = do_HEAD = _answer

        def _send_json(self, found: Any) -> None:
            headers = {} if found is not None else {"X_Error_Code": "EntryNotFound"}
            body = {"error": "not found"} if found is None else found
            self._send(200 if found is not None else 404, json.dumps(body).encode(), **headers)

        def _send_file(self, path: Path) -> None:
            if not path.is_file():
                self._send_json(None)
                return
            data, asked = path.read_bytes(), self.headers.get("Range")
            if asked is None:
                self._send(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"')
                return
            start, _, end = asked.removeprefix("bytes=").partition("-")
            last = min(int(end or len(data)), len(data) - 1)
            part = data[int(start) : last + 1]
            self._send(206, part, Content_Range=f"bytes {start}-{last}/{len(data)}")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
