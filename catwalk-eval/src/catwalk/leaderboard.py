"""The leaderboard as files: one HTML page, a page for the items of each task, CSV and LaTeX.

The pages need no network. `#sort=COLUMN` and `#item=ID` are the state of a page, so that a view can be linked.
"""

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from catwalk.board import Board, Cell
from catwalk.page import Html, document, element, table
from catwalk.tables import is_lower_better, is_share, left_out

__all__ = ["board_csv", "board_latex", "board_page", "item_page", "item_page_name"]

_STYLE = """<style>
main { max-width: none } thead th + th { text-align: right } tbody th { vertical-align: middle; white-space: nowrap }
td.n { white-space: nowrap } a { color: inherit }
th button { all: unset; cursor: pointer; font: inherit; white-space: nowrap } th { position: sticky; top: 0;
  background: var(--back); z-index: 1 } tbody th { left: 0; z-index: 2; color: var(--ink); top: auto }
th button:focus-visible, a:focus-visible { outline: 2px solid #3b7dd8 } [aria-sort=descending] button::after {
  content: " \\2193" } [aria-sort=ascending] button::after { content: " \\2191" } .scroll { max-height: 85vh;
  overflow: auto } .tied { font-weight: 700 } .warn::after { content: " !"; color: #d0504a }
.clear { font-weight: 700 } pre { border: 1px solid var(--line); border-radius: 8px; padding: .7rem }
.right { color: #2f9660; font-weight: 700 } .bar { all: unset } nav button, select, input { font: inherit;
  color: inherit; background: none; border: 1px solid var(--line); border-radius: 6px; padding: .2rem .7rem }
option { color: var(--ink); background: var(--back) } td small { color: var(--soft) }
</style>"""

_SORT = """<script>
const table = document.getElementById("board"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
function sort(name, direction) {
  const at = heads.findIndex(head => head.dataset.name === name);
  if (at < 0) return;
  const value = row => { const v = row.cells[at].dataset.v; return v === undefined ? null : at ? +v : v; };
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * (direction === "descending" ? -1 : 1);
  });
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[at].setAttribute("aria-sort", direction);
  body.append(...rows);
}
function read() {
  const [name, direction] = decodeURIComponent(location.hash.replace("#sort=", "")).split("|");
  sort(name || "mean", direction || "descending");
}
table.tHead.addEventListener("click", event => {
  const head = event.target.closest("th");
  if (!head) return;
  const now = head.getAttribute("aria-sort"), first = head.dataset.first || "descending";
  const other = first === "descending" ? "ascending" : "descending";
  location.hash = "sort=" + encodeURIComponent(head.dataset.name + "|" + (now === first ? other : first));
});
addEventListener("hashchange", read);
read();
</script>"""

_ITEMS = """<script>
const data = JSON.parse(document.getElementById("data").textContent), $ = id => document.getElementById(id);
let shown = 0;
const text = (tag, value, kind) => { const e = document.createElement(tag); e.textContent = value;
  if (kind) e.className = kind; return e; };
function show(at) {
  shown = Math.max(0, Math.min(data.items.length - 1, at));
  const item = data.items[shown], answers = data.answers;
  $("place").textContent = `item ${item.id}, ${shown + 1} of ${data.items.length}`;
  const contexts = [].concat(item.context ?? "(the results do not store the text)");
  $("prompt").textContent = contexts.join("\\n--- or ---\\n");
  const choices = item.continuations || [], head = document.createElement("tr");
  head.append(text("th", "model"));
  choices.forEach((choice, k) => head.append(text("th", choice, k === item.label ? "right" : "")));
  if (!choices.length) head.append(text("th", "generated text"), text("th", "scores"));
  const rows = data.models.map((model, m) => {
    const row = document.createElement("tr"), answer = (answers[m] || [])[shown];
    row.append(text("th", model));
    if (!answer) { row.append(text("td", "–")); return row; }
    if (answer.text !== undefined) row.append(text("td", answer.text), text("td", JSON.stringify(answer.scores)));
    else answer.sums.forEach((value, k) => {
      const cell = text("td", value.toFixed(3) + (k === answer.chosen ? " ●" : ""), k === item.label ? "n right" : "n");
      cell.title = `${answer.tokens[k]} tokens`;
      row.append(cell);
    });
    return row;
  });
  $("references").textContent = item.references ? "right answers: " + item.references.join(" | ") : "";
  $("answers").replaceChildren(head, ...rows);
  history.replaceState(null, "", "#item=" + encodeURIComponent(item.id));
}
const find = id => data.items.findIndex(item => item.id === id);
function read() {
  const at = find(decodeURIComponent(location.hash.replace("#item=", "")));
  show(at < 0 ? 0 : at);
}
$("back").onclick = () => show(shown - 1);
$("next").onclick = () => show(shown + 1);
$("go").onchange = () => { const at = find($("go").value); if (at >= 0) show(at); };
addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT") return;
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});
addEventListener("hashchange", read);
read();
</script>"""


