"""Every number derived from the sums of results: perplexities, bits per byte, means over domains, standard errors.

Symbols: a domain d has N_d = nll_nats, T_d tokens, B_d bytes.

- perplexity = exp(N/T); bits per byte = N / (B ln 2). Source: Paloma (arXiv:2312.10523), the section on metrics.
- pooled: the sums of all domains as one; macro: the mean over domains of the domains' own values; median likewise.

Standard errors. `results` has that of each domain's bits per byte, s_d: of the ratio over its documents, by the delta
method. Domains are strata, fixed by the benchmark, so only documents are sampled:

- pooled bits per byte is Σ w_d b_d with w_d = B_d / Σ B, held fixed: its variance is Σ w_d² s_d²;
- macro bits per byte is Σ b_d / D: its variance is Σ s_d² / D²;
- ln perplexity of a domain is b_d · ln 2 · B_d / T_d, its bytes per token held fixed: s_d scaled by the same factor;
  the perplexity's is that times the perplexity. Means over domains follow as above, from the domains' own errors.
- a domain of one document has no s_d. Such domains of a group are treated as one stratum, each as a document of it
  ("collapsed strata": Cochran, Sampling Techniques, 3rd ed. 1977, section 5A.12), which is conservative: the difference
  between domains counts as sampling error. With exactly one such domain there is no standard error.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paloma.formats.results import Domain

__all__ = [
    "LARGEST",
    "Estimate",
    "bits_per_byte",
    "frontier",
    "log_perplexity",
    "macro",
    "perplexity",
    "pooled",
    "summarize",
    "summarize_domain",
]

_METRICS = ("bits_per_byte", "perplexity", "log_perplexity")
LARGEST = 1e30  # what Paloma's reference code writes for a perplexity that overflows


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its standard error if there is one, and the number of things it is a mean of."""

    value: float | None
    stderr: float | None
    n: int


def bits_per_byte(nll_nats: float, size_bytes: int) -> float | None:
    """−log₂ p of a text over its UTF-8 bytes; None without bytes."""
    return nll_nats / (size_bytes * math.log(2)) if size_bytes else None


def log_perplexity(nll_nats: float, tokens: int) -> float | None:
    """Nats per token; None without tokens."""
    return nll_nats / tokens if tokens else None


def perplexity(nll_nats: float, units: int) -> float | None:
    """exp(nats per unit), at most 1e30; None without units."""
    mean = log_perplexity(nll_nats, units)
    if mean is None:
        return None
    return math.exp(mean) if mean < math.log(LARGEST) else LARGEST


def _perplexity_estimate(metric: str, nll_nats: float, tokens: int, log_stderr: float | None, n: int) -> Estimate:
    """`log_perplexity` or `perplexity`, from the standard error of the former."""
    if metric == "log_perplexity":
        return Estimate(log_perplexity(nll_nats, tokens), log_stderr, n)
    value = perplexity(nll_nats, tokens)
    capped = value is None or value >= LARGEST
    return Estimate(value, None if log_stderr is None or capped else log_stderr * (value or 0.0), n)


def _of_domain(domain: Domain, metric: str) -> Estimate:
    error = domain.bits_per_byte_stderr
    if metric == "bits_per_byte":
        return Estimate(bits_per_byte(domain.nll_nats, domain.bytes), error, domain.documents)
    error = None if error is None or not domain.tokens else error * math.log(2) * domain.bytes / domain.tokens
    return _perplexity_estimate(metric, domain.nll_nats, domain.tokens, error, domain.documents)


def macro(domains: Sequence[Domain], metric: str) -> Estimate:
    """Mean over domains of `bits_per_byte`, `perplexity` or `log_perplexity`; domains without a value are skipped."""
    estimates = [_of_domain(d, metric) for d in domains]
    pairs = [(one.value, one.stderr) for one in estimates if one.value is not None]
    count = len(pairs)
    if not count:
        return Estimate(None, None, 0)
    known = [error**2 for _, error in pairs if error is not None]
    single = [value for value, error in pairs if error is None]
    mean = sum(value for value, _ in pairs) / count
    if len(single) == 1:
        return Estimate(mean, None, count)
    collapsed = len(single) * statistics.variance(single) if single else 0.0
    return Estimate(mean, math.sqrt(sum(known) + collapsed) / count, count)


def pooled(domains: Sequence[Domain], metric: str) -> Estimate:
    """A metric of all domains as one text; `n` counts documents."""
    nll = math.fsum(d.nll_nats for d in domains)
    tokens, size_bytes = sum(d.tokens for d in domains), sum(d.bytes for d in domains)
    documents = sum(d.documents for d in domains)
    error = _pooled_byte_stderr([d for d in domains if d.bytes], size_bytes)
    if metric == "bits_per_byte":
        return Estimate(bits_per_byte(nll, size_bytes), error, documents)
    if error is not None and tokens:
        error *= math.log(2) * size_bytes / tokens
    return _perplexity_estimate(metric, nll, tokens, error, documents)


def _pooled_byte_stderr(domains: Sequence[Domain], size_bytes: int) -> float | None:
    """Of Σ nll / (Σ bytes · ln 2), weights held fixed."""
    known = [(d.bytes, d.bits_per_byte_stderr) for d in domains if d.bits_per_byte_stderr is not None]
    single = [d for d in domains if d.bits_per_byte_stderr is None]
    if not size_bytes or len(single) == 1:
        return None
    variance = sum((count / size_bytes * error) ** 2 for count, error in known)
    if single:
        # the ratio over the stratum's documents by the delta method: residuals nll_i − r · bytes_i
        ratio = sum(d.nll_nats for d in single) / sum(d.bytes for d in single)
        squares = sum((d.nll_nats - ratio * d.bytes) ** 2 for d in single)
        variance += len(single) / (len(single) - 1) * squares / (size_bytes * math.log(2)) ** 2
    return math.sqrt(variance)


def summarize_domain(domain: Domain) -> dict[str, Any]:
    """All metrics of one domain, with its sums."""
    return {
        **_sums([domain]),
        **{name: asdict(_of_domain(domain, name)) for name in _METRICS},
        "perplexity_per_word": perplexity(domain.nll_nats, domain.words),
        "perplexity_per_char": perplexity(domain.nll_nats, domain.chars),
    }


def _sums(domains: Sequence[Domain]) -> dict[str, Any]:
    sums = {name: sum(getattr(d, name) for d in domains) for name in ("documents", "tokens", "bytes", "chars", "words")}
    return sums | {"nll_nats": math.fsum(d.nll_nats for d in domains)}


def summarize(domains: Sequence[Domain]) -> dict[str, Any]:
    """All metrics of a group of domains, pooled, macro and median, with its sums."""
    return {
        "domains": len(domains),
        **_sums(domains),
        "pooled": {name: asdict(pooled(domains, name)) for name in _METRICS},
        "macro": {name: asdict(macro(domains, name)) for name in _METRICS},
        "median": {name: _median([_of_domain(d, name).value for d in domains]) for name in _METRICS},
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of the points (cost, loss) are efficient: no other is at most as large in both and smaller in one."""
    return [not any(a <= cost and b <= loss and (a < cost or b < loss) for a, b in points) for cost, loss in points]
