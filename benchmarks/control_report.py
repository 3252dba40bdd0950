"""The table and the figure of results/cartpole.md from runs, whose folders are <background>/<arm>/s<seed>.

    python benchmarks/control_report.py runs/cartpole/*/*/s*

Each needs the report that `python evaluate.py checkpoint=RUN episodes=100 json=RUN/report.json`, or the end of a
training, leaves; it is copied to results/.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS, fill_in, log_of, table

from configs.schema import Config, read_config

HEADER = ["background", "arm", "seed", "environment steps", "device", "score of 100 episodes", "last training games"]


def cells(run: Path) -> list[str]:
    """The run's line of the table; its report goes to results/."""
    config, rows = read_config(run / "config.yaml", Config), log_of(run)
    background, arm, seed = run.parts[-3:]
    summary = json.loads((run / "report.json").read_text())["summary"]
    low, high = summary["mean_interval"]
    report = RESULTS / f"cartpole-{background}-{arm}-{seed}.json"
    shutil.copy(run / "report.json", report)
    steps = rows[-1]["step"] * config.env.repeat
    games = [row["rollout/score"] for row in rows if "rollout/score" in row][-5:]
    score = f"[{summary['mean']:.1f}]({report.name}) ({low:.1f} to {high:.1f})"
    return [background, arm, seed[1:], f"{steps:,}", config.device, score, f"{sum(games) / len(games):.0f}"]


def draw(runs: list[Path]) -> None:
    """Scores of the training games of the runs on a clean background."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for run in runs:
        background, arm, seed = run.parts[-3:]
        if background != "clean":
            continue
        repeat = read_config(run / "config.yaml", Config).env.repeat
        games = [(row["step"] * repeat / 1000, row["rollout/score"]) for row in log_of(run) if "rollout/score" in row]
        axes.plot(*zip(*games, strict=True), linewidth=1, label=f"{arm} {seed}")
    axes.set(xlabel="environment steps, thousands", ylabel="score of the training games", title="Cartpole swing-up")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(RESULTS / "cartpole.png", dpi=110)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    draw(folders)
    fill_in(RESULTS / "cartpole.md", table(HEADER, [cells(run) for run in folders]))
