"""The loss on another mixture of the domains: exp(Σ α_d · N_d / T_d), with the share α_d of a domain in its tokens.

Source: Paloma (arXiv:2312.10523), the section on metrics. Shares come from a table of domains, such as `domains.csv` of
a sample of the other corpus.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paloma.bootstrap import Replicates, interval
from paloma.formats.contract import ConfigError, FormatError
from paloma.formats.results import Domain
from paloma.metrics import LARGEST

__all__ = ["read_shares", "reweighted"]

_UNITS = ("tokens", "bytes")


def read_shares(path: Path) -> dict[tuple[str, str], float]:
    """Shares of the domains in a CSV file with the columns `source`, `subdomain` and `tokens` (else `bytes`).

    Raises:
        ConfigError: the file does not exist.
        FormatError: a missing column, a value that is not a number, or shares that sum to 0.
    """
    if not path.is_file():
        raise ConfigError(f"--reweight: {path} not found; expected a CSV file of domains", hint="check the path")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = rows[0].keys() if rows else ()
    unit = next((name for name in _UNITS if rows and all(row.get(name) for row in rows)), None)
    if unit is None or "source" not in columns:
        raise FormatError(
            "missing_field", path, "has no columns source and tokens (or bytes); expected a row per domain"
        )
    sums: dict[tuple[str, str], float] = {}
    for line, row in enumerate(rows, start=2):
        try:
            size = float(row[unit])
        except ValueError:
            raise FormatError("wrong_type", path, f'"{unit}" is "{row[unit]}"; expected a number', line=line) from None
        if not 0 <= size < math.inf:
            raise FormatError("invalid_value", path, f'"{unit}" is {row[unit]}; expected at least 0', line=line)
        key = (row["source"], row.get("subdomain") or "")
        sums[key] = sums.get(key, 0.0) + size
    total = math.fsum(sums.values())
    if not total:
        raise FormatError("invalid_value", path, f'"{unit}" sums to 0; expected more')
    return {key: size / total for key, size in sums.items() if size}


def reweighted(
    domains: Sequence[Domain], shares: Mapping[tuple[str, str], float], draws: Replicates | None
) -> dict[str, Any]:
    """Perplexity and bits per byte of the mixture, with intervals if there are draws.

    Raises:
        ConfigError: a domain of the mixture was not scored.
    """
    known = {(domain.source, domain.subdomain): domain for domain in domains}
    missing = sorted(key for key in shares if key not in known or not known[key].tokens or not known[key].bytes)
    if missing:
        names = ", ".join("/".join(filter(None, key)) for key in missing[:3])
        problem = f"--reweight: {len(missing):,} domains of the table were not scored ({names}); expected all of them"
        raise ConfigError(problem, hint="remove their rows, or score them")
    chosen = [(known[key], share) for key, share in shares.items()]
    nats = math.fsum(share * domain.nll_nats / domain.tokens for domain, share in chosen)
    size = math.fsum(share * domain.bytes / domain.tokens for domain, share in chosen)
    value: dict[str, Any] = {
        "domains": len(chosen),
        "log_perplexity": {"value": nats},
        "perplexity": {"value": math.exp(min(nats, math.log(LARGEST)))},
        "bits_per_byte": {"value": nats / (size * math.log(2))},
    }
    if draws is not None:
        rows = [draws.keys.index(key) for key in shares]
        weights = np.array([list(shares.values())])
        tokens = draws.tokens[rows]
        losses = (weights @ (draws.nll_nats[rows] / tokens))[0]
        sizes = (weights @ (draws.bytes[rows] / tokens))[0]
        value["log_perplexity"]["interval"] = interval(losses)
        value["perplexity"]["interval"] = interval(np.exp(np.minimum(losses, math.log(LARGEST))))
        value["bits_per_byte"]["interval"] = interval(losses / (sizes * math.log(2)))
    return value
