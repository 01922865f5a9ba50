"""The evidence about a run: manifests by their sha256, from the results back to the training documents.

A manifest names its inputs by the sha256 of their manifests (docs/formats/manifest.md). So the results' manifest
vouches for the checkpoint's, that for the tokens', and so on: none can be replaced without changing all later ones.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paloma.formats.contract import FormatError, read_object, sha256_file
from paloma.formats.manifest import MANIFEST, Manifest, find_manifest, read_manifest
from paloma.formats.results import RESULTS

__all__ = ["CERTIFICATE", "DOMAINS", "PER_DOCUMENT", "Evidence", "collect"]

CERTIFICATE = "certificate.json"
DOMAINS = "domains.csv"
PER_DOCUMENT = "perplexity.jsonl.gz"
_KEPT = {"document": (DOMAINS,), "results": (RESULTS, PER_DOCUMENT, "types.jsonl.gz")}  # files besides manifests
_NOT_TRAINED_ON = ("validation", "tokenizer", "attributes", "filter", "controls")  # roles of a manifest's inputs


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Files by their sha256: manifests, results, the sample's table, certificates. `root` is the results' manifest."""

    root: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    certificates: tuple[str, ...] = ()

    def manifest(self, identity: str | None) -> Manifest | None:
        """The manifest with a sha256; None if it is not here.

        Raises:
            FormatError: a file with another content.
        """
        path = self._present(identity)
        if path is None:
            return None
        manifest = read_manifest(path)
        if manifest.identity != identity:
            message = f"has the sha256 {manifest.identity[:12]}…; expected {str(identity)[:12]}…"
            raise FormatError("checksum_mismatch", path, message, hint="copy the evidence again")
        return manifest

    @property
    def results(self) -> Manifest | None:
        """The manifest of the results."""
        return self.manifest(self.root)

    def inputs(self, manifest: Manifest | None, role: str) -> list[str]:
        """Identities of a manifest's inputs in a role that have manifests."""
        rows = manifest.inputs if manifest else []
        return [row["manifest_sha256"] for row in rows if row["role"] == role and "manifest_sha256" in row]

    @property
    def sample(self) -> Manifest | None:
        """The manifest of the evaluation documents; None if there is not exactly one."""
        found = self.inputs(self.results, "documents")
        return self.manifest(found[0]) if len(found) == 1 else None

    @property
    def checkpoint(self) -> Manifest | None:
        """The manifest of the model."""
        found = self.inputs(self.results, "checkpoint")
        return self.manifest(found[0]) if len(found) == 1 else None

    def training_runs(self) -> list[Manifest]:
        """Manifests of the checkpoints that were trained, from the scored one back to the first.

        Copies are passed over; one whose original is not here counts instead of it.
        """
        found: list[Manifest] = []
        manifest = self.checkpoint
        while manifest is not None:
            earlier = self.inputs(manifest, "checkpoint")
            original = self.manifest(earlier[0]) if len(earlier) == 1 else None
            trained = any(row["role"] not in ("checkpoint", *_NOT_TRAINED_ON) for row in manifest.inputs)
            if trained or original is None:
                found.append(manifest)
            manifest = original
        return found

    @property
    def tokens_seen(self) -> int | None:
        """Tokens of all stages of the training; None if a manifest is missing or does not have them."""
        runs = self.training_runs()
        seen = [run.details.get("tokens_seen") for run in runs]
        known = [number for number in seen if type(number) is int]
        return sum(known) if runs and len(known) == len(seen) else None

    def file(self, manifest: Manifest | None, name: str) -> Path | None:
        """A file that a manifest lists; None if it is not here."""
        rows = manifest.files if manifest else []
        return self._present(next((row["sha256"] for row in rows if row["path"] == name), None))

    def table(self, manifest: Manifest, name: str) -> list[dict[str, str]] | None:
        """The rows of a CSV file that a manifest lists; None if it is not here."""
        path = self.file(manifest, name)
        if path is None:
            return None
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def certificate(self, identity: str) -> dict[str, Any] | None:
        """A certificate by its sha256; None if it is not here."""
        path = self._present(identity)
        return None if path is None else read_object(path)

    def _present(self, identity: str | None) -> Path | None:
        path = self.files.get(identity or "")
        return path if path is not None and path.is_file() else None

    def training_documents(self) -> list[tuple[str, Manifest | None]]:
        """Everything that the model was trained on, back to documents: a name, and the manifest if it is here."""
        found: dict[str, tuple[str, Manifest | None]] = {}
        for identity in self.inputs(self.results, "checkpoint"):
            self._follow(identity, "the checkpoint", found)
        return list(found.values())

    def _follow(self, identity: str, name: str, found: dict[str, tuple[str, Manifest | None]]) -> None:
        if identity in found:
            return
        manifest = self.manifest(identity)
        if manifest is None or manifest.format == "document":
            found[identity] = (name, manifest)
            return
        rows = [row for row in manifest.inputs if row["role"] not in _NOT_TRAINED_ON]
        for row in rows:
            name = f"{row['role']} {row['path']}"
            if "manifest_sha256" in row:
                self._follow(row["manifest_sha256"], name, found)
            else:
                found[row["sha256"]] = (name, None)
        if not rows:
            found[identity] = (name, None)

    @property
    def missing(self) -> list[Path]:
        """Files that are named but not here. What they showed does not hold."""
        return [path for path in self.files.values() if not path.is_file()]

    def broken(self) -> Iterator[str]:
        """Yield a sentence for each file whose content is not what its name says."""
        for identity, path in sorted(self.files.items()):
            if path.is_file() and (actual := sha256_file(path)) != identity:
                yield f"{path} has the sha256 {actual[:12]}…; expected {identity[:12]}…"


def collect(results: Path, certificates: Iterable[Path] = ()) -> Evidence:
    """Every manifest that can be reached from results and certificates by the paths of their inputs.

    Raises:
        FormatError: a broken manifest, or a certificate without one.
    """
    files: dict[str, Path] = {}
    root = find_manifest(results, "results") if results.is_dir() else None
    if root is not None:
        _gather(root, files)
    named = []
    for directory in certificates:
        manifest = read_manifest(directory, "table")
        _gather(manifest, files)
        identity = sha256_file(directory / CERTIFICATE)
        files[identity] = directory / CERTIFICATE
        named.append(identity)
    return Evidence(root=root.identity if root else None, files=files, certificates=tuple(named))


def _gather(manifest: Manifest, files: dict[str, Path]) -> None:
    if manifest.identity in files:
        return
    files[manifest.identity] = manifest.path
    for row in manifest.files:
        if row["path"] in _KEPT.get(manifest.format, ()) and (manifest.directory / row["path"]).is_file():
            files[row["sha256"]] = manifest.directory / row["path"]
    for row in manifest.inputs:
        place = manifest.directory / row["path"] / MANIFEST
        if "manifest_sha256" not in row or not place.is_file() or sha256_file(place) != row["manifest_sha256"]:
            continue
        try:
            found = read_manifest(place)
        except FormatError:  # such as of a later version: as if it were not here
            continue
        _gather(found, files)
