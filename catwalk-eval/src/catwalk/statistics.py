"""Standard errors, intervals, tests and trends. Plain numbers in and out; nothing about tasks or files.

An interval is of 95 % unless it says otherwise. A test compares models on the same items: paired differences show
smaller effects than two separate intervals.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

__all__ = [
    "Z95",
    "Paired",
    "block_bootstrap",
    "cluster_sums",
    "clustered_stderr",
    "holm",
    "interval",
    "isotonic",
    "mann_kendall",
    "mcnemar_p",
    "mean_and_stderr",
    "mean_covariance",
    "minimal_detectable_effect",
    "normal_p",
    "paired_difference",
    "paired_ratio_difference",
    "ratio_stderr",
    "sign_flip_p",
    "tied_groups",
    "unpaired_difference",
    "wilson",
]

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
_Z80 = 0.8416212335729143  # one-sided 80 % point: the usual power of a study
_EXACT_FLIPS = 14  # up to 16,384 sign patterns are counted exactly


# ---- standard errors and intervals


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and s / √n with the unbiased s; no standard error for one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def ratio_stderr(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    """Standard error of Σa / Σb over documents by the delta method: √(n/(n−1) · Σ(a − R·b)²) / Σb; None for one."""
    n, total = len(numerators), math.fsum(denominators)
    if n < 2 or total == 0:
        return None
    ratio = math.fsum(numerators) / total
    squares = math.fsum((a - ratio * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    return math.sqrt(squares * n / (n - 1)) / total


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927): sensible near 0 and 1, where ± 1.96 standard errors is not."""
    square = Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(metric: str, value: float, stderr: float | None, n: int) -> tuple[float, float] | None:
    """95 % interval: Wilson for an accuracy, normal otherwise; None without a standard error.

    Items that share passages count for fewer: n is at most 1 + p(1 − p) / stderr², the number of independent items with
    this standard error (Dean and Pagano 2015). For independent items that is n itself. Without an error, or with none
    right or all right, it is n.
    """
    if metric.startswith(("acc_", "greedy_", "exact_", "pass_")) and n:
        share = min(1.0, max(0.0, value))
        independent = 1 + share * (1 - share) / stderr**2 if stderr and 0 < share < 1 else math.inf
        return wilson(share, min(n, independent))
    return None if stderr is None else (value - Z95 * stderr, value + Z95 * stderr)


# ---- two models on the same items: paired differences see smaller effects than two separate intervals


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference second − first on the same items; `p` is two-sided."""

    difference: float
    stderr: float | None
    p: float | None
    n: int


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, binary: bool, clusters: Sequence[Hashable] = ()
) -> Paired:
    """Mean difference with the standard error of the differences; McNemar's p for right-or-wrong values.

    With `clusters`, items of one cluster count as one observation: their standard error, and p from flipping the signs
    of whole clusters.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean, stderr = mean_and_stderr(differences)
    if clusters:
        stderr = clustered_stderr(differences, clusters)
        p: float | None = sign_flip_p(cluster_sums(differences, clusters))
    elif binary:
        p = mcnemar_p(sum(value < 0 for value in differences), sum(value > 0 for value in differences))
    else:
        p = _normal_p(mean, stderr)
    return Paired(difference=mean, stderr=stderr, p=p, n=len(differences))


def paired_ratio_difference(first: Sequence[float], second: Sequence[float], sizes: Sequence[float]) -> Paired:
    """Σ(second − first) / Σsizes over the same documents, standard error by the delta method."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    difference = math.fsum(differences) / math.fsum(sizes)
    stderr = ratio_stderr(differences, sizes)
    return Paired(difference=difference, stderr=stderr, p=_normal_p(difference, stderr), n=len(differences))


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar test: the chance of a split at least as uneven among the items that differ."""
    n, smaller = first_only + second_only, min(first_only, second_only)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, count) for count in range(smaller + 1))
    chance: float = 2 * tail / 2**n
    return min(1.0, chance)


def normal_p(difference: float, stderr: float, *, noise: float = 0.0) -> float:
    """Two-sided p of no difference (normal). If the error is 0, it is 1 for a difference of at most `noise`, else 0."""
    if stderr == 0:
        return float(abs(difference) <= noise)
    return math.erfc(abs(difference / stderr) / math.sqrt(2))


def _normal_p(difference: float, stderr: float | None) -> float | None:
    return None if stderr is None else normal_p(difference, stderr)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979); None stays None."""
    order = sorted((index for index, p in enumerate(ps) if p is not None), key=lambda index: ps[index] or 0.0)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (ps[index] or 0.0)))
        adjusted[index] = highest
    return adjusted


def unpaired_difference(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Mean of `second` − mean of `first` for different items: variances add (Welch). `n` is the smaller number."""
    (left, left_stderr), (right, right_stderr) = mean_and_stderr(first), mean_and_stderr(second)
    stderr = None if left_stderr is None or right_stderr is None else math.hypot(left_stderr, right_stderr)
    return Paired(
        difference=right - left, stderr=stderr, p=_normal_p(right - left, stderr), n=min(len(first), len(second))
    )


# ---- groups of items that are not independent


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Standard error of a mean whose items share passages: √(C/(C−1) · Σ_c (Σ_{i in c} (x_i − mean))²) / n.

    With a cluster for each item it is `mean_and_stderr`'s. None for one cluster.
    """
    n = len(values)
    mean = math.fsum(values) / n
    sums = cluster_sums([value - mean for value in values], clusters)
    count = len(sums)
    if count < 2:
        return None
    return math.sqrt(count / (count - 1) * math.fsum(total * total for total in sums)) / n


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """The sum of each cluster's values, in the order of first appearance."""
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    return list(sums.values())


