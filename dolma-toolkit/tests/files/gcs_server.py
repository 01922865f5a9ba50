"""A server on loopback that speaks Google's JSON protocol as far as ``google-cloud-storage`` uses it here."""

from __future__ import annotations

import base64
import hashlib
import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Gcs", "gcs_server"]

PAGE = 5
"""Objects on one page of a listing."""


@dataclass
class _Object:
    name: str
    data: bytes
    generation: int
    metadata: dict[str, str]

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    def described(self, bucket: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "bucket": bucket,
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "md5Hash": self.md5,
            "metadata": self.metadata,
        }


@dataclass
class Gcs:
    """The server's buckets, and what was asked for."""

    address: str = ""
    objects: dict[tuple[str, str], _Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and object, without listings; an upload is a ``PUT`` that was not refused."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many of the next requests with a method fail with 503."""
    counter: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, bucket: str, name: str, data: bytes, metadata: dict[str, str] | None = None) -> _Object:
        """Makes or replaces an object; every replacement has a generation of its own."""
        made = _Object(name, data, next(self.counter), metadata or {})
        self.objects[bucket, name] = made
        return made

    def counted(self, method: str, suffix: str = "") -> list[str]:
        """Objects for which a method was asked."""
        return [name for asked, name in self.requests if asked == method and name.endswith(suffix)]


@contextmanager
def gcs_server() -> Iterator[Gcs]:
    """A server without objects."""
    gcs = Gcs()
    sessions: dict[str, tuple[str, dict[str, Any], bytearray]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def _send_json(self, found: Any, status: int = 200, **headers: str) -> None:
            self._send(status, json.dumps(found).encode(), Content_Type="application/json", **headers)

        def _refuse(self, status: int, message: str) -> None:
            self._send_json({"error": {"code": status, "message": message}}, status)

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            action, _, rest = url.path.partition("storage/v1/b/")
            bucket, _, name = rest.partition("/o")
            name = unquote(name.removeprefix("/"))
            is_upload = action.startswith("/upload")
            if name:
                gcs.requests.append((self.command, name))
            if gcs.refused.get(self.command):
                gcs.refused[self.command] -= 1
                self._refuse(503, "busy")
            elif is_upload and self.command == "POST" and asked["uploadType"] == "multipart":
                self._keep(bucket, *_parts(self.headers["Content-Type"], body))
            elif is_upload and self.command == "POST":
                key = str(next(gcs.counter))
                sessions[key] = (bucket, json.loads(body), bytearray())
                self._send(200, Location=f"{gcs.address}{self.path}&upload_id={key}")
            elif is_upload:
                self._continue(asked["upload_id"], body)
            elif not name:
                self._list(bucket, asked)
            elif (bucket, name) not in gcs.objects:
                self._refuse(404, f"no such object: {bucket}/{name}")
            elif self.command == "DELETE":
                del gcs.objects[bucket, name]
                self._send(204)
            elif asked.get("alt") == "media":
                self._give(gcs.objects[bucket, name], asked)
            else:
                self._send_json(gcs.objects[bucket, name].described(bucket))

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def _list(self, bucket: str, asked: dict[str, str]) -> None:
            names = sorted(name for owner, name in gcs.objects if owner == bucket)
            names = [name for name in names if name.startswith(asked.get("prefix", ""))]
            names = [name for name in names if name > asked.get("pageToken", "")]
            page = {
                "kind": "storage#objects",
                "items": [gcs.objects[bucket, n].described(bucket) for n in names[:PAGE]],
            }
            self._send_json({**page, "nextPageToken": names[PAGE - 1]} if len(names) > PAGE else page)

        def _give(self, found: _Object, asked: dict[str, str]) -> None:
            if int(asked.get("ifGenerationMatch", found.generation)) != found.generation:
                self._refuse(412, "the generation is another")
                return
            ranged = self.headers.get("Range")
            if ranged is None:
                self._send(200, found.data, X_Goog_Hash=f"md5={found.md5}")
                return
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            part = found.data[int(first) : int(last) + 1 if last else None]
            self._send(206, part, Content_Range=f"bytes {first}-{int(first) + len(part) - 1}/{len(found.data)}")

        def _keep(self, bucket: str, described: dict[str, Any], data: bytes) -> None:
            gcs.requests.append(("PUT", described["name"]))
            expected = described.get("md5Hash")
            if expected and base64.b64decode(expected) != hashlib.md5(data).digest():
                self._refuse(400, "the MD5 does not match")
                return
            self._send_json(gcs.put(bucket, described["name"], data, described.get("metadata")).described(bucket))

        def _continue(self, key: str, body: bytes) -> None:
            bucket, described, data = sessions[key]
            data += body
            total = self.headers["Content-Range"].rpartition("/")[2]
            if total == "*" or len(data) < int(total):
                self._send(308, Range=f"bytes=0-{len(data) - 1}")
            else:
                self._keep(bucket, described, bytes(data))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gcs.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield gcs
        server.shutdown()


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The description and the data of an upload in one request."""
    boundary = b"--" + content_type.partition('boundary="')[2].rstrip('"').encode()
    _, described, data, _ = body.split(boundary)
    content = data.partition(b"\r\n\r\n")[2]
    return json.loads(BytesParser().parsebytes(described.lstrip()).get_payload()), content.removesuffix(b"\r\n")
