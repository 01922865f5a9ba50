"""Rows of every native tagger that needs no model. `python tests/taggers/test_golden.py` records them anew."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dolma import _native

GOLDEN = Path(__file__).parent / "golden.jsonl"
TEXTS = {
    "empty": "",
    "prose": "The quick (\u201cbrown\u201d) fox can\u2019t jump 32.3 feet, right?\nIt is to be that, so\u2026\n\n* a\n",
    "code": "def area(width: int) -> int:\r\n\treturn width ** 2  # \u00b2\n",
    "repetition": "hahahahaha!!!! no no no no\nno\n-----\n-----\n-----\n",
    "unicode": "\u0130st \u212a \u65e5\u672c\U0001f469\u200d\U0001f4bb e\u0301 \U0001f1e6\U0001f1e7\n\u2603 *\n",
    "personal": "Mail jo@example.org, (x.y@b.example.com) or 1.2.3.4.5, 10.0.0.255.\nCall (206) 555-0100. a@b.co",
    "accounts": "IBAN GB29 NWBK 6016 1331 9268 19, card 4111 1111 1111 1111, 078-05-1120, +44 20 7946 0958, fe80::1.",
    "javascript": "Please enable JavaScript.\n{ lorem ipsum }",
}


def record(directory: Path) -> list[dict[str, object]]:
    """Tags the texts with the command line."""
    needy = {name for name, _, _ in _native.tagger_needs()}
    names = [name for name, _ in _native.taggers() if name not in needy]
    names = [name for name in names if name.endswith(("_v1", "_v2")) and not name.startswith("ft_lang_id")]
    assert len(names) > 20, names
    path = directory / "documents" / "golden.jsonl"
    path.parent.mkdir()
    rows = [{"id": name, "text": text} for name, text in TEXTS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "dolma", "tag", "--documents", str(path), "--experiment", "e", "--taggers", *names]
    subprocess.run(command, capture_output=True, check=True)
    lines = (directory / "attributes" / "e" / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_rows_are_those_that_were_recorded(tmp_path: Path) -> None:
    recorded = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    for found, expected in zip(record(tmp_path), recorded, strict=True):
        assert found == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        lines = [json.dumps(row, sort_keys=True) + "\n" for row in record(Path(temporary))]
    GOLDEN.write_text("".join(lines), encoding="utf-8")
