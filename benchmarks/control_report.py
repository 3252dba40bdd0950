"""The table and the figure of results/control.md from runs, whose folders are <world>/<arm>/s<seed>.

    python benchmarks/control_report.py runs/control/*/*/s*

Each needs the report that `python evaluate.py checkpoint=RUN episodes=100 json=RUN/report.json`, or the end of a
training, leaves; it is copied to results/.
"""

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS, arms, fill_in, games, keep_report, table

from configs.schema import Config, read_config
from harness.probes import interval

HEADER = ["world", "arm", "device, batch", "environment steps", "mean of the seeds", "score of 100 episodes, by seed"]
HEADER += ["end of training"]
LAST = 5  # rows of the log
DRAWN = "cartpole"
COLOURS = plt.get_cmap("tab20")


def config_of(run: Path) -> Config:
    """What a run was told."""
    return read_config(run / "config.yaml", Config)


def cells(world: str, arm: str, runs: list[Path]) -> list[str]:
    """An arm's line of the table; the reports of its runs go to results/."""
    config, means, links = config_of(runs[0]), [], []
    for run in runs:
        report = f"control-{world}-{arm}-{run.name}.json"
        summary = keep_report(run, report)
        low, high = summary["mean_interval"]
        means.append(summary["mean"])
        links.append(f"[{summary['mean']:.1f}]({report}) ({low:.0f} to {high:.0f})")
    last = [score for run in runs for _, score in games(run)[-LAST:]]
    steps = games(runs[0])[-1][0] * config.env.repeat
    mean = f"{statistics.mean(means):.1f}"
    if len(means) > 2 and (bounds := interval(means)):
        mean += f" ({bounds[0]:.0f} to {bounds[1]:.0f})"
    return [
        world,
        arm,
        f"{config.device}, {config.batch_size}",
        f"{steps:,}",
        mean,
        ", ".join(links),
        f"{statistics.mean(last):.0f}",
    ]


def draw(runs: Iterable[Path]) -> None:
    """Scores of the training games in one world, a colour for each arm, a line for each seed."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    shown = [(arm, seeds) for world, arm, seeds in arms(runs) if world == DRAWN]
    for i, (arm, seeds) in enumerate(shown):
        for run in seeds:
            label = arm if run == seeds[0] else None
            steps, scores = zip(*games(run), strict=True)
            repeat = config_of(run).env.repeat
            axes.plot([step * repeat for step in steps], scores, linewidth=1, color=COLOURS(i), label=label)
    axes.set(xlabel="environment steps", ylabel="score of the training games", title=DRAWN)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(RESULTS / "control.png", dpi=110)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    draw(folders)
    fill_in(RESULTS / "control.md", table(HEADER, [cells(*arm) for arm in arms(folders)]))
