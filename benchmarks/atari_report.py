"""Tables and curves of finished Atari runs, whose folders are <game>/<arm>/s<seed>.

    python benchmarks/atari_report.py runs/atari/*/*/s* out=my_report

Each needs the report that the end of a training leaves (protocol `nature`); what `python evaluate.py checkpoint=RUN
protocol=rainbow` leaves beside it is shown too. All of it is kept in `out`, where atari.md and a figure for each game
are made of all that are there. `out=results` adds them to the project's own.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from common import (
    RESULTS,
    arms,
    comparison_tables,
    curve,
    keep_report,
    kept_reports,
    log_of,
    read_json,
    runs_and_folder,
    table,
    with_block,
    write_page,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.comparison.groups import Group
from analysis.comparison.measure import compare, tail_mean
from analysis.comparison.runs import SCORE, Run, read_runs
from harness.metrics import seconds_of

GOALS = {"pong": (0, 10, 15, 18), "breakout": (15, 30, 100), "freeway": (10, 21, 27), "boxing": (10, 35, 60)}
BASELINES = ("dqn", "none", "quantile_400k")  # the first of them that is there
PAGE = RESULTS / "atari.md"
WINDOW = 50_000  # agent steps
HEADER = ["arm", "seed", "updates", "minutes", "GFLOP/s at its start", "`nature` (95 %)", "`rainbow`"]


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


def reached(rows: Sequence[dict[str, Any]], score: float) -> dict[str, tuple[int, float | None]]:
    """Agent steps and seconds until a mean of training games is `score`, of those means that get there.

    `ten`: over the last ten logged scores; `hundred`: over the last hundred games, or all where there were fewer.
    """
    scored = [row for row in rows if SCORE in row]
    found: dict[str, tuple[int, float | None]] = {}
    for i, row in enumerate(scored[9:], 9):
        ten = statistics.mean(each[SCORE] for each in scored[i - 9 : i + 1])
        for name, mean in (("ten", ten), ("hundred", row.get("rollout/ep_rew_mean", -float("inf")))):
            if mean >= score:
                found.setdefault(name, (row["step"], seconds_of(row)))
    return found


def keep(run: Path, folder: Path) -> None:
    """Put a run's report, and what the page shows of its training, into a folder."""
    rows, (minutes, rates), game = log_of(run), clock(run), run.parts[-3]
    steps, updates = rows[-1]["step"], max(row.get("train/n_updates", 0) for row in rows)
    told = {"steps": steps, "updates": updates, "minutes": minutes, "gflops": rates, "accuracy": accuracy(rows)}
    told["reached"] = {str(score): reached(rows, score) for score in GOALS[game]}
    told["rainbow"] = read_json(run / "report-rainbow.json").get("summary")
    keep_report(run, folder / f"{'-'.join(run.parts[-3:])}.json", **told)


def cells(arm: str, name: str, report: dict[str, Any], game: str) -> list[str]:
    """A run's line of the table."""
    training, seed = report["training"], name.removesuffix(".json").rpartition("-s")[2]
    first = [arm, seed, f"{training['updates'] // 1000}k", training["minutes"], training["gflops"]]
    scores = [f"[{report['summary']['mean']:.2f}]({name}) {interval(report['summary'])}"]
    rainbow = training.get("rainbow")
    scores.append(f"{rainbow['mean']:.2f} {interval(rainbow)}" if rainbow else "-")
    times = [when(training.get("reached", {}).get(str(score), {})) for score in GOALS[game]]
    points = curve(training["games"], training["steps"] // WINDOW * WINDOW, WINDOW)
    return [*first, *scores, *times, training["accuracy"], ", ".join(f"{mean:.1f}" for mean in points)]


def interval(summary: dict[str, Any]) -> str:
    """Of the mean of its games; empty for a single one."""
    bounds = summary["mean_interval"]
    return "({:.2f} to {:.2f})".format(*bounds) if bounds else ""


def when(found: dict[str, tuple[int, float | None]]) -> str:
    """`92k, 9 min; 131k, 13 min`: by the last ten logged scores, and by the last hundred games."""
    told = []
    for name in ("ten", "hundred"):
        steps, seconds = found.get(name, (None, None))
        minutes = f", {seconds / 60:.0f} min" if seconds is not None else ""
        told.append(f"{steps / 1000:.0f}k{minutes}" if steps else "-")
    return "; ".join(told) if found else "-"


def draw(game: str, reports: dict[str, dict[str, Any]], folder: Path) -> None:
    """Mean return of the training episodes in each window of steps, a colour for each arm, a line for each seed."""
    figure, axes = plt.subplots(figsize=(9, 5))
    for i, (arm, seeds) in enumerate(arms(reports)):
        label = arm
        for training in (report["training"] for report in seeds.values()):
            points = curve(training["games"], training["steps"] // WINDOW * WINDOW, WINDOW)
            ends = [(k + 1) * WINDOW / 1000 for k in range(len(points))]
            axes.plot(ends, points, linewidth=1, color=plt.get_cmap("tab20")(i % 20), label=label)
            label = "_"  # once
    axes.set(xlabel="agent steps, thousands", ylabel="mean return of the training episodes", title=game.capitalize())
    axes.axhline(GOALS[game][-1], color="grey", linewidth=0.5)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(folder / f"{game}.png", dpi=110)
    plt.close(figure)


def budget_tables(game: str, steps: int, found: list[tuple[str, dict[str, dict[str, Any]]]], folder: Path) -> str:
    """Arms of one game with equal numbers of steps: compared, and each run."""
    baseline = next((arm for arm in BASELINES if arm in dict(found)), None)
    groups = []
    for arm, seeds in sorted(found, key=lambda one: one[0] != baseline):
        runs = [replace(run, task=game, label=arm) for run in read_runs(folder / name for name in seeds)]
        groups.append(Group({}, {game: runs}, {}))
    rows = [cells(arm, name, report, game) for arm, seeds in found for name, report in seeds.items()]
    header = [*HEADER, *(f"to {score}" for score in GOALS[game]), "accuracy of the task", "training games by 50k steps"]
    shown = comparison_tables(compare(groups), "Scores", "Difference").replace("## ", "### ")
    return f"## {game.capitalize()}, {steps:,} agent steps\n\n{shown}### Runs\n\n{table(header, rows)}\n"


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of all kept reports."""
    text = ""
    for game in GOALS:
        every = arms(kept_reports(game, folder))
        for steps in sorted({report["training"]["steps"] for _, seeds in every for report in seeds.values()}):
            equal = [(arm, {n: r for n, r in seeds.items() if r["training"]["steps"] == steps}) for arm, seeds in every]
            text += budget_tables(game, steps, [(arm, seeds) for arm, seeds in equal if seeds], folder)
    return with_block(page, __file__, text)


if __name__ == "__main__":
    runs, folder = runs_and_folder()
    for run in runs:
        keep(run, folder)
    for game in GOALS:
        if reports := kept_reports(game, folder):
            draw(game, reports, folder)
    write_page(folder / PAGE.name, __file__, render_page)
