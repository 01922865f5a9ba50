"""The timed commands and their targets, which are multiples of the speed of dolma 1.2.1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inputs import Input

__all__ = [
    "DECONTAMINATION_RULES",
    "IN_PROCESS",
    "NEED_SHARED_DATA",
    "QUALITY_TAGGERS",
    "RULES",
    "SCALING",
    "TOKENIZERS",
    "WORKS",
    "InProcess",
    "Work",
    "whole_run",
]

RULES = ("gopher_v2", "c4_v2")
TEXT_TAGGERS = (*RULES, "repetitions_v1", "pii_regex_with_counts_fast_v2")
QUALITY_TAGGERS = (*TEXT_TAGGERS, "ft_lang_id_1e2")
DECONTAMINATION_RULES = ("ngrams", "tokens", "characters", "paragraphs")
TOKENIZERS = Path(os.environ["SHARED_DATA"], "tokenizers") if "SHARED_DATA" in os.environ else None

# Thresholds of Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020, section 2.2), ten of them
THRESHOLDS = (
    ("gopher_v2__word_count", "< 50"),
    ("gopher_v2__word_count", "> 100000"),
    ("gopher_v2__median_word_length", "< 3"),
    ("gopher_v2__symbol_to_word_ratio", "> 0.1"),
    ("gopher_v2__fraction_of_words_with_alpha_character", "< 0.8"),
    ("gopher_v2__required_word_count", "< 2"),
    ("gopher_v2__fraction_of_lines_starting_with_bullet_point", "> 0.9"),
    ("gopher_v2__fraction_of_lines_ending_with_ellipsis", "> 0.3"),
    ("gopher_v2__fraction_of_duplicate_lines", "> 0.3"),
    ("c4_v2__line_count", "< 3"),
)


@dataclass(frozen=True)
class Work:
    """One row of the table: a command of both tools."""

    name: str
    arguments: Callable[[Input, Path], list[str]]
    """of the input and of an empty folder for outputs"""
    expected_mb_s: float
    """of dolma 1.2.1 on one core; it is given as much input as it should read in a few seconds"""
    bar: float
    """how many times as fast as dolma 1.2.1 this should be"""


@dataclass(frozen=True)
class InProcess:
    """One row of the table: only a tagger, without files."""

    name: str
    tagger: str
    expected_mb_s: float
    bar: float


def tagged(*taggers: str) -> Callable[[Input, Path], list[str]]:
    """`dolma tag`."""
    return lambda given, out: [
        *["tag", "--documents", given.pattern, "--taggers", *taggers, "--experiment", out.name],
    ]


def deduped(*settings: str) -> Callable[[Input, Path], list[str]]:
    """`dolma dedupe` with a filter for four million keys per hundred megabytes, and a million at least.

    With fewer, dolma 1.2.1 hashes each key so often that one document takes more than its start-up.
    """
    return lambda given, out: [
        *["dedupe", "--documents", given.pattern, "--dedupe.name", out.name],
        *["--dedupe.paragraphs.attribute_name", "duplicate", *settings, "--no-bloom_filter.read_only"],
        *["--bloom_filter.file", f"{out}/filter.bin", "--bloom_filter.desired_false_positive_rate", "1e-5"],
        *["--bloom_filter.estimated_doc_count", str(max(1_000_000, int(given.text_mb * 40_000)))],
    ]


def mixed(syntax: str, shard_bytes: int = 10**12) -> Callable[[Input, Path], list[str]]:
    """`dolma mix` with ten rules over the attributes `rules` of the documents, to shards of so many bytes."""

    def rule(key: str, comparison: str) -> str:
        if syntax == "jq":
            return f".attributes.rules__{key}[0][2] {comparison}"
        return f"$.attributes[?(@.rules__{key} && @.rules__{key}[0] && @.rules__{key}[0][2] {comparison})]"

    def arguments(given: Input, out: Path) -> list[str]:
        exclude = [rule(key, comparison) for key, comparison in THRESHOLDS]
        stream = {
            "name": "mixed",
            "documents": [given.pattern],
            "attributes": ["rules"],
            "filter": {"syntax": syntax, "include": [], "exclude": exclude},
            "output": {"path": f"{out}/documents", "max_size_in_bytes": shard_bytes},
        }
        path = out / "mix.json"
        path.write_text(json.dumps({"streams": [stream], "processes": 1}), encoding="utf-8")
        return ["-c", str(path), "mix"]

    return arguments


def tokenized(name: str, eos: int) -> Callable[[Input, Path], list[str]]:
    """`dolma tokens` with a published tokenizer, which SHARED_DATA has to contain."""
    return lambda given, out: [
        *["tokens", "--documents", given.pattern, "--destination", f"{out}/tokens"],
        *["--tokenizer.name_or_path", f"{TOKENIZERS}/allenai_{name}.json", "--tokenizer.eos_token_id", str(eos)],
        *["--dtype", "uint32" if name == "dolma2" else "uint16"],
    ]


def whole_run(given: Input, out: Path, *, lazy: bool = False) -> list[str]:
    """`dolma run`: every quality rule, PII and the language; paragraph dedupe; ten rules; tokens."""
    exclude = [
        f"$.attributes[?(@.rules__{key} && @.rules__{key}[0][2] {comparison})]" for key, comparison in THRESHOLDS
    ]
    keys = max(10_000, int(given.text_mb * 40_000))
    bloom_filter = {"file": f"{out}/filter.bin", "estimated_doc_count": keys, "desired_false_positive_rate": 1e-5}
    stream = {
        "name": "mixed",
        "attributes": ["rules", "duplicate"],
        "filter": {"exclude": exclude},
        "span_replacement": [{"span": "$.attributes.duplicate", "min_score": 0.5}],
        "output": {"path": f"{out}/documents", "max_size_in_bytes": 10**12},
    }
    tokenizer = {"name_or_path": f"{TOKENIZERS}/allenai_dolma2.json", "eos_token_id": 100257}
    stages = [
        {"tag": {"taggers": list(QUALITY_TAGGERS), "experiment": "rules"}},
        {"dedupe": {"dedupe": {"paragraphs": {"attribute_name": "duplicate"}}, "bloom_filter": bloom_filter}},
        {"mix": {"streams": [stream]}},
        {"tokens": {"destination": f"{out}/tokens", "dtype": "uint32", "tokenizer": tokenizer}},
    ]
    path = out / "run.json"
    path.write_text(json.dumps({"documents": [given.pattern], "stages": stages, "lazy": lazy}), encoding="utf-8")
    return ["run", str(path)]


NGRAMS = "--dedupe.paragraphs.by_ngram."
TOKENS = (
    Work("tokens GPT-NeoX", tokenized("gpt-neox-olmo-dolma-v1_5", 0), 1.5, 15),
    Work("tokens dolma2", tokenized("dolma2", 100257), 1.5, 15),
)
WORKS = (
    Work("tag gopher_v2 + c4_v2", tagged(*RULES), 1.0, 40),
    Work("tag gopher_v2 + c4_v2 + repetitions_v1 + PII", tagged(*TEXT_TAGGERS), 0.08, 0),
    Work("tag repetitions_v1", tagged("repetitions_v1"), 0.09, 200),
    Work("tag uniseg_length_paragraphs_v1", tagged("uniseg_length_paragraphs_v1"), 0.12, 200),
    Work("dedupe paragraphs", deduped(), 15.5, 4),
    Work(
        "dedupe 13-grams",
        deduped(f"{NGRAMS}ngram_length", "13", f"{NGRAMS}overlap_threshold", "0.8"),
        3.6,
        10,
    ),
    Work("mix 10 jsonpath rules", mixed("jsonpath"), 4.8, 10),
    Work("mix 10 jq rules", mixed("jq"), 8.3, 6),
    *(TOKENS if TOKENIZERS else ()),
)
NEED_SHARED_DATA = (
    ()
    if TOKENIZERS
    else (
        *(work.name for work in TOKENS),
        *("whole path", "whole path, one run", "whole path, lazy", "encoders"),
        *(f"decontaminate {rule}" for rule in DECONTAMINATION_RULES),
    )
)
"""Rows that cannot be measured because `SHARED_DATA` is not set."""
SCALING = (
    WORKS[0],
    *(work for work in WORKS if work.name in ("dedupe paragraphs", "dedupe 13-grams", "tokens dolma2")),
    Work("mix 10 jsonpath rules, a shard for each file", mixed("jsonpath", 1), 4.8, 0),
)
"""What is run with one process and with two."""
IN_PROCESS = (
    InProcess("pii_regex_with_counts_fast_v2, in process", "pii_regex_with_counts_fast_v2", 31, 3),
    InProcess("fastText language ID, in process", "ft_lang_id_doc_v1", 4, 2),
)
