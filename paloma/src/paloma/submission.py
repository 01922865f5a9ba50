"""`submission.json`: results, the declaration about them, and the evidence next to them, each file named by its sha256.

The file has sums and never a tier or a derived number, since every reader derives them again. `faults` finds what does
not agree: a changed number, a replaced file, a declaration that the evidence contradicts. A missing file is no fault:
what it showed does not hold (tiers.py).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from paloma.controls import Controls
from paloma.evidence import PER_DOCUMENT, Evidence, collect
from paloma.formats.contract import Fields, FormatError, canonical_json, read_lines, read_object, sha256_file
from paloma.formats.manifest import MANIFEST, read_manifest
from paloma.formats.results import RESULTS, Results, parse_results, read_results
from paloma.settings import build, load

__all__ = ["SUBMISSION", "DocumentRow", "Submission", "document_rows", "faults", "read_submission", "submission_files"]

SUBMISSION = "submission.json"
_FOLDER = "evidence"
_VERSION = 2
_SUMS = ("documents", "tokens", "bytes", "chars", "words")
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Results with the declaration and the evidence about them."""

    results: Results
    controls: Controls
    declared: bool
    evidence: Evidence
    raw: dict[str, Any]
    """`results.json` as read"""

    @property
    def documents_sha256(self) -> tuple[str, ...]:
        """Identities of the document artifacts that the results were made from."""
        return tuple(self.evidence.inputs(self.evidence.results, "documents"))

    @property
    def tokens_seen(self) -> int | None:
        """Tokens that the model was trained on: as the checkpoints' manifests say, else as declared."""
        found = self.evidence.tokens_seen
        return self.controls.training.tokens_seen if found is None else found

    def plain(self) -> dict[str, Any]:
        """The content of `submission.json`."""
        return {
            "format": "submission",
            "version": _VERSION,
            "controls": asdict(self.controls),
            "evidence": {
                "certificates": list(self.evidence.certificates),
                "documents_sha256": list(self.documents_sha256),
                "files": {identity: _place(identity, path) for identity, path in self.evidence.files.items()},
                "results_manifest_sha256": self.evidence.root,
            },
            "results": self.raw,
        }


def _place(identity: str, path: Path) -> str:
    ending = next((end for end in (".jsonl.gz", ".csv") if path.name.endswith(end)), ".json")
    return f"{_FOLDER}/{identity}{ending}"


def submission_files(submission: Submission) -> dict[str, bytes]:
    """The files of a submission by their names."""
    present = {identity: path for identity, path in submission.evidence.files.items() if path.is_file()}
    files = {_place(identity, path): path.read_bytes() for identity, path in present.items()}
    return {SUBMISSION: canonical_json(submission.plain()).encode(), **files}


# ---- reading


def read_submission(path: Path, controls: Path | None = None, certificates: Iterable[Path] = ()) -> Submission:
    """A results directory, a `results.json` or a `submission.json`; `controls` (YAML) replaces what that declares.

    Raises:
        FormatError: broken results.
        ConfigError: a broken declaration.
    """
    file = path / SUBMISSION if path.is_dir() and (path / SUBMISSION).is_file() else path
    given = None if controls is None else load(Controls, controls)
    if file.is_file():
        value = read_object(file)
        if value.get("format") == "submission":
            return _from_submission(value, file, given)
    results = read_results(path)
    return Submission(
        results=results,
        controls=given or Controls(),
        declared=given is not None,
        evidence=collect(path if path.is_dir() else path.parent, certificates),
        raw=read_object(results.path),
    )


def _from_submission(value: dict[str, Any], path: Path, given: Controls | None) -> Submission:
    fields = Fields(value, path)
    if (version := fields.integer("version", minimum=1)) > _VERSION:
        message = f"is {version}; expected 1 to {_VERSION}, which this release reads"
        raise fields.error("unsupported_version", "version", message, "upgrade paloma-eval")
    declared, stated, results = (fields.object(name) for name in ("controls", "evidence", "results"))
    files = stated.optional_object("files")
    for identity in files.value:
        place = files.string(identity)
        if place.partition("/")[0] != _FOLDER or ".." in place:
            raise files.error("unsafe_path", identity, f'is "{place}"; expected a path below {_FOLDER}/')
    certificates = stated.array("certificates") if "certificates" in stated.value else []
    for identity in [*files.value, *certificates]:
        if not re.fullmatch("[0-9a-f]{64}", str(identity)):
            raise stated.error("invalid_value", "files", f'has "{identity}"; expected 64 lower-case hexadecimal digits')
    return Submission(
        results=parse_results(results.value, path),
        controls=given or build(Controls, declared.value, f"{path}: controls"),
        declared=True,
        evidence=Evidence(
            root=stated.optional_string("results_manifest_sha256"),
            files={identity: path.parent / place for identity, place in files.value.items()},
            certificates=tuple(map(str, certificates)),
        ),
        raw=results.value,
    )


class DocumentRow(msgspec.Struct, frozen=True):
    """A row of perplexity.jsonl.gz: the sums of one document."""

    source: str
    subdomain: str
    id: str
    tokens: int
    bytes: int
    chars: int
    words: int
    nll_nats: float


