"""`paloma decontaminate`: settings for dolma that remove evaluation text from training data, and a certificate of it.

The rule is Paloma's guideline G1: a training document is dropped if it contains a paragraph of the evaluation data with
at least 13 words (Unicode Standard Annex 29). Sources of code are not compared. Paragraphs of punctuation, which the
paper ignores, count here if they have 13 pieces: dolma's filter has no such exception.

A certificate is made from what dolma wrote: the filter's record of its inputs, the manifest of the marks and the
manifest of the documents that were kept.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paloma.evidence import CERTIFICATE, Evidence
from paloma.formats.contract import (
    ConfigError,
    Fields,
    FormatError,
    WorkError,
    canonical_json,
    decode_object,
    read_rows,
    sha256_file,
    write_file,
)
from paloma.formats.document import document_files, document_root, read_documents
from paloma.formats.manifest import Manifest, describe_input, read_manifest
from paloma.output import write_artifact
from paloma.suite import sources

__all__ = ["Certificate", "certified", "certify", "read_certificate", "settings"]

MIN_WORDS = 13
_NAME = "paloma_paragraphs"
_TAGGER = "evaluation_overlap_v1"  # of `dolma decontaminate`
_HEAD = struct.Struct("<4I3Q")  # of a Bloom filter, docs/formats/filter.md: magic, version, k, c, w, keys, record
_FUNNEL = ".dolma/funnel.ndjson"


# ---- settings for dolma


def settings(documents: Path, training: list[str], filter_file: Path, result: Path, output: Path | None) -> str:
    """The three configurations and the commands that run them; they are written to `output` if it is given.

    Raises:
        ConfigError: no evaluation documents but those of code.
        FormatError: a broken evaluation document.
    """
    root = document_root(documents)
    files = [file for file in document_files(root) if _source(file, root) not in _code_sources()]
    if not files:
        raise ConfigError(f"--documents: {documents} has only sources of code; expected other text")
    paragraphs = sum(document.text.count("\n") + 1 for document in read_documents(files))
    patterns = sorted({(file.parent / "*").as_posix() for file in files})
    configs = {
        "remember.yaml": _dedupe(patterns, root.resolve().name, filter_file, paragraphs, read_only=False),
        "mark.yaml": _dedupe(training, "documents", filter_file, paragraphs, read_only=True),
        "mix.yaml": {
            "streams": [
                {
                    "name": "training",
                    "documents": training,
                    "attributes": [_NAME],
                    "filter": {"syntax": "jq", "exclude": [f"(.attributes.{_NAME} // []) | length > 0"]},
                    "output": {"path": result.as_posix(), "discard_fields": ["attributes"]},
                }
            ]
        },
    }
    texts = {name: yaml.safe_dump(config, sort_keys=False, allow_unicode=True) for name, config in configs.items()}
    folder = output or Path()
    verbs = {"remember.yaml": "dedupe", "mark.yaml": "dedupe", "mix.yaml": "mix"}
    commands = [f"dolma -c {folder / name} {verb}" for name, verb in verbs.items()]
    commands.append(f"paloma decontaminate --documents {documents} --result {result} --output-dir certificate")
    if output is None:
        parts = [f"# {name}\n{text}" for name, text in texts.items()]
        return "---\n".join(parts) + "# " + "\n# ".join(commands)
    for name, text in texts.items():
        write_file(output / name, text.encode())
    return "\n".join(commands)


def _dedupe(documents: list[str], folder: str, filter_file: Path, keys: int, *, read_only: bool) -> dict[str, Any]:
    return {
        "documents": documents,
        "dedupe": {
            "name": _NAME,
            "document_dir": folder,
            "paragraphs": {"attribute_name": _NAME},
            "skip_empty": True,
            "min_words": MIN_WORDS,
        },
        "bloom_filter": {
            "file": filter_file.as_posix(),
            "read_only": read_only,
            "estimated_doc_count": max(keys, 1000),
            "desired_false_positive_rate": 1e-15,
        },
    }


def _code_sources() -> set[str]:
    return {"code"} | {name for name, source in sources().items() if source.code == "*"}


def _source(file: Path, root: Path) -> str:
    return file.relative_to(root).parts[0]


# ---- the certificate


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a run of dolma removed. Hashes name the manifests that show it, and the files that the filter contains."""

    documents_sha256: str
    """manifest of the evaluation documents"""
    training_sha256: str
    """manifest of the training documents that were kept"""
    marks_sha256: str
    """manifest of the marks, which names the filter"""
    filter_sha256: str
    filter_inputs: frozenset[str]
    documents_in: int
    documents_out: int
    documents_removed: int
    is_exact: bool
    """made by `dolma decontaminate`, which compares texts: `filter` is its index"""
    rule: str
    min_words: int

    @property
    def removal_rate(self) -> float:
        """Share of the training documents that contain evaluation text."""
        return self.documents_removed / self.documents_in if self.documents_in else 0.0


