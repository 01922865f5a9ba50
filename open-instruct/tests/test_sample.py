"""`open-instruct sample`: rows of the contract, chosen by score, the same whatever the batch and after a kill."""

import json

import pytest
from conftest import QUESTIONS, chat_rows, trainer, write_rows
from open_instruct.__main__ import main
from open_instruct.evaluation.local import LocalModel
from open_instruct.formats.__main__ import main as formats
from open_instruct.formats.contract import sha256_file
from open_instruct.sample.choose import Candidate, Dropped, choose_best, choose_pair


@pytest.fixture(scope="module")
def talker(checkpoint, tmp_path_factory):
    """A model that ends its answers, which still differ."""
    folder = tmp_path_factory.mktemp("talker")
    chats = write_rows(folder / "chats.jsonl", chat_rows(24))
    return trainer(folder, checkpoint)("sft", chats, "training.max_steps=30", "training.log_every_steps=10")


@pytest.fixture
def prompts(tmp_path):
    rows = [
        # a rule about letters is something that some answers follow
        {
            "id": f"q{index}",
            "messages": [{"role": "user", "content": text}],
            "verifier": "regex",
            "ground_truth": "[ae]",
        }
        for index, text in enumerate(QUESTIONS)
    ]
    return write_rows(tmp_path / "prompts.jsonl", rows)


def sample(checkpoint, prompts, output, *flags, expect=0):
    command = ["sample", str(checkpoint), str(prompts), "--output-dir", str(output), "--template", "tulu"]
    assert main([*command, "--count", "6", "--max-new-tokens", "24", "--num-threads", "1", *flags]) == expect
    return output


def rows_of(directory):
    (file,) = directory.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows_do_not_depend_on_the_batch_or_on_other_rows(talker, prompts, tmp_path):
    one = sample(talker, prompts, tmp_path / "one", "--batch", "1")
    many = sample(talker, prompts, tmp_path / "many", "--batch", "7")
    assert sha256_file(one / "manifest.json") == sha256_file(many / "manifest.json")
    assert formats(["validate", "chat", str(one)]) == 0
    rows = rows_of(one)
    manifest = json.loads((one / "manifest.json").read_text())
    details = manifest["details"]
    assert details["prompts"] == len(rows) + sum(details["dropped"].values()) == 6
    assert details["mean_best_score"] == 1 >= details["mean_score"]
    for row in rows:
        assert row["metadata"] | {"seed": 0, "sample": 0} == {
            "model": talker.name,
            "scored_by": ["regex"],
            "count": 6,
            "seed": 0,
            "sample": 0,
            "score": 1.0,
        }
        assert set("ae") & set(row["messages"][-1]["content"])
    # the same prompt alone, in another file, has the same answer
    last = prompts.read_text().splitlines()[int(rows[-1]["id"][1:])]
    alone = sample(talker, write_rows(tmp_path / "alone.jsonl", [last]), tmp_path / "alone")
    assert rows_of(alone) == rows[-1:]
    other = sample(talker, prompts, tmp_path / "other", "--seed", "1")
    assert [row["messages"] for row in rows_of(other)] != [row["messages"] for row in rows]


def test_pairs_by_a_reward_model_are_trained_by_dpo(run, talker, pairs, prompts, tmp_path):
    reward = run("reward", pairs, model=talker)
    found = sample(talker, prompts, tmp_path / "pairs", "--reward", str(reward), "--to", "preference")
    again = sample(talker, prompts, tmp_path / "b", "--reward", str(reward), "--to", "preference", "--batch", "2")
    assert formats(["validate", "preference", str(found)]) == 0
    rows = rows_of(found)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows_of(again)] == [
        (row["prompt"], row["chosen"], row["rejected"]) for row in rows
    ]
    for row in rows:
        facts = row["metadata"]
        assert facts["scored_by"] == reward.name
        assert facts["margin"] == facts["chosen"]["score"] - facts["rejected"]["score"] > 0
    run("dpo", found, "training.max_steps=1", "training.batch_sequences=2", "training.micro_batch_sequences=2")


