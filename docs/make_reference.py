"""Write docs/reference/<tool>.md: what `--help` of every command prints. `python docs/make_reference.py [--check]`.

With `--check` nothing is written; exit 1 when a page is not what the commands print now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TOOLS = {
    "dolma": [
        "extract",
        "tag",
        "dedupe",
        "mix",
        "tokens",
        "run",
        "reshard",
        "stat",
        "train-classifier",
        "list",
        "presets",
    ],
    "olmo": [
        "train",
        "init",
        "launch",
        "convert",
        "export",
        "fetch",
        "generate",
        "soup",
        "import-config",
        "inspect",
        "report",
    ],
    "catwalk": ["run", "list", "show", "report", "verify", "import", "documents"],
    "paloma": ["suite", "build", "decontaminate", "check", "submit", "aggregate", "compare", "pile", "report"],
    "open-instruct": [
        "sft",
        "dpo",
        "reward",
        "sample",
        "grpo",
        "chat",
        "serve",
        "eval",
        "convert",
        "inspect",
        "mix",
        "merge",
    ],
}
FOLDER = Path(__file__).resolve().parent / "reference"


def help_of(tool: str, *command: str) -> str:
    """What a command's `--help` prints, at a fixed width.

    Raises RuntimeError: when it does not exit 0.
    """
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    program = Path(sys.executable).parent / tool
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{tool} {' '.join(command)} --help ended with {done.returncode}: {done.stderr}")
    return re.sub(r"[ \t]+$", "", done.stdout, flags=re.MULTILINE).strip()


def page(tool: str) -> str:
    """The reference page of one tool."""
    parts = [f"# {tool}", f"```text\n{help_of(tool)}\n```"]
    parts += [f"## {tool} {command}\n\n```text\n{help_of(tool, command)}\n```" for command in TOOLS[tool]]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    FOLDER.mkdir(exist_ok=True)
    for tool in TOOLS:
        path, text = FOLDER / f"{tool}.md", page(tool)
        if "--check" in sys.argv:
            if not path.is_file() or path.read_text("utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, "utf-8")
    for name in stale:
        sys.stderr.write(f"error: docs/reference/{name} is not what --help prints\nhint: run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