def mean_covariance(rows: "Array", clusters: Sequence[Hashable] = ()) -> "Array":
    """Covariance of the means of several models on the same items: `[models, items]` to `[models, models]`.

    The variance of the difference of two means is v[i, i] + v[j, j] − 2 v[i, j]. Its root is `clustered_stderr` of the
    differences, or that of `mean_and_stderr` without clusters. Zeros for one item or cluster.
    """
    import numpy as np  # not for `--help`

    n = rows.shape[1]
    sums = rows - rows.mean(axis=1, keepdims=True)
    if clusters:
        numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        totals = np.zeros((len(numbers), len(rows)))
        np.add.at(totals, [numbers[cluster] for cluster in clusters], sums.T)
        sums = totals.T
    count = sums.shape[1]
    if count < 2:
        return np.zeros((len(rows), len(rows)))
    covariance: Array = sums @ sums.T * (count / (count - 1) / n**2)
    return covariance


def block_bootstrap(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0, resamples: int = 1000
) -> tuple[float, float] | None:
    """Interval of Σa / Σb, resampling whole documents, since the tokens of one document depend on each other.

    The bounds are of the basic kind, reflected about the estimate. None for one document.
    """
    import numpy as np  # not for `--help`

    n = len(numerators)
    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if n < 2 or b.sum() == 0:
        return None
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        chosen = generator.integers(0, n, n)
        below = b[chosen].sum()
        if below:
            ratios.append(a[chosen].sum() / below)
    estimate = a.sum() / b.sum()
    low, high = np.quantile(np.asarray(ratios), [0.025, 0.975])
    widen = math.sqrt(n / (n - 1))  # a resample's variance is (n−1)/n of the true one
    return float(estimate - (high - estimate) * widen), float(estimate + (estimate - low) * widen)


def sign_flip_p(differences: Sequence[float], *, seed: int = 0, resamples: int = 10_000) -> float:
    """Two-sided paired permutation test: the chance of a sum as far from 0 when each sign is random.

    Exact for up to 14 differences other than 0. Else from a sample of sign patterns, which includes the observed one,
    so that p is never 0.
    """
    import numpy as np  # not for `--help`

    values = np.asarray([value for value in differences if value], dtype=float)
    if not len(values):
        return 1.0
    observed = abs(values.sum()) * (1 - 1e-12)
    if len(values) <= _EXACT_FLIPS:
        patterns = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float((np.abs((1 - 2 * patterns) @ values) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme, done = 0, 0
    while done < resamples:
        rows = min(resamples - done, max(1, 4_000_000 // len(values)))
        signs = 1 - 2 * generator.integers(0, 2, (rows, len(values)), dtype=np.int8)
        extreme += int((np.abs(signs @ values) >= observed).sum())
        done += rows
    return (extreme + 1) / (resamples + 1)


# ---- what a benchmark can show


def minimal_detectable_effect(stderr: float) -> float:
    """The difference that a test at 5 % finds with a chance of 80 %, given the standard error of the difference."""
    return (Z95 + _Z80) * stderr


def tied_groups(
    values: Sequence[float], differs: Sequence[Sequence[bool]], *, higher_is_better: bool = True
) -> list[str]:
    """Letters for each model: two models share a letter exactly if no test separates them.

    `differs[i][j]` says whether models i and j are significantly different. Letters are the maximal sets of models
    without a difference among them, the best first ("compact letter display").
    """
    count = len(values)
    order = sorted(range(count), key=lambda index: -values[index] if higher_is_better else values[index])
    groups: list[set[int]] = [set(order)]
    for i, j in combinations(order, 2):
        if not differs[i][j]:
            continue
        split: list[set[int]] = []
        for group in groups:
            split += [group - {i}, group - {j}] if i in group and j in group else [group]
        groups = [group for group in split if not any(group < other for other in split)]
        groups = [group for place, group in enumerate(groups) if group not in groups[:place]]
    place = {index: rank for rank, index in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[index] for index in group))
    return ["".join(_letter(number) for number, group in enumerate(groups) if index in group) for index in range(count)]


def _letter(number: int) -> str:
    """a to z, then a1 to z1 and so on."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")


# ---- trends over checkpoints


def mann_kendall(values: Sequence[float]) -> tuple[float, float | None]:
    """Kendall's τ-a of values over time, and the two-sided p of no trend (normal, with ties and continuity corrected).

    No p for fewer than three values.
    """
    n = len(values)
    if n < 2:
        return 0.0, None
    signs = [int(later > earlier) - int(later < earlier) for earlier, later in combinations(values, 2)]
    score = sum(signs)
    tau = score / (n * (n - 1) / 2)
    ties = Counter(values).values()
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    if n < 3:
        return tau, None
    if variance <= 0:
        return tau, 1.0
    z = (abs(score) - 1) / math.sqrt(variance) if score else 0.0
    return tau, min(1.0, math.erfc(z / math.sqrt(2)))


def isotonic(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The nearest sequence that never falls (pool adjacent violators, least squares)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, total, size = blocks.pop()
            joint = total + block[1]
            block = ((mean * total + block[0] * block[1]) / joint, joint, size + block[2])
        blocks.append(block)
    return [mean for mean, _, size in blocks for _ in range(size)]
