"""Intervals against closed forms and by simulation, paired draws, efficient models, other mixtures, other views."""

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from evidence_files import write_run, write_scores
from paloma.__main__ import main
from paloma.bootstrap import interval, resample
from paloma.compare import scaling_rate
from paloma.formats.results import Domain
from paloma.metrics import frontier
from paloma.pareto import efficiency
from paloma.reweight import read_shares, reweighted
from paloma.submission import DocumentRow
from results_files import domain, results, write_results

LN2 = math.log(2)


def documents(count: int, seed: int, name: str = "d", level: float = 2.0) -> list[DocumentRow]:
    draw = random.Random(seed)
    found = []
    for number in range(count):
        tokens = draw.randint(5, 50)
        found.append(
            DocumentRow(
                source="s",
                subdomain=name,
                id=f"{number:04d}",
                tokens=tokens,
                bytes=4 * tokens,
                chars=4 * tokens,
                words=tokens,
                nll_nats=tokens * level * draw.uniform(0.5, 1.5),
            )
        )
    return found


def delta_stderr(rows: list[DocumentRow]) -> float:
    """Of the bits per byte of one domain, as catwalk computes it."""
    size = sum(row.bytes for row in rows)
    ratio = sum(row.nll_nats for row in rows) / size
    squares = sum((row.nll_nats - ratio * row.bytes) ** 2 for row in rows)
    return math.sqrt(len(rows) / (len(rows) - 1) * squares) / (size * LN2)


def test_spread_of_draws_is_the_standard_error() -> None:
    domains = [documents(200, seed, f"d{seed}") for seed in range(5)]
    draws = resample([row for rows in domains for row in rows], 4000, 0)
    errors = [delta_stderr(rows) for rows in domains]
    found = draws.domains("bits_per_byte").std(axis=1)
    assert found == pytest.approx(errors, rel=0.06)
    expected = math.sqrt(sum(error**2 for error in errors)) / 5
    assert draws.macro("bits_per_byte").std() == pytest.approx(expected, rel=0.06)
    sizes = [sum(row.bytes for row in rows) for rows in domains]
    pooled = math.sqrt(sum((error * size / sum(sizes)) ** 2 for error, size in zip(errors, sizes, strict=True)))
    assert draws.pooled("bits_per_byte").std() == pytest.approx(pooled, rel=0.1)
    assert draws.pooled("perplexity") == pytest.approx(np.exp(draws.pooled("log_perplexity")))


def test_draws_do_not_depend_on_the_order_or_on_other_domains() -> None:
    rows = documents(30, 0) + documents(20, 1, "e")
    whole = resample(rows, 50, 7)
    assert (resample(rows[::-1], 50, 7).nll_nats == whole.nll_nats).all()
    assert (resample(rows[30:], 50, 7).nll_nats == whole.nll_nats[1:]).all()
    assert (resample(rows, 50, 8).nll_nats != whole.nll_nats).any()


def test_equal_models_differ_by_nothing_in_every_draw() -> None:
    rows = documents(30, 0)
    worse = [msgspec.structs.replace(row, nll_nats=row.nll_nats + 0.01 * row.bytes) for row in rows]
    gaps = resample(worse, 100, 0).macro("bits_per_byte") - resample(rows, 100, 0).macro("bits_per_byte")
    assert gaps == pytest.approx(0.01 / LN2)


def test_domain_of_one_document_is_fixed() -> None:
    draws = resample(documents(1, 0) + documents(10, 1, "e"), 100, 0)
    assert draws.single == 1
    assert np.ptp(draws.domains("bits_per_byte")[0]) == 0
    empty = DocumentRow(source="s", subdomain="z", id="0", tokens=0, bytes=0, chars=0, words=0, nll_nats=0.0)
    assert resample([empty, *documents(10, 1, "e")], 10, 0).domains("bits_per_byte").shape == (1, 10)


