"""The tier of a run, from A to D, and the reasons: which of Paloma's guidelines its evidence shows to hold.

Nothing is believed that is only declared. Each guideline needs files whose hashes lead back to the results: without
them it does not hold, and the tier falls.
"""

from collections import Counter
from dataclasses import dataclass

from paloma.build import folder_of
from paloma.controls import PALOMA_VOCABULARY_SHA256
from paloma.decontaminate import certified
from paloma.evidence import DOMAINS, PER_DOCUMENT, Evidence
from paloma.formats.results import RESULTS
from paloma.submission import Submission
from paloma.suite import sources

__all__ = ["TIERS", "Finding", "Verdict", "judge"]

TIERS = {
    "A": "every guideline holds",
    "B": "every guideline holds but the order of the training data",
    "C": "the evaluation's guidelines hold, the training's do not",
    "D": "own data or no evidence: a table of its own",
}
_LEAST_TOKENS = 100_000
_NO_MANIFEST = "the results have no manifest"
_TOKEN_SHARE = 0.3  # by which a split of Paloma's may differ from half of a source's tokens


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


def judge(submission: Submission) -> Verdict:
    """The tier: A all guidelines, B all except the order, C those of the evaluation, D the rest.

    Raises:
        FormatError: broken evidence.
    """
    findings = (
        Finding("decontamination", *certified(submission.evidence)),
        Finding("order", *_order(submission.evidence)),
        Finding("subsample", *_subsample(submission)),
        Finding("vocabulary", *_vocabulary(submission)),
        Finding("format", *_format(submission)),
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
    metrics = ("bits_per_byte", "perplexity") if holds["vocabulary"] else ("bits_per_byte",)
    return Verdict(tier, metrics, findings, tuple(_notes(submission)))


def _notes(submission: Submission) -> list[str]:
    notes = [] if submission.declared else ["nothing is declared: give --controls"]
    if missing := submission.evidence.missing:
        notes.append(f"missing evidence: {', '.join(path.name for path in missing)}")
    training = submission.controls.training
    checkpoint = next(iter(submission.evidence.training_runs()), None)
    fraction = training.schedule_fraction
    steps = checkpoint.config.get("train", {}).get("steps") if checkpoint else None
    if checkpoint and type(steps) is int and steps and type(checkpoint.details.get("step")) is int:
        fraction = checkpoint.details["step"] / steps
    if fraction is not None and fraction < 1:
        notes.append(f"intermediate checkpoint: compare only at {fraction:g} of the schedule")
    small = sum(domain.tokens < _LEAST_TOKENS for domain in submission.results.domains)
    if small and submission.evidence.sample is not None:
        notes.append(f"{small:,} domains have fewer than {_LEAST_TOKENS:,} tokens, Paloma's least for a domain")
    return notes


def _format(submission: Submission) -> tuple[bool, str]:
    """The results are those of their manifest, and say how documents were cut into windows."""
    if submission.evidence.results is None:
        return False, _NO_MANIFEST
    listed = {row["path"] for row in submission.evidence.results.files}
    for name in (RESULTS, PER_DOCUMENT):
        if name in listed and submission.evidence.file(submission.evidence.results, name) is None:
            return False, f"{name}, which the manifest of the results lists, is missing"
    found = submission.results.inference
    windows = f"{found.windowing} windows of {found.max_length_tokens}"
    return True, f"documents alone after {found.prefix}, {windows}"


def _order(evidence: Evidence) -> tuple[bool, str]:
    """The order follows from the data, the length of sequences and the seed of each run that trained the model."""
    runs = evidence.training_runs()
    if not runs:
        return False, "no manifest of the checkpoint"
    for run in runs:
        if type(run.config.get("seed")) is not int:
            return False, "the checkpoint's manifests lead to no run with a seed"
    first = runs[-1]
    length = first.config.get("data", {}).get("sequence_length")
    tokens = [row for row in first.inputs if row["role"] == "tokens"]
    if type(length) is not int or not tokens:
        return False, "the first run's manifest has no sequence length or tokens"
    data = ", ".join((row.get("manifest_sha256") or row["sha256"])[:12] for row in tokens[:3])
    more = " and more" if len(tokens) > 3 else ""
    return True, f"seed {first.config['seed']}, sequences of {length}, tokens {data}{more}"


def _vocabulary(submission: Submission) -> tuple[bool, str]:
    """The tokenizer is the suite's, and the manifests name the same file."""
    suite, found = submission.controls.suite, submission.results.model.tokenizer_sha256
    own = submission.evidence.sample is not None and suite.name.lower() != "paloma"
    wanted = suite.vocabulary_sha256 if own else PALOMA_VOCABULARY_SHA256
    if found is None or wanted is None or found != wanted:
        fixes = f"the suite's is {wanted[:12]}" if wanted else "the suite fixes none"
        return False, f"the tokenizer is {(found or 'unknown')[:12]}; {fixes}"
    checkpoint, results = submission.evidence.checkpoint, submission.evidence.results
    if checkpoint is not None:
        listed = {row["sha256"] for row in checkpoint.files if row["path"] == "tokenizer.json"}
    else:
        rows = results.inputs if results else []
        listed = {row.get("sha256") for row in rows if row["path"].endswith("tokenizer.json")}
    if found not in listed:
        return False, f"no manifest shows that the tokenizer is {found[:12]}"
    return True, f"the tokenizer is {found[:12]}, the suite's"


def _subsample(submission: Submission) -> tuple[bool, str]:
    """The results are for every document of a split of the sample, or have Paloma's counts."""
    suite, split = submission.controls.suite, submission.results.inference.split
    if suite.split and split is not None and suite.split != split:
        return False, f"declared the split {suite.split}, but the results are for {split}"
    if submission.evidence.results is None:
        return False, _NO_MANIFEST
    if suite.documents_sha256 and suite.documents_sha256 not in submission.documents_sha256:
        made = ", ".join(identity[:12] for identity in submission.documents_sha256) or "documents without a manifest"
        return False, f"the suite is {suite.documents_sha256[:12]}, but the results were made from {made}"
    counts = submission.evidence.results.details.get("documents")
    scored = sum(domain.documents for domain in submission.results.domains)
    if isinstance(counts, dict) and not counts.get("found") == counts.get("scored") == scored:
        return False, f"{scored:,} of {counts.get('found')} documents were scored"
    if not submission.documents_sha256:
        return _like_paloma(submission)
    sample = submission.evidence.sample
    if sample is None:
        return False, "no manifest of the evaluation documents"
    if sample.writer["name"] != "paloma-eval":
        return False, f"the documents were written by {sample.writer['name']}; expected a sample of paloma build"
    table = submission.evidence.table(sample, DOMAINS)
    if table is None:
        return False, f"{DOMAINS} of the evaluation documents is missing"
    expected = {
        (r["source"], r["subdomain"]): (int(r["documents"]), int(r["bytes"])) for r in table if r["split"] == split
    }
    found = {(d.source, d.subdomain): (d.documents, d.bytes) for d in submission.results.domains}
    different = sum(expected.get(key) != found.get(key) for key in expected.keys() | found.keys())
    if different or not expected:
        return False, f"{different} domains differ from the sample {sample.identity[:12]}"
    return True, f"every document of {len(expected)} domains of the sample {sample.identity[:12]}"


def _like_paloma(submission: Submission) -> tuple[bool, str]:
    """Paloma's own files have no manifest: the results are for as many domains and about as many tokens."""
    found = Counter(folder_of(domain.source) for domain in submission.results.domains)
    tokens = Counter[str]()
    for domain in submission.results.domains:
        tokens[folder_of(domain.source)] += domain.tokens
    same_tokens = submission.results.model.tokenizer_sha256 == PALOMA_VOCABULARY_SHA256
    for name, source in sources().items():
        if not source.rehosted and name not in found:
            continue
        if found[name] != source.domains:
            return False, f"{name} has {found[name]} domains; Paloma has {source.domains}"
        half = (source.tokens or 0) / 2
        if same_tokens and half and abs(tokens[name] - half) > _TOKEN_SHARE * half:
            return False, f"{name} has {tokens[name]:,} tokens; a split of Paloma's has about {half:,.0f}"
    return True, "the documents have no manifest; domains and tokens are Paloma's"
