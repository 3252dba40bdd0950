"""The learning curves of README.md, from the kept reports: `python benchmarks/front_page.py`."""

import statistics
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import ROOT, arms, kept_reports

FIGURE = ROOT / "docs" / "images" / "curves.png"
WINDOWS = 20  # of a run
# By page: what a panel shows, environment steps in an agent step, and its arms.
PANELS: dict[str, tuple[str, int, str, dict[str, str]]] = {
    "pong": ("Pong, one CPU core", 4, "lower right", {"none_800k": "DQN (make train)"}),
    "control": (
        "Cartpole swing-up from pixels",
        8,
        "upper left",
        {
            "cartpole-plain": "SAC",
            "cartpole-shift2": "SAC + two shifted copies",
            "cartpole-shift2_deepmdp": "the same + DeepMDP",
        },
    ),
}


def curve(report: dict[str, Any], repeat: int) -> tuple[list[float], list[float]]:
    """Environment steps at the ends of equal windows, and the mean return of the training episodes in each."""
    games = report["training"]["games"]
    last = max(step for step, *_ in games)
    ends, means = [], []
    for k in range(WINDOWS):
        scores = [score for step, score, *_ in games if k * last < WINDOWS * step <= (k + 1) * last]
        if scores:
            ends.append((k + 1) * last / WINDOWS * repeat / 1000)
            means.append(statistics.mean(scores))
    return ends, means


def draw() -> None:
    """A panel for each page, a colour for each arm, a line for each seed."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(10, 3.6))
    for axes, (page, (title, repeat, place, shown)) in zip(panels, PANELS.items(), strict=True):
        seeds_of = dict(arms(kept_reports(page)))
        for i, (arm, label) in enumerate(shown.items()):
            for k, report in enumerate(seeds_of[arm].values()):
                axes.plot(*curve(report, repeat), color=f"C{i}", label="_" if k else label)
        axes.set(title=title, xlabel="environment steps, thousands", ylabel="mean return in training")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", framealpha=1, loc=place)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=100)


if __name__ == "__main__":
    draw()