def test_killed_command_goes_on(talker, prompts, tmp_path, monkeypatch):
    whole = sample(talker, prompts, tmp_path / "whole")
    original, generated = LocalModel.generate, []

    def generate(self, questions, decoding, keep, seeds=None):
        generated.append(len(questions))

        def stop(index, answer):
            keep(index, answer)
            if len(generated) == 1 and len(kept) == 20:
                raise KeyboardInterrupt
            kept.append(index)

        kept = []
        original(self, questions, decoding, stop, seeds)

    monkeypatch.setattr(LocalModel, "generate", generate)
    sample(talker, prompts, tmp_path / "again", expect=1)
    assert not (tmp_path / "again").exists()
    sample(talker, prompts, tmp_path / "again", "--batch", "3")
    assert generated == [36, 36 - 21]
    assert sha256_file(tmp_path / "again/manifest.json") == sha256_file(whole / "manifest.json")
    sample(talker, prompts, tmp_path / "again")  # already done
    assert len(generated) == 2
    assert not (tmp_path / "again.partial").exists()


@pytest.mark.parametrize(
    ("flags", "code", "found"),
    [
        (["--temperature", "0"], 2, "--temperature: is 0 with --count 6; expected a number above 0"),
        (["--to", "preference", "--count", "1"], 2, "--count: is 1; expected 2 or more"),
        (["--min-margin", "1"], 2, "expected it with --to preference"),
        (["--reward", "{talker}"], 2, "is a OlmoForCausalLM; expected a reward model"),
        (["--min-score", "2"], 1, "none of 6 gives a row (no score is at least 2)"),
    ],
)
def test_wrong_requests(talker, prompts, tmp_path, capsys, flags, code, found):
    flags = [flag.format(talker=talker) for flag in flags]
    sample(talker, prompts, tmp_path / "out", *flags, expect=code)
    assert found in capsys.readouterr().err


def test_prompts_without_a_row_are_counted_by_reason(talker, tmp_path, caplog):
    ask = [{"role": "user", "content": "Why?"}]
    rows = [
        {"messages": ask, "verifier": "regex", "ground_truth": "[ae]"},
        {"messages": ask, "verifier": "regex", "ground_truth": "\\A"},  # always 1
        {"messages": ask, "verifier": "exact_match", "ground_truth": "never"},  # always 0
        {"messages": [{"role": "user", "content": "why " * 300}], "verifier": "regex", "ground_truth": "a"},
    ]
    data = write_rows(tmp_path / "prompts.jsonl", rows)
    sample(talker, data, tmp_path / "pairs", "--to", "preference", "--count", "12")
    assert "2 prompts were left out: all scores are equal" in caplog.text
    assert "1 prompts were left out: the prompt leaves no room for an answer" in caplog.text
    caplog.clear()
    best = sample(talker, data, tmp_path / "best", "--count", "12")
    assert "1 prompts were left out: every score is 0" in caplog.text
    assert len(rows_of(best)) == 2


def test_choices():
    def made(*scores):
        return [Candidate(number, 0, str(number), score) for number, score in enumerate(scores)]

    assert choose_best(made(1, 3, 3, 2), None).sample == 1
    assert [one.sample for one in choose_pair(made(2, 1, 3, 1), None, 2)] == [2, 1]
    for scores, least, margin, reason in (
        ((), None, 0, "no answer was finished"),
        ((1, 2), 3, 0, "no score is at least 3"),
        ((1,), None, 0, "all answers are the same"),
        ((1, 1), None, 0, "all scores are equal"),
        ((1, 2), None, 5, "differ by less than 5"),
    ):
        with pytest.raises(Dropped, match=reason):
            choose_pair(made(*scores), least, margin)
    with pytest.raises(ValueError, match="expected a finite number"):
        choose_best(made(float("nan")), None)
