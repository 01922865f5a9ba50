"""What can be done with the files of each protocol: list, look at, read from an offset, write, remove.

Clients are imported when the first URL of their protocol is met: ``boto3`` for ``s3://`` (endpoint, credentials and
region as that library finds them), ``google-cloud-storage`` for ``gs://``, the standard library for ``http(s)://``.
"""

from __future__ import annotations

import base64
import functools
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["SHA256_KEY", "Entry", "Store", "is_lasting", "status_of", "store_of"]

SHA256_KEY = "sha256"
"""Name of the object's metadata in which the hash of an uploaded file stands."""

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60


@dataclass(frozen=True)
class Entry:
    """A remote file."""

    url: str
    size_bytes: int | None
    """None where the server does not tell."""
    tag: str
    """Changes with the content: an ETag, a generation, a time; may be empty."""
    md5: str | None = None
    """Where the store tells it: 32 hexadecimal digits."""
    sha256: str | None = None
    """Only of files that were uploaded from here, and only from ``head``."""


class Store(Protocol):
    """One protocol. Errors are those of its library; ``is_lasting`` and ``status_of`` read them."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All files whose URL begins with ``prefix``."""

    def head(self, url: str) -> Entry | None:
        """Metadata of a file; None if it is missing."""

    def read(self, entry: Entry, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The bytes from ``offset`` on, or from the smaller one that is given back. Fails if the file has changed."""

    def write(self, path: Path, url: str, sha256: str) -> None:
        """Uploads a file, with its hash as metadata."""

    def remove(self, url: str) -> None:
        """Removes a file."""


@functools.cache
def store_of(scheme: str) -> Store:
    """The store of a protocol, one for the whole process.

    Raises:
        ImportError: its library is not installed.
    """
    stores: dict[str, type[Store]] = {"s3": _S3, "gs": _Google}
    return stores.get(scheme, _Http)()


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of any of the libraries carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None


_LASTING_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")


def is_lasting(error: BaseException) -> bool:
    """Whether trying again cannot help: the request is refused, or cannot be made."""
    status = status_of(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 429)
    return type(error).__name__ in (*_LASTING_NAMES, "ParamValidationError") or isinstance(error, ImportError)


def _parts(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


class _S3:
    def __init__(self) -> None:
        import boto3
        from botocore.config import Config

        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("REGION")

        def client(attempts: int) -> Any:
            retries = {"total_max_attempts": attempts, "mode": "standard"}
            config = Config(connect_timeout=10, read_timeout=TIMEOUT_S, max_pool_connections=32, retries=retries)
            return boto3.client("s3", config=config, region_name=region or "us-east-1")

        # `remote` counts the tries and tells of them; a part of a large upload is better tried again by itself
        self.client, self.writer = client(1), client(5)

    def list(self, prefix: str) -> Iterator[Entry]:
        bucket, key = _parts(prefix)
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", []):
                yield Entry(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"])

    def head(self, url: str) -> Entry | None:
        bucket, key = _parts(url)
        try:
            found = self.client.head_object(Bucket=bucket, Key=key)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
        tag = found["ETag"]
        # the ETag is the MD5 of what came in one part, unless the store encrypts with keys of its own
        plain = found.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in found
        digits = tag.strip('"')
        md5 = digits if plain and len(digits) == 32 else None
        return Entry(url, found["ContentLength"], tag, md5, found["Metadata"].get(SHA256_KEY))

    @contextmanager
    def read(self, entry: Entry, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        bucket, key = _parts(entry.url)
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        body = self.client.get_object(Bucket=bucket, Key=key, IfMatch=entry.tag, **ranged)["Body"]
        with closing(body):
            yield offset, iter(functools.partial(body.read, CHUNK_BYTES), b"")

    def write(self, path: Path, url: str, sha256: str) -> None:
        bucket, key = _parts(url)
        self.writer.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {SHA256_KEY: sha256}})

    def remove(self, url: str) -> None:
        bucket, key = _parts(url)
        self.client.delete_object(Bucket=bucket, Key=key)


class _Google:
    def __init__(self) -> None:
        from google.cloud import storage

        if os.environ.get("STORAGE_EMULATOR_HOST"):
            from google.auth.credentials import AnonymousCredentials

            self.client: Any = storage.Client("emulated", AnonymousCredentials())
        else:
            self.client = storage.Client()

    def list(self, prefix: str) -> Iterator[Entry]:
        bucket, key = _parts(prefix)
        for blob in self.client.list_blobs(bucket, prefix=key):
            yield self._entry(f"gs://{bucket}/{blob.name}", blob)

    @staticmethod
    def _entry(url: str, blob: Any) -> Entry:
        md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
        return Entry(url, int(blob.size), str(blob.generation), md5, (blob.metadata or {}).get(SHA256_KEY))

    def head(self, url: str) -> Entry | None:
        bucket, key = _parts(url)
        blob = self.client.bucket(bucket).get_blob(key)
        return None if blob is None else self._entry(url, blob)

    @contextmanager
    def read(self, entry: Entry, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        bucket, key = _parts(entry.url)
        blob = self.client.bucket(bucket).blob(key)
        size_bytes = entry.size_bytes or 0

        def chunks() -> Iterator[bytes]:
            start = offset
            while start < size_bytes:
                last = min(start + 8 * CHUNK_BYTES, size_bytes) - 1
                chunk = blob.download_as_bytes(start=start, end=last, if_generation_match=int(entry.tag), retry=None)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk

        yield offset, chunks()

    def write(self, path: Path, url: str, sha256: str) -> None:
        bucket, key = _parts(url)
        blob = self.client.bucket(bucket).blob(key)
        blob.metadata = {SHA256_KEY: sha256}
        blob.upload_from_filename(str(path), checksum="md5")

    def remove(self, url: str) -> None:
        bucket, key = _parts(url)
        self.client.bucket(bucket).blob(key).delete()


class _Http:
    def list(self, prefix: str) -> Iterator[Entry]:
        raise OSError(f"{prefix}: http has no listing of files")

    @staticmethod
    def _open(url: str, method: str, **headers: str) -> Any:
        # without this a server may pack what it sends, and the size would be that of the packed bytes
        headers = {"Accept-Encoding": "identity", **headers}
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT_S)

    def head(self, url: str) -> Entry | None:
        try:
            with self._open(url, "HEAD") as response:
                length = response.headers.get("Content-Length")
                tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (404, 410):
                    return None
                if error.code in (405, 501):
                    return Entry(url, None, "")
                raise
        return Entry(url, int(length) if length else None, tag)

    @contextmanager
    def read(self, entry: Entry, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        # `If-Range` takes a strong tag or a time; with neither, parts could be of different contents
        resumes = offset > 0 and entry.tag and not entry.tag.startswith("W/")
        headers = {"Range": f"bytes={offset}-", "If-Range": entry.tag} if resumes else {}
        with self._open(entry.url, "GET", **headers) as response:
            start = offset if response.status == 206 else 0
            yield start, iter(functools.partial(response.read, CHUNK_BYTES), b"")

    def write(self, path: Path, url: str, sha256: str) -> None:
        raise OSError(f"{url}: files cannot be written over http")

    def remove(self, url: str) -> None:
        raise OSError(f"{url}: files cannot be removed over http")
