"""Table and curves of finished runs, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/control_report.py runs/control/*/*/s* out=my_report

Each needs the report that `python evaluate.py checkpoint=RUN episodes=100 json=RUN/report.json`, or the end of a
training, leaves; it is kept in `out`, where the figure and the tables of control.md are made of all that are there.
`out=results` adds them to the project's own.
"""

from pathlib import Path

from common import (
    RESULTS,
    compared,
    comparison_tables,
    keep_reports,
    with_block,
    write_page,
)

from analysis.comparison.figure import write_figure

PAGE = RESULTS / "control.md"


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of all kept reports."""
    return with_block(page, __file__, comparison_tables(compared("control", "plain", folder), "Scores"))


if __name__ == "__main__":
    folder = keep_reports("control")
    write_figure(compared("control", "plain", folder), [], folder / "control.png")
    write_page(folder / PAGE.name, __file__, render_page)
