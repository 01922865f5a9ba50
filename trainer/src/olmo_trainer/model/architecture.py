"""A model's shape with nothing left open, and what the three families mean in its terms."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.schema import ModelConfig

__all__ = ["Architecture", "architecture_of"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that decides the forward pass."""

    family: str
    width: int
    inner_width: int
    layers: int
    heads: int
    key_value_heads: int
    embedding_rows: int
    tied: bool
    rope_theta: float
    norm_eps: float
    norm: str
    norm_after: bool
    """Norms act on what attention and MLP return (OLMo-2), not on what they are given."""
    qk_norm: bool
    clip_qkv: float | None

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads


_THETA = {"olmo": 1e4, "olmo2": 5e5, "llama": 1e4}  # arXiv 2402.00838, 2501.00656, 2307.09288
_EPS = {"olmo": 1e-5, "olmo2": 1e-6, "llama": 1e-5}


def architecture_of(model: ModelConfig, vocab_size: int) -> Architecture:
    """Fill in what the config leaves to the family and the tokenizer."""
    multiple = model.vocab_multiple
    return Architecture(
        family=model.family,
        width=model.hidden_size,
        inner_width=model.intermediate_size,
        layers=model.num_hidden_layers,
        heads=model.num_attention_heads,
        key_value_heads=model.num_key_value_heads or model.num_attention_heads,
        embedding_rows=model.embedding_size or -(-vocab_size // multiple) * multiple,
        tied=model.tie_word_embeddings,
        rope_theta=model.rope_theta or _THETA[model.family],
        norm_eps=model.norm_eps or _EPS[model.family],
        norm="layer_norm" if model.family == "olmo" else "rms_norm",
        norm_after=model.family == "olmo2",
        qk_norm=model.family == "olmo2",
        clip_qkv=model.clip_qkv,
    )
