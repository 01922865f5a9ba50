"""An S3 server of its own process on loopback, and a proxy before it that drops connections."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["DroppingProxy", "RefusingProxy", "free_port", "make_bucket", "moto_server"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a moto server; it is stopped at the end."""
    command = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    assert command is not None
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], env={**os.environ}, **quiet) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()


class DroppingProxy:
    """Passes TCP through; of each connection in ``limits`` it lets that many bytes of the answer pass, then ends it.

    ``limits`` is used up from the front; with ``forever`` its last entry holds for all that come after.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.upstream = (host, int(port))
        self.limits: list[int] = []
        self.forever = False
        self.dropped = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        server = socket.create_connection(self.upstream)
        threading.Thread(target=self._up, args=(client, server), daemon=True).start()
        limit = None
        with client, server:
            while True:
                try:
                    data = server.recv(1 << 14)
                    if not data:
                        return
                    # only bodies are cut: what is small is an answer about a file, and passes
                    if limit is None and len(data) > 8000 and self.limits:
                        limit = self.limits[0] if self.forever and len(self.limits) == 1 else self.limits.pop(0)
                    if limit is not None and limit < len(data):
                        client.sendall(data[:limit])
                        self.dropped += 1
                        client.shutdown(socket.SHUT_RDWR)  # `close` alone would wait for the thread that still reads
                        return
                    limit = None if limit is None else limit - len(data)
                    client.sendall(data)
                except OSError:
                    return

    @staticmethod
    def _up(client: socket.socket, server: socket.socket) -> None:
        while True:
            try:
                data = client.recv(1 << 14)
                if not data:
                    return
                server.sendall(data)
            except OSError:
                return


def make_bucket(server: str, monkeypatch: pytest.MonkeyPatch, test: str) -> Any:
    """An empty bucket for a test, with credentials for it in the environment."""
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("dolma.files.remote.FIRST_PAUSE_S", 0.01)
    name = f"b{hashlib.sha256(test.encode()).hexdigest()[:12]}"
    return boto3.resource("s3", endpoint_url=server, region_name="us-east-1").create_bucket(Bucket=name)


class RefusingProxy:
    """Passes HTTP through, and counts what passes. After ``limit`` requests with ``method`` it refuses these."""

    def __init__(self, address: str, method: str = "GET", status: int = 403, limit: int | None = None) -> None:
        self.upstream = address.removeprefix("http://")
        self.method, self.status, self.limit = method, status, limit
        self.requests: list[tuple[str, str]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def counted(self, method: str, suffix: str = "") -> list[str]:
        """Paths of requests, without listings."""
        return [
            path for name, path in self.requests if name == method and "?list" not in path and path.endswith(suffix)
        ]

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                is_full = proxy.limit is not None and len(proxy.counted(proxy.method)) > proxy.limit
                if is_full and self.command == proxy.method and "?list" not in self.path:
                    code = "AccessDenied" if proxy.status == 403 else "InternalError"
                    self._answer(proxy.status, [], f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
                    return
                connection = http.client.HTTPConnection(proxy.upstream)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                passed = [(name, value) for name, value in response.getheaders() if name.lower() not in _OF_THE_HOP]
                data = response.read()
                length = response.headers.get("Content-Length") if self.command == "HEAD" else None
                self._answer(response.status, passed, data, length)
                connection.close()

            def _answer(
                self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        return Handler


_OF_THE_HOP = ("content-length", "transfer-encoding", "connection", "date", "server")
