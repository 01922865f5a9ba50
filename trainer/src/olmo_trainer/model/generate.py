"""Text from a model: the prompt is read in chunks into a cache (cache.py), then tokens are chosen one at a time.

B batch, T time, V embedding rows.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from .transformer import LayerCache, Transformer, new_cache

__all__ = ["generate"]


@torch.no_grad()
def read_on(model: Transformer, tokens_BT: torch.Tensor, caches: list[LayerCache], chunk: int = 512) -> torch.Tensor:
    """Add tokens to the caches, `chunk` at a time; returns the logits after the last token (B, V), float32."""
    for part_BT in tokens_BT.split(chunk, dim=1):  # type: ignore[no-untyped-call]
        hidden_BTD = model(part_BT, caches=caches)
    return F.linear(hidden_BTD[:, -1], model.output_weight.to(hidden_BTD.dtype)).float()


def choose(logits_BV: torch.Tensor, temperature: float, top_p: float, draw: torch.Generator) -> torch.Tensor:
    """The next token of each text (B).

    At temperature 0 the most likely one; else sampled from the most likely tokens with a total probability of `top_p`
    (arXiv 1904.09751), including the one that crosses it.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    probabilities_BV = (logits_BV / temperature).softmax(dim=-1).cpu()
    sorted_BV, tokens_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    drawn_B1 = torch.multinomial(sorted_BV.masked_fill(before_BV >= top_p, 0.0), 1, generator=draw)
    return tokens_BV.gather(1, drawn_B1)[:, 0].to(logits_BV.device)


def generate(
    model: Transformer,
    prompt_BT: torch.Tensor,
    new_tokens: int,
    *,
    vocabulary: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    chunk: int = 512,
) -> Iterator[torch.Tensor]:
    """Yield the next token of every text (B), up to `new_tokens` times; the caller may stop earlier.

    Args:
        vocabulary: size of the tokenizer; embedding rows beyond it are padding and are never chosen.
        chunk: prompt tokens processed at a time; more is faster, fewer need less memory.
    """
    batch, length = prompt_BT.shape
    caches = new_cache(model.shape, batch, length + new_tokens, model.compute_dtype, prompt_BT.device)
    draw, tokens_BT = torch.Generator().manual_seed(seed), prompt_BT
    for _ in range(new_tokens):
        logits_BV = read_on(model, tokens_BT, caches, chunk)
        chosen_B = choose(logits_BV[:, :vocabulary], temperature, top_p, draw)
        yield chosen_B
        tokens_BT = chosen_B[:, None]
