"""Paloma's own suite as data (suite.csv), its views, and `paloma suite`.

Counts are those of arXiv:2312.10523: table 1 of version 2 (546 domains; tokens of GPT-NeoX-20B in val and test
together), and version 1 for The Pile and ICE, which cannot be rehosted and whose tokens it does not list. Names of
domains are in the data, which is gated, and not here.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files

from paloma.output import markdown_table

__all__ = ["VIEWS", "Source", "in_view", "overview", "sources"]

VIEWS = {
    "all": "every source",
    "rehostable": "without The Pile and ICE, which Paloma's repository does not contain",
    "olmo": "the eleven sources that the OLMo paper (arXiv:2402.00838) averages",
    "without-fringe": "without Gab, 4chan and the Manosphere",
    "ordinary": "without fringe sources and code, as the paper's ordinary perplexity",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One source. `tokens` are of both splits; `code` matches the names of its domains of code."""

    source: str
    """the folder, and the name in results"""
    title: str
    domains: int
    tokens: int | None
    group: str
    rehosted: bool
    olmo: bool
    code: str
    original_licence: str
    """of the data that it was sampled from; Paloma's own files add the AI2 ImpACT licence for low-risk artifacts"""


@cache
def sources() -> dict[str, Source]:
    """The sources of the suite by name."""
    text = files("paloma").joinpath("suite.csv").read_text(encoding="utf-8")
    return {
        row["source"]: Source(
            source=row["source"],
            title=row["title"],
            domains=int(row["domains"]),
            tokens=int(row["tokens"]) if row["tokens"] else None,
            group=row["group"],
            rehosted=row["rehosted"] == "yes",
            olmo=row["olmo"] == "yes",
            code=row["code"],
            original_licence=row["original_licence"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def in_view(view: str) -> Callable[[str, str], bool]:
    """Whether a view contains a domain, by its source and subdomain. `all` contains those of other suites too."""

    def contains(name: str, subdomain: str) -> bool:
        source = sources().get(name)
        if view == "all" or source is None:
            return view == "all"
        if view == "rehostable":
            return source.rehosted
        if view == "olmo":
            return source.olmo
        fringe = source.group == "fringe"
        return not fringe and (view == "without-fringe" or not fnmatch(subdomain, source.code or "\0"))

    return contains


def overview(view: str) -> str:
    """A table of the sources of a view, with sums."""
    chosen = [source for source in sources().values() if in_view(view)(source.source, "")]
    domains = {source.source: source.domains - _code_domains(source, view) for source in chosen}
    head = ["source", "title", "group", "domains", "tokens", "original licence"]
    rows = [
        [s.source, s.title, s.group, f"{domains[s.source]:,}", _tokens([s]), s.original_licence]
        for s in chosen
        if domains[s.source]
    ]
    rehosted = sum(domains[source.source] for source in chosen if source.rehosted)
    count = sum(domains.values())
    split = f" ({rehosted} rehostable)" if rehosted < count else ""
    lines = [
        markdown_table(head, rows),
        f"{view}: {VIEWS[view]}. {len(rows)} sources, {count} domains{split}, {_tokens(chosen)} tokens.",
    ]
    if any(_code_domains(source, view) not in (0, source.domains) for source in chosen):
        lines.append("The tokens of a source include those of its domain of code.")
    return "\n".join(lines)


def _code_domains(source: Source, view: str) -> int:
    """Domains of code that the view leaves out of a source: all, or the one of Dolma."""
    return 0 if view != "ordinary" or not source.code else source.domains if source.code == "*" else 1


def _tokens(chosen: Iterable[Source]) -> str:
    known = [source.tokens for source in chosen if source.tokens is not None]
    return f"{sum(known):,}" if known else "not listed"
