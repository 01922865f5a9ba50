"""Windows compared with the reference, sums with brute force, and the ratio's standard error."""

import gzip
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from catwalk.config import RunConfig
from catwalk.evaluate import run
from catwalk.formats.contract import read_rows
from catwalk.formats.document import document_files, read_documents
from catwalk.formats.results import read_document_scores, read_results
from catwalk.perplexity import Windowing, domain_rows, windows
from catwalk.statistics import ratio_stderr
from catwalk.types import DocumentScore
from catwalk.verify import verify
from hypothesis import given
from hypothesis import strategies as st
from reference import BruteForce

Build = Callable[[str], Path]
_PREFIX = 99


def _shown(length: int, windowing: str) -> list[tuple[list[int], list[int]]]:
    requests = windows(list(range(length)), _PREFIX, 10, windowing)
    return [(list(request.context), list(request.continuation)) for request in requests]


def test_reference_windows_match_paloma() -> None:
    # 34 tokens in windows of 10: the example in lm-evaluation-harness, with disjoint windows
    assert _shown(34, "paloma-reference") == [
        ([_PREFIX], list(range(10))),
        ([9], list(range(10, 20))),
        ([19], list(range(20, 30))),
        ([23, 24, 25, 26, 27, 28, 29], [30, 31, 32, 33]),
    ]


def test_strict_windows_share_nothing() -> None:
    assert _shown(34, "strict-disjoint")[-1] == ([29], [30, 31, 32, 33])
    assert _shown(34, "strict-disjoint")[:-1] == _shown(34, "paloma-reference")[:-1]


@pytest.mark.parametrize("length", [1, 9, 10, 20])
def test_windowings_agree_if_the_last_window_is_full(length: int) -> None:
    assert _shown(length, "strict-disjoint") == _shown(length, "paloma-reference")


def _reference_protocol(tokens: list[int], max_length: int) -> list[tuple[list[int], list[int]]]:
    """Paloma's reference, step by step: rolling windows of inputs and targets, made disjoint afterwards."""
    first = min(max_length, len(tokens))
    rolling = [([_PREFIX, *tokens[: first - 1]], tokens[:first])]
    done = first
    while done < len(tokens):
        size = min(len(tokens) - done, max_length)
        end = done + size
        rolling.append((tokens[max(0, end - max_length - 1) : end - 1], tokens[end - size : end]))
        done = end
    return [(inputs[: len(inputs) - (len(targets) - 1)], targets) for inputs, targets in rolling]


@pytest.mark.parametrize("max_length", [1, 2, 5, 10, 16])
def test_reference_windows_match_the_protocol(max_length: int) -> None:
    for length in range(1, 5 * max_length + 3):
        tokens = list(range(length))
        requests = windows(tokens, _PREFIX, max_length, "paloma-reference")
        found = [(list(request.context), list(request.continuation)) for request in requests]
        assert found == _reference_protocol(tokens, max_length)


@pytest.mark.parametrize(
    ("length", "reference", "strict"),
    [
        (1, [(1, 1)], [(1, 1)]),
        (2048, [(1, 2048)], [(1, 2048)]),
        (2049, [(1, 2048), (2048, 1)], [(1, 2048), (1, 1)]),
        (4096, [(1, 2048), (1, 2048)], [(1, 2048), (1, 2048)]),
        (5000, [(1, 2048), (1, 2048), (1145, 904)], [(1, 2048), (1, 2048), (1, 904)]),
    ],
)
def test_windows_of_2048_tokens(length: int, reference: list[tuple[int, int]], strict: list[tuple[int, int]]) -> None:
    """Lengths of context and continuation at the length of Paloma's published numbers."""
    for windowing, expected in (("paloma-reference", reference), ("strict-disjoint", strict)):
        requests = windows(list(range(length)), _PREFIX, 2048, windowing)
        assert [(len(request.context), len(request.continuation)) for request in requests] == expected


def test_windows_match_lm_eval() -> None:
    utilities = pytest.importorskip("lm_eval.utils")
    for length in (1, 9, 10, 11, 34, 40, 41):
        rolling = utilities.get_rolling_token_windows(
            token_list=list(range(length)), prefix_token=_PREFIX, max_seq_len=10, context_len=1
        )
        expected = [tuple(map(list, utilities.make_disjoint_window(pair))) for pair in rolling]
        assert _shown(length, "paloma-reference") == expected


@given(st.integers(0, 200), st.integers(1, 40), st.sampled_from(get_args(Windowing)))
def test_every_token_is_scored_once_and_fits(length: int, window: int, windowing: Windowing) -> None:
    requests = windows(list(range(length)), _PREFIX, window, windowing)
    assert [token for request in requests for token in request.continuation] == list(range(length))
    for request in requests:
        assert 1 <= len(request.context) + len(request.continuation) - 1 <= window
        first = request.continuation[0]
        assert request.context[-1] == (first - 1 if first else _PREFIX)


