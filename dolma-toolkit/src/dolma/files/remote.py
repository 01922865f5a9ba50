"""Remote files: what each protocol can do with them, and copies that are retried and checked.

Clients are imported when the first URL of their protocol is met: ``boto3`` for ``s3://`` (endpoint, credentials and
region as that library finds them), ``google-cloud-storage`` for ``gs://``, ``huggingface_hub`` for ``hf://``, the
standard library for ``http(s)://``.
A copy gets its name when it is whole: its size is that of the original, and so is its MD5 if the store gives one.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dolma.files.paths import SCHEMES
from dolma.formats.files import sha256_of

__all__ = [
    "SHA256_KEY",
    "Entry",
    "RemoteError",
    "Store",
    "each",
    "fetch",
    "fetch_url",
    "find",
    "head",
    "is_lasting",
    "remove",
    "status_of",
    "store_of",
    "upload",
]

log = logging.getLogger(__name__)

SHA256_KEY = "sha256"
"""The key of an object's metadata that has the hash of an uploaded file."""

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60


@dataclass(frozen=True)
class Entry:
    """A remote file."""

    url: str
    size_bytes: int | None
    """None if the server does not say."""
    tag: str
    """Changes with the content: an ETag, a generation, a time; may be empty."""
    md5: str | None = None
    """If the store gives it: 32 hexadecimal digits."""
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
    stores: dict[str, type[Store]] = {"s3": _S3, "gs": _Google, "hf": _HuggingFace}
    return stores.get(scheme, _Http)()


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of any of the libraries carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return status
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

        logging.getLogger("botocore").setLevel(logging.WARNING)  # it reports where it finds its settings
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("REGION")

        def client(attempts: int) -> Any:
            retries = {"total_max_attempts": attempts, "mode": "standard"}
            config = Config(connect_timeout=10, read_timeout=TIMEOUT_S, max_pool_connections=32, retries=retries)
            return boto3.client("s3", config=config, region_name=region or "us-east-1")

        # `_Retries` counts the tries and reports them; a part of a large upload is better retried by itself
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
        try:
            self.writer.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {SHA256_KEY: sha256}})
        except Exception as error:
            if type(error).__name__ == "S3UploadFailedError" and isinstance(error.__context__, Exception):
                raise error.__context__ from None  # it says more, and does not name the copy
            raise

    def remove(self, url: str) -> None:
        bucket, key = _parts(url)
        self.client.delete_object(Bucket=bucket, Key=key)


class _Google:
    def __init__(self) -> None:
        from google.cloud import storage

        # `_Retries` counts the tries and reports them; a part of a large upload is better retried by itself
        self.client: Any = storage.Client()

    def list(self, prefix: str) -> Iterator[Entry]:
        bucket, key = _parts(prefix)
        for blob in self.client.list_blobs(bucket, prefix=key, retry=None):
            yield self._entry(f"gs://{bucket}/{blob.name}", blob)

    @staticmethod
    def _entry(url: str, blob: Any) -> Entry:
        md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
        return Entry(url, int(blob.size), str(blob.generation), md5, (blob.metadata or {}).get(SHA256_KEY))

    def head(self, url: str) -> Entry | None:
        bucket, key = _parts(url)
        blob = self.client.bucket(bucket).get_blob(key, retry=None)
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
                generation = int(entry.tag)
                # the checksum is that of the whole, and `_download` has it
                chunk = blob.download_as_bytes(
                    start=start, end=last, if_generation_match=generation, checksum=None, retry=None
                )
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
        self.client.bucket(bucket).blob(key).delete(retry=None)