def test_coverage_of_the_interval() -> None:
    """95 % intervals of the macro bits per byte contain the truth in about 95 of 100 samples."""
    population = [documents(20_000, seed, f"d{seed}") for seed in range(4)]
    truth = np.mean([sum(r.nll_nats for r in rows) / sum(r.bytes for r in rows) / LN2 for rows in population])
    hits = 0
    for trial in range(400):
        draw = random.Random(trial)
        sample = [row for rows in population for row in draw.sample(rows, 60)]
        low, high = interval(resample(sample, 400, trial).macro("bits_per_byte"))
        hits += low <= truth <= high
    assert 0.91 <= hits / 400 <= 0.98


# ---- efficient models


def test_probability_is_the_share_of_draws_in_which_a_model_is_efficient() -> None:
    draw = np.random.default_rng(0)
    costs = [1.0, 2.0, 2.0, 3.0]
    losses = [draw.normal(mean, 0.1, 300) for mean in (1.0, 0.9, 0.95, 0.92)]
    domains = [{"a": float(loss.mean()), "b": 1.0} for loss in losses]
    rows = efficiency("wxyz", costs, [d["a"] for d in domains], losses, domains)
    brute = [frontier(list(zip(costs, column, strict=True))) for column in zip(*losses, strict=True)]
    for index, row in enumerate(rows):
        assert row["probability"] == pytest.approx(sum(flags[index] for flags in brute) / len(brute))
    assert rows[0]["probability"] == 1  # nothing is as small
    assert [row["efficient"] for row in rows] == [True, True, False, False]
    assert [row["domains_efficient"] for row in rows] == [2, 1, 0, 0]
    assert efficiency("wx", [1.0, 1.0], [1.0, 2.0], None, domains[:2])[0]["probability"] is None


# ---- other mixtures


def sums(name: str, nll_nats: float, tokens: int, size: int) -> Domain:
    return Domain(
        source="s", subdomain=name, documents=1, tokens=tokens, bytes=size, chars=size, words=1, nll_nats=nll_nats,
        bits_per_byte_stderr=None,
    )  # fmt: skip


def test_mixture_of_two_domains(tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("source,subdomain,split,tokens\ns,a,val,10\ns,a,test,20\ns,b,val,10\n")
    shares = read_shares(table)
    assert shares == {("s", "a"): 0.75, ("s", "b"): 0.25}
    found = reweighted([sums("a", 30.0, 10, 40), sums("b", 8.0, 4, 20), sums("c", 9.0, 1, 1)], shares, None)
    assert found["log_perplexity"]["value"] == pytest.approx(0.75 * 3 + 0.25 * 2)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(2.75))
    assert found["bits_per_byte"]["value"] == pytest.approx(2.75 / (0.75 * 4 + 0.25 * 5) / LN2)


def test_mixture_of_the_own_shares_is_the_pooled_loss() -> None:
    rows = documents(30, 0) + documents(20, 1, "e", 3.0)
    draws = resample(rows, 10, 0)
    domains = []
    for name in "de":
        chosen = [row for row in rows if row.subdomain == name]
        domains.append(sums(name, *(sum(getattr(r, f) for r in chosen) for f in ("nll_nats", "tokens", "bytes"))))
    tokens = sum(d.tokens for d in domains)
    shares = {("s", d.subdomain): d.tokens / tokens for d in domains}
    found = reweighted(domains, shares, draws)
    assert found["log_perplexity"]["value"] == pytest.approx(sum(d.nll_nats for d in domains) / tokens)
    low, high = found["bits_per_byte"]["interval"]
    assert low < found["bits_per_byte"]["value"] < high


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("source,subdomain\na,b\n", "has no columns source and tokens"),
        ("source,tokens\na,x\n", '"tokens" is "x"; expected a number'),
        ("source,tokens\na,-1\n", '"tokens" is -1'),
        ("source,tokens\na,0\n", '"tokens" sums to 0'),
    ],
)
def test_broken_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: str) -> None:
    folder = write_results(tmp_path / "r", results(domain("a")))
    (tmp_path / "t.csv").write_text(content)
    flags = ["--output-dir", str(tmp_path / "out"), "--reweight", str(tmp_path / "t.csv")]
    assert main(["aggregate", str(folder), *flags]) == 1
    assert expected in capsys.readouterr().err


# ---- the commands


def suite(domains: int = 8) -> list[dict[str, Any]]:
    return [
        {"id": f"{d}-{n}", "text": f"{'word ' * (d + 3)} {d} {n}", "source": "ab"[d % 2], "subdomain": f"d{d}"}
        for d in range(domains)
        for n in range(30)
    ]


