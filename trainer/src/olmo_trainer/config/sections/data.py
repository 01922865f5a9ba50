"""What is trained on. Plain data: no defaults are worked out here, no files are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .findings import Finding, at_most, more_than_zero, zero_or_more

__all__ = ["DataConfig", "InstanceFilterConfig", "LoaderConfig", "SourceConfig", "TokenDtype", "problems"]

TokenDtype = Literal["uint8", "uint16", "uint32"]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One directory of token shards."""

    path: str
    """The directory."""
    ratio: float | None = None
    """Share of the training tokens; for all sources or for none (then all tokens once an epoch)."""
    max_tokens: int | None = None
    """Tokens to take of the source at most, in windows spread evenly over it; all when null."""
    max_repetition: float | None = None
    """How often the run may see the source; more is refused before it begins."""
    label_masks: str | None = None
    """Directory with a file for each shard, by the same name: a byte a token, 1 where predicting it is in the loss."""
    dtype: TokenDtype | None = None
    """Item type, for shards without manifest.json and only for them."""
    eos_token_id: int | None = None
    """Id that ends a document, for shards without manifest.json and only for them."""
    bos_token_id: int | None = None
    """Id that begins a document, for shards without manifest.json and only for them."""
    pad_token_id: int | None = None
    """Id of the padding token, for shards without manifest.json and only for them."""


@dataclass(frozen=True, kw_only=True)
class InstanceFilterConfig:
    """Windows that hold a short sequence many times in a row are left out of the loss (the values are OLMo-2's)."""

    repetition_min_period: int = 1
    """Tokens in the shortest such sequence."""
    repetition_max_period: int = 13
    """Tokens in the longest."""
    repetition_max_count: int = 32
    """So many times in a row is too often."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Reading ahead; changes no batch."""

    threads: int = 1
    """Threads that read; 0 reads when a batch is needed."""
    ahead: int = 4
    """Batches that are read before they are needed."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    sources: tuple[SourceConfig, ...]
    """Directories of token shards."""
    sequence_length: int
    """Tokens in a window; a window predicts one fewer."""
    order: Literal["seeded", "legacy"] = "seeded"
    """`legacy` is OLMo's, by seed + epoch, if its files are these: source by source, by name."""
    packing: Literal["concat", "best_fit"] = "concat"
    """`concat` cuts running documents every window; `best_fit` lays whole ones side by side and pads."""
    long_documents: Literal["fragment", "truncate"] = "fragment"
    """With `best_fit`, documents longer than a window: cut into several, or cut off."""
    document_mask: bool = False
    """Whether tokens attend to their own document alone."""
    instance_filter: InstanceFilterConfig | None = None
    """Leave repetitive windows out of the loss; `{}` for OLMo-2's values."""
    tokenizer: str | None = None
    """tokenizer.json, where the shards do not bring it."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)


def problems(data: DataConfig) -> list[Finding]:
    """What is wrong with the group `data` by itself."""
    found: list[Finding] = []
    if data.sequence_length < 2:
        found.append(("data.sequence_length", data.sequence_length, "2 or more", None))
    found += at_most(2**31, {"data.sequence_length": data.sequence_length})
    found += at_most(1024, {"data.loader.threads": data.loader.threads, "data.loader.ahead": data.loader.ahead})
    if not data.sources:
        found.append(("data.sources", "empty", "at least one directory of token shards", None))
    ratios = [source.ratio for source in data.sources]
    if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
        found.append(("data.sources", "given a ratio in part", "a ratio for every source, or for none", None))
    if data.order == "legacy" and any(ratio is not None for ratio in ratios):
        found.append(("data.order", '"legacy" beside ratios', "no ratios, which OLMo does not have", None))
    for index, source in enumerate(data.sources):
        key = f"data.sources.{index}"
        if source.ratio is not None and source.ratio <= 0:
            found.append((f"{key}.ratio", source.ratio, "more than 0", "leave the source out instead"))
        limits = {f"{key}.max_tokens": source.max_tokens, f"{key}.max_repetition": source.max_repetition}
        found += more_than_zero(limits)
        if source.max_tokens is not None and 0 < source.max_tokens < data.sequence_length:
            text = f"data.sequence_length {data.sequence_length} or more, a window"
            found.append((f"{key}.max_tokens", source.max_tokens, text, None))
    found += zero_or_more({"data.loader.threads": data.loader.threads})
    found += more_than_zero({"data.loader.ahead": data.loader.ahead})
    return found + _filter_problems(data.instance_filter)


def _filter_problems(chosen: InstanceFilterConfig | None) -> list[Finding]:
    if chosen is None:
        return []
    key = "data.instance_filter"
    found: list[Finding] = []
    if chosen.repetition_min_period < 1:
        found.append((f"{key}.repetition_min_period", chosen.repetition_min_period, "1 or more", None))
    if chosen.repetition_max_period < chosen.repetition_min_period:
        text = f"{chosen.repetition_min_period}, repetition_min_period, or more"
        found.append((f"{key}.repetition_max_period", chosen.repetition_max_period, text, None))
    if chosen.repetition_max_count < 3:
        found.append((f"{key}.repetition_max_count", chosen.repetition_max_count, "3 or more", None))
    return found
