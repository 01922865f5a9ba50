"""What a user gets wrong, through the command: message, hint, exit code; no traceback, nothing left behind."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import chat_rows, pair_rows, write_rows
from open_instruct.__main__ import main
from open_instruct.config import DpoConfig, SftConfig, load_config
from open_instruct.data import read_pairs, row_hash
from open_instruct.formats.contract import ConfigError
from open_instruct.grpo.config import GrpoConfig
from open_instruct.reward.config import RewardConfig
from open_instruct.settings import as_mapping, as_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
BAD_CHATS = {
    "unknown role": (
        {"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]},
        '"messages.0.role" is "human"; expected "system", "user", "assistant" or "tool"',
    ),
    "malformed line": ('{"messages": [', "is not JSON"),
    "blank line": ("", "is blank; expected a JSON object"),
    "missing field": ({"conversation": []}, '"messages" is missing; expected an array'),
    "no answer": ({"messages": [{"role": "user", "content": "a"}]}, '"messages" has no assistant\'s answer'),
}


@pytest.fixture
def command(tmp_path, checkpoint, capfd):
    """Run a stage on data through the command; return (exit code, standard error)."""

    def run(stage: str, data: Path, *overrides: str, model: object = None) -> tuple[int, str]:
        config = tmp_path / "run.yaml"
        config.write_text(
            f"model: {model or checkpoint()}\noutput_dir: {tmp_path / 'out'}\ndata: {{train: [{data}]}}\n"
        )
        code = main([stage, str(config), "training.max_steps=1", *overrides])
        error = capfd.readouterr().err
        assert "Traceback" not in error
        if code:
            assert error.startswith("error: ")
            assert not (tmp_path / "out").exists()
            assert not list((tmp_path).glob("out.partial/result/*"))
        return code, error

    return run


@pytest.mark.parametrize("case", BAD_CHATS)
def test_bad_chat_row_is_named_with_its_line(command, tmp_path, case):
    row, sentence = BAD_CHATS[case]
    data = write_rows(tmp_path / "chats.jsonl", [chat_rows(1)[0], row, chat_rows(2)[1]])
    code, error = command("sft", data)
    assert code == 1
    assert error.startswith(f"error: {data}:2: {sentence}")


def test_all_bad_rows_are_named_at_once(command, tmp_path):
    data = write_rows(tmp_path / "chats.jsonl", [row for row, _ in BAD_CHATS.values()] * 5)
    code, error = command("sft", data)
    assert code == 1
    assert error.count("error: ") == 21
    assert "error: 5 more rows are bad; expected none" in error


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda row: row["rejected"].__setitem__(0, {"role": "user", "content": "other"}),
            '"rejected" answers another prompt',
        ),
        (lambda row: row.update(rejected=row["chosen"]), '"rejected" is equal to "chosen"'),
        (lambda row: row.pop("chosen"), '"chosen" is missing; expected an array'),
    ],
    ids=["prompt_mismatch", "identical_answers", "missing_field"],
)
def test_bad_pair_is_named_with_its_line(command, tmp_path, change, sentence):
    rows = pair_rows(2)
    change(rows[1])
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    code, error = command("dpo", data)
    assert code == 1
    assert error.startswith(f"error: {data}:2: {sentence}")


def _copy(checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint(), tmp_path / "model"))


def test_damaged_checkpoints_are_refused(command, chats, checkpoint, tmp_path, run):
    whole = run("sft", chats)  # has a manifest
    model = _copy(lambda: whole, tmp_path)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    code, error = command("sft", chats, model=model)
    assert (code, f"error: {model}/model.safetensors: has the sha256" in error) == (1, True)
    (model / "manifest.json").unlink()
    (model / "model.safetensors").write_bytes(weights[:-100])
    code, error = command("sft", chats, model=model)
    assert (code, "is not a complete safetensors file" in error) == (1, True)
    (model / "model.safetensors").unlink()
    code, error = command("sft", chats, model=model)
    assert (code, "model.safetensors: not found" in error) == (1, True)


def test_checkpoint_without_tokenizer_is_refused(command, chats, checkpoint, tmp_path):
    model = _copy(checkpoint, tmp_path)
    (model / "tokenizer.json").unlink()
    code, error = command("sft", chats, model=model)
    assert (code, error) == (1, f"error: {model}/tokenizer.json: not found; expected the tokenizer\n")
    (model / "tokenizer.json").write_text("{}")
    code, error = command("sft", chats, model=model)
    assert (code, f"error: {model}/tokenizer.json: is not a tokenizer that can be read" in error) == (1, True)


def test_checkpoint_of_other_shapes_is_refused(command, chats, checkpoint, tmp_path):
    model = _copy(checkpoint, tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    code, error = command("sft", chats, model=model)
    assert code == 1
    assert '"model.layers.0.mlp.gate_proj.weight" has shape [48, 32]; expected [64, 32]' in error


def test_wrong_paths_are_wrong_requests(command, chats, tmp_path):
    assert command("sft", tmp_path / "none.jsonl") == (
        2,
        f"error: data.train: {tmp_path}/none.jsonl not found; expected a file or a directory\n",
    )
    code, error = command("sft", chats, model="allenai/OLMo-1B-hf")
    assert (code, "model: allenai/OLMo-1B-hf is not a directory" in error, "nothing is downloaded" in error) == (
        2,
        True,
        True,
    )
    assert main(["sft", str(tmp_path / "none.yaml")]) == 2
    assert main(["chat", str(tmp_path / "none")]) == 2
    assert main(["mix", str(tmp_path / "none.jsonl"), "--output-dir", str(tmp_path / "mixed")]) == 2
    assert main(["merge", str(tmp_path / "none"), str(tmp_path), str(tmp_path / "merged")]) == 2


def test_every_problem_of_a_configuration_is_named(command, chats):
    code, error = command(
        "sft",
        chats,
        "trainign.max_steps=3",
        "optimizer.learning_rat=1",
        "sequence.packing=maybe",
        "lora.rank=0.5",
        "runtime.device=tpu",
    )
    assert code == 2
    lines = [re.sub(r"^error: .*?yaml: ", "", line) for line in error.splitlines()]
    assert lines == [
        'unknown setting "trainign"',
        'hint: did you mean "training"?',
        '"sequence.packing" is "maybe"; expected true or false',
        'unknown setting "optimizer.learning_rat"',
        'hint: did you mean "optimizer.learning_rate"?',
        '"lora.rank" is 0.5; expected an integer',
        '"runtime.device" is "tpu"; expected "auto" or "cpu" or "cuda"',
    ]


def test_former_names_are_accepted_with_a_note_and_mean_the_same_result(run, chats, tmp_path, caplog, command):
    output = run("sft", chats)
    assert not [record for record in caplog.records if "deprecated" in record.message]
    config = json.loads((output / "manifest.json").read_text())["config"]
    assert (config["optimizer"]["lr"], config["runtime"]["precision"]) == (0.01, "float32")
    assert config["training"]["batch_size"] == 8
    former = tmp_path / "former.yaml"
    former.write_text(
        (tmp_path / "sft-0.yaml")
        .read_text()
        .replace("learning_rate: ", "lr: ")
        .replace("batch_sequences", "batch_size")
    )
    caplog.set_level("INFO")
    assert main(["sft", str(former), "runtime.precision=float32"]) == 0
    assert "already done" in caplog.text
    assert '"optimizer.lr" is deprecated; use "optimizer.learning_rate"' in caplog.text
    assert '"training.micro_batch_size" is deprecated; use "training.micro_batch_sequences"' in caplog.text
    assert '"runtime.precision" is deprecated; use "runtime.dtype"' in caplog.text
    config = load_config(SftConfig, former, ["optimizer.learning_rate=0.5", "training.batch_size=16"])
    assert (config.optimizer.learning_rate, config.training.batch_sequences) == (0.5, 16)
    code, error = command("sft", chats, "optimizer.lr=1", "optimizer.learning_rate=2")
    assert (code, '"optimizer.lr" is the former name of "optimizer.learning_rate"' in error) == (2, True)


def test_values_that_do_not_go_together_are_named(command, chats):
    code, error = command(
        "sft", chats, "training.micro_batch_sequences=3", "data.eval_fraction=1", "training.batch_sequences=8"
    )
    assert code == 2
    assert 'run.yaml: "data.eval_fraction" is 1.0; expected 0 or more and below 1' in error
    assert "hint: set training.micro_batch_sequences to 2" in error
    code, error = command("dpo", chats, "loss.kind=ipo", "loss.label_smoothing=0.1", "sequence.packing=true")
    assert (code, error.count("error: ")) == (2, 2)


def test_template_without_markers_is_a_wrong_request(command, chats, tmp_path):
    template = tmp_path / "bare.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    code, error = command("sft", chats, f"template.name={template}")
    assert code == 2
    assert (
        error.splitlines()[-1]
        == "hint: use a shipped template: tulu, zephyr, plain, chatml, llama3, olmo, llama2, mistral"
    )
    code, error = command("sft", chats, "template.name=tuluu")
    assert (code, "expected a .jinja file or one of tulu" in error) == (2, True)


def test_new_tokens_before_dpo_are_refused(command, pairs):
    assert command("dpo", pairs, "template.name=chatml")[0] == 2


def test_nothing_to_train_on_is_a_failure(command, tmp_path):
    data = write_rows(tmp_path / "long.jsonl", [chat_rows(1)[0]])
    code, error = command("sft", data, "sequence.max_length_tokens=4", "sequence.too_long=drop")
    assert (code, "no row is left to train on" in error) == (1, True)


def test_output_directory_that_contains_something_else_is_refused(run, chats, tmp_path, capfd, caplog):
    caplog.set_level("INFO")
    output = run("sft", chats)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    config = tmp_path / "sft-0.yaml"
    assert main(["sft", str(config)]) == 0
    assert "already done" in caplog.text
    capfd.readouterr()
    assert main(["sft", str(config), "optimizer.learning_rate=0.5"]) == 2
    assert "made with optimizer.learning_rate = 0.01, not 0.5" in capfd.readouterr().err
    write_rows(chats, chat_rows(7))
    assert main(["sft", str(config)]) == 2
    assert "made from other inputs" in capfd.readouterr().err
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    (output / "config.json").write_text("{}")
    write_rows(chats, chat_rows(8))
    assert main(["sft", str(config)]) == 1  # the result is there, but damaged
    shutil.rmtree(output)
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    assert main(["sft", str(config)]) == 2


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configuration_loads_and_comes_back_from_its_own_yaml(path, tmp_path):
    kinds = {"dpo": DpoConfig, "reward": RewardConfig, "grpo": GrpoConfig}
    kind = next((kind for name, kind in kinds.items() if name in path.stem), SftConfig)
    config = load_config(kind, path, [])
    (tmp_path / "again.yaml").write_text(as_yaml(config), encoding="utf-8")
    assert load_config(kind, tmp_path / "again.yaml", []) == config


def test_sft_yaml_names_every_key():
    import yaml

    written = yaml.safe_load((CONFIGS / "sft.yaml").read_text())
    config = as_mapping(load_config(SftConfig, CONFIGS / "sft.yaml", []))
    assert written.keys() == config.keys()
    for section in ("data", "template", "sequence", "optimizer", "training", "runtime"):
        assert written[section].keys() == config[section].keys(), section


def test_partial_section_keeps_the_defaults_of_its_own_configuration(tmp_path):
    path = tmp_path / "dpo.yaml"
    path.write_text("model: m\noutput_dir: o\ndata: {train: [x]}\ntraining: {max_steps: 5}\n")
    config = load_config(DpoConfig, path, ["loss.beta=0.5", "lora.rank=8"])
    assert (config.training.batch_sequences, config.training.max_steps, config.optimizer.learning_rate) == (32, 5, 5e-7)
    assert (config.loss.beta, config.lora.rank, config.lora.alpha) == (0.5, 8, 16.0)
    with pytest.raises(ConfigError):
        load_config(DpoConfig, path, ["no_equals_sign"])


def test_help_and_bad_requests_do_not_import_torch(tmp_path):
    script = "import sys; from open_instruct.__main__ import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules), sorted(sys.modules)"
    for arguments in (["--help"], ["sft", "--help"], ["sft", "none.yaml"], ["chat", "none", "--temperature", "-1"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_unknown_command_exits_2():
    done = subprocess.run([sys.executable, "-m", "open_instruct", "grpo"], check=False, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


ROW = '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]%s}\n'
# each cause is tested with formats/contract.py
NOT_ROWS = {
    "nan.jsonl": ((ROW % ',"x":NaN').encode(), "nan.jsonl:1: contains NaN, which is not JSON"),
    "packed.jsonl": (gzip.compress(b"{}"), "is gzip data; expected UTF-8 text\nhint: rename it to packed.jsonl.gz"),
    "rows.jsonl.br": (b"x", ".br files are not supported"),
}


@pytest.mark.parametrize("name", NOT_ROWS)
def test_error_says_why_a_line_is_not_a_row(command, tmp_path, name):
    content, sentence = NOT_ROWS[name]
    (tmp_path / name).write_bytes(content)
    code, error = command("sft", tmp_path / name)
    assert (code, sentence in error) == (1, True), error


def test_named_pipe_is_refused(command, tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    code, error = command("sft", tmp_path / "pipe.jsonl")
    assert (code, "is a named pipe; expected a file or a directory" in error) == (1, True)


def test_fields_that_are_not_trained_are_refused_or_counted(command, tmp_path, caplog):
    turns = chat_rows(1)[0]["messages"]
    refused = {
        "messages.1.tool_calls": {"messages": [turns[0], turns[1] | {"tool_calls": [{"name": "clock"}]}]},
        "messages.1.reasoning_content": {"messages": [turns[0], turns[1] | {"reasoning_content": "because"}]},
        "messages.1.weight": {"messages": [turns[0], turns[1] | {"weight": 0.5}]},
        "tools": {"messages": turns, "tools": [{"name": "clock"}]},
    }
    for field, row in refused.items():
        code, error = command("sft", write_rows(tmp_path / "c.jsonl", [row]))
        assert (code, f'c.jsonl:1: "{field}" is' in error) == (1, True), error
    rows = [{"messages": [turns[0] | {"name": "Ann"}, turns[1]], "score": 3, "tools": []}, {"messages": turns}]
    assert command("sft", write_rows(tmp_path / "c.jsonl", rows))[0] == 0
    assert "data.train: 1 rows have the field score, which is not used" in caplog.text
    assert "data.train: 1 rows have the field message name, which is not used" in caplog.text


def test_pairs_in_every_form_of_trl_are_one_data_set(run, tmp_path, caplog):
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say 4."}
    better, worse = ({"role": "assistant", "content": text} for text in ("It is 4.", "No."))
    forms = [
        {"chosen": [user, better], "rejected": [user, worse]},
        {"prompt": [user], "chosen": [better], "rejected": [worse]},
        {"prompt": "Say 4.", "chosen": "It is 4.", "rejected": "No."},
        {"prompt": "Say 4.", "chosen": [better], "rejected": [user, worse]},
        {"prompt": [system, user], "chosen": "It is 4.", "rejected": [worse]},
    ]
    pairs = [read_pairs([str(write_rows(tmp_path / "p.jsonl", [row]))], "data.train")[0] for row in forms]
    assert {row_hash(pair) for pair in pairs[:4]} == {row_hash(pairs[0])}
    assert pairs[4].prompt == (system, user)
    run("dpo", write_rows(tmp_path / "p.jsonl", forms), "training.max_steps=1")
    equal = {"prompt": "a", "chosen": "b", "rejected": "b"}
    data = write_rows(tmp_path / "p.jsonl", [*forms, equal])
    run("dpo", data, "training.max_steps=1", expect=1)
    run("dpo", data, "training.max_steps=1", "data.identical_answers=drop")
    assert "data.train: 1 rows were left out: identical_answers" in caplog.text


def test_home_is_expanded_in_every_path(checkpoint, tmp_path, monkeypatch, chats):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {checkpoint()}\noutput_dir: ~/out\ndata: {{train: [~/{chats.name}]}}\n")
    assert main(["sft", "~/run.yaml", "training.max_steps=1"]) == 0
    assert main(["mix", f"~/{chats.name}=2", "--output-dir", "~/mixed"]) == 0
    greedy = ["--temperature", "0", "--max-new-tokens", "2"]
    assert main(["chat", "~/out", "--input", f"~/{chats.name}", "--output", "~/answers.jsonl", *greedy]) == 0
    assert main(["inspect", f"~/{chats.name}", "--checkpoint", "~/out"]) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"out", "mixed", "answers.jsonl"}
    assert not (tmp_path / "~").exists()


def test_files_of_one_name_are_not_mixed(tmp_path, capsys):
    paths = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paths.append(str(write_rows(tmp_path / folder / "chats.jsonl", chat_rows(2))))
    assert main(["mix", *paths, "--output-dir", str(tmp_path / "mixed")]) == 2
    assert 'would label its rows "chats", as would' in capsys.readouterr().err
