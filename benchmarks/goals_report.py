"""Table of finished runs with goals, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/goals_report.py runs/goals/*/*/s* out=my_report

Each needs the report that the end of a training leaves; it is kept in `out`, where the table in goals.md is made of all
that are there. `out=results` adds them to the project's own.
"""

import statistics
from pathlib import Path
from typing import Any

from common import RESULTS, arms, keep_reports, kept_reports, log_of, table, with_block, write_page
from omegaconf import OmegaConf

PAGE = RESULTS / "goals.md"
HEADER = ["world, arm", "agent steps", "time", "goal reached", "final distance", "to doing nothing", "by seed"]


def cells(arm: str, seeds: dict[str, dict[str, Any]]) -> list[str]:
    """The row of an arm: means over its seeds, each the share of the distance that doing nothing leaves."""
    reports = list(seeds.values())
    summaries = [report["summary"] for report in reports]
    idle = [report.get("do_nothing") or report["random_play"] for report in reports]
    ratios = [s["goal_distance"] / i["goal_distance"] for s, i in zip(summaries, idle, strict=True)]
    steps = {OmegaConf.create(report["training"]["config"]).steps for report in reports}
    minutes = statistics.mean(report["training"]["seconds"] for report in reports) / 60
    links = [f"[{ratio:.2f}]({name})" for ratio, name in zip(ratios, seeds, strict=True)]
    return [
        arm.replace("-", ", ", 1),
        ", ".join(f"{count:,}" for count in sorted(steps)),
        f"{minutes:.2g} min",
        f"{100 * statistics.mean(s['success_rate'] for s in summaries):.0f} %",
        f"{statistics.mean(s['goal_distance'] for s in summaries):.2f}",
        f"{statistics.mean(ratios):.2f}",
        ", ".join(links),
    ]


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the table of all kept reports."""
    return with_block(page, __file__, table(HEADER, [cells(*arm) for arm in arms(kept_reports("goals", folder))]))


if __name__ == "__main__":
    folder = keep_reports("goals", lambda run: {"seconds": log_of(run)[-1]["clock"]["seconds"]})
    write_page(folder / PAGE.name, __file__, render_page)
