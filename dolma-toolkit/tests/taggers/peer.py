"""Taggers of dolma 1.2.1 and ours on the same rows: its classes are called in its environment, ours by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oracle import ours, read_rows, there, write_rows

__all__ = ["compare"]

ORACLE_SCRIPT = """
import json, sys
import tokenizers
from pathlib import Path
from dolma.core.data_types import DocumentWithMetadata
request = json.loads(Path(sys.argv[1]).read_text())
class Local:
    from_pretrained = staticmethod(lambda name: tokenizers.Tokenizer.from_file(request["tokenizer"]))
import dolma.taggers.length, dolma.taggers.tokenizers, dolma.taggers.url, dolma.taggers.licenses
import dolma.taggers.repetitions.repetitions_taggers as repetitions
import dolma.taggers.code.code_taggers
for module in (dolma.taggers.length, dolma.taggers.tokenizers, repetitions):
    module.Tokenizer = Local
from dolma.core.registry import TaggerRegistry
from dolma.core.utils import make_variable_name
dolma.taggers.code.code_taggers.check_code_dependencies = lambda: None
rows = [dict() for _ in request["rows"]]
for name, lists in request["taggers"].items():
    cls = TaggerRegistry.get(name)
    cls.BLOCKLIST_PATHS = lists
    tagger = cls()
    for row, found in zip(request["rows"], rows):
        document = DocumentWithMetadata(source="", id=row["id"], text=row["text"], metadata=row["metadata"])
        for kind, spans in tagger.group_output(tagger.predict(document)).items():
            found[make_variable_name(f"{name}__{kind}")] = spans
print("RESULT" + json.dumps(rows))
"""


def compare(tmp_path: Path, rows: list[dict[str, Any]], taggers: dict[str, list[str]], tokenizer: str = "") -> int:
    """Asserts equal spans; the number of rows with any."""
    request = {"rows": rows, "taggers": taggers, "tokenizer": tokenizer}
    (tmp_path / "request.json").write_text(json.dumps(request))
    done = there([tmp_path / "request.json"], ORACLE_SCRIPT)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = json.loads(done.stdout.rpartition("RESULT")[2])
    documents = write_rows(tmp_path / "documents/a.jsonl.gz", rows)
    resources = {name: files or [tokenizer] for name, files in taggers.items() if files or tokenizer}
    config = {
        "documents": [str(documents)],
        "taggers": list(taggers),
        "experiment": "x",
        "resources": resources,
    }
    result = ours("tag", config, tmp_path)
    assert result.returncode == 0, result.stderr
    for row, wanted in zip(read_rows(tmp_path / "attributes"), expected, strict=True):
        found = {key.removeprefix("x__"): spans for key, spans in row["attributes"].items() if spans}
        assert found == wanted, row["id"]
    return sum(map(bool, expected))
