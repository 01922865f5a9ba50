"""Every writer's command against every reader's, each package in its own environment.

`make envs` makes them: `.venvs/<package>`, or `<folder>/<package>` where PACKAGE_ENVIRONMENTS names a folder.
"""

import os
from pathlib import Path

import pytest
from chain import STEPS, Chain, prepare
from repository import PACKAGES, ROOT, Package

ENVIRONMENTS = Path(os.environ.get("PACKAGE_ENVIRONMENTS", ROOT / ".venvs"))
READERS = {
    "manifest": [package.folder for package in PACKAGES],
    "document": ["dolma-toolkit", "trainer", "catwalk-eval", "paloma"],
    "attributes": ["dolma-toolkit"],
    "tokens": ["dolma-toolkit", "trainer"],
    "packed": ["dolma-toolkit"],
    "megatron": ["dolma-toolkit"],
    "checkpoint": ["trainer", "catwalk-eval", "open-instruct"],
    "results": ["catwalk-eval", "paloma"],
    "chat": ["open-instruct"],
    "preference": ["open-instruct"],
}
# an artifact or file of each format and the step that makes it
EXAMPLES: dict[str, tuple[str, str | None]] = {
    "manifest": ("mixed", "mix"),
    "document": ("corpus/documents", None),
    "attributes": ("corpus/attributes/rules", "tag"),
    "tokens": ("tokens", "tokens"),
    "packed": ("packed", "pack"),
    "megatron": ("megatron", "export"),
    "checkpoint": ("dpo", "dpo"),
    "results": ("scores/sft", "score"),
    "chat": ("chats.jsonl", None),
    "preference": ("pairs.jsonl", None),
}
IMPORT_NAMES = {package.folder: package.import_name for package in PACKAGES}
ARTIFACTS = [(path, format, name) for name, step in STEPS.items() for path, format in step.makes.items()]

_missing = [p.folder for p in PACKAGES if not (ENVIRONMENTS / p.folder / "bin" / "python").exists()]
pytestmark = [
    pytest.mark.skipif(bool(_missing), reason=f"no environment of {', '.join(_missing)}: run `make envs`"),
    pytest.mark.timeout(900),
]
by_artifact = pytest.mark.parametrize(("path", "format", "step"), ARTIFACTS, ids=[path for path, _, _ in ARTIFACTS])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The small run; each step runs when a test first needs it."""
    folder = tmp_path_factory.mktemp("chain")
    prepare(folder)
    return Chain(folder, ENVIRONMENTS)


def formats(chain: Chain, package: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and messages of a package's `formats` command."""
    done = chain.call(package, ["python", "-m", f"{IMPORT_NAMES[package]}.formats", *arguments])
    return done.returncode, done.stdout, done.stderr


def need(chain: Chain, step: str) -> None:
    """Skip a comparison whose artifact could not be made; another test reports that failure."""
    if chain.make(step) is not None:
        pytest.skip(f"{step} failed")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)
def test_environment_contains_only_one_package(package: Package, chain: Chain) -> None:
    names = sorted(IMPORT_NAMES.values())
    code = f"from importlib.util import find_spec\nprint(*(name for name in {names} if find_spec(name)))"
    assert chain.call(package.folder, ["python", "-c", code]).stdout.split() == [package.import_name]


@pytest.mark.parametrize("step", STEPS)
def test_command_makes_its_artifacts(step: str, chain: Chain) -> None:
    wrong = chain.make(step)
    if wrong is not None and wrong.startswith("needs "):
        pytest.skip(wrong)
    assert wrong is None, wrong
    assert [path for path in STEPS[step].makes if not (chain.folder / path / "manifest.json").is_file()] == []


@by_artifact
def test_every_package_reads_the_manifest(path: str, format: str, step: str, chain: Chain) -> None:
    need(chain, step)
    results = {package: formats(chain, package, "validate", "manifest", path) for package in READERS["manifest"]}
    assert {package: one[2] for package, one in results.items() if one[0]} == {}
    dumps = {formats(chain, package, "dump", "manifest", path)[1] for package in READERS["manifest"]}
    assert len(dumps) == 1
    assert f'"format":"{format}"' in next(iter(dumps))


@by_artifact
def test_every_reader_reads_the_same(path: str, format: str, step: str, chain: Chain) -> None:
    need(chain, step)
    readers = READERS.get(format, [])
    results = {package: formats(chain, package, "validate", format, path) for package in readers}
    assert {package: one[2] for package, one in results.items() if one[0]} == {}
    dumps = {package: formats(chain, package, "dump", format, path)[1] for package in readers}
    for package, dump in dumps.items():
        assert dump.count("\n") > 1, package
        assert dump == dumps[readers[0]], f"{package} reads {path} otherwise than {readers[0]}"


@pytest.mark.parametrize("format", READERS)
def test_package_reads_its_formats_and_refuses_the_others(format: str, chain: Chain) -> None:
    path, step = EXAMPLES[format]
    if step is not None:
        need(chain, step)
    results = {p.folder: formats(chain, p.folder, "validate", format, path) for p in PACKAGES}
    expected = {p.folder: 0 if p.folder in READERS[format] else 2 for p in PACKAGES}
    assert {package: one[0] for package, one in results.items()} == expected, results


def test_lineage_leads_from_the_table_to_the_source_files(chain: Chain) -> None:
    need(chain, "aggregate")
    chains = {}
    for package in READERS["manifest"]:
        status, output, errors = formats(chain, package, "lineage", "table")
        assert status == 0, f"{package}: {errors}"
        chains[package] = output
    upstream = ("scores/dpo", "dpo", "sft", "base", "sample", "tokens", "mixed", "corpus/attributes/rules")
    for package, output in chains.items():
        for path in upstream:
            digest = _identity(chain.folder / path / "manifest.json")
            assert digest in output, f"{package} does not name {path}"
        for file in ("part-0.jsonl.gz", "chats.jsonl", "pairs.jsonl", "tokenizer.json"):
            assert file in output, f"{package} does not name {file}"


def test_shards_without_manifest_train_to_the_same_weights(chain: Chain) -> None:
    need(chain, "train")
    need(chain, "train foreign")
    ours, theirs = ((chain.folder / name / "model.safetensors").read_bytes() for name in ("base", "base-foreign"))
    assert ours == theirs


def test_damaged_artifact_is_refused_by_every_reader(chain: Chain) -> None:
    for step in ("train", "mix", "tokens", "score"):
        need(chain, step)
    for path, format in (
        ("base", "checkpoint"),
        ("mixed", "document"),
        ("tokens", "tokens"),
        ("scores/base", "results"),
    ):
        largest = max(
            (p for p in (chain.folder / path).iterdir() if p.name != "manifest.json"), key=lambda p: p.stat().st_size
        )
        content = largest.read_bytes()
        largest.write_bytes(content[:-4] + bytes(255 - byte for byte in content[-4:]))
        try:
            for package in READERS[format]:
                status, _, errors = formats(chain, package, "validate", format, path, "--json")
                assert status == 1, package
                assert '"checksum_mismatch"' in errors, package
        finally:
            largest.write_bytes(content)


def _identity(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
