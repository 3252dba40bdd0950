"""Table and curves of finished runs, folders <arm>/s<seed>: `python benchmarks/pong_report.py runs/pong/*/s*`.

Each needs the report that `python evaluate.py checkpoint=RUN protocol=nature json=RUN/report.json`, or the end of a
training, leaves; it is copied to results/. Draws results/pong.png and replaces the table between the two marks of
results/pong.md.
"""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS, arms, curve, fill_in, keep_report, log_of, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HEADER = ["arm", "seed", "agent steps", "updates", "minutes", "GFLOP/s at its start", "mean of 100 games"]
HEADER += ["interquartile mean (95 %)", "accuracy of the task", "training games by 50k steps"]
WINDOW = 50_000  # agent steps
DRAWN = 25_000


def clock(run: Path) -> tuple[str, str]:
    """Wall-clock minutes of training, summed over its restarts, and the machine's rate at each of them."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    logged = {name: events.Scalars(name) for name in events.Tags()["scalars"] if name.startswith("time/")}
    elapsed = [event.value for event in logged.get("time/time_elapsed", [])]
    ends = [a for a, b in pairwise([*elapsed, 0.0]) if b < a]
    rates = [f"{event.value:.0f}" for event in logged.get("time/matmul_gflops", [])]
    return f"{sum(ends) / 60:.0f}" if ends else "not kept", ", ".join(rates) or "not kept"


def accuracy(rows: list[dict[str, Any]]) -> str:
    """Accuracy of each auxiliary task over the last tenth of the run."""
    means = []
    for name in sorted({key for row in rows for key in row if key.endswith("/accuracy")}):
        values = [row[name] for row in rows if name in row]
        tail = values[-max(1, len(values) // 10) :]
        means.append(f"{name.split('/')[1]} {sum(tail) / len(tail):.2f}")
    return ", ".join(means) or "none"


def cells(run: Path) -> list[str]:
    """The run's line of the table; its report goes to results/."""
    rows, report = log_of(run), f"pong-{run.parent.name}-{run.name}.json"
    summary = keep_report(run, report)
    low, high = summary["iqm_interval"]
    steps, updates = rows[-1]["step"], max(row.get("train/n_updates", 0) for row in rows)
    first = [run.parent.name, run.name[1:], f"{steps // 1000:.0f}k", f"{updates // 1000:.0f}k", *clock(run)]
    score = [f"[{summary['mean']:.2f}]({report})", f"{summary['iqm']:.2f} ({low:.2f} to {high:.2f})"]
    scores = ", ".join(f"{mean:.1f}" for mean in curve(run, steps // WINDOW * WINDOW, WINDOW))
    return [*first, *score, accuracy(rows), scores]


def draw(runs: list[Path]) -> None:
    """Mean score of the training games in each stretch of steps, a colour for each arm, a line for each seed."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for i, (_, arm, seeds) in enumerate(arms(runs)):
        for run in seeds:
            points = curve(run, log_of(run)[-1]["step"] // DRAWN * DRAWN, DRAWN)
            ends = [(k + 1) * DRAWN / 1000 for k in range(len(points))]
            axes.plot(ends, points, linewidth=1, color=f"C{i}", label=arm if run == seeds[0] else None)
    axes.set(xlabel="agent steps, thousands", ylabel="mean score of the training games", title="Pong")
    axes.axhline(18, color="grey", linewidth=0.5)
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "pong.png", dpi=110)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    draw(folders)
    fill_in(RESULTS / "pong.md", table(HEADER, map(cells, folders)))
