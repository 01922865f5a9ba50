"""`paloma check`, and what a run declares about its training: how comparable that makes its numbers.

The guidelines are those of Paloma (arXiv:2312.10523): decontaminate the training data, fix its order, subsample the
evaluation data evenly, fix the vocabulary, format the evaluation documents one by one. The tiers sort runs by the
guidelines that hold. What the results show is checked; the rest is taken as declared.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from paloma.formats.contract import ConfigError, FormatError, Problem, canonical_json, read_object
from paloma.formats.manifest import describe_input, find_manifest
from paloma.formats.results import Results, parse_results, read_results
from paloma.output import markdown_table, write_artifact
from paloma.settings import build, load

__all__ = [
    "PALOMA_VOCABULARY_SHA256",
    "Controls",
    "Finding",
    "Submission",
    "Suite",
    "Training",
    "Verdict",
    "check",
    "judge",
    "read_submission",
]

# tokenizer.json of allenai/gpt-neox-olmo-dolma-v1_5: GPT-NeoX-20B and three tokens for masked personal data, the
# vocabulary that Paloma fixes
PALOMA_VOCABULARY_SHA256 = "9ad33b4b39a9f83973c3f8c42a01948dd5b877a28ac9a5356956c4ff4ed0b714"
_SUBMISSION = "submission.json"
_TIERS = {
    "A": "every guideline holds",
    "B": "every guideline holds but the order of the training data",
    "C": "the evaluation's guidelines hold, the training's do not",
    "D": "own data: a table of its own",
}


def check(paths: list[Path], controls: Path | None, output: Path | None, *, overwrite: bool) -> str:
    """Judge each of the results; returns the Markdown that the command prints, and writes `submission.json`.

    Raises:
        ConfigError: a broken declaration, or `output` for more than one of them.
        FormatError: broken results.
    """
    if output is not None and len(paths) > 1:
        raise ConfigError(f"--output-dir: got {len(paths)} results; expected one", hint="check them one by one")
    submissions = [read_submission(path, controls) for path in paths]
    if output is not None:
        inputs = describe_input("results", paths[0], output)
        if controls is not None:
            inputs += describe_input("controls", controls, output)
        write_artifact(
            output,
            {_SUBMISSION: canonical_json(submissions[0].plain()).encode()},
            overwrite=overwrite,
            format="table",
            config={},
            counts={"domains": len(submissions[0].results.domains)},
            details={},
            inputs=inputs,
        )
    return "\n\n".join(map(_describe, submissions))


# ---- the declaration


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The evaluation data."""

    name: str = ""
    version: str = ""
    split: str = ""
    subsample: Literal["official", "custom"] = "custom"
    """`official`, the suite's own sample, or `custom`."""
    documents_sha256: str | None = None
    """Identity (sha256 of the manifest) of the documents; looked up among the inputs of the results."""
    vocabulary_sha256: str | None = PALOMA_VOCABULARY_SHA256
    """sha256 of the `tokenizer.json` that the suite fixes; null where it fixes none."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model was made."""

    tokens_seen: int | None = None
    schedule_fraction: float | None = None
    """Of the learning-rate schedule; below 1 the checkpoint is an intermediate one."""
    decontamination: Literal["full", "partial", "none"] = "none"
    """`full`, `partial` or `none`: of the training data against the suite."""
    decontamination_filter_sha256: str | None = None
    removal_rate: float | None = None
    """Share of training documents that decontamination removed."""
    order_fixed: bool = False
    """Whether the order of the training data is the one that the compared models share."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """A declaration; what it does not mention counts as not done."""

    suite: Suite = field(default_factory=Suite)
    training: Training = field(default_factory=Training)

    def problems(self) -> list[Problem]:
        """Values out of range."""
        found = []
        for name in ("removal_rate", "schedule_fraction"):
            value = getattr(self.training, name)
            if value is not None and not 0 <= value <= 1:
                found.append(Problem(f'"training.{name}" is {value}; expected 0 to 1'))
        return found


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Results with the declaration about them."""

    results: Results
    controls: Controls
    declared: bool
    documents_sha256: tuple[str, ...]
    """Identities of the document artifacts that the results were made from; empty without a manifest."""
    raw: dict[str, Any]
    """`results.json` as read."""

    def plain(self) -> dict[str, Any]:
        """The content of `submission.json`: sums, never derived numbers or tiers."""
        evidence = {"documents_sha256": list(self.documents_sha256)}
        return {
            "format": "submission",
            "version": 1,
            "controls": asdict(self.controls),
            "evidence": evidence,
            "results": self.raw,
        }


