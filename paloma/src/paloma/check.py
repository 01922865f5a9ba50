"""`paloma check`: results and a declaration in, a tier with its reasons out, and the file to submit."""

from pathlib import Path

from paloma import __version__
from paloma.artifact import staged
from paloma.configuration import ConfigError
from paloma.controls import SUBMISSION, judge, read_submission
from paloma.formats.json_lines import atomic_file, canonical_json
from paloma.formats.manifest import describe_input, write_manifest
from paloma.tables import markdown_table

__all__ = ["check"]

_TIERS = {
    "A": "every guideline holds",
    "B": "every guideline holds but the order of the training data",
    "C": "the evaluation's guidelines hold, the training's do not",
    "D": "own data: a table of its own",
}


def check(paths: list[Path], controls: Path | None, output: Path | None, *, overwrite: bool) -> str:
    """Judge each of the results; gives the Markdown that the command prints.

    Raises:
        ConfigError: a broken declaration, or `output` for more than one of them.
        FormatError: broken results.
    """
    if output is not None and len(paths) > 1:
        raise ConfigError([f"--output: given for {len(paths)} results; expected one"], "check them one by one")
    submissions = [read_submission(path, controls) for path in paths]
    if output is not None:
        with staged(output, overwrite=overwrite) as staging:
            with atomic_file(staging / SUBMISSION) as file:
                file.write(canonical_json(submissions[0].plain()).encode())
            inputs = describe_input("results", paths[0], output)
            if controls is not None:
                inputs += describe_input("controls", controls, output)
            write_manifest(
                staging,
                format="table",
                files=[staging / SUBMISSION],
                config={},
                counts={"domains": len(submissions[0].results.domains)},
                details={},
                inputs=inputs,
                version=__version__,
            )
    parts = []
    for submission in submissions:
        verdict = judge(submission)
        rows = [[f.guideline, "yes" if f.holds else "no", f.reason] for f in verdict.findings]
        lines = [
            f"{submission.results.model.name}: tier {verdict.tier}, {_TIERS[verdict.tier]}",
            f"compare by {' and '.join(verdict.metrics)}",
            *verdict.notes,
            markdown_table(["guideline", "holds", "reason"], rows),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
