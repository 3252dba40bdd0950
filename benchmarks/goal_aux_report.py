"""Tables of the runs that have a goal space as auxiliary task, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/goal_aux_report.py runs/goal_aux/*/*/s* out=my_report

Each needs the report that the end of a training leaves; it is kept in `out`, where the block of goal_aux.md is made of
all that are there. `out=results` adds them to the project's own.
"""

from pathlib import Path

from common import (
    RESULTS,
    compared,
    comparison_tables,
    keep_reports,
    log_of,
    with_block,
    write_page,
)

PAGE = RESULTS / "goal_aux.md"


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of all kept reports."""
    return with_block(page, __file__, comparison_tables(compared("goal_aux", "none", folder), "Scores", "Difference"))


if __name__ == "__main__":
    folder = keep_reports("goal_aux", lambda run: {"steps": max(row["step"] for row in log_of(run))})
    write_page(folder / PAGE.name, __file__, render_page)
