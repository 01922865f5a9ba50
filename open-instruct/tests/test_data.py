"""Holding out, packing, and which positions reach the vocabulary projection."""

from pathlib import Path

import pytest
import torch
from conftest import chat_rows, write_rows
from hypothesis import given
from hypothesis import strategies as st
from open_instruct.data import pack_lengths, read_conversations, split_rows, warn_of_overlap
from open_instruct.formats.contract import WorkError
from open_instruct.trainers import score_trained_positions_only
from transformers import AutoModelForCausalLM
from trl.trainer import utils


def _rows(path: Path, count: int):
    return read_conversations([str(write_rows(path / "rows.jsonl", chat_rows(count)))], "data.train")


def test_split_depends_only_on_the_row(tmp_path):
    rows = _rows(tmp_path, 400)
    kept, held_out = split_rows(rows, 0.25)
    assert len(kept) + len(held_out) == 400
    assert 60 < len(held_out) < 140
    again, _ = split_rows(rows[::-1][:200], 0.25)
    assert {row.messages[0]["content"] + row.id for row in again} <= {
        row.messages[0]["content"] + row.id for row in kept
    }
    assert split_rows(rows, 0.0)[1] == []


def test_equal_rows_are_on_the_same_side(tmp_path, caplog):
    rows = _rows(tmp_path, 40) * 2
    kept, held_out = split_rows(rows, 0.5)
    warn_of_overlap(kept, held_out)
    assert not caplog.records
    warn_of_overlap(kept, kept[:3])
    assert "3 of 3 held-out rows are also training rows" in caplog.text


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 120))
def test_packing_contains_every_item_once_within_capacity(lengths, capacity):
    bins = pack_lengths(lengths, capacity)
    assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
    sums = [sum(lengths[item] for item in members) for members in bins]
    assert all(0 < total <= capacity for total in sums)
    # best fit leaves at most one bin half empty or less full
    assert sum(2 * total <= capacity for total in sums) <= 1


def test_packing_takes_the_fullest_bin_with_room():
    assert pack_lengths([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_only_trained_positions_are_projected_and_the_loss_is_the_same(checkpoint, monkeypatch):
    score_trained_positions_only()
    project, projected = utils._ChunkedLogProbFunction.apply, []

    def spy(hidden_states, *arguments):
        projected.append(len(hidden_states))
        return project(hidden_states, *arguments)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", spy)
    results = []
    for switch in (utils._use_triton, lambda device: False):
        monkeypatch.setattr(utils, "_use_triton", switch)
        model = AutoModelForCausalLM.from_pretrained(checkpoint())
        utils.add_fused_lm_head(model)
        ids = torch.arange(2, 26).view(2, 12)
        labels = ids.clone()
        labels[:, :7] = -100
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
        output.loss.backward()
        results.append((output.loss.item(), model.lm_head.weight.grad, output.log_probs))
    assert projected == [2 * 5, 2 * 11]
    assert abs(results[0][0] - results[1][0]) < 1e-6
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)
    assert torch.allclose(results[0][2], results[1][2], atol=1e-6)


def test_trl_without_its_private_switch_is_refused(monkeypatch):
    monkeypatch.delattr(utils, "_use_triton")
    with pytest.raises(WorkError, match=r"trl .*_use_triton not found; expected it, as in trl 1.16"):
        score_trained_positions_only()
