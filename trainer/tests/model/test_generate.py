"""Generation: what a cache gives is what the whole text gives, also where the cache forgets what left the window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.model.generate import choose, generate, read_on
from olmo_trainer.model.transformer import new_cache
from test_model import CASES, model_of
from tokenizers import Tokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("case", "chunk"), [*((case, 5) for case in CASES), ("olmo3", 1), ("olmo3", 64), ("mistral", 9)]
)
def test_cached_logits_are_those_of_the_whole_text(case: str, chunk: int) -> None:
    model, _ = model_of(case)
    tokens_BT = torch.randint(0, 100, (2, 34), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.logits(tokens_BT)
    caches = new_cache(model.shape, 2, 34, torch.float32, CPU)
    for cache, window in zip(caches, model.shape.windows, strict=True):
        assert cache.keys_BGSK.shape[2] == (window or 34)  # a window's cache does not grow with the text
    found = [read_on(model, tokens_BT[:, :22], caches, chunk)]
    found += [read_on(model, tokens_BT[:, step : step + 1], caches) for step in range(22, 33)]
    torch.testing.assert_close(torch.stack(found, dim=1), expected[:, 21:33], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", ["olmo2", "mistral", "mixtral-window"])
def test_greedy_text_is_that_without_a_cache(case: str) -> None:
    model, _ = model_of(case)
    prompt_BT = torch.randint(0, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    found = torch.stack(list(generate(model, prompt_BT, 12, vocabulary=100, chunk=4)), dim=1)
    text_BT = prompt_BT
    for _ in range(12):
        with torch.no_grad():
            next_B = model.logits(text_BT)[:, -1, :100].argmax(dim=-1)
        text_BT = torch.cat((text_BT, next_B[:, None]), dim=1)
    assert torch.equal(found, text_BT[:, 9:])


def test_draws_follow_temperature_share_and_seed() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)

    def shares(temperature: float, top_p: float, seed: int = 0) -> list[float]:
        drawn = choose(logits, temperature, top_p, torch.Generator().manual_seed(seed))
        return (torch.bincount(drawn, minlength=4) / 4000).tolist()

    assert shares(0.0, 1.0) == [1, 0, 0, 0]
    assert shares(1.0, 1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert shares(1.0, 0.5) == [1, 0, 0, 0]
    assert shares(1.0, 0.6) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    cold = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert shares(0.5, 1.0) == pytest.approx((cold / cold.sum()).tolist(), abs=0.03)
    assert shares(1.0, 1.0) == shares(1.0, 1.0) != shares(1.0, 1.0, seed=1)


def test_the_command_continues_texts(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(made, tmp_path / "run", model__family="olmo3", model__sliding_window=8, train__steps=2)
    del config["validation"]
    assert main(["train", str(write_config(tmp_path / "c.yaml", config))]) == 0
    capsys.readouterr()
    arguments = ["generate", str(tmp_path / "run"), "--prompt", "the model"]
    assert main([*arguments, "--prompt", "", "--max-tokens", "15", "--json"]) == 0
    told = capsys.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["prompt"] for row in rows] == ["the model", ""]
    assert all(1 <= len(row["tokens"]) <= 15 and max(row["tokens"]) < 400 for row in rows)
    assert "longer than 16 tokens" in told.err
    outputs = []
    for seed in ("3", "3", "4"):
        assert main([*arguments, "--temperature", "1", "--top-p", "0.9", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    # it begins and stops as the checkpoint says
    checkpoint = tmp_path / "run" / "checkpoints" / "step-2"
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, rows[0]["tokens"][0]]}))
    arguments[1] = str(checkpoint)
    assert main([*arguments, "--json"]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert (stopped["tokens"], stopped["ended"], stopped["completion"]) == (rows[0]["tokens"][:1], True, "")
    named = json.loads((checkpoint / "tokenizer_config.json").read_text())
    named |= {"bos_token": "<|padding|>", "add_bos_token": True}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(named))
    (checkpoint / "generation_config.json").unlink()
    assert main([*arguments, "--json", "--max-tokens", "15"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] != rows[0]["tokens"]
    larger = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    larger.add_tokens([f"zq{number}" for number in range(90)])
    larger.save(str(checkpoint / "tokenizer.json"))
    assert main(["generate", str(checkpoint), "--prompt", "the zq89"]) == 2
    assert "beyond the embedding of 384 rows" in capsys.readouterr().err
    assert main([*arguments, "--top-p", "2"]) == 2
    assert "--top-p: is 2.0; expected more than 0" in capsys.readouterr().err
