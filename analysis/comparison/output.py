"""A comparison as tables on the terminal, as Markdown and as CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from analysis.comparison.measure import OUTCOMES, Comparison, over_runs
from analysis.comparison.notes import Note
from analysis.comparison.tables import Table

BESIDE = ("Runs", "What differs")  # tables that are written to files but not shown


def print_tables(tables: Iterable[Table], found: Sequence[Note], console: Console) -> None:
    """Print warnings and tables. Tables as wide as paths are left to the files."""
    for i, note in enumerate(found, 1):
        console.print(rf"[yellow]\[{i}][/yellow] {escape(note.text)}", highlight=False)
    for table in tables:
        if table.title in BESIDE:
            continue
        shown = Shown(title=escape(table.title), caption=escape(table.caption), caption_justify="left")
        for i, name in enumerate(table.header):
            shown.add_column(escape(name), justify="left" if i == 0 else "right")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)


def markdown(title: str, tables: Iterable[Table], found: Sequence[Note], commands: Iterable[str], about: str) -> str:
    """The page `comparison.md`, beside `curves.png`."""
    parts = [f"# {title}", "![Curves and final scores](curves.png)", f"*{_cell(about)}*"]
    if found:
        parts += ["## Read this first", "\n".join(f"{i}. {_cell(note.text)}" for i, note in enumerate(found, 1))]
    parts += map(markdown_table, tables)
    parts += ["## Commands", "\n".join(f"    {line}" for line in commands)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table in Markdown, with its title and caption."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    rows = "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in lines)
    return "\n\n".join([f"## {_cell(table.title)}", rows] + ([_cell(table.caption)] if table.caption else []))


def _cell(text: str) -> str:
    """The text, escaped for a cell of a Markdown table."""
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", text.replace("\n", " "))


def runs_csv(comparison: Comparison) -> str:
    """One row for each run."""
    rows = [["group", "task", "seed", "agent_steps", *OUTCOMES, "state", "run"]]
    for (task, label), cell in comparison.cells.items():
        for o in cell.outcomes:
            numbers = ["" if (value := getattr(o, name)) is None else str(value) for name in OUTCOMES]
            rows.append([label, task, str(o.run.seed), str(o.run.steps), *numbers, o.run.state, o.run.name])
    return _csv(rows)


def groups_csv(comparison: Comparison) -> str:
    """One row for each group, task and quantity: mean over the seeds, 95 % interval, number of seeds."""
    rows = [["group", "task", "quantity", "mean", "low", "high", "n"]]
    for (task, label), cell in comparison.cells.items():
        found = {name: cell.estimate(name) for name in OUTCOMES}
        runs = [o.run for o in cell.outcomes]
        tags = sorted({tag for run in runs for row in run.rows for tag in row if re.match("aux/|repr/", tag)})
        found |= {tag: over_runs(runs, tag) for tag in tags}
        for name, one in found.items():
            if one:
                bounds = ["" if bound is None else str(bound) for bound in (one.low, one.high)]
                rows.append([label, task, name, str(one.value), *bounds, str(one.n)])
    return _csv(rows)


def curves_csv(comparison: Comparison) -> str:
    """One row for each point of the curve of each group."""
    rows = [["group", "task", comparison.x, "mean", "low", "high", "n"]]
    for (task, label), cell in comparison.cells.items():
        if curve := cell.curve:
            points = zip(curve.x, curve.mean, curve.low, curve.high, strict=True)
            n = str(len(curve.runs))
            rows += [[label, task, *(f"{value:.6g}" for value in point), n] for point in points]
    return _csv(rows)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
