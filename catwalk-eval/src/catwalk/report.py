"""`catwalk report`: the tables as Markdown and, if requested, as files: Markdown, an HTML page, lm-eval's JSON."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from catwalk import WRITER
from catwalk.board import Board, build_board
from catwalk.columns import TaskRows
from catwalk.contamination import contamination_tables, read_marks
from catwalk.formats.contract import ConfigError, canonical_json, write_file
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest, write_manifest
from catwalk.formats.results import ITEMS, PER_DOCUMENT, PREDICTIONS, RESULTS
from catwalk.leaderboard import board_csv, board_latex, board_page, item_page, item_page_name
from catwalk.lm_eval import lm_eval_results
from catwalk.page import Axis, Html, colour, document, element, keys, table
from catwalk.results import LoadedResults, load_all
from catwalk.tables import Dot, Table, build_tables
from catwalk.trends import trend_tables

__all__ = ["dot_table", "report"]


def report(
    directories: Sequence[Path], output: Path | None, lm_eval_json: Path | None, contamination: Path | None = None
) -> str:
    """The Markdown; also writes the pages, the leaderboard and a manifest to `output`, and the lm-eval JSON.

    Raises:
        ConfigError: a path is not a directory, or the JSON is requested for several results.
    """
    models = load_all(directories)
    if lm_eval_json is not None and len(models) > 1:
        problem = f"lm-eval-json: got {len(models)} results; expected one"
        raise ConfigError(problem, hint="call catwalk report once for each")
    if output is not None and (output / MANIFEST).is_file() and read_manifest(output).format != "report":
        problem = f"output_dir: {output} contains another artifact; expected a report or an empty directory"
        raise ConfigError(problem, hint="choose another --output-dir")
    tables = [*trend_tables(models), *build_tables(models)]
    if contamination is not None:
        tables += contamination_tables(models, read_marks(contamination))
    text = _markdown(tables)
    if lm_eval_json is not None:
        write_file(lm_eval_json, canonical_json(lm_eval_results(models[0])).encode())
    if output is not None:
        _write(output, models, tables, text, contamination)
    return text


def _write(
    output: Path, models: Sequence[LoadedResults], tables: Sequence[Table], text: str, contamination: Path | None
) -> None:
    title = "Evaluation of " + ", ".join(model.results["model"]["name"] for model in models)
    (output / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    contents = {"report.md": f"# {title}\n\n{text}", "report.html": _page(title, tables)}
    written = list(contents)
    if any(model.tasks for model in models):
        board = build_board(models)
        contents["leaderboard.html"] = board_page(board, "Leaderboard")
        contents["leaderboard.csv"], contents["leaderboard.tex"] = board_csv(board), board_latex(board)
        written = [*contents, *_write_items(output, models, board)]
    for name, content in contents.items():
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / name, content.encode())
    inputs = describe_input("contamination", contamination, output) if contamination else []
    for model in models:
        complete = (model.directory / MANIFEST).is_file()
        names = (RESULTS, PREDICTIONS, PER_DOCUMENT)
        parts = [model.directory] if complete else [model.directory / name for name in names]
        inputs += [entry for part in parts if part.exists() for entry in describe_input("results", part, output)]
    write_manifest(
        output,
        format="report",
        writer=WRITER,
        files=[output / name for name in written],
        config={},
        counts={"models": len(models), "tables": len(tables)},
        details={},
        inputs=inputs,
    )


def _write_items(output: Path, models: Sequence[LoadedResults], board: Board) -> list[str]:
    """Write a page for the items of each task, one task at a time; their names."""
    (output / "items").mkdir(parents=True, exist_ok=True)
    answers = [TaskRows(model.directory / PREDICTIONS) for model in models]
    texts = [TaskRows(model.directory / ITEMS) for model in models]
    for task, metric in zip(board.tasks, board.metrics, strict=True):
        rows = [reader.take(task) for reader in answers]
        shown: dict[str, dict[str, Any]] = {}
        for reader, found in zip(texts, rows, strict=True):
            if any(row["id"] not in shown for row in found):  # usually only the first model's texts are read
                shown = {row["id"]: row for row in reader.take(task)} | shown
        page = item_page(board.models, task, metric, rows, shown)
        write_file(output / item_page_name(task), page.encode())
    return [item_page_name(task) for task in board.tasks]


def _markdown(tables: Sequence[Table]) -> str:
    """Headings, tables and notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines: list[str] = []
    for one in tables:
        rule = ["---"] * (len(one.columns) - one.numeric) + ["---:"] * one.numeric
        lines += [f"## {one.title}", "", line(one.columns), line(rule), *map(line, one.rows), ""]
        if one.note:
            lines += [one.note, ""]
    return "\n".join(lines)


def _page(title: str, tables: Sequence[Table]) -> str:
    """The same as HTML, with a column of dots in each table that has something to plot."""
    parts: list[str] = []
    for one in tables:
        named, text = dict(one.plot), len(one.columns) - one.numeric
        dots = [named.get(row[0], []) for row in one.rows]
        note = element("p", one.note.replace("`", ""), "note") if one.note else ""
        shown = (
            dot_table(one.columns, one.rows, dots, text=text) if any(dots) else table(one.columns, one.rows, text=text)
        )
        parts += [element("h2", one.title), note, shown]
    return document(title, *parts)


def dot_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    dots: Sequence[Sequence[Dot]],
    *,
    text: int = 1,
    references: Sequence[float] = (),
) -> str:
    """A table whose second column shows the dots of each row, and each row's reference as a dashed line.

    The dots of a row are below one another; dots without intervals are on one line.
    """
    names = list(dict.fromkeys(name for row in dots for name, *_ in row))
    axis = Axis([value for row in dots for _, *values in row for value in values] + list(references), 0.04)
    texts = [f'<text x="{x:.2f}%" y="12" text-anchor="middle">{label}</text>' for x, label in axis.ticks()]
    lines: list[list[object]] = [
        [columns[0], Html(f'<svg height="14" aria-hidden="true">{"".join(texts)}</svg>'), *columns[1:]]
    ]
    step = 10 if any(low < high for row in dots for _, _, low, high in row) else 0
    for number, row in enumerate(dots):
        verticals = [("grid", x) for x, _ in axis.ticks()]
        verticals += [("mark", axis.at(references[number]))] if references else []
        drawn = [f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y2="100%"/>' for kind, x in verticals]
        if row and not step:
            ends = [axis.at(end(value for _, value, *_ in row)) for end in (min, max)]
            drawn.append(f'<line class="grid" x1="{ends[0]:.2f}%" x2="{ends[1]:.2f}%" y1="10" y2="10"/>')
        for place, (name, value, low, high) in enumerate(row):
            y, paint = 10 + step * place, colour(names.index(name), len(names))
            where = f'x1="{axis.at(low):.2f}%" x2="{axis.at(high):.2f}%" y1="{y}" y2="{y}"'
            drawn.append(f'<line {where} stroke="{paint}" stroke-width="2"/>')
            drawn.append(f'<circle cx="{axis.at(value):.2f}%" cy="{y}" r="4" fill="{paint}">')
            drawn.append(f"<title>{escape(name)}: {value:.4g}</title></circle>")
        spoken, height = ", ".join(f"{name} {value:.4g}" for name, value, *_ in row), 20 + step * max(0, len(row) - 1)
        cell = Html(f'<svg height="{height}" role="img" aria-label="{escape(spoken)}">{"".join(drawn)}</svg>')
        lines.append([rows[number][0], cell, *rows[number][1:]])
    return keys(names) + table(lines[0], lines[1:], text=text + 1)
