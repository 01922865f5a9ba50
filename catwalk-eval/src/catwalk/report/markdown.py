"""Tables as Markdown."""

from collections.abc import Sequence

from catwalk.report.tables import Table

__all__ = ["render_markdown"]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render_markdown(tables: Sequence[Table]) -> str:
    """Headings, notes and tables."""
    lines: list[str] = []
    for table in tables:
        rule = ["---"] * (len(table.columns) - table.numeric) + ["---:"] * table.numeric
        lines += [f"## {table.title}", "", _row(table.columns), _row(rule), *map(_row, table.rows), ""]
        if table.note:
            lines += [table.note, ""]
    return "\n".join(lines)
