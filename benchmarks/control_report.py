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
from common import RESULTS, arms, fill_in, keep_report, log_of, table

from configs.schema import Config, read_config

HEADER = ["world", "arm", "environment steps", "mean of the seeds", "score of 100 episodes, by seed", "last games"]
LAST = 5  # training games
DRAWN = "cartpole"


def games(run: Path) -> list[tuple[int, float]]:
    """Environment step at the end of each training game, and its score."""
    repeat = read_config(run / "config.yaml", Config).env.repeat
    return [(row["step"] * repeat, row["rollout/score"]) for row in log_of(run) if "rollout/score" in row]


def cells(world: str, arm: str, runs: list[Path]) -> list[str]:
    """An arm's line of the table; the reports of its runs go to results/."""
    means, links = [], []
    for run in runs:
        report = f"control-{world}-{arm}-{run.name}.json"
        summary = keep_report(run, report)
        low, high = summary["mean_interval"]
        means.append(summary["mean"])
        links.append(f"[{summary['mean']:.1f}]({report}) ({low:.0f} to {high:.0f})")
    last = [score for run in runs for _, score in games(run)[-LAST:]]
    steps = games(runs[0])[-1][0]
    mean = f"{statistics.mean(means):.1f}"
    return [world, arm, f"{steps:,}", mean, ", ".join(links), f"{statistics.mean(last):.0f}"]


def draw(runs: Iterable[Path]) -> None:
    """Scores of the training games in one world, a colour for each arm, a line for each seed."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    shown = [(arm, seeds) for world, arm, seeds in arms(runs) if world == DRAWN]
    for i, (arm, seeds) in enumerate(shown):
        for run in seeds:
            label = arm if run == seeds[0] else None
            axes.plot(*zip(*games(run), strict=True), linewidth=1, color=f"C{i}", label=label)
    axes.set(xlabel="environment steps", ylabel="score of the training games", title=DRAWN)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(RESULTS / "control.png", dpi=110)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    draw(folders)
    fill_in(RESULTS / "control.md", table(HEADER, [cells(*arm) for arm in arms(folders)]))
