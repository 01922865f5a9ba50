"""`make size`: source files, lines and the ten longest files of each package, without tests; vendored copies apart."""

import sys
from collections import Counter
from pathlib import Path

from repository import PACKAGES, ROOT, tracked

LONGEST = 10


def main() -> None:
    """Print a table of each package, then the totals."""
    vendored: Counter[bytes] = Counter()
    texts: dict[str, bytes] = {}
    for name in tracked():
        if any(name.startswith(f"{package.folder}/{part}/") for package in PACKAGES for part in ("src", "rust")):
            if name.endswith((".py", ".rs")):
                texts[name] = (ROOT / name).read_bytes()
                vendored[texts[name]] += 1
    total_files = total_lines = 0
    for package in PACKAGES:
        for suffix in (".py", ".rs"):
            found = {name: text.count(b"\n") for name, text in texts.items() if is_of(name, package.folder, suffix)}
            if not found:
                continue
            own = sum(lines for name, lines in found.items() if vendored[texts[name]] == 1)
            total_files, total_lines = total_files + len(found), total_lines + sum(found.values())
            sys.stdout.write(
                f"{package.folder} {suffix}: {len(found)} files, {sum(found.values()):,} lines ({own:,} its own)\n"
            )
            for name, lines in sorted(found.items(), key=lambda item: -item[1])[:LONGEST]:
                sys.stdout.write(f"  {lines:5,}  {Path(name).relative_to(package.folder)}\n")
    kinds = {suffix: {text for name, text in texts.items() if name.endswith(suffix)} for suffix in (".py", ".rs")}
    distinct = {suffix: sum(text.count(b"\n") for text in found) for suffix, found in kinds.items()}
    sys.stdout.write(f"all: {total_files} files, {total_lines:,} lines; copies counted once: ")
    sys.stdout.write(f"{distinct['.py']:,} of Python, {distinct['.rs']:,} of Rust\n")


def is_of(name: str, folder: str, suffix: str) -> bool:
    """Whether a source file belongs to a package."""
    return name.startswith(f"{folder}/") and name.endswith(suffix)


if __name__ == "__main__":
    main()