# ---- the verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one guideline holds, and why."""

    guideline: str
    holds: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tier with its reasons; `metrics` are those that may be compared within it."""

    tier: str
    metrics: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def read_submission(path: Path, controls: Path | None = None) -> Submission:
    """A results directory, a `results.json` or a `submission.json`; `controls` (YAML) replaces what that declares.

    Raises:
        FormatError: broken results.
        ConfigError: a broken declaration.
    """
    file = path / _SUBMISSION if path.is_dir() and (path / _SUBMISSION).is_file() else path
    given = None if controls is None else load(Controls, controls)
    if file.is_file():
        value = read_object(file)
        if value.get("format") == "submission":
            return _from_submission(value, file, given)
    results = read_results(path)
    directory = path if path.is_dir() else path.parent
    manifest = find_manifest(directory, "results")
    inputs = manifest.inputs if manifest else []
    identities = tuple(
        entry["manifest_sha256"] for entry in inputs if entry["role"] == "documents" and "manifest_sha256" in entry
    )
    return Submission(
        results=results,
        controls=given or Controls(),
        declared=given is not None,
        documents_sha256=identities,
        raw=read_object(results.path),
    )


def _from_submission(value: dict[str, Any], path: Path, given: Controls | None) -> Submission:
    for name in ("controls", "evidence", "results"):
        if not isinstance(value.get(name), dict):
            code = "wrong_type" if name in value else "missing_field"
            found = "is not an object" if name in value else "not found"
            raise FormatError(code, path, f'"{name}" {found}; expected an object', field=name)
    identities = value["evidence"].get("documents_sha256", [])
    return Submission(
        results=parse_results(value["results"], path),
        controls=given or build(Controls, value["controls"], f"{path}: controls"),
        declared=True,
        documents_sha256=tuple(identities),
        raw=value["results"],
    )


def judge(submission: Submission) -> Verdict:
    """The tier: A all guidelines, B all except the order, C those of the evaluation, D the rest."""
    suite, training = submission.controls.suite, submission.controls.training
    results = submission.results
    decontaminated = training.decontamination == "full"
    evidence = "" if training.decontamination_filter_sha256 else ", no filter named"
    subsample, why_subsample = _subsample(suite, submission.documents_sha256, results.inference.split)
    vocabulary = suite.vocabulary_sha256
    fixed = vocabulary is not None and results.model.tokenizer_sha256 == vocabulary
    found = (results.model.tokenizer_sha256 or "unknown")[:12]
    wanted = f"the suite's is {vocabulary[:12]}" if vocabulary else "the suite fixes none"
    inference = results.inference
    findings = (
        Finding("decontamination", decontaminated, f"declared {training.decontamination}{evidence}"),
        Finding("order", training.order_fixed, "declared fixed" if training.order_fixed else "not declared fixed"),
        Finding("subsample", subsample, why_subsample),
        Finding("vocabulary", fixed, f"the tokenizer is {found}; {wanted}"),
        Finding(
            "format",
            True,
            f"documents alone after {inference.prefix}, {inference.windowing} windows of {inference.max_length_tokens}",
        ),
    )
    holds = {finding.guideline: finding.holds for finding in findings}
    if all(holds.values()):
        tier = "A"
    elif all(value for name, value in holds.items() if name != "order"):
        tier = "B"
    elif holds["subsample"] and holds["format"]:
        tier = "C"
    else:
        tier = "D"
    notes = [] if submission.declared else ["nothing is declared: give --controls"]
    if training.schedule_fraction is not None and training.schedule_fraction < 1:
        notes.append(f"intermediate checkpoint: compare only at {training.schedule_fraction:g} of the schedule")
    return Verdict(tier, ("bits_per_byte", "perplexity") if fixed else ("bits_per_byte",), findings, tuple(notes))


def _subsample(suite: Suite, identities: tuple[str, ...], split: str | None) -> tuple[bool, str]:
    if suite.split and split is not None and suite.split != split:
        return False, f"declared the split {suite.split}, but the results are for {split}"
    if suite.subsample != "official":
        return False, "declared custom"
    if suite.documents_sha256 is None:
        return True, "declared official, no identity given to look for"
    if suite.documents_sha256 in identities:
        return True, f"the results were made from {suite.documents_sha256[:12]}"
    made = ", ".join(identity[:12] for identity in identities) or "documents without a manifest"
    return False, f"declared {suite.documents_sha256[:12]}, but the results were made from {made}"


def _describe(submission: Submission) -> str:
    verdict = judge(submission)
    rows = [[f.guideline, "yes" if f.holds else "no", f.reason] for f in verdict.findings]
    lines = [
        f"{submission.results.model.name}: tier {verdict.tier}, {_TIERS[verdict.tier]}",
        f"compare by {' and '.join(verdict.metrics)}",
        *verdict.notes,
        markdown_table(["guideline", "holds", "reason"], rows),
    ]
    return "\n".join(lines)
