"""Loss by vocabulary type: sums by source, the share of types with half of the loss, types that got worse."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from paloma.__main__ import main
from results_files import domain, results, write_results


def write(folder: Path, losses: dict[str, list[tuple[int, int, float]]]) -> Path:
    """Results whose domains have the given types (id, count, loss)."""
    rows = []
    domains = []
    for name, types in losses.items():
        tokens, counts, nats = (list(column) for column in zip(*types, strict=True))
        rows.append({"source": name[0], "subdomain": name, "tokens": tokens, "counts": counts, "nll_nats": nats})
        domains.append(domain(name[0], name, tokens=sum(counts), nll_nats=sum(nats)))
    write_results(folder, results(*domains))
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "types.jsonl.gz").write_bytes(gzip.compress(content, mtime=0))
    return folder


BEFORE: dict[str, Any] = {"a1": [(3, 2, 4.0), (70, 1, 2.0)], "a2": [(3, 2, 4.0), (9, 1, 1.0)], "b1": [(9, 4, 1.0)]}
AFTER: dict[str, Any] = {"a1": [(3, 2, 1.0), (70, 1, 3.0)], "a2": [(3, 2, 1.0), (9, 1, 1.0)], "b1": [(9, 4, 2.0)]}


def test_sums_by_type(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", BEFORE)
    assert main(["aggregate", str(folder), "--output-dir", str(tmp_path / "out")]) == 0
    types = json.loads((tmp_path / "out" / "aggregate.json").read_text())["models"][0]["types"]
    assert set(types) == {"*", "a", "b"}
    assert types["*"]["types"] == 3
    assert types["*"]["half"] == pytest.approx(1 / 3)  # type 3 has 8 of 12 nats
    assert types["*"]["most"] == [
        {"token": 3, "count": 4, "nll_nats": 8.0},
        {"token": 9, "count": 5, "nll_nats": 2.0},
        {"token": 70, "count": 1, "nll_nats": 2.0},
    ]
    assert types["*"]["curve"][-1] == [1.0, 1.0]
    assert types["a"]["most"][2] == {"token": 9, "count": 1, "nll_nats": 1.0}


def test_types_that_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(write(tmp_path / "i", BEFORE)), str(write(tmp_path / "f", AFTER))]) == 0
    out = capsys.readouterr().out
    assert "all: 2 of 3 types got worse (66.7%)." in out
    assert "a: 1 of 3 types got worse (33.3%)." in out
    assert "b: 1 of 1 types got worse (100.0%)." in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"counts": [2, 2]}, "a/a1 has 4 tokens; expected 3 as in the results"),
        ({"source": "z"}, "z/a1 has 3 tokens; expected a domain of the results"),
        ({"counts": [3]}, "do not fit each other"),
        ({"tokens": "x"}, "is not a domain's types"),
    ],
)
def test_broken_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], expected: str
) -> None:
    folder = write(tmp_path / "r", BEFORE)
    path = folder / "types.jsonl.gz"
    first, *others = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = [json.dumps(json.loads(first) | change), *others]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    assert main(["aggregate", str(folder), "--output-dir", str(tmp_path / "out")]) == 1
    assert expected in capsys.readouterr().err