def item_page_name(task: str) -> str:
    """The file of a task's items, relative to the leaderboard. Letters that some file systems refuse are replaced."""
    return "items/" + "".join(one if one.isalnum() or one in "-_." else f"~{ord(one):x}~" for one in task) + ".html"


def board_page(board: Board, title: str) -> str:
    """The leaderboard."""
    note = (
        "Values of each task's primary metric, in per cent for accuracies; ± is half of the 95 % interval, "
        "which a cell's title gives. "
        "Bold: tied with the best of its column (Holm over models). Models that share a letter have means that the "
        "items cannot tell apart. Click a heading, or press Enter on it, to sort; a value leads to the task's items."
    )
    note += left_out(board.tasks, board.metrics)
    parts = [Html(_STYLE), element("p", note, "note"), _board_table(board)]
    if len(board.models) > 1:
        about = (
            "Mean over tasks of the column's model minus the row's, in percentage points; bold: p ≤ 0.05 after "
            "Holm's correction over all pairs. Paired on the items that all models have."
        )
        parts += [element("h2", "Differences between models"), element("p", about, "note"), _matrix(board)]
    if any(effect is not None for effect in board.effects):
        about = "The difference between two models that these items show with a chance of 80 %, at a level of 5 %."
        rows = [
            (task, metric, "–" if effect is None else f"{effect * _scale(metric):.2f}")
            for task, metric, effect in zip(board.tasks, board.metrics, board.effects, strict=True)
        ]
        parts += [element("h2", "Smallest differences that can be found"), element("p", about, "note")]
        parts.append(table(("task", "metric", "difference"), rows, text=2))
    return document(title, *parts, Html(_SORT))


def _scale(metric: str) -> float:
    return 100.0 if is_share(metric) else 1.0


def _board_table(board: Board) -> str:
    columns = [("model", "model", "ascending"), ("mean", "mean", "descending"), ("centred", "centred", "descending")]
    columns += [
        (task, task, "ascending" if is_lower_better(metric) else "descending")
        for task, metric in zip(board.tasks, board.metrics, strict=True)
    ]
    columns += [(f"max {task}", f"max(CF, MCF) of {task}, biased", "descending") for task in board.best_of_two]
    heads = "".join(
        f'<th scope="col" data-name="{escape(name)}" data-first="{first}"><button>{escape(shown)}</button></th>'
        for name, shown, first in columns
    )
    rows = []
    for index, model in enumerate(board.models):
        cells = [f'<th scope="row" data-v="{escape(model)}">{escape(model)}</th>', _mean_cell(board, index)]
        cells.append(_percent_cell(board.centred[index]))
        for task, metric, cell in zip(board.tasks, board.metrics, board.cells[index], strict=True):
            cells.append(_value_cell(task, metric, cell))
        cells += [_percent_cell(best[index]) for best in board.best_of_two.values()]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = f'<table id="board"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{body}</div>'


def _percent_cell(value: float | None) -> str:
    return "<td>–</td>" if value is None else f'<td class="n" data-v="{value:.6g}">{100 * value:.1f}</td>'


def _mean_cell(board: Board, index: int) -> str:
    mean = board.means[index]
    if mean is None:
        return '<td title="a task is missing">–</td>'
    value, low, high = (100 * one for one in mean)
    shown = f"{value:.1f} <small>{escape(board.letters[index])}</small>"
    return f'<td class="n" data-v="{mean[0]:.6g}" title="[{low:.1f}, {high:.1f}]">{shown}</td>'


def _value_cell(task: str, metric: str, cell: Cell | None) -> str:
    if cell is None:
        return "<td>–</td>"
    scale = _scale(metric)
    digits = 1 if scale > 1 else 3
    title = f"[{cell.low * scale:.{digits}f}, {cell.high * scale:.{digits}f}], {cell.n} items"
    title = "; ".join([title, *cell.warnings])
    kinds = " ".join(["n", *(["tied"] if cell.tied else []), *(["warn"] if cell.warnings else [])])
    link = f'<a href="{quote(item_page_name(task))}">{cell.value * scale:.{digits}f}</a>'
    link += f" <small>±{(cell.high - cell.low) / 2 * scale:.{digits}f}</small>"
    return f'<td class="{kinds}" data-v="{cell.value:.6g}" title="{escape(title)}">{link}</td>'