def document_rows(submission: Submission) -> list[DocumentRow] | None:
    """The sums of every document; None where the results have none.

    Raises:
        FormatError: a broken row.
    """
    path = submission.evidence.file(submission.evidence.results, PER_DOCUMENT)
    if path is None:
        beside = submission.results.path.parent / PER_DOCUMENT
        path = beside if submission.results.path.name == RESULTS and beside.is_file() else None
    if path is None or not path.is_file():
        return None
    decoder = msgspec.json.Decoder(DocumentRow)
    rows = []
    for line, raw in read_lines(path):
        try:
            rows.append(decoder.decode(raw))
        except msgspec.DecodeError as error:
            raise FormatError("wrong_type", path, f"is not a document's sums: {error}", line=line) from error
    return rows


# ---- what does not agree


def faults(submission: Submission) -> Iterator[str]:
    """Yield a sentence about everything in a submission that the rest of it contradicts."""
    yield from _rewritten(submission.results.path)
    broken = list(submission.evidence.broken())
    yield from broken
    if broken:
        return
    results = submission.evidence.results
    if results is None:
        return
    stored = submission.evidence.file(results, RESULTS)
    if stored is not None:
        yield from _differences(submission.raw, read_object(stored), "results")
    rows = document_rows(submission)
    if rows is not None:
        yield from _wrong_sums(submission.results, rows)
    yield from _contradicted(submission)


def _rewritten(path: Path) -> Iterator[str]:
    """Yield a sentence if a submission is not the file that the manifest next to it lists."""
    if path.name != SUBMISSION or not (path.parent / MANIFEST).is_file():
        return
    listed = {row["path"]: row["sha256"] for row in read_manifest(path.parent).files}.get(SUBMISSION)
    if listed is not None and (actual := sha256_file(path)) != listed:
        yield f"{path} has the sha256 {actual[:12]}…; {MANIFEST} lists {listed[:12]}…"


def _differences(found: Any, expected: Any, name: str) -> Iterator[str]:
    """Yield each field of the first that the second does not have, or has with another value."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if key not in found or key not in expected:
                yield f"{name}.{key} is {'missing' if key not in found else 'not in ' + RESULTS}"
            else:
                yield from _differences(found[key], expected[key], f"{name}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, pair in enumerate(zip(found, expected, strict=True)):
            yield from _differences(*pair, f"{name}.{index}")
    elif found != expected:
        shown = [f"{len(value)} entries" if isinstance(value, list) else value for value in (found, expected)]
        yield f"{name} is {shown[0]}; {RESULTS} has {shown[1]}"


def _wrong_sums(results: Results, rows: list[DocumentRow]) -> Iterator[str]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        key = (row.source, row.subdomain)
        counts.setdefault(key, Counter()).update(
            documents=1, tokens=row.tokens, bytes=row.bytes, chars=row.chars, words=row.words
        )
        losses.setdefault(key, []).append(row.nll_nats)
    for domain in results.domains:
        count = counts.pop((domain.source, domain.subdomain), Counter[str]())
        for name in _SUMS:
            if getattr(domain, name) != count[name]:
                yield f"{domain.name}: {name} is {getattr(domain, name):,}; its documents sum to {count[name]:,}"
        loss = math.fsum(losses.get((domain.source, domain.subdomain), []))
        if not math.isclose(loss, domain.nll_nats, rel_tol=_TOLERANCE):
            yield f"{domain.name}: nll_nats is {domain.nll_nats}; its documents sum to {loss}"
    for source, subdomain in sorted(counts):
        yield f"{source}/{subdomain}: {PER_DOCUMENT} has documents of it, the results do not"


def _contradicted(submission: Submission) -> Iterator[str]:
    """Yield declarations and numbers that the evidence contradicts."""
    training, evidence = submission.controls.training, submission.evidence
    checkpoint, seen = evidence.checkpoint, evidence.tokens_seen
    if training.tokens_seen is not None and seen is not None and training.tokens_seen != seen:
        yield f"controls.training.tokens_seen is {training.tokens_seen:,}; the checkpoint has seen {seen:,}"
    if checkpoint is not None:
        stated, counted = submission.results.model.parameters, checkpoint.counts.get("parameters")
        if counted is not None and counted != stated:
            yield f"results.model.parameters is {stated:,}; the checkpoint has {counted:,}"
    certificates = [value for value in map(evidence.certificate, evidence.certificates) if value]
    declared = training.decontamination_filter_sha256
    if certificates and declared and declared not in {value["filter"]["sha256"] for value in certificates}:
        yield f"controls.training.decontamination_filter_sha256 is {declared[:12]}…; no certificate names it"
    if len(certificates) == 1 and training.removal_rate is not None:
        rate = certificates[0]["documents_removed"] / max(1, certificates[0]["documents_in"])
        if abs(training.removal_rate - rate) > 0.01 * rate:
            yield f"controls.training.removal_rate is {training.removal_rate:g}; the certificate has {rate:.4g}"