def test_aggregate_has_intervals_pareto_and_mixtures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, suite())
    other = write_scores(tmp_path / "other", run.sample, run.checkpoint, name="other", level=2.5, seed=1)
    table = tmp_path / "mix.csv"
    table.write_text("source,subdomain,tokens\na,d0,3\nb,d1,1\n")
    output = tmp_path / "out"
    flags = ["--output-dir", str(output), "--reweight", str(table), "--draws", "200"]
    capsys.readouterr()
    assert main(["aggregate", str(run.results), str(other), *flags]) == 0
    out = capsys.readouterr().out
    value = json.loads((output / "aggregate.json").read_text())
    for model in value["models"]:
        for group in (model["all"], *model["sources"]):
            for kind in ("pooled", "macro"):
                estimate = group[kind]["bits_per_byte"]
                assert estimate["interval"][0] < estimate["value"] < estimate["interval"][1]
            assert group["median_interval"]["perplexity"]
        assert model["reweighted"]["mix"]["perplexity"]["interval"]
        assert model["tokens_seen"] == 5000
    (difference,) = value["ranking"]["differences"]
    assert difference["interval"][0] < difference["mean"] < difference["interval"][1]
    assert difference["probability"] == 1.0
    assert "Efficient by parameters: model (100%)." in out
    assert "on the mixture mix: bpb" in out
    assert [row["efficient"] for row in value["pareto"]["tokens_seen"]] == [True, False]
    assert main(["aggregate", str(run.results), "--output-dir", str(tmp_path / "o"), "--draws", "0"]) == 0
    assert "bootstrap" not in capsys.readouterr().out
    assert main(["aggregate", str(run.results), "--output-dir", str(tmp_path / "p"), "--view", "olmo"]) == 1
    assert "has no domain of the view olmo" in capsys.readouterr().err


def test_view_keeps_its_domains(tmp_path: Path) -> None:
    names = [("c4_en", ""), ("gab", ""), ("dolma-v1_5", "stack_uniform"), ("dolma-v1_5", "wiki"), ("pile", "ArXiv")]
    folder = write_results(tmp_path / "r", results(*(domain(*name) for name in names)))
    for view, count in (("all", 5), ("olmo", 3), ("ordinary", 3), ("without-fringe", 4), ("rehostable", 4)):
        output = tmp_path / view
        assert main(["aggregate", str(folder), "--output-dir", str(output), "--view", view]) == 0
        assert len(json.loads((output / "aggregate.json").read_text())["models"][0]["domains"]) == count


def test_scaling_rate() -> None:
    assert scaling_rate(3.0, 2.0, (1e9, 1e11)) == pytest.approx((math.log(3) - math.log(2)) / 2)
    assert scaling_rate(2.0, 3.0, (1e9, 1e10)) == pytest.approx(math.log(2) - math.log(3))
    assert scaling_rate(2.0, 1.0, (5.0, 5.0)) is None
    assert scaling_rate(0.0, 1.0, (5.0, 6.0)) is None


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, suite())
    later = write_scores(tmp_path / "later", run.sample, run.checkpoint, level=1.5, seed=2)
    output = tmp_path / "out"
    flags = ["--costs", "1e9", "1e10", "--output-dir", str(output)]
    capsys.readouterr()
    assert main(["compare", str(run.results), str(later), *flags]) == 0
    out = capsys.readouterr().out
    assert "8 of 8 domains improved." in out
    rows = list(csv.DictReader((output / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 8
    for row in rows:
        earlier, after = float(row["log_perplexity_earlier"]), float(row["log_perplexity_later"])
        assert float(row["scaling_rate"]) == pytest.approx(math.log(earlier / after))
    assert main(["compare", str(run.results), str(later)]) == 0  # equal costs: no rate
    assert "mean scaling rate" not in capsys.readouterr().out
    assert main(["compare", str(run.results), str(later), "--cost", "parameters"]) == 2
    other = write_results(tmp_path / "x", results(domain("a")))
    assert main(["compare", str(run.results), str(other)]) == 2
    assert "were scored on different texts" in capsys.readouterr().err
