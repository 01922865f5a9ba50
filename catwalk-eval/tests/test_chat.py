"""Prompts as chats: equal to those of lm-evaluation-harness, scores after one BOS, and cells of their own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.backends.opening import open_model
from catwalk.chat import Chat
from catwalk.formats.contract import ConfigError, read_object, read_rows
from catwalk.items import load_items, locate
from catwalk.questions import ItemQuestions
from catwalk.tasks import find_tasks
from catwalk.types import Item, Pair, Prompt
from conftest import write_jsonl

Build = Callable[[str], Path]

_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_TASK = """
name: farm
summary: what animals give
split: test
fields: {animal: string, gives: string, other: string}
description: Questions about animals.
context: "The {{ animal }} gives"
choices: "[gives, other]"
label: 0
texts: "[animal]"
primary_metric: acc_raw
shots: {split: train, count: 2}
"""
_EXAMPLES = (("hen", "eggs"), ("cow", "milk"))
_FORMS = [(0, False, None), (0, False, "Be short."), (2, False, None), (2, True, "Be short.")]
"""Examples, whether they are turns of their own, and the system's message."""
_HARNESS = """
task: farm
dataset_path: json
dataset_kwargs: {data_files: {train: "DIRECTORY/train.jsonl", test: "DIRECTORY/test.jsonl"}}
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
description: Questions about animals.
doc_to_text: "The {{animal}} gives"
doc_to_choice: "{{[gives, other]}}"
doc_to_target: 0
output_type: multiple_choice
num_fewshot: 2
metric_list: [{metric: acc}]
"""


def _with_template(directory: Path, target: Path, template: str = _TEMPLATE, **config: Any) -> Path:
    shutil.copytree(directory, target)
    (target / "chat_template.jinja").write_text(template, encoding="utf-8")
    found = read_object(target / "tokenizer_config.json") | config
    (target / "tokenizer_config.json").write_text(json.dumps(found), encoding="utf-8")
    return target


@pytest.fixture
def model(build_checkpoint: Build, tmp_path: Path) -> Path:
    """A checkpoint whose template begins with BOS, and whose tokenizer would begin with it too."""
    return _with_template(build_checkpoint("llama"), tmp_path / "model", add_bos_token=True)


@pytest.fixture
def farm(tmp_path: Path) -> str:
    """A task with two examples."""
    rows = [{"animal": animal, "gives": gives, "other": "a nail"} for animal, gives in _EXAMPLES]
    write_jsonl(tmp_path / "data" / "farm" / "train.jsonl.gz", rows)
    write_jsonl(tmp_path / "data" / "farm" / "test.jsonl.gz", [{"animal": "sheep", "gives": "wool", "other": "salt"}])
    (tmp_path / "farm.yaml").write_text(_TASK, encoding="utf-8")
    return str(tmp_path / "farm.yaml")


def _items(spec: str, data: Path) -> list[Item]:
    (task,) = find_tasks((spec,))
    return load_items(task, locate(task, data))


@pytest.mark.slow
def test_prompts_and_scores_equal_lm_evals(model: Path, farm: str, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from catwalk.lm_eval_model import CatwalkLM
    from lm_eval.models.huggingface import HFLM

    own = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1)
    backend = open_model(str(model), device="cpu")
    for number, (shots, multiturn, system) in enumerate(_FORMS):
        (item,) = _items(f"{farm}@{shots}", tmp_path / "data")
        found = Chat(model, system, multiturn).item(item)
        instances = _instances(item, tmp_path / str(number), own, shots, multiturn, system)
        wanted = [one.args for one in instances]
        assert list(zip(found.contexts, found.continuations, strict=True)) == wanted
        assert found.contexts[0].count("<|user|>") == (1 + shots if multiturn else 1)
        pairs = [Pair(context=context, continuation=text, rendered=True) for context, text in wanted]
        scores = own.loglikelihood(instances, disable_tqdm=True)
        answers = backend.score(pairs)
        assert [one.sum_logprob for one in answers] == pytest.approx([score for score, _ in scores], abs=1e-4)
        assert {one.bos for one in answers} == {"right"}
    # the harness's own command with our model
    harness = CatwalkLM(pretrained=str(model), device="cpu")
    messages = [{"role": "user", "content": "The hen"}, {"role": "assistant", "content": "lays"}]
    for prompted in (True, False):
        texts = [one.apply_chat_template(messages, add_generation_prompt=prompted) for one in (own, harness)]
        assert texts[0] == texts[1]
    assert harness.chat_template(True) == _TEMPLATE
    ours = harness.loglikelihood(instances)
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in scores], abs=1e-4)


