"""Regenerate the golden vectors in docs/formats/vectors: `python tests/make_vectors.py [DIRECTORY] [FORMAT …]`."""

import shutil
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

__all__ = ["FORMATS", "write"]

FORMATS = tuple("manifest document attributes tokens packed megatron checkpoint results chat preference".split())
VECTORS = Path(__file__).parent.parent / "docs" / "formats" / "vectors"


def write(root: Path, format: str) -> int:
    """Replace the vectors of one format below `root`; return their number."""
    folder = root / format / "v1"
    shutil.rmtree(folder, ignore_errors=True)
    cases = import_module(f"vectors.{format}").cases()
    for case in cases:
        kind = "invalid" if case.expect is not None else "valid"
        for relative, content in case.files().items():
            path = folder / kind / case.name / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return len(cases)


def main(arguments: list[str]) -> None:
    """Write the requested formats, or all."""
    root = Path(arguments[0]) if arguments else VECTORS
    for format in arguments[1:] or FORMATS:
        sys.stdout.write(f"{format}: {write(root, format)} vectors\n")


if __name__ == "__main__":
    main(sys.argv[1:])