def certify(documents: Path, result: Path, output: Path, *, overwrite: bool) -> str:
    """Write `certificate.json` about the training documents in `result`; returns a sentence.

    Raises:
        FormatError: an artifact without a manifest, or a broken one.
        WorkError: the artifacts do not show that every evaluation document was compared.
    """
    sample = read_manifest(document_root(documents), "document")
    training = read_manifest(result, "document")
    marks = _marks(training)
    filter_row = next((row for row in marks.inputs if row["role"] == "filter"), None)
    if filter_row is None:
        raise WorkError(f"{marks.path}: no filter among the inputs; expected one that was only read")
    filter_path = marks.directory / filter_row["path"]
    if not filter_path.is_file() or sha256_file(filter_path) != filter_row["sha256"]:
        raise WorkError(f"{filter_path}: is not the filter that {marks.path} names; expected it unchanged")
    funnel = _funnel(result)
    value = {
        "format": "decontamination",
        "version": 1,
        "documents_sha256": sample.identity,
        "training_sha256": training.identity,
        "marks_sha256": marks.identity,
        "filter": {"sha256": filter_row["sha256"], "inputs": sorted(_filter_inputs(filter_path))},
        **funnel,
    }
    certificate = read_certificate(value, result)
    evidence = Evidence(files={one.identity: one.path for one in (sample, training, marks)})
    problems = list(_problems(certificate, evidence))
    if problems:
        raise WorkError(*[f"{result}: {problem}" for problem in problems], hint="run dolma with the printed settings")
    write_artifact(
        output,
        {CERTIFICATE: canonical_json(value).encode()},
        overwrite=overwrite,
        format="table",
        config={"min_words": MIN_WORDS},
        counts={name: number for name, number in funnel.items()},
        details={},
        inputs=[
            *describe_input("attributes", marks.directory, output),
            *describe_input("documents", document_root(documents), output),
            *describe_input("training", result, output),
        ],
    )
    share = f"{certificate.documents_removed:,} of {certificate.documents_in:,} documents"
    return f"removed {share} ({certificate.removal_rate:.3%}), filter {certificate.filter_sha256[:12]}: {output}"


def _marks(training: Manifest) -> Manifest:
    for row in training.inputs:
        if row["role"] == "attributes" and "manifest_sha256" in row:
            manifest = read_manifest(training.directory / row["path"], "attributes")
            if manifest.identity == row["manifest_sha256"] and _NAME in manifest.details.get("keys", []):
                return manifest
    raise WorkError(f"{training.path}: no attributes {_NAME} among the inputs; expected those of mark.yaml")


