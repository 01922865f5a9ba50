"""``dolma run --executor ray`` on a cluster of several node processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, make_rows, write_rows
from web_archives import pages, write_gzip

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.processes

STAGES = [
    {"tag": {"experiment": "q", "taggers": ["gopher_v2", "random_number_v1"]}},
    {
        "dedupe": {
            "dedupe": {"name": "dup", "paragraphs": {"attribute_name": "dup"}, "skip_empty": True},
            "bloom_filter": {"file": "filter.bin", "estimated_doc_count": 9_000, "desired_false_positive_rate": 1e-6},
        }
    },
    {
        "mix": {
            "streams": [
                {
                    "name": "all",
                    "attributes": ["q", "dup"],
                    "span_replacement": [{"span": "$.attributes.dup", "min_score": 0.5, "replacement": ""}],
                    "output": {"path": "mixed", "max_size_in_bytes": 200_000},
                }
            ]
        }
    },
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "one" / "corpus"
    for index in range(9):
        rows = make_rows(2_000, 100 * index)
        for row in rows[::4]:
            row["text"] += "\nthe same line in many documents"
        write_rows(folder / "documents" / f"{index}.jsonl.gz", rows)
    monkeypatch.chdir(folder)
    return folder


def write(place: Path, stages: list[dict[str, Any]]) -> None:
    (place / "run.yaml").write_text(yaml.safe_dump({"documents": ["documents/*"], "stages": stages}), "utf-8")


def written(place: Path) -> list[Any]:
    return [artifact_hashes(place / "mixed"), (place / "filter.bin").read_bytes()]


def is_at_work(node: Any, folder: Path) -> bool:
    """Whether a process of a node writes a file."""
    [raylet] = node.all_processes["raylet"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == raylet.process.pid:
                links = [os.readlink(link) for link in (process / "fd").iterdir()]
                if any(link.startswith(str(folder)) and link.endswith(".partial") for link in links):
                    return True
        except (OSError, ValueError):
            continue  # it has ended
    return False


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_node_is_lost(cluster: Any, folder: Path, dolma: Dolma, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.parents[1] / "two" / folder.name
    shutil.copytree(folder, place)
    for root in (folder, place):
        write(root, STAGES)
    with monkeypatch.context() as patch:
        patch.chdir(place)
        dolma("run", "run.yaml")

    lost = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    command = [sys.executable, "-m", "dolma", "run", "run.yaml", "--executor", "ray", "--shards", "5"]
    command += ["--ray-address", cluster.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: is_at_work(lost, folder))
        cluster.remove_node(lost, allow_graceful=False)
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert "run  5 shards on Ray: next" in err
    assert written(folder) == written(place)
    assert not [path for path in folder.rglob("*") if path.name.endswith(".partial") or "progress-" in path.name]


def test_an_extraction_in_shards(cluster: Any, tmp_path: Path, dolma: Dolma, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resiliparse")
    stages = [
        {"extract": {"source_name": "web", "destination": ["crawled/documents"]}},
        {"tag": {"experiment": "q", "taggers": ["gopher_v2"]}},
        {"mix": {"streams": [{"name": "all", "attributes": ["q"], "output": {"path": "mixed"}}]}},
    ]
    options = ["--executor", "ray", "--shards", 3, "--ray-address", cluster.address]
    for name, given in (("alone", []), ("divided", options)):
        place = tmp_path / name / "corpus"
        for index in range(4):
            write_gzip(place / "documents" / f"{index}.warc.gz", pages(9, 20 * index))
        write(place, stages)
        monkeypatch.chdir(place)
        dolma("run", "run.yaml", *given)
    mixed = [artifact_hashes(tmp_path / name / "corpus" / "mixed") for name in ("alone", "divided")]
    assert mixed[0] == mixed[1]


CRASHES = """
import os, signal
from dolma import add_tagger, BaseTagger

@add_tagger('crashes_v1')
class Crashes(BaseTagger):
    def predict(self, doc):
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)
"""


def test_a_shard_that_is_always_lost_is_named(cluster: Any, folder: Path, dolma: Dolma) -> None:
    (folder / "crashes.py").write_text(CRASHES)
    write(folder, [{"tag": {"experiment": "q", "taggers": ["crashes_v1"], "tagger_modules": ["crashes.py"]}}])
    options = ["--executor", "ray", "--shards", "1", "--ray-retries", "1", "--ray-address", cluster.address]
    found = dolma("run", "run.yaml", *options, code=1).err
    assert "error: shard 0/1: its process or machine was lost 2 times (WorkerCrashedError)" in found
    assert not list(folder.rglob("manifest.json"))


def test_errors_of_shards_are_those_of_a_run(cluster: Any, folder: Path, dolma: Dolma) -> None:
    write(folder, STAGES)
    with (folder / "documents" / "3.jsonl").open("w") as file:
        file.write('{"id": "a", "text": 5, "source": "s"}\n')
    expected = [line for line in dolma("run", "run.yaml", code=1).err.splitlines() if "3.jsonl" in line]
    found = dolma("run", "run.yaml", "--executor", "ray", "--shards", 2, "--ray-address", cluster.address, code=1).err
    assert expected
    assert set(expected) <= set(found.splitlines())
    assert "shard 1/2 has failed" in found
    found = dolma("run", "run.yaml", "--executor", "ray", "--processes", 2, "--ray-address", cluster.address, code=2)
    assert "processes: is 2, more than any machine of the Ray cluster has CPUs; expected fewer" in found.err


def test_without_a_cluster(folder: Path, dolma: Dolma, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, STAGES)
    found = dolma("run", "run.yaml", "--executor", "ray", "--ray-address", "127.0.0.1:1", code=2).err
    assert 'ray_address: is "127.0.0.1:1", where no Ray cluster answers' in found
    monkeypatch.setitem(sys.modules, "ray", None)
    found = dolma("run", "run.yaml", "--executor", "ray", code=2).err
    assert 'executor: --executor ray needs the package "ray", which is not installed; expected it' in found
    assert "hint: pip install 'dolma-toolkit[ray]'" in found