def _matrix(board: Board) -> str:
    heads = "".join(f'<th scope="col">{escape(model)}</th>' for model in board.models)
    rows = []
    for model, row in zip(board.models, board.differences, strict=True):
        cells = []
        for one in row:
            if one is None:
                cells.append("<td></td>")
                continue
            gap, p = one
            kind = "n clear" if p is not None and p <= 0.05 else "n"
            cells.append(f'<td class="{kind}" title="p {"–" if p is None else f"{p:.2g}"}">{100 * gap:+.1f}</td>')
        rows.append(f'<tr><th scope="row">{escape(model)}</th>{"".join(cells)}</tr>')
    body = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{body}</div>'


# ---- items


def item_page(
    models: Sequence[str],
    task: str,
    primary: str,
    rows: Sequence[Sequence[dict[str, Any]]],
    texts: dict[str, dict[str, Any]],
) -> str:
    """The prompts, choices and log-probabilities of a task's items, one at a time.

    `rows` are each model's predictions, `texts` rows of items.jsonl.gz by id, where they are stored.
    """
    ids: dict[str, dict[str, Any]] = {}
    for row in (row for found in rows for row in found):
        if row["id"] not in ids:
            ids[row["id"]] = _item(row, texts.get(row["id"], {}))
    answers = []
    for found in rows:
        by_id = {row["id"]: row for row in found}
        answers.append([_answer(by_id[id], primary) if id in by_id else None for id in ids])
    data = {"models": list(models), "items": list(ids.values()), "answers": answers}
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    note = "Log-probabilities in nats. ● marks the choice of the primary metric, bold green the right one. Keys: ←, →."
    return document(
        task,
        Html(_STYLE),
        element("p", f"{note} The primary metric is {primary}.", "note"),
        '<nav><a href="../leaderboard.html">leaderboard</a> <button id="back">←</button> <button id="next">→</button> '
        '<input id="go" placeholder="id" aria-label="id of an item" size="10"> <span id="place"></span></nav>',
        '<pre id="prompt"></pre><p id="references"></p>',
        '<div class="scroll" tabindex="0"><table id="answers"></table></div>',
        f'<script type="application/json" id="data">{content}</script>',
        Html(_ITEMS),
    )


def _item(row: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """What a page shows of an item, whatever the model."""
    entry: dict[str, Any] = {"id": row["id"], **{key: text[key] for key in ("context", "references") if key in text}}
    answers = row.get("choices", row.get("responses", ()))
    if "choices" in row:
        entry["label"] = row["label"]
    if "generation" not in row and answers:
        unnamed = [f"choice {place}" for place in range(len(answers))]
        entry["continuations"] = text.get("continuations") or unnamed
    return entry


def _answer(row: dict[str, Any], primary: str) -> dict[str, Any]:
    if "choices" in row:
        return {
            "sums": [round(choice["sum_logprob"], 3) for choice in row["choices"]],
            "tokens": [choice["tokens"] for choice in row["choices"]],
            "chosen": row["predicted"].get(primary),
        }
    if "generation" in row or not row.get("responses"):
        return {"text": row.get("generation", ""), "scores": row["scores"]}
    sums = [answer[0] if isinstance(answer, list) else answer for answer in row["responses"]]
    return {"sums": [round(value, 3) for value in sums], "scores": row["scores"]}


# ---- other files


def board_csv(board: Board) -> str:
    """A line for each model and task."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("model", "task", "metric", "value", "low", "high", "n", "tied_with_best"))
    for model, row in zip(board.models, board.cells, strict=True):
        for task, metric, cell in zip(board.tasks, board.metrics, row, strict=True):
            if cell is not None:
                writer.writerow((model, task, metric, cell.value, cell.low, cell.high, cell.n, int(cell.tied)))
    return stream.getvalue()


def board_latex(board: Board) -> str:
    """A table of models × tasks for a paper; bold values are tied with the best."""
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(board.tasks) + 1)}}}", "\\hline"]
    lines.append(" & ".join(map(_latex, ["model", *board.tasks, "mean"])) + " \\\\")
    lines.append("\\hline")
    for model, row, mean in zip(board.models, board.cells, board.means, strict=True):
        cells = [_latex(model)]
        for metric, cell in zip(board.metrics, row, strict=True):
            scale = _scale(metric)
            shown = "--" if cell is None else f"{cell.value * scale:.{1 if scale > 1 else 3}f}"
            cells.append(f"\\textbf{{{shown}}}" if cell is not None and cell.tied else shown)
        cells.append("--" if mean is None else f"{100 * mean[0]:.1f}")
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])


def _latex(text: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(one, f"\\{one}" if one in "&%$#_{}" else one) for one in text)
