"""A bucket that does not fit on the disk: files come when they are read, and go when they are written."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma

if importlib.util.find_spec("moto") is None or importlib.util.find_spec("boto3") is None:
    pytest.skip("moto[server] and boto3 are not installed", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from bucket_runs import FILES, Measured, comparable, largest_bytes, of_disk, pipeline, stages, write_documents
from s3_server import RefusingProxy, make_bucket, moto_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture
def bucket(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """A bucket with documents below `corpus`; the current directory is a `corpus` with the same."""
    from dolma.files.remote import store_of

    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path / "corpus")
    write_documents(Path("documents"))
    made = make_bucket(server, monkeypatch, request.node.name)
    for path in Path("documents").rglob("*.jsonl"):
        made.upload_file(str(path), f"corpus/{path}")
    use(server, monkeypatch)
    yield made
    store_of.cache_clear()


def use(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dolma.files.remote import store_of

    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    store_of.cache_clear()


def of_bucket(bucket: Any) -> dict[str, str]:
    """Hashes of what is in the bucket besides documents and records of runs."""
    found = {}
    for item in bucket.objects.filter(Prefix="corpus/"):
        name = item.key.removeprefix("corpus/")
        if not name.startswith("documents/") and ".dolma/" not in name:
            found[name] = hashlib.sha256(item.get()["Body"].read()).hexdigest()
    return found


def test_inputs_take_no_more_space_than_they_may(dolma: Dolma, bucket: Any) -> None:
    root = f"s3://{bucket.name}/corpus"
    total = sum(path.stat().st_size for path in Path("documents").rglob("*.jsonl"))
    limit = 3 * largest_bytes()
    assert total > 3 * limit
    arguments = ["tag", "--taggers", "char_length_v1", "--experiment", "e"]
    with Measured(Path("work")) as measured:
        remote = [*arguments, "--documents", f"{root}/documents/**", "--destination", "remote"]
        dolma(*remote, "--work_dir.output", "work", "--work_dir.max_bytes", limit)
    assert largest_bytes() < measured.most_bytes <= limit + largest_bytes() + 4096
    assert not [path for path in Path("work").rglob("*") if path.is_file()]
    dolma(*arguments, "--documents", "documents/**", "--destination", "local")
    remote_hashes, local_hashes = of_disk("remote"), of_disk("local")
    # the one names URLs, the other paths
    del remote_hashes["remote/manifest.json"], local_hashes["local/manifest.json"]
    assert list(remote_hashes.values()) == list(local_hashes.values())
    assert len(local_hashes) == FILES


@pytest.mark.parametrize(("keep", "processes"), [(True, 1), (False, 1), (False, 2)])
def test_a_run_from_bucket_to_bucket_gives_the_same_bytes(
    dolma: Dolma, bucket: Any, tokenizer_path: Path, keep: bool, processes: int
) -> None:
    total = sum(path.stat().st_size for path in Path("documents").rglob("*.jsonl"))
    limit = largest_bytes()
    assert total > 9 * limit
    place = {"output": "work", "max_bytes": limit}
    run = pipeline(f"s3://{bucket.name}/corpus", tokenizer_path, keep=keep, processes=processes, work_dir=place)
    with Measured(Path("work")) as measured:
        dolma("run", run)
    # besides, each process reads a file, and writes one of attributes twice, of documents, and of ids
    assert measured.most_bytes <= limit + processes * 3 * largest_bytes()
    dolma("run", pipeline(".", tokenizer_path, keep=keep))
    names = ["tokens", "filter.bin", *(["attributes", "mixed"] if keep else [])]
    found = of_bucket(bucket)
    assert comparable(found) == comparable(of_disk(*names))
    assert ("mixed/manifest.json" in found) == keep
    assert "tokens/manifest.json" in found
    manifest = bucket.Object("corpus/tokens/manifest.json").get()["Body"].read()
    assert [entry["path"] for entry in json.loads(manifest)["files"]] == [
        entry["path"] for entry in json.loads(Path("tokens/manifest.json").read_text())["files"]
    ]


def test_a_finished_run_reads_nothing_again(
    dolma: Dolma, bucket: Any, server: str, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline(f"s3://{bucket.name}/corpus", tokenizer_path, keep=True)
    dolma("run", run)
    before = of_bucket(bucket)
    proxy = RefusingProxy(server)
    use(proxy.address, monkeypatch)
    dolma("run", run)
    # each command by itself finds what it needs in records and listings, too
    tag = stages("", tokenizer_path)[0]["tag"]
    Path("tag.yaml").write_text(yaml.safe_dump({**tag, "documents": [f"s3://{bucket.name}/corpus/documents/**"]}))
    assert f"{FILES} were finished before" in dolma("-c", "tag.yaml", "tag").err
    assert proxy.counted("GET", ".jsonl") == []
    proxy.close()
    assert of_bucket(bucket) == before


@pytest.mark.parametrize("keep", [True, False])
def test_a_killed_run_continues(
    dolma: Dolma, bucket: Any, server: str, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    run = pipeline(f"s3://{bucket.name}/corpus", tokenizer_path, keep=keep)
    suffix, prefix = (".jsonl", "corpus/attributes/q/") if keep else (".ids", "corpus/tokens/.encoding/")
    first = RefusingProxy(server)
    use(first.address, monkeypatch)
    command = [sys.executable, "-m", "dolma", "run", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        deadline = time.monotonic() + 60
        while len(first.counted("PUT", suffix)) < 8 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    first.close()
    assert not [name for name in of_bucket(bucket) if name.endswith("manifest.json")]
    second = RefusingProxy(server)
    use(second.address, monkeypatch)
    before = {item.key for item in bucket.objects.filter(Prefix=prefix) if item.key.endswith(suffix)}
    dolma("run", run)
    kept = before - {path.partition(f"{bucket.name}/")[2] for path in second.counted("PUT", suffix)}
    assert len(before) >= 2
    assert len(kept) >= len(before) // 2  # all but those that the journal did not name yet
    second.close()
    dolma("run", pipeline(".", tokenizer_path, keep=keep))
    names = ["tokens", "filter.bin", *(["attributes", "mixed"] if keep else [])]
    assert comparable(of_bucket(bucket)) == comparable(of_disk(*names))


@pytest.mark.parametrize(("method", "status"), [("GET", 403), ("GET", 500), ("PUT", 403), ("PUT", 500)])
def test_a_bucket_that_refuses_midway_is_named_and_leaves_nothing_whole(
    dolma: Dolma,
    bucket: Any,
    server: str,
    tokenizer_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    status: int,
) -> None:
    run = pipeline(f"s3://{bucket.name}/corpus", tokenizer_path, keep=True)
    proxy = RefusingProxy(server, method, status, limit=6)
    use(proxy.address, monkeypatch)
    result = dolma("run", run, code=1)
    assert f"s3://{bucket.name}/corpus/" in result.err
    assert ("cannot be read" if method == "GET" else "cannot be written") in result.err
    assert ".dolma-remote" not in result.err
    assert result.err.count("cannot be") == 1
    assert not [name for name in of_bucket(bucket) if name.endswith("manifest.json")]
    proxy.close()
    use(server, monkeypatch)
    dolma("run", run)
    dolma("run", pipeline(".", tokenizer_path, keep=True))
    assert comparable(of_bucket(bucket)) == comparable(of_disk("attributes", "mixed", "tokens", "filter.bin"))


def test_a_disk_that_is_full_is_named(dolma: Dolma, bucket: Any, tokenizer_path: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", f"remount,size={6 * largest_bytes()}", str(small)], check=True)
        root = f"s3://{bucket.name}/corpus"
        # more than the disk has: files are fetched until there is no room
        place = {"output": str(small), "max_bytes": 100 * largest_bytes()}
        run = pipeline(root, tokenizer_path, keep=True, work_dir=place)
        result = dolma("run", run, code=1)
        assert "No space left on device" in result.err
        assert not [name for name in of_bucket(bucket) if name.endswith("manifest.json")]
        shutil.rmtree(small / ".dolma-remote", ignore_errors=True)
        settings = yaml.safe_load(run.read_text())
        settings["work_dir"]["max_bytes"] = largest_bytes()
        run.write_text(yaml.safe_dump(settings))
        dolma("run", run)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    dolma("run", pipeline(".", tokenizer_path, keep=True))
    assert comparable(of_bucket(bucket)) == comparable(of_disk("attributes", "mixed", "tokens", "filter.bin"))


def test_shards_do_not_write_to_a_bucket(dolma: Dolma, bucket: Any, tokenizer_path: Path) -> None:
    run = pipeline(f"s3://{bucket.name}/corpus", tokenizer_path, keep=True)
    error = dolma("run", run, "--shard", "0/2", code=2).err
    assert "shard: divides a run that writes to" in error
    assert f"s3://{bucket.name}/corpus/" in error
    assert of_bucket(bucket) == {}


def test_two_runs_do_not_share_a_directory_of_copies(dolma: Dolma, bucket: Any) -> None:
    import fcntl

    Path("work").mkdir()
    directory = os.open("work", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    command = ["tag", "--taggers", "char_length_v1", "--experiment", "e", "--work_dir.output", "work"]
    command += ["--documents", f"s3://{bucket.name}/corpus/documents/**"]
    assert 'work_dir.output: is "work", where another run keeps its copies' in dolma(*command, code=2).err
    os.close(directory)
    dolma(*command)


def test_one_stream_may_read_what_another_reads(dolma: Dolma, bucket: Any) -> None:
    """Two streams over the same files, and little room: files come twice."""
    root = f"s3://{bucket.name}/corpus"

    def mixed(documents: str, out: str) -> dict[str, Any]:
        target = {"name": "a", "documents": [documents], "output": {"path": f"{out}/a", "max_size_in_bytes": 60_000}}
        other = copy.deepcopy(target)
        other["name"], other["output"]["path"] = "b", f"{out}/b"
        return {"streams": [target, other], "processes": 2}

    settings = mixed(f"{root}/documents/**", f"{root}/out")
    Path("mix.yaml").write_text(yaml.safe_dump({**settings, "work_dir": {"max_bytes": largest_bytes()}}))
    dolma("-c", "mix.yaml", "mix")
    Path("mix.yaml").write_text(yaml.safe_dump(mixed("documents/**", "out")))
    dolma("-c", "mix.yaml", "mix")
    assert comparable(of_bucket(bucket)) == comparable(of_disk("out"))
