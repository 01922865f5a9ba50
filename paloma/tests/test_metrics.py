"""Every formula compared with numbers computed by hand, and the identities between formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paloma.formats.results import Domain
from paloma.metrics import (
    bits_per_byte,
    frontier,
    log_perplexity,
    macro,
    perplexity,
    pooled,
    summarize,
    summarize_domain,
)

LN2 = math.log(2)


def make(nll: float, tokens: int, size: int, stderr: float | None = None, documents: int = 3) -> Domain:
    return Domain(
        source="s",
        subdomain="d",
        documents=documents,
        tokens=tokens,
        bytes=size,
        chars=size,
        words=max(size // 5, 1),
        nll_nats=nll,
        bits_per_byte_stderr=stderr,
    )


def test_two_domains_by_hand() -> None:
    # 8 ln 2 nats over 4 tokens and 16 bytes: 2 bits per token, perplexity 4, half a bit per byte
    # 12 ln 2 nats over 4 tokens and 8 bytes: 3 bits per token, perplexity 8, 1.5 bits per byte
    domains = [make(8 * LN2, 4, 16, 0.03), make(12 * LN2, 4, 8, 0.06)]
    assert [perplexity(d.nll_nats, d.tokens) for d in domains] == pytest.approx([4.0, 8.0])
    assert [bits_per_byte(d.nll_nats, d.bytes) for d in domains] == pytest.approx([0.5, 1.5])
    found = summarize(domains)
    assert found["macro"]["perplexity"]["value"] == pytest.approx(6.0)
    assert found["pooled"]["perplexity"]["value"] == pytest.approx(2**2.5)  # 20 bits over 8 tokens
    assert found["macro"]["bits_per_byte"]["value"] == pytest.approx(1.0)
    assert found["pooled"]["bits_per_byte"]["value"] == pytest.approx(20 / 24)
    assert found["macro"]["log_perplexity"]["value"] == pytest.approx(2.5 * LN2)
    assert found["median"]["perplexity"] == pytest.approx(6.0)
    # macro: sqrt(0.03² + 0.06²) / 2; pooled: weights 2/3 and 1/3, so sqrt(0.02² + 0.02²)
    assert found["macro"]["bits_per_byte"]["stderr"] == pytest.approx(math.sqrt(0.0045) / 2)
    assert found["pooled"]["bits_per_byte"]["stderr"] == pytest.approx(math.sqrt(0.0008))
    # bits per token are 4 and 2 times bits per byte
    assert found["macro"]["log_perplexity"]["stderr"] == pytest.approx(LN2 * math.hypot(0.12, 0.12) / 2)
    assert found["macro"]["perplexity"]["stderr"] == pytest.approx(LN2 * math.hypot(4 * 0.12, 8 * 0.12) / 2)
    assert found["domains"] == found["macro"]["bits_per_byte"]["n"] == 2
    assert found["pooled"]["bits_per_byte"]["n"] == found["documents"] == 6


def test_mean_of_one_domain_is_its_value() -> None:
    one = make(30.0, 11, 45, 0.2)
    value = summarize_domain(one)
    for mean in (pooled, macro):
        for metric in ("bits_per_byte", "perplexity", "log_perplexity"):
            estimate = mean([one], metric)
            assert estimate.value == pytest.approx(value[metric]["value"])
            assert estimate.stderr == pytest.approx(value[metric]["stderr"])
    assert value["perplexity_per_word"] == pytest.approx(math.exp(30 / 9))
    assert value["perplexity_per_char"] == pytest.approx(math.exp(30 / 45))


def test_domains_of_one_document_form_a_stratum() -> None:
    # two texts of 10 bytes with 10 and 14 bits: ratio 1.2, residuals ∓2 bits
    single = [make(10 * LN2, 5, 10, None, 1), make(14 * LN2, 5, 10, None, 1)]
    assert pooled(single, "bits_per_byte").stderr == pytest.approx(math.sqrt(2 * (4 + 4)) / 20)
    assert macro(single, "bits_per_byte").stderr == pytest.approx(math.sqrt(2 * 0.08) / 2)  # variance of 1.0 and 1.4
    # equal sizes: the ratio and the mean are the same estimator
    assert pooled(single, "bits_per_byte").stderr == pytest.approx(macro(single, "bits_per_byte").stderr)
    with_other = [*single, make(12 * LN2, 5, 20, 0.1)]
    assert pooled(with_other, "bits_per_byte").stderr == pytest.approx(math.sqrt(0.05**2 + 16 / 40**2))
    assert pooled([make(1.0, 1, 1), make(1.0, 1, 1, 0.5)], "bits_per_byte").stderr is None
    assert macro([make(1.0, 1, 1), make(1.0, 1, 1, 0.5)], "perplexity").stderr is None


def test_pooled_error_of_single_documents_matches_the_delta_method() -> None:
    # the same documents as one domain: what catwalk would have written as stderr
    sizes, bits = [10, 25, 40, 5], [12.0, 20.0, 50.0, 9.0]
    ratio = sum(bits) / sum(sizes)
    squares = sum((b - ratio * s) ** 2 for b, s in zip(bits, sizes, strict=True))
    expected = math.sqrt(4 / 3 * squares) / sum(sizes)
    found = pooled([make(b * LN2, 3, s, None, 1) for b, s in zip(bits, sizes, strict=True)], "bits_per_byte")
    assert found.value == pytest.approx(ratio)
    assert found.stderr == pytest.approx(expected)


def test_metrics_without_bytes_or_tokens_are_none() -> None:
    assert bits_per_byte(1.0, 0) is None
    assert log_perplexity(1.0, 0) is None
    assert perplexity(1.0, 0) is None
    empty = make(2.0, 1, 0)
    assert macro([empty], "bits_per_byte").value is None
    assert summarize([empty, make(8 * LN2, 4, 16, 0.1)])["macro"]["bits_per_byte"]["n"] == 1


def test_perplexity_that_overflows_is_capped() -> None:
    assert perplexity(1e6, 10) == 1e30
    huge = summarize_domain(make(1e6, 10, 10, 0.1))["perplexity"]
    assert huge == {"value": 1e30, "stderr": None, "n": 3}


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.integers(1, 10**6), st.integers(1, 10**7)), min_size=1, max_size=30))
def test_pooled_is_the_metric_of_the_sums(sums: list[tuple[float, int, int]]) -> None:
    domains = [make(nll, tokens, size, 0.01) for nll, tokens, size in sums]
    nll, tokens, size = math.fsum(s[0] for s in sums), sum(s[1] for s in sums), sum(s[2] for s in sums)
    assert pooled(domains, "bits_per_byte").value == pytest.approx(nll / size / LN2, rel=1e-12)
    assert pooled(domains, "perplexity").value == perplexity(nll, tokens)
    values = [bits_per_byte(d.nll_nats, d.bytes) or 0.0 for d in domains]
    mean = macro(domains, "bits_per_byte").value
    assert mean is not None
    assert min(values) <= mean * (1 + 1e-9)
    assert mean <= max(values) * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_frontier_is_never_empty_and_no_member_is_dominated(points: list[tuple[int, int]]) -> None:
    flags = frontier([(float(a), float(b)) for a, b in points])
    assert any(flags)
    for (a, b), efficient in zip(points, flags, strict=True):
        beaten = [p for p in points if p[0] <= a and p[1] <= b and p != (a, b)]
        assert efficient == (not beaten)
