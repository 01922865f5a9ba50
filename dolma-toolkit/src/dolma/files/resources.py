"""Files that taggers need besides the documents: block lists, models, tokenizers, by path or URL."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from dolma import _native
from dolma.errors import Problem, nearest
from dolma.files.paths import is_remote
from dolma.files.remote import RemoteError, fetch_url
from dolma.formats.files import sha256_of

__all__ = ["Resource", "cache_directory", "find", "named"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resource:
    """One file for one tagger."""

    path: str
    """Where it can be opened."""
    name: str
    """As the user named it, a URL perhaps."""
    sha256: str


def named(
    setting: Sequence[str] | Mapping[str, Any], problems: list[Problem], key: str = "resources"
) -> dict[str, list[str]]:
    """Paths and URLs by tagger, from ``NAME=PATH`` items or a mapping of a name to one place or several."""
    places: dict[str, list[str]] = {}
    if isinstance(setting, Mapping):
        for name, value in setting.items():
            items = value if isinstance(value, list) else [value]
            if not items or not all(isinstance(item, str) and item for item in items):
                problems.append(Problem(f"{key}.{name}", "is neither a path or URL nor a list of them"))
                continue
            places[str(name)] = items
        return places
    for index, item in enumerate(setting):
        name, equals, place = item.partition("=")
        if not (name and equals and place):
            problems.append(Problem(f"{key}.{index}", f'is "{item}"; expected NAME=PATH or NAME=URL'))
            continue
        places.setdefault(name, []).append(place)
    return places


def find(
    places: Mapping[str, Sequence[str]], taggers: Iterable[str], known: Iterable[str], problems: list[Problem]
) -> dict[str, list[Resource]]:
    """The files of those taggers; URLs are fetched once, to the cache of the user.

    A tagger without a file that it needs is a problem; its hint says where dolma 1.2.1 gets the file from.
    """
    known = set(known)
    for name in places:
        if name not in known:
            problems.append(Problem(f"resources.{name}", "is not the name of a tagger", nearest(name, known)))
    needs = {name: (what, urls) for name, what, urls in _native.tagger_needs()}
    found: dict[str, list[Resource]] = {}
    for name in taggers:
        if name in places:
            resources = [_find(f"resources.{name}", place, problems) for place in places[name]]
            found[name] = [resource for resource in resources if resource is not None]
        elif name in needs:
            what, urls = needs[name]
            message = f'is not set, and the tagger "{name}" needs it; expected {what}'
            problems.append(Problem(f"resources.{name}", message, _hint(name, urls)))
    return found


def _hint(name: str, urls: Sequence[str]) -> str:
    if not urls:
        return f"give {name}=PATH in resources"
    times = f", once for each of {len(urls)} lists" if len(urls) > 1 else ""
    return f"give {name}=PATH_OR_URL in resources{times}; dolma 1.2.1 reads {' '.join(urls)}"


def _find(key: str, place: str, problems: list[Problem]) -> Resource | None:
    if is_remote(place):
        return _fetched(key, place, problems)
    path = Path(place).expanduser()
    if not path.is_file():
        problems.append(Problem(key, f'is "{place}", which was not found; expected a file or a URL'))
        return None
    return Resource(str(path), place, sha256_of(path))


def cache_directory() -> Path:
    """Where fetched files stay: below the cache of the user, as the platform has it."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "dolma"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dolma"
    if os.name == "nt" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"]) / "dolma" / "cache"
    return Path.home() / ".cache" / "dolma"


def _fetched(key: str, url: str, problems: list[Problem]) -> Resource | None:
    # a directory a URL, so that the copy keeps its name and with it its extension
    directory = cache_directory() / "resources" / hashlib.sha256(url.encode()).hexdigest()[:32]
    copies = sorted(directory.glob("*.sha256"))
    if copies:
        path = copies[0].with_suffix("")
        recorded = copies[0].read_text("ascii").strip()
        if path.is_file() and sha256_of(path) == recorded:
            return Resource(str(path), url, recorded)
        log.warning("%s is not the file that was fetched; fetching it again", path)
        path.unlink(missing_ok=True)
        copies[0].unlink()
    try:
        path = fetch_url(url, directory)
    except RemoteError as error:
        problems.append(Problem(key, f'is "{url}", which cannot be read: {error}'))
        return None
    digest = sha256_of(path)
    record = path.with_name(f"{path.name}.sha256")
    partial = record.with_name(f".{record.name}.{os.getpid()}")
    partial.write_text(f"{digest}\n", "ascii")
    os.replace(partial, record)
    log.info("fetched %s (%s), sha256 %s", url, PurePosixPath(urlparse(url).path).name, digest)
    return Resource(str(path), url, digest)
