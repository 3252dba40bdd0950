"""Table and curves of finished runs, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/control_report.py runs/control/*/*/s* out=my_report

Each needs the report that `python evaluate.py checkpoint=RUN episodes=100 json=RUN/report.json`, or the end of a
training, leaves; it is kept in `out`, where control.png and the table in control.md are made of all that are there.
`out=results` adds them to the project's own.
"""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS, arms, keep_report, kept_reports, runs_and_folder, table, with_block, write_page
from omegaconf import OmegaConf

from analysis.probes import interval
from envs import DmcConfig

HEADER = [
    "world",
    "arm",
    "device, batch",
    "environment steps",
    "mean of the seeds",
    "mean return of 100 episodes, by seed",
]
HEADER += ["end of training"]
PAGE = RESULTS / "control.md"
LAST = 5  # rows of the log
DRAWN = ("cartpole", "cartpole_films")
COLOURS = plt.get_cmap("tab20")


def curve(report: dict[str, Any]) -> list[tuple[int, float]]:
    """Environment steps where episodes were logged, and the mean return of those since the row before."""
    repeat = DmcConfig(**report["env"]).repeat
    return [(step * repeat, score) for step, score in report["training"]["games"]]


def cells(arm: str, reports: dict[str, dict[str, Any]]) -> list[str]:
    """An arm's line of the table."""
    summaries = {name: report["summary"] for name, report in reports.items()}
    curves, means = [curve(report) for report in reports.values()], [s["mean"] for s in summaries.values()]
    config = OmegaConf.create(next(iter(reports.values()))["training"]["config"])
    links = [
        f"[{summary['mean']:.1f}]({name}) ({summary['mean_interval'][0]:.0f} to {summary['mean_interval'][1]:.0f})"
        for name, summary in summaries.items()
    ]
    mean = f"{statistics.mean(means):.1f}"
    if len(means) > 2 and (bounds := interval(means)):
        mean += f" ({bounds[0]:.0f} to {bounds[1]:.0f})"
    return [
        *arm.split("-"),
        f"{config.device}, {config.batch_size}",
        f"{curves[0][-1][0]:,}",
        mean,
        ", ".join(links),
        f"{statistics.mean(score for points in curves for _, score in points[-LAST:]):.0f}",
    ]


def draw(reports: dict[str, dict[str, Any]], folder: Path) -> None:
    """Returns of the training episodes, a panel for each world, a colour for each arm, a line for each seed."""
    figure, panels = plt.subplots(1, len(DRAWN), figsize=(13, 4.5), sharey=True)
    for axes, world in zip(panels, DRAWN, strict=True):
        shown = [(arm, seeds) for arm, seeds in arms(reports) if arm.startswith(world + "-")]
        for i, (arm, seeds) in enumerate(shown):
            label = arm.partition("-")[2]
            for report in seeds.values():
                axes.plot(*zip(*curve(report), strict=True), linewidth=1, color=COLOURS(i), label=label)
                label = "_"  # once
        axes.set(xlabel="environment steps", title=world)
        axes.legend(fontsize="small")
    panels[0].set(ylabel="return of the training episodes")
    figure.tight_layout()
    figure.savefig(folder / "control.png", dpi=110)


def remade(page: str, folder: Path = RESULTS) -> str:
    """The page with the table of all kept reports."""
    return with_block(page, __file__, table(HEADER, [cells(*arm) for arm in arms(kept_reports("control", folder))]))


if __name__ == "__main__":
    runs, folder = runs_and_folder()
    for run in runs:
        keep_report(run, folder / f"control-{'-'.join(run.parts[-3:])}.json")
    draw(kept_reports("control", folder), folder)
    write_page(folder / PAGE.name, __file__, remade)
