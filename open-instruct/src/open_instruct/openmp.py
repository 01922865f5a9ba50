"""How threads of OpenMP wait for each other. Several packages have the same copy of this file."""

import os

__all__ = ["limit_spinning"]


def limit_spinning() -> None:
    """Let waiting threads sleep early; must run before torch is imported.

    By default libgomp, which torch's wheels for Linux contain, spins 300,000 times, for milliseconds. On a machine with
    other work, that takes the core from the very thread that is waited for. The number is the result of a measurement
    (docs/design/threads.md). The user's setting takes precedence.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "10000"
