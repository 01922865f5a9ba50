"""Runs in the environment of dolma 1.2.1. Its import takes seconds, so it imports once and then forks for each call.

A call is a line of JSON on stdin; its exit status is a line on stdout. What the call prints goes to files.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any


def serve() -> None:
    """Answers calls until stdin ends."""
    from dolma.cli.__main__ import main

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of imports and libraries is not an answer
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line), main)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def run(call: dict[str, Any], main: Callable[[], object]) -> None:
    """Does the work and ends this process at once, since the interpreter takes a second to free its imports."""
    status = 1
    try:
        become(call)
        if call["script"]:
            exec(compile(call["script"], "script", "exec"), {"__name__": "__main__"})
        else:
            main()
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def become(call: dict[str, Any]) -> None:
    """Makes this process look as if started with these arguments, in this directory and environment."""
    os.chdir(call["directory"])
    os.environ.clear()
    os.environ.update(call["environment"])
    tempfile.tempdir = None
    sys.argv = ["dolma", *call["arguments"]]
    for number, name in enumerate((os.devnull, call["out"], call["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    serve()