def _instances(item: Item, source: Path, own: Any, shots: int, multiturn: bool, system: str | None) -> list[Any]:
    """The harness's requests, with the examples in our order."""
    from lm_eval.tasks import TaskManager

    examples = [dict(zip(("animal", "gives"), one, strict=True)) | {"other": "a nail"} for one in _order(item)]
    source.mkdir()
    for split, rows in (("train", examples or [{"animal": "x", "gives": "y", "other": "z"}]), ("test", [_SHEEP])):
        (source / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (source / "farm.yaml").write_text(_HARNESS.replace("DIRECTORY", str(source)), encoding="utf-8")
    task = TaskManager(include_path=str(source)).load(["farm"])["tasks"]["farm"]
    task.set_config(key="num_fewshot", value=shots)
    task.build_all_requests(
        limit=None,
        rank=0,
        world_size=1,
        system_instruction=system,
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        chat_template=own.apply_chat_template,
        tokenizer_name="tiny",
    )
    return sorted(task.instances, key=lambda one: one.idx)


_SHEEP = {"animal": "sheep", "gives": "wool", "other": "salt"}


def _order(item: Item) -> list[tuple[str, str]]:
    """Animal and answer of the item's examples."""
    return [(question.split()[1], answer.strip()) for question, answer in item.examples]


def test_special_tokens_are_tokens_only_in_chats(model: Path) -> None:
    backend = open_model(str(model), device="cpu")
    text = "<|begin|>salt<|endoftext|>"
    plain, rendered = (
        backend.score([Pair(context="a", continuation=text, rendered=kind)])[0].tokens for kind in (False, True)
    )
    assert rendered < plain
    found = backend.generate(
        [Prompt(text=f"{text}hen", stop=(), max_tokens=3, rendered=kind) for kind in (False, True)]
    )
    assert found[0] != found[1]


def test_bos_is_counted_where_it_is_missing_or_doubled(
    model: Path, build_checkpoint: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubled = _with_template(build_checkpoint("llama"), tmp_path / "doubled", "{{ bos_token }}" + _TEMPLATE)
    item = Item(id="a", contexts=("The hen",) * 2, continuations=(" lays", " eggs"), label=0, texts=())

    def counts(directory: Path, chat: bool, **settings: Any) -> dict[str, int]:
        backend = open_model(str(directory), device="cpu", **settings)
        items = [Chat(directory, None, False).item(item) if chat else item]
        questions = ItemQuestions(name="made", split="test", primary_metric="acc_raw", items=items)
        found = questions.collect(backend.score(questions.pairs), []).counts
        return {name: found[name] for name in ("missing_bos", "doubled_bos")}

    assert counts(model, False) == counts(model, True) == {"missing_bos": 0, "doubled_bos": 0}
    assert counts(doubled, True) == {"missing_bos": 0, "doubled_bos": 2}
    assert counts(model, True, max_length_tokens=8) == {"missing_bos": 2, "doubled_bos": 0}
    open_model(str(doubled), device="cpu").generate(
        [Prompt(text="<|begin|><|begin|>salt", stop=(), max_tokens=1, rendered=True)]
    )
    assert "1 prompts begin with two BOS tokens" in caplog.text


def test_a_run_of_chats_has_its_own_cells_and_shows_its_prompts(
    model: Path, farm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"oracle:uniform,tokenizer={model}"
    arguments = ["run", "--models", f"m={spec}", "--tasks", farm, "--data", str(tmp_path / "data")]
    arguments += ["--output-dir", str(tmp_path / "runs")]
    chats = ["--chat-template", "--system-instruction", "Be short."]
    for number, more in enumerate(([], ["--chat-template"], chats, [*chats, "--fewshot-as-multiturn"]), start=1):
        assert main([*arguments, *more]) == 0
        assert len(list((tmp_path / "runs" / "cells").iterdir())) == number
    (row,) = (row for _, row in read_rows(tmp_path / "runs" / "m" / "items.jsonl.gz"))
    assert row["context"].startswith(
        "<|begin|><|system|>\nBe short.\n\nQuestions about animals.<|endoftext|>\n<|user|>"
    )
    assert row["continuations"] == ["wool", "salt"]
    config = read_object(tmp_path / "runs" / "m" / "manifest.json")["config"]
    assert (config["system_instruction"], config["fewshot_as_multiturn"]) == ("Be short.", True)
    assert main(["verify", str(tmp_path / "runs" / "m")]) == 0
    assert main([*arguments, "--system-instruction", "Be short."]) == 2
    assert '"system_instruction" is set, but "chat_template" is not' in capsys.readouterr().err


def test_models_without_a_template_are_refused(
    build_checkpoint: Build, model: Path, farm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="has no chat template; expected one"):
        Chat(build_checkpoint("llama"), None, False)
    arguments = ["run", "--model", "oracle:uniform", "--data", str(tmp_path / "data"), "--chat-template"]
    arguments += ["--output-dir", str(tmp_path / "out"), "--tasks"]
    assert main([*arguments, farm]) == 2
    assert "the model has no tokenizer on this machine" in capsys.readouterr().err
    assert main([*arguments, "lmeval:arc_easy"]) == 2
    assert "lmeval:arc_easy writes its own prompts" in capsys.readouterr().err
    (model / "chat_template.jinja").write_text("{{ raise_exception('no chats') }}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"refuses the prompt \(no chats\)"):
        Chat(model, None, False).render([{"role": "user", "content": "a"}])


def test_a_template_without_a_system_role_leaves_it_out(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + _TEMPLATE
    (model / "chat_template.jinja").write_text(refusing, encoding="utf-8")
    chat = Chat(model, "Be short.", False)
    item = Item(id="a", contexts=("The hen",), continuations=(" lays",), label=0, texts=())
    assert chat.item(item).contexts == ("<|begin|><|user|>\nThe hen<|endoftext|>\n<|assistant|>\n",)
    assert chat.item(item).continuations == (" lays",)  # one text: as in the harness
    assert caplog.text.count("refuses a system's message (no system)") == 1
