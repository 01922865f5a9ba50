"""What a query sees: windows, documents, and that blocks of queries are the whole computed in parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from olmo_trainer.model import transformer as mask_module
from olmo_trainer.model.transformer import attend, mask_of
from test_model import model_of

CPU = torch.device("cpu")


def document_ids(lengths: list[list[int]]) -> torch.Tensor:
    """The number of each position's document (B, T)."""
    return torch.tensor([[number for number, size in enumerate(parts) for _ in range(size)] for parts in lengths])


@pytest.mark.parametrize("case", ["olmo2", "olmo3", "mistral", "mixtral-window", "olmoe-clipped"])
def test_documents_of_one_window_are_as_if_apart(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_module, "_BLOCK", 16)
    model, _ = model_of(case)
    lengths = [[3, 20, 1, 16], [25, 15]]
    tokens_BT = torch.randint(0, 100, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model.logits(tokens_BT, document_ids(lengths))
        whole = model.logits(tokens_BT)
        for row, parts in enumerate(lengths):
            apart = [model.logits(part[None])[0] for part in tokens_BT[row].split(parts)]
            # positions differ, but rotary attention knows distances alone
            torch.testing.assert_close(together[row], torch.cat(apart), rtol=1e-4, atol=2e-5)
    assert (together - whole).abs().max() > 1e-2


@pytest.mark.parametrize("block", [4, 256])
@pytest.mark.parametrize(("window", "lengths"), [(5, None), (None, [[7, 13], [20]]), (5, [[7, 13], [20]]), (20, None)])
def test_blocks_equal_one_mask(
    window: int | None, lengths: list[list[int]] | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_module, "_BLOCK", block)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 20, 8, generator=draw, requires_grad=True) for _ in range(3))
    ids = document_ids(lengths) if lengths else torch.zeros(2, 20, dtype=torch.long)
    seen = torch.zeros(2, 20, 20, dtype=torch.bool)
    for row in range(2):
        for i in range(20):
            for j in range(i + 1):
                seen[row, i, j] = (window is None or i - window < j) and bool(ids[row, i] == ids[row, j])
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
    mask = mask_of(20, window, ids if lengths else None, CPU)
    assert bool(mask.blocks) == (lengths is not None or window == 5)
    found = attend(q, k, v, mask)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=draw)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), weights), torch.autograd.grad(expected, (q, k, v), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_no_query_of_a_block_sees_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_module, "_BLOCK", 4)
    mask = mask_of(16, None, document_ids([[6, 10], [5, 11]]), CPU)
    assert [(start, stop, first) for start, stop, first, _ in mask.blocks] == [
        (0, 4, 0),
        (4, 8, 0),
        (8, 12, 5),
        (12, 16, 5),
    ]
    windowed = mask_of(16, 3, None, CPU)
    assert [first for _, _, first, _ in windowed.blocks] == [0, 2, 6, 10]
