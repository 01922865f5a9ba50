"""The script that runs the shards of ``dolma run`` as arrays of Slurm jobs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

__all__ = ["script"]


def script(settings: str, passes: Sequence[Sequence[str]], count: int, processes: int) -> str:
    """Bash that submits an array of ``count`` jobs for each step of each pass, and a last job that publishes.

    ``settings`` is the YAML of the run. Each array starts when all jobs of the one before are done.
    """
    lines = [
        "#!/bin/bash",
        f"# Submits a run of dolma as arrays of {count} jobs. Each array starts when the one before is done.",
        "# SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_ACCOUNT and others set options of all jobs (man sbatch).",
        "set -euo pipefail",
        'settings=$(mktemp -p "$PWD")',
        "cat > \"$settings\" <<'END OF SETTINGS'",
        settings.rstrip(),
        "END OF SETTINGS",
        "previous=",
        "submit() {",
        f"  previous=$(sbatch --parsable --cpus-per-task={processes} "
        '${previous:+--dependency=afterok:$previous --kill-on-invalid-dep=yes} "$@")',
        "  previous=${previous%%;*}",
        "}",
    ]
    array = f"--array=0-{count - 1}"
    for number, steps in enumerate(passes, 1):
        if number > 1:
            lines.append(_job(f"dolma-{number - 1}-publish", f"--shard 0/{count}"))
        lines += [_job(f"dolma-{number}-{step}", f"--shard $SLURM_ARRAY_TASK_ID/{count}", array) for step in steps]
    lines += [_job("dolma-publish", f"--merge {count}"), 'echo "the last job is $previous"']
    return "\n".join(lines) + "\n"


def _job(name: str, option: str, *options: str) -> str:
    # the path of the settings is filled in now, the number of the task when the job runs
    command = '--wrap="dolma run $(printf %q "$settings") "' + shlex.quote(option)
    return " ".join(["submit", f"--job-name={name}", *options, command])