@pytest.mark.parametrize(
    ("windowing", "prefix", "kind"),
    [("paloma-reference", "eos", "olmo"), ("strict-disjoint", "bos", "olmo2"), ("strict-disjoint", "eos", "gpt2")],
)
def test_sums_equal_brute_force(
    build_checkpoint: Build, documents_directory: Path, tmp_path: Path, windowing: str, prefix: str, kind: str
) -> None:
    model = build_checkpoint(kind)
    run(
        RunConfig(
            model=model,
            output_dir=tmp_path / "out",
            documents=(documents_directory,),
            max_length_tokens=64,
            windowing=windowing,
            prefix=prefix,
            device="cpu",
        )
    )
    brute = BruteForce(model)
    documents = list(read_documents(document_files(documents_directory)))
    rows = list(read_document_scores(tmp_path / "out"))
    assert [row["id"] for row in rows] == [one.id for one in documents]
    for one, row in zip(documents, rows, strict=True):
        nll = brute.document(one.text, {"eos": 0, "bos": 1}[prefix], 64, windowing)
        assert row["nll_nats"] == pytest.approx(nll, rel=1e-5, abs=1e-4)
        assert row["tokens"] == len(brute.ids(one.text))
        assert row["bytes"] == len(one.text.encode())
        assert row["chars"] == len(one.text)
        assert row["words"] == len(one.text.split())
    assert max(row["tokens"] for row in rows) > 3 * 64
    domains = read_results(tmp_path / "out")["perplexity"]
    assert [(domain["source"], domain["subdomain"], domain["documents"]) for domain in domains] == [
        ("code", "", 1),
        ("prose", "marks", 2),
        ("prose", "rivers", 2),
    ]
    for domain in domains:
        own = [row for row in rows if (row["source"], row["subdomain"]) == (domain["source"], domain["subdomain"])]
        assert domain["nll_nats"] == pytest.approx(sum(row["nll_nats"] for row in own), rel=1e-9)
        assert domain["bytes"] == sum(row["bytes"] for row in own)
        bits = domain["nll_nats"] / (domain["bytes"] * math.log(2))
        assert domain["bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-9)
    assert domains[0]["bits_per_byte"]["stderr"] is None


def test_losses_by_token_id_equal_brute_force(
    build_checkpoint: Build, documents_directory: Path, tmp_path: Path
) -> None:
    model = build_checkpoint("olmo")
    config = RunConfig(
        model=model,
        output_dir=tmp_path / "out",
        documents=(documents_directory,),
        max_length_tokens=64,
        windowing="paloma-reference",
        prefix="eos",
        device="cpu",
        token_losses=True,
    )
    run(config)
    run(replace(config, output_dir=tmp_path / "without", token_losses=False))
    assert not (tmp_path / "without" / "types.jsonl.gz").exists()
    for name in ("results.json", "perplexity.jsonl.gz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    brute = BruteForce(model)
    expected: dict[tuple[str, str], dict[int, list[float]]] = {}
    for document in read_documents(document_files(documents_directory)):
        sums = expected.setdefault((document.source, document.subdomain), {})
        tokens = brute.ids(document.text)
        values = brute.token_losses(document.text, 0, 64, "paloma-reference")
        for token, value in zip(tokens, values, strict=True):
            sums.setdefault(token, []).append(value)
    rows = [row for _, row in read_rows(tmp_path / "out" / "types.jsonl.gz")]
    assert [(row["source"], row["subdomain"]) for row in rows] == sorted(expected)
    for row in rows:
        found = expected[row["source"], row["subdomain"]]
        assert row["tokens"] == sorted(found)
        assert row["counts"] == [len(found[token]) for token in row["tokens"]]
        assert row["nll_nats"] == pytest.approx([sum(found[token]) for token in row["tokens"]], rel=1e-4, abs=1e-4)
    assert list(verify([tmp_path / "out"])) == []
    rows[0]["counts"][0] += 1
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "out" / "types.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "out" / "manifest.json").unlink()
    assert any(line.endswith(f"expected {sum(rows[0]['counts']) - 1}") for line in verify([tmp_path / "out"]))


def _score(nll_nats: float, size: int, id: str = "x") -> DocumentScore:
    return DocumentScore(
        source="s", subdomain="", id=id, tokens=size, bytes=size, chars=size, words=1, nll_nats=nll_nats
    )


def test_domain_of_empty_texts_has_no_ratio() -> None:
    (row,) = domain_rows([_score(0.0, 0), _score(0.0, 0)])
    assert row["bits_per_byte"] == {"value": None, "stderr": None, "n": 2}


def test_ratio_stderr_matches_the_spread_of_repeated_samples() -> None:
    draw = random.Random(5)

    def sample() -> tuple[list[float], list[float]]:
        sizes = [float(draw.randint(50, 500)) for _ in range(200)]
        return [size * draw.gauss(1.2, 0.3) for size in sizes], sizes

    ratios, stderrs = [], []
    for _ in range(400):
        numerators, sizes = sample()
        ratios.append(sum(numerators) / sum(sizes))
        stderrs.append(ratio_stderr(numerators, sizes) or 0.0)
    mean = sum(ratios) / len(ratios)
    spread = math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1))
    # 400 repetitions estimate a spread to within 3.5 %
    assert sum(stderrs) / len(stderrs) == pytest.approx(spread, rel=0.12)


def test_ratio_stderr_needs_two_documents() -> None:
    assert ratio_stderr([1.0], [2.0]) is None
    assert ratio_stderr([1.0, 1.0], [0.0, 0.0]) is None
    assert ratio_stderr([2.0, 4.0], [1.0, 2.0]) == 0.0