def _filter_inputs(path: Path) -> set[str]:
    """The sha256 of every file whose paragraphs a filter contains, from its record."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[:4] != bytes.fromhex("17f1f081"):
            raise FormatError("unknown_format", path, "is not a filter of dolma")
        record = decode_object(file.read(_HEAD.unpack(head)[-1]), path)
    return {str(entry["sha256"]) for run in record["runs"] for entry in run["inputs"]}


def _funnel(result: Path) -> dict[str, int]:
    """Documents that mix read and kept, and those that the rule about evaluation text would drop by itself."""
    path = result / _FUNNEL
    rows = [row for _, row in read_rows(path)]
    removed = [
        rule["documents_alone"]
        for row in rows
        for rule in row["rules"]
        if rule["kind"] == "exclude" and _NAME in rule["rule"]
    ]
    if not removed:
        raise WorkError(f"{path}: no rule excludes {_NAME}; expected the rule of mix.yaml")
    return {
        "documents_in": sum(row["documents_in"] for row in rows),
        "documents_out": sum(row["documents_out"] for row in rows),
        "documents_removed": sum(removed),
    }


def read_certificate(value: dict[str, Any], path: Path) -> Certificate:
    """A certificate from its JSON.

    Raises:
        FormatError: a missing or wrong field.
    """
    fields = Fields(value, path)
    if (name := fields.string("format")) != "decontamination":
        raise fields.error("unknown_format", "format", f'is "{name}"; expected decontamination')
    filter_fields = fields.object("index" if "index" in value else "filter")
    return Certificate(
        is_exact="index" in value,
        rule=str(value.get("rule", "paragraphs")),
        min_words=int(value.get("settings", {}).get("min_words", MIN_WORDS)),
        documents_sha256=fields.hash("documents_sha256"),
        training_sha256=fields.hash("training_sha256"),
        marks_sha256=fields.hash("marks_sha256"),
        filter_sha256=filter_fields.hash("sha256"),
        filter_inputs=frozenset(map(str, filter_fields.array("inputs"))),
        documents_in=fields.integer("documents_in"),
        documents_out=fields.integer("documents_out"),
        documents_removed=fields.integer("documents_removed"),
    )


# ---- what certificates show


def certified(evidence: Evidence) -> tuple[bool, str]:
    """Whether everything that the model was trained on is certified against the sample it was scored on, and why."""
    sample = evidence.sample
    if sample is None:
        return False, "no manifest of the evaluation documents"
    found: dict[str, Certificate] = {}
    for identity in evidence.certificates:
        value = evidence.certificate(identity)
        if value is None:
            return False, f"the certificate {identity[:12]} is missing"
        certificate = read_certificate(value, evidence.files[identity])
        if certificate.documents_sha256 == sample.identity:
            problem = next(_problems(certificate, evidence), None)
            if problem:
                return False, f"certificate {identity[:12]}: {problem}"
            found[certificate.training_sha256] = certificate
    if not found:
        return False, f"no certificate for the evaluation documents {sample.identity[:12]}"
    training = evidence.training_documents()
    if not training:
        return False, "no manifest shows what the model was trained on"
    used: set[str] = set()
    for name, manifest in training:
        if manifest is None or not _covered(manifest, found, evidence, used):
            return False, f"no certificate for {name}"
    documents = sum(found[identity].documents_in for identity in used)
    removed = sum(found[identity].documents_removed for identity in used)
    return True, f"{removed:,} of {documents:,} training documents removed ({removed / max(documents, 1):.3%})"


def _covered(manifest: Manifest, found: dict[str, Certificate], evidence: Evidence, used: set[str]) -> bool:
    """Whether documents have a certificate, or were all made from documents that have one, such as by a later mix."""
    if manifest.identity in found:
        used.add(manifest.identity)
        return True
    rows = [row for row in manifest.inputs if row["role"] == "documents"]
    made_from = [evidence.manifest(row.get("manifest_sha256")) for row in rows]
    return bool(rows) and all(one is not None and _covered(one, found, evidence, used) for one in made_from)


def _problems(certificate: Certificate, evidence: Evidence) -> Iterator[str]:
    """Yield what the manifests do not bear out."""
    sample = evidence.manifest(certificate.documents_sha256)
    training = evidence.manifest(certificate.training_sha256)
    marks = evidence.manifest(certificate.marks_sha256)
    for manifest, what in ((sample, "evaluation documents"), (training, "training documents"), (marks, "marks")):
        if manifest is None:
            yield f"the manifest of the {what} is missing"
    if sample is None or training is None or marks is None:
        return
    if certificate.marks_sha256 not in evidence.inputs(training, "attributes"):
        yield "the training documents were not made from the marks"
    if certificate.is_exact:
        yield from _wrong_index(certificate, marks)
    else:
        yield from _wrong_filter(certificate, marks)
    for row in sample.files:
        source = row["path"].split("/")[0]
        is_rows = row["path"].count("/") > 0
        if is_rows and source not in _code_sources() and row["sha256"] not in certificate.filter_inputs:
            yield f"the {'index' if certificate.is_exact else 'filter'} does not contain {row['path']}"
            return
    counts = {"documents_in": marks.counts.get("documents"), "documents_out": training.counts.get("documents")}
    for name, stated in counts.items():
        if getattr(certificate, name) != stated:
            yield f"{name} is {getattr(certificate, name):,}; the manifests say {stated}"
    if certificate.documents_removed > certificate.documents_in - certificate.documents_out:
        yield f"documents_removed is {certificate.documents_removed:,}, more than are missing"


def _wrong_index(certificate: Certificate, marks: Manifest) -> Iterator[str]:
    """What does not fit an index of whole paragraphs."""
    if certificate.filter_sha256 not in marks.config.get("resources_sha256", {}).get(_TAGGER, []):
        yield "the marks were not made with the index"
    if certificate.rule != "paragraphs" or certificate.min_words > MIN_WORDS:
        yield f"the marks do not compare whole paragraphs of {MIN_WORDS} words and more"


def _wrong_filter(certificate: Certificate, marks: Manifest) -> Iterator[str]:
    """What does not fit a filter of whole paragraphs."""
    if not any(row["role"] == "filter" and row.get("sha256") == certificate.filter_sha256 for row in marks.inputs):
        yield "the marks were not made with the filter"
    dedupe = marks.config.get("dedupe", {})
    paragraphs = dedupe.get("unit", {}).get("paragraphs")
    if not paragraphs or paragraphs.get("by_ngram") or dedupe.get("min_words", 0) > MIN_WORDS:
        yield f"the marks do not compare whole paragraphs of {MIN_WORDS} words and more"
    if dedupe.get("num_partitions", 1) != 1:
        yield "the marks are of one partition of several"
    if not marks.config.get("bloom_filter", {}).get("read_only"):
        yield "the filter was not only read"
