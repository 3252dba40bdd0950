"""Table and curves of finished runs, whose folders are <arm>/s<seed>.

    python benchmarks/pong_report.py runs/pong/*/s* out=my_report

Each needs the report that `python evaluate.py checkpoint=RUN protocol=nature json=RUN/report.json`, or the end of a
training, leaves; it is kept in `out`, where pong.png and the table in pong.md are made of all that are there.
`out=results` adds them to the project's own.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import (
    RESULTS,
    arms,
    curve,
    keep_report,
    kept_reports,
    log_of,
    runs_and_folder,
    table,
    with_block,
    write_page,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.comparison.measure import tail_mean
from analysis.comparison.runs import Run

HEADER = ["arm", "seed", "agent steps", "updates", "minutes", "GFLOP/s at its start", "mean of 100 episodes"]
HEADER += ["interquartile mean (95 %)", "accuracy of the task", "training episodes by 50k steps"]
PAGE = RESULTS / "pong.md"
WINDOW = 50_000  # agent steps
DRAWN = 25_000
LABELS = {  # of the figure, for the arms of our own
    "none": "DQN, 320k steps",
    "none_700k": "DQN, 700k steps",
    "none_800k": "DQN, 800k steps (the preset)",
    "permutation": "DQN + permutation, 320k",
    "rotation": "DQN + rotation, 320k",
}


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
    run = Run("", "", 0, {}, rows)
    means = {tag.split("/")[1]: tail_mean(run, tag) for row in rows for tag in row if tag.endswith("/accuracy")}
    return ", ".join(f"{name} {mean:.2f}" for name, mean in sorted(means.items())) or "none"


def keep(run: Path, folder: Path) -> None:
    """Put a run's report, and what the page shows of its training, into a folder."""
    rows, (minutes, rates) = log_of(run), clock(run)
    steps, updates = rows[-1]["step"], max(row.get("train/n_updates", 0) for row in rows)
    told = {"steps": steps, "updates": updates, "minutes": minutes, "gflops": rates, "accuracy": accuracy(rows)}
    keep_report(run, folder / f"pong-{run.parent.name}-{run.name}.json", **told)


def cells(name: str, report: dict[str, Any]) -> list[str]:
    """A run's line of the table."""
    arm, _, seed = name.removeprefix("pong-").removesuffix(".json").rpartition("-")
    summary, training = report["summary"], report["training"]
    low, high = summary["iqm_interval"]
    first = [arm, seed[1:], *(f"{training[key] // 1000}k" for key in ("steps", "updates"))]
    score = [f"[{summary['mean']:.2f}]({name})", f"{summary['iqm']:.2f} ({low:.2f} to {high:.2f})"]
    points = curve(training["games"], training["steps"] // WINDOW * WINDOW, WINDOW)
    scores = ", ".join(f"{mean:.1f}" for mean in points)
    return [*first, training["minutes"], training["gflops"], *score, training["accuracy"], scores]


def draw(reports: dict[str, dict[str, Any]], folder: Path) -> None:
    """Mean return of the training episodes in each window of steps, a colour for each arm, a line for each seed."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for i, (arm, seeds) in enumerate(arms(reports)):
        label = LABELS.get(arm, arm)
        for training in (report["training"] for report in seeds.values()):
            points = curve(training["games"], training["steps"] // DRAWN * DRAWN, DRAWN)
            ends = [(k + 1) * DRAWN / 1000 for k in range(len(points))]
            axes.plot(ends, points, linewidth=1, color=f"C{i}", label=label)
            label = "_"  # once
    axes.set(xlabel="agent steps, thousands", ylabel="mean return of the training episodes", title="Pong")
    axes.axhline(18, color="grey", linewidth=0.5)
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "pong.png", dpi=110)


def remade(page: str, folder: Path = RESULTS) -> str:
    """The page with the table of all kept reports."""
    return with_block(page, __file__, table(HEADER, [cells(*one) for one in kept_reports("pong", folder).items()]))


if __name__ == "__main__":
    runs, folder = runs_and_folder()
    for run in runs:
        keep(run, folder)
    draw(kept_reports("pong", folder), folder)
    write_page(folder / PAGE.name, __file__, remade)
