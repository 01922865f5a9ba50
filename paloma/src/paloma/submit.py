"""`paloma check` and `paloma submit`: judge results or submissions, and write one."""

from collections.abc import Sequence
from pathlib import Path

from paloma.formats.contract import ConfigError, WorkError
from paloma.formats.manifest import describe_input
from paloma.output import markdown_table, write_artifact
from paloma.submission import Submission, faults, read_submission, submission_files
from paloma.tiers import TIERS, judge

__all__ = ["check", "submit"]


def check(
    paths: list[Path],
    controls: Path | None,
    output: Path | None,
    *,
    overwrite: bool,
    certificates: Sequence[Path] = (),
) -> tuple[str, bool]:
    """Judge each of the results; returns the text to print, and whether everything in them agrees.

    Raises:
        ConfigError: a broken declaration, or `output` for more than one of them.
        FormatError: broken results.
        WorkError: `output`, and something does not agree.
    """
    if output is not None and len(paths) > 1:
        raise ConfigError(f"--output-dir: got {len(paths)} results; expected one", hint="check them one by one")
    submissions = [read_submission(path, controls, certificates) for path in paths]
    found = [list(faults(submission)) for submission in submissions]
    if output is not None:
        if found[0]:
            problems = [f"{paths[0]}: {fault}" for fault in found[0]]
            raise WorkError(*problems, hint="score again, or correct the declaration")
        submit(submissions[0], paths[0], controls, output, overwrite=overwrite)
    texts = [_describe(*pair) for pair in zip(submissions, found, strict=True)]
    return "\n\n".join(texts), not any(found)


def submit(submission: Submission, results: Path, controls: Path | None, output: Path, *, overwrite: bool) -> None:
    """Write `submission.json` and its evidence as an artifact.

    Raises:
        ConfigError: an output that is not empty.
    """
    inputs = describe_input("results", results, output)
    if controls is not None:
        inputs += describe_input("controls", controls, output)
    write_artifact(
        output,
        submission_files(submission),
        overwrite=overwrite,
        format="table",
        config={},
        counts={"domains": len(submission.results.domains)},
        details={},
        inputs=inputs,
    )


def _describe(submission: Submission, found: list[str]) -> str:
    if found:
        lines = [f"{submission.results.model.name}: no tier, since the submission contradicts itself"]
        return "\n".join([*lines, *(f"fault: {fault}" for fault in found)])
    verdict = judge(submission)
    rows = [[f.guideline, "yes" if f.holds else "no", f.reason] for f in verdict.findings]
    lines = [
        f"{submission.results.model.name}: tier {verdict.tier}, {TIERS[verdict.tier]}",
        f"compare by {' and '.join(verdict.metrics)}",
        *verdict.notes,
        markdown_table(["guideline", "holds", "reason"], rows),
    ]
    return "\n".join(lines)
