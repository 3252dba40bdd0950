"""Tables of the runs that compare what `agent.conflict` does, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/conflict_report.py runs/conflict/*/*/s* out=my_report

Each needs the report that the end of a training leaves; it is kept in `out`, where the block of gradient_conflict.md is
made of all that are there. `out=results` adds them to the project's own.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    RESULTS,
    compared,
    comparison_tables,
    keep_reports,
    kept_reports,
    log_of,
    table,
    with_block,
    write_page,
)

PAGE = RESULTS / "gradient_conflict.md"
HEADER = ["run", "mean cosine", "negative", "mean size on a batch"]


def conflict(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Of a run's log: mean cosine and share of negative ones, over every update if they were logged, else over the
    single batches of `diagnose_every`, and of these the mean size.
    """
    looked = _values(rows, "grad_cosine")
    if not len(looked):
        return None
    updates, shares = _values(rows, "update_cosine"), _values(rows, "conflict_share")
    mean, negative = (updates.mean(), shares.mean()) if len(updates) else (looked.mean(), (looked < 0).mean())
    return {"cosine": float(mean), "negative": float(negative), "size": float(np.abs(looked).mean())}


def measure(run: Path) -> dict[str, Any]:
    """Agent steps of a run, and its conflict."""
    rows = log_of(run)
    return {"steps": max(row["step"] for row in rows), "conflict": conflict(rows)}


def _values(rows: Sequence[dict[str, Any]], tag: str) -> Any:
    return np.array([value for row in rows for key, value in row.items() if re.fullmatch(rf"aux/\w+/{tag}", key)])


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of all kept reports."""
    measured = [(name, report["training"]["conflict"]) for name, report in kept_reports("conflict", folder).items()]
    rows = [
        [f"[{name}]({name})", f"{of['cosine']:.3f}", f"{of['negative']:.0%}", f"{of['size']:.3f}"]
        for name, of in measured
        if of
    ]
    text = comparison_tables(compared("conflict", "none", folder), "Scores", "Difference")
    return with_block(page, __file__, f"{text}## Gradients\n\n{table(HEADER, rows)}")


if __name__ == "__main__":
    folder = keep_reports("conflict", measure)
    write_page(folder / PAGE.name, __file__, render_page)
