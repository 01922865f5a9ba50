"""The command line and the settings file, in the way of dolma 1.x."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from dolma_corpus import Dolma

from dolma.cli import COMMANDS
from dolma.config import load, merge, setting
from dolma.errors import ConfigError

TAG = ["tag", "--documents", "documents/**/*", "--dryrun"]


def settings(dolma: Dolma, *arguments: object) -> dict[str, object]:
    import yaml

    found: dict[str, object] = yaml.safe_load(dolma(*arguments).out)
    return found


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from dolma.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'yaml', 'msgspec', 'multiprocessing') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
    assert all(f"\n  {name}" in result.stdout for name in COMMANDS)


def test_list_is_sorted(dolma: Dolma) -> None:
    names = [line.split("\t")[0] for line in dolma("list").out.splitlines()]
    assert names == sorted(names)
    assert {"gopher_v2", "c4_v2", "char_length_v1"} <= set(names)


def test_every_command_has_help(dolma: Dolma) -> None:
    for name in COMMANDS:
        assert dolma(name, "--help").out.startswith(f"usage: dolma [-c FILE] {name}")
    assert dolma("dedup", "--help").out.startswith("usage: dolma [-c FILE] dedupe")


def test_options_win_over_the_file_and_lists_replace_lists(dolma: Dolma, corpus: Path) -> None:
    (corpus / "c.yaml").write_text("taggers: [c4_v1, c4_v2]\nprocesses: 3\nignore_existing: true\ndebug: false\n")
    for place in (["-c", "c.yaml", *TAG], [*TAG, "-c", "c.yaml"]):
        found = settings(dolma, *place, "--taggers", "gopher_v1", "--no-ignore_existing", "--debug")
        assert (found["taggers"], found["processes"]) == (["gopher_v1"], 3)
        assert (found["ignore_existing"], found["debug"]) == (False, True)


def test_json_file_anchors_and_references(dolma: Dolma, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus / "c.json").write_text(json.dumps({"taggers": ["c4_v1"]}))
    assert settings(dolma, "-c", "c.json", *TAG)["taggers"] == ["c4_v1"]
    monkeypatch.setenv("MY_TAGGER", "gopher_v1")
    (corpus / "c.yaml").write_text(
        "documents: &files ['documents/**/*']\n"
        "taggers: ['${oc.env:MY_TAGGER}', '${oc.env:NOT_SET,c4_v2}']\n"
        "experiment: e-${processes}\n"
        "processes: 2\n"
        "work_dir: &dirs {input: in, output: null}\n"
    )
    found = settings(dolma, "-c", "c.yaml", "tag", "--dryrun")
    assert (found["taggers"], found["experiment"]) == (["gopher_v1", "c4_v2"], "e-2")
    assert found["work_dir"] == {"input": "in", "output": None, "max_bytes": None}


def test_all_problems_are_told_at_once(dolma: Dolma, corpus: Path) -> None:
    (corpus / "c.yaml").write_text("tagers: [x]\nprocesses: many\ndebug: 3.5\nwork_dir: {inputs: a}\nexperiment: [a]\n")
    result = dolma("-c", "c.yaml", "tag", code=2)
    assert 'error: tagers: unknown setting\nhint: did you mean "taggers"?' in result.err
    assert 'error: processes: is "many"; expected an integer' in result.err
    assert "error: debug: is 3.5; expected true or false" in result.err
    assert 'error: work_dir.inputs: unknown setting\nhint: did you mean "input"?' in result.err
    assert "error: experiment: is a list; expected a string" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tag", "--tagger", "c4_v2"], 'error: --tagger: unknown setting\nhint: did you mean "taggers"?'),
        (["tga"], 'error: command line: "tga" is not a command\nhint: did you mean "tag"?'),
        ([], "error: command line: names no command; expected one of extract, tag,"),
        (["-c", "gone.yaml", "tag"], "error: gone.yaml: not found"),
        (["-c", "twice.yaml", "tag"], '"debug" appears twice'),
        (["-c", "broken.yaml", "tag"], "error: broken.yaml: cannot be parsed"),
        (["-c", "list.yaml", "tag"], "error: list.yaml: is a list; expected a mapping"),
        (["-c", "loop.yaml", "tag"], "expected a reference that does not lead back to itself"),
        (["-c", "env.yaml", "tag"], 'refers to the environment variable "NOT_SET_AT_ALL", which is not set'),
        (["--verbose", "tag"], "unrecognized arguments: --verbose"),
    ],
)
def test_wrong_request_exits_2(dolma: Dolma, corpus: Path, arguments: list[str], message: str) -> None:
    (corpus / "twice.yaml").write_text("debug: true\ndebug: false\n")
    (corpus / "broken.yaml").write_text("taggers: [a\n")
    (corpus / "list.yaml").write_text("- a\n")
    (corpus / "loop.yaml").write_text("experiment: ${experiment}\n")
    (corpus / "env.yaml").write_text("experiment: ${oc.env:NOT_SET_AT_ALL}\n")
    assert message in dolma(*arguments, code=2).err


def test_merge_keys_override_without_being_twice(tmp_path: Path) -> None:
    from dolma.config import read_file

    path = tmp_path / "a.yaml"
    path.write_text("base: &b {input: x, output: y}\nwork_dir: {<<: *b, output: z}\nother: {<<: *b}\n")
    assert read_file(path)["work_dir"] == {"input": "x", "output": "z"}
    assert read_file(path)["other"] == {"input": "x", "output": "y"}


def test_merge_leaves_its_arguments_alone() -> None:
    file = {"a": {"b": 1, "c": 2}}
    assert merge(file, {"a.b": 3, "d.e": 4}, []) == {"a": {"b": 3, "c": 2}, "d": {"e": 4}}
    assert file == {"a": {"b": 1, "c": 2}}


def test_numbers_are_read_as_yaml_and_people_write_them() -> None:
    import dataclasses

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Numbers:
        rate: float = setting(0.0, "")
        size: int = setting(0, "")

    # YAML 1.1 reads 1e-6 as a string
    assert load(Numbers, {"rate": "1e-6", "size": 4_000_000_000}) == Numbers(rate=1e-6, size=4_000_000_000)
    assert load(Numbers, {}, {"rate": "2", "size": "4_000"}) == Numbers(rate=2.0, size=4000)
    for wrong in ({"size": 1.5}, {"size": True}, {"rate": "fast"}, {"size": None}):
        with pytest.raises(ConfigError):
            load(Numbers, wrong)


def test_version_is_that_of_the_distribution(dolma: Dolma) -> None:
    from importlib.metadata import version

    assert dolma("--version").out == f"dolma-toolkit {version('dolma-toolkit')}\n"


@pytest.mark.parametrize(
    "module", ["dolma", "dolma.cli", "dolma.cli.__main__", "dolma.commands.tag", "dolma.commands.tokens"]
)
def test_a_module_runs_or_reports_an_error(module: str) -> None:
    run = [sys.executable, "-W", "ignore::RuntimeWarning", "-m", module, "nonsense", "--no_such_setting"]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "error: " in result.stderr
    help = subprocess.run([*run[:-2], "--help"], capture_output=True, text=True, check=False)
    assert help.returncode == 0
    assert help.stdout.startswith("usage: dolma")


def test_every_command_can_be_run_as_a_module() -> None:
    import dolma.commands

    for path in sorted(Path(dolma.commands.__path__[0]).glob("[a-z]*.py")):
        command = path.stem.replace("_", "-")
        assert f'main(["{command}", *sys.argv[1:]])' in path.read_text("utf-8"), path.name