class _HuggingFace:
    """Data sets of the Hugging Face Hub, through the file system of fsspec that its library has."""

    def __init__(self) -> None:
        from huggingface_hub import HfFileSystem

        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # it reports every request
        # listings are asked for once; a cached one could be of an older commit
        self.system: Any = HfFileSystem(use_listings_cache=False, skip_instance_cache=True)

    @staticmethod
    def _entry(found: dict[str, Any]) -> Entry:
        # the identity of the content: a hash of git, or of its large file storage
        tag = (found.get("lfs") or {}).get("sha256") or found.get("blob_id") or ""
        return Entry(f"hf://{found['name']}", found["size"], tag)

    def list(self, prefix: str) -> Iterator[Entry]:
        path = prefix.removeprefix("hf://").rstrip("/")
        try:
            there = self.system.find(path, detail=True)
        except FileNotFoundError:
            return
        for found in there.values():
            yield self._entry(found)

    def head(self, url: str) -> Entry | None:
        try:
            found = self.system.info(url)
        except FileNotFoundError:
            return None
        return self._entry(found) if found["type"] == "file" else None

    @contextmanager
    def read(self, entry: Entry, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        # a buffered file can begin anywhere, a streamed one is faster and begins at the front
        size_bytes = 8 * CHUNK_BYTES if offset else 0
        with self.system.open(entry.url, "rb", block_size=size_bytes) as file:
            if offset:
                file.seek(offset)
            yield offset, iter(functools.partial(file.read, CHUNK_BYTES), b"")

    def write(self, path: Path, url: str, sha256: str) -> None:
        raise OSError(f"{url}: files cannot be written to the Hugging Face Hub")

    def remove(self, url: str) -> None:
        raise OSError(f"{url}: files cannot be removed from the Hugging Face Hub")


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


ATTEMPTS = 6
"""Tries without any progress before giving up."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
PARALLEL_COPIES = 8

T = TypeVar("T")
R = TypeVar("R")


class RemoteError(OSError):
    """A remote file cannot be read or written; the text says which and why."""


def _store(url: str) -> Store:
    try:
        return store_of(url.partition("://")[0])
    except ImportError as error:
        extra = {"s3": "s3", "hf": "hf"}.get(url.partition(":")[0], "gcs")
        message = f'needs a package that is not installed ({error}); install "dolma-toolkit[{extra}]"'
        raise RemoteError(f"{url}: {message}") from error


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Retries:
    """Counts failures in a row, waits longer after each, and gives up in the end."""

    def __init__(self, url: str, doing: str, stop: threading.Event | None = None) -> None:
        self.url, self.doing, self.failures = url, doing, 0
        self.stop = stop or threading.Event()

    def after(self, error: BaseException) -> None:
        if self.stop.is_set():
            raise RemoteError(f"{self.url}: was not read, since the run has ended") from error
        if status_of(error) == 412:
            message = "has changed while it was read; expected a file that stays as it is"
            raise RemoteError(f"{self.url}: {message}") from error
        self.failures += 1
        if is_lasting(error) or self.failures >= ATTEMPTS:
            tries = f" (after {self.failures} tries)" if self.failures > 1 else ""
            raise RemoteError(f"{self.url}: cannot be {self.doing}: {_reason(error)}{tries}") from error
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
        log.warning("%s: %s; trying again in %.1f s", self.url, _reason(error), pause_s)
        self.stop.wait(pause_s)


def _tried(url: str, doing: str, call: Callable[[], R]) -> R:
    retries = _Retries(url, doing)
    while True:
        try:
            return call()
        except Exception as error:
            retries.after(error)


def head(url: str) -> Entry | None:
    """Metadata of a remote file; None if it is missing."""
    store = _store(url)
    return _tried(url, "read", lambda: store.head(url))


def find(pattern: str, *, hidden: bool = False) -> list[Entry]:
    """The remote files that a pattern matches, sorted: ``*`` and ``?`` within a name, ``**`` across any number of them.

    A pattern without wildcards is a file, or else the files directly below it. Wildcards skip names that begin with a
    dot, unless ``hidden``.
    """
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        found = None if pattern.endswith("/") else head(pattern)
        if found is not None:
            return [found]
        fixed = pattern.rstrip("/") + "/"
        pattern = fixed + "*"
        matches = _matcher(fixed, "*", hidden)
    else:
        fixed = fixed[: fixed.rindex("/") + 1]
        matches = _matcher(fixed, pattern[len(fixed) :], hidden)
    if fixed.count("/") < 3:
        raise RemoteError(f"{pattern}: names no bucket; expected a bucket before the first wildcard")
    store = _store(pattern)
    entries = _tried(fixed, "listed", lambda: list(store.list(fixed)))
    return sorted((entry for entry in entries if matches(entry.url)), key=lambda entry: entry.url)


def _matcher(fixed: str, pattern: str, hidden: bool) -> Callable[[str], bool]:
    parts = pattern.split("/")

    def passes(name: str) -> bool:
        return hidden or not name.startswith(".")

    expressions = [re.compile(translate(part)) for part in parts]

    def names_match(names: list[str], at: int) -> bool:
        if at == len(parts):
            return not names
        if parts[at] == "**":
            if at == len(parts) - 1:
                return all(map(passes, names))
            visible = next((i for i, name in enumerate(names) if not passes(name)), len(names))
            return any(names_match(names[skipped:], at + 1) for skipped in range(visible + 1))
        if not names or not (passes(names[0]) or parts[at].startswith(".")):
            return False
        return bool(expressions[at].match(names[0])) and names_match(names[1:], at + 1)

    # a key that ends in "/" is what some tools leave for a directory
    return lambda url: not url.endswith("/") and names_match(url[len(fixed) :].split("/"), 0)


def fetch(entry: Entry, target: Path, stop: threading.Event | None = None) -> bool:
    """Copies a remote file; returns False if an equal copy of the same original exists. Gives up when ``stop`` is set.

    Raises:
        RemoteError: it cannot be read, has changed meanwhile, or the copy is not equal to it.
    """
    noted = target.with_name(f".{target.name}.remote")
    identity = f"{entry.url}\n{entry.size_bytes}\n{entry.tag}\n"
    if entry.tag and target.is_file() and target.stat().st_size == entry.size_bytes:
        if noted.is_file() and noted.read_text("utf-8") == identity:
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    noted.unlink(missing_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if entry.md5 is None and entry.url.startswith("s3:") and "-" not in entry.tag:
        entry = head(entry.url) or entry  # a listing does not say whether the tag is an MD5
    try:
        md5 = _download(entry, partial, stop or threading.Event())
        if entry.md5 is not None and md5 != entry.md5:
            raise RemoteError(f"{entry.url}: the copy has the MD5 {md5}; expected {entry.md5}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    noted.write_text(identity, "utf-8")
    return True


def fetch_url(url: str, directory: Path) -> Path:
    """Copies one remote file into a directory, under its own name.

    Raises:
        RemoteError: it is missing, or for the reasons of ``fetch``.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise RemoteError(f"{url}: expected one of {', '.join(f'{name}://' for name in SCHEMES)}")
    entry = head(url)
    if entry is None:
        raise RemoteError(f"{url}: not found")
    target = directory / (rest.partition("?")[0].rstrip("/").rpartition("/")[2] or "file")
    fetch(entry, target)
    return target


def _download(entry: Entry, partial: Path, stop: threading.Event) -> str:
    """Writes the bytes and resumes after a failure; returns their MD5."""
    store, retries = _store(entry.url), _Retries(entry.url, "read", stop)
    digest, offset = hashlib.md5(usedforsecurity=False), 0
    with partial.open("wb") as file:
        while True:
            try:
                with store.read(entry, offset) as (start, chunks):
                    if start != offset:
                        digest, offset = hashlib.md5(usedforsecurity=False), start
                        file.seek(start)
                        file.truncate()
                    for chunk in chunks:
                        if stop.is_set():
                            break
                        _write(file.fileno(), chunk)
                        digest.update(chunk)
                        offset += len(chunk)
                        retries.failures = 0
                if entry.size_bytes is None or offset >= entry.size_bytes:
                    break
                raise ConnectionError(f"the connection ended after {offset:,} of {entry.size_bytes:,} bytes")
            except _LocalError as error:
                raise OSError(error.errno, error.strerror, str(partial.parent)) from error
            except Exception as error:
                if entry.size_bytes is None:
                    entry = Entry(entry.url, None, "")  # no tag: a second part might not belong to the first
                retries.after(error)
        os.fsync(file.fileno())
    if entry.size_bytes is not None and offset != entry.size_bytes:
        raise RemoteError(f"{entry.url}: gave {offset:,} bytes; expected {entry.size_bytes:,}")
    return digest.hexdigest()


class _LocalError(OSError):
    """The disk failed, not the connection: trying again cannot help."""


def _write(descriptor: int, chunk: bytes) -> None:
    try:
        view = memoryview(chunk)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _LocalError(error.errno, error.strerror) from error


def upload(path: Path, url: str) -> bool:
    """Copies a file to a URL; returns False if a file with the same hash exists.

    Raises:
        RemoteError: it cannot be written, or what is there afterwards has another size.
    """
    store, sha256, size_bytes = _store(url), sha256_of(path), path.stat().st_size
    there = head(url)
    if there is not None and there.sha256 == sha256 and there.size_bytes == size_bytes:
        return False
    _tried(url, "written", functools.partial(store.write, path, url, sha256))
    there = head(url)
    if there is None or there.size_bytes != size_bytes:
        got = "nothing" if there is None else f"{there.size_bytes:,} bytes"
        raise RemoteError(f"{url}: has {got} after the upload; expected {size_bytes:,} bytes")
    return True


def remove(url: str) -> None:
    """Removes a remote file if it exists."""
    store = _store(url)
    if head(url) is not None:
        _tried(url, "removed", lambda: store.remove(url))


def each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order, several at a time; after an error nothing new is started."""
    with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
