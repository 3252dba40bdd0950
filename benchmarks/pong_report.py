"""Table and curves of finished runs: `python benchmarks/pong_report.py runs/pong/*/s0`.

Copies each report to results/pong-<agent>+<aux>.json, draws results/pong.png, and replaces the table between the two
marks of results/pong.md.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS, curve, fill_in, log_of, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HEADER = ["run", "agent steps", "updates", "minutes", "GFLOP/s at its start", "mean of 100 games"]
HEADER += ["interquartile mean (95 %)", "accuracy of the task (chance 0.25)", "training games by 100k steps"]
WINDOW = 100_000


def clock(run: Path) -> tuple[float, str]:
    """Wall-clock minutes of training, summed over its restarts, and the machine's rate at each of them."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    elapsed = [event.value for event in events.Scalars("time/time_elapsed")]
    ends = [a for a, b in zip(elapsed, [*elapsed[1:], 0.0], strict=True) if b < a]
    rates = "not measured"
    if "time/matmul_gflops" in events.Tags()["scalars"]:
        rates = ", ".join(f"{event.value:.0f}" for event in events.Scalars("time/matmul_gflops"))
    return sum(ends) / 60, rates


def accuracy(rows: list[dict[str, Any]]) -> str:
    """Accuracy of each auxiliary task over the last tenth of the run."""
    means = []
    for name in sorted({key for row in rows for key in row if key.endswith("/accuracy")}):
        values = [row[name] for row in rows if name in row]
        tail = values[-max(1, len(values) // 10) :]
        means.append(f"{name.split('/')[1]} {sum(tail) / len(tail):.2f}")
    return ", ".join(means) or "none"


def cells(run: Path, rows: list[dict[str, Any]]) -> list[str]:
    """The run's line of the table."""
    name, summary = run.parent.name, json.loads((run / "report.json").read_text())["summary"]
    low, high = summary["iqm_interval"]
    updates = max(row.get("train/n_updates", 0) for row in rows)
    minutes, rates = clock(run)
    first = [f"[{name}](pong-{name}.json)", f"{rows[-1]['step'] // 1000}k", f"{updates // 1000}k", f"{minutes:.0f}"]
    score = [f"{summary['mean']:.2f}", f"{summary['iqm']:.2f} ({low:.2f} to {high:.2f})"]
    scores = ", ".join(f"{mean:.1f}" for mean in curve(run, rows[-1]["step"], WINDOW))
    return [*first, rates, *score, accuracy(rows), scores]


def main(runs: list[Path]) -> None:
    """Write the reports, the table and the figure."""
    figure, axes = plt.subplots(figsize=(7, 4))
    lines = []
    for run in runs:
        rows, name = log_of(run), run.parent.name
        games = [(row["step"] / 1000, row["rollout/score"]) for row in rows if "rollout/score" in row]
        axes.plot(*zip(*games, strict=True), ".", markersize=3, label=name)
        shutil.copy(run / "report.json", RESULTS / f"pong-{name}.json")
        lines.append(cells(run, rows))
    axes.set(xlabel="agent steps, thousands", ylabel="score of the training games", title="Pong, one seed each")
    axes.axhline(18, color="grey", linewidth=0.5)
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "pong.png", dpi=110)
    fill_in(RESULTS / "pong.md", table(HEADER, lines))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
