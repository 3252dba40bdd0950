"""Measurements of each run, and estimates for each group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.groups import Group
from analysis.comparison.runs import SCORE, Run
from analysis.statistics import Floats, area_under_curve, curve_interval, mean_of_tasks, stratified_interval

POINTS = 120  # of a curve
WINDOW = 0.1  # share of the longest run over which training returns are averaged
FEW = 5  # number of runs below which an interval says little
TAIL = 0.1  # share of a run, at its end, over which metrics of auxiliary tasks are averaged


@dataclass(frozen=True)
class Estimate:
    """A mean over n runs, with a 95 % interval for two runs or more."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """The curves of a group up to the end of its shortest run."""

    x: Floats  # (P,) agent steps or seconds
    runs: Floats  # (n, P)
    low: Floats  # (P,) 95 % bootstrap interval of the mean; lowest and highest run if there are fewer than five
    high: Floats  # (P,)

    @property
    def mean(self) -> Floats:
        """Mean (P,) over the runs."""
        return np.asarray(self.runs.mean(0))


@dataclass(frozen=True)
class Outcome:
    """The measurements of one run; None where they are missing."""

    run: Run
    final: float | None  # mean return of the final evaluation
    best: float | None  # highest mean training return over a whole window
    last: float | None  # mean training return over the last window
    area: float | None  # mean height of the curve, over the steps that all runs of the task have
    seconds: float | None  # wall clock up to the end of the shortest run
    per_update: float | None  # seconds for an update and its environment steps, without evaluations and diagnoses


OUTCOMES = ("final", "best", "last", "area", "seconds", "per_update")


@dataclass(frozen=True)
class Cell:
    """The measurements of a group on one task."""

    group: Group
    outcomes: list[Outcome]
    curve: Curve | None

    def values(self, name: str) -> list[float]:
        """A measurement of all runs that have it."""
        found = (getattr(outcome, name) for outcome in self.outcomes)
        return [value for value in found if value is not None]

    def evaluated(self, name: str) -> list[float]:
        """A number in the summaries of the final evaluations, of all runs that have it."""
        found = (outcome.run.evaluated(name) for outcome in self.outcomes)
        return [value for value in found if value is not None]

    def estimate(self, name: str) -> Estimate | None:
        """Mean and interval of a measurement over the runs that have it."""
        return estimate(self.values(name))


@dataclass(frozen=True)
class Comparison:
    """The measurements of all groups on all tasks. The first group is the baseline."""

    groups: list[Group]
    tasks: list[str]
    cells: dict[tuple[str, str], Cell]  # by task and label, ordered by task, then as the groups
    x: str  # of the curves, steps or seconds
    metric: str  # of the curves
    ends: dict[str, float]  # agent steps of the shortest run of each task

    def of_task(self, task: str) -> list[Cell]:
        """The cells of the groups that have runs of a task, in order."""
        return [self.cells[task, group.label] for group in self.groups if (task, group.label) in self.cells]


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean and its interval; None without values."""
    if not values:
        return None
    bounds = stratified_interval([values], mean_of_tasks) if len(values) > 1 else (None, None)
    return Estimate(float(np.mean(values)), len(values), *bounds)


def compare(groups: list[Group], x: str = "steps", metric: str = SCORE) -> Comparison:
    """Measure every run and group.

    Args:
        groups: the baseline first.
        x: of the curves, steps or seconds.
        metric: of the curves.

    Raises:
        ValueError: no run has the metric, or the clock that x=seconds needs.
    """
    tasks = sorted({task for group in groups for task in group.runs})
    cells, ends = {}, {}
    for task in tasks:
        present = [group for group in groups if task in group.runs]
        runs = [run for group in present for run in group.runs[task]]
        window = WINDOW * max(run.steps for run in runs)
        curves = {(run.name, run.seed): smooth(run, metric, window) for run in runs}
        logged = [steps for steps, _ in curves.values() if len(steps)]
        ends[task] = float(min((steps[-1] for steps in logged), default=0))
        span = (max((steps[0] for steps in logged), default=0), ends[task])
        for group in present:
            members = group.runs[task]
            own = [curves[run.name, run.seed] for run in members]
            outcomes = [_outcome(run, *one, window, span) for run, one in zip(members, own, strict=True)]
            cells[task, group.label] = Cell(group, outcomes, _curve(members, own, x))
    if not any(cell.curve for cell in cells.values()):
        what = "the clock that x=seconds needs" if x == "seconds" else f"logged values of {metric}"
        raise ValueError(f"no run has {what}")
    return Comparison(groups, tasks, cells, x, metric, ends)


def smooth(run: Run, metric: str, window: float) -> tuple[NDArray[np.int64], Floats]:
    """Steps and values of a metric of a run; returns as moving means over the training episodes of `window` steps."""
    steps, values = run.series(metric)
    if metric != SCORE or not len(steps):
        return steps, values
    first = np.searchsorted(steps, steps - window, side="right")
    episodes = run.episodes()
    sums, counts = (np.concatenate([[0.0], np.cumsum(terms)]) for terms in (episodes * values, episodes))
    return steps, (sums[1:] - sums[first]) / (counts[1:] - counts[first])


def on_grid(x: NDArray[Any], values: Floats, grid: Floats) -> Floats:
    """The last value at or before each grid point; the first value before all of them."""
    return values[np.maximum(np.searchsorted(x, grid, side="right") - 1, 0)]


def _curve(runs: Sequence[Run], series: Sequence[tuple[NDArray[np.int64], Floats]], x: str) -> Curve | None:
    lines = []
    for run, (steps, values) in zip(runs, series, strict=True):
        clock = run.clock()
        if x == "steps" and len(steps):
            lines.append((steps.astype(np.float64), values))
        elif len(steps) and clock.shape[1]:
            lines.append((np.interp(steps, clock[0], clock[1]), values))
    if not lines:
        return None
    grid = np.linspace(max(at[0] for at, _ in lines), max(min(at[-1] for at, _ in lines), 1e-9), POINTS)
    if grid[0] >= grid[-1]:  # a run ends before another begins
        grid = grid[-1:]
    heights = np.array([on_grid(at, values, grid) for at, values in lines])
    low, high = curve_interval(heights) if len(heights) >= FEW else (heights.min(0), heights.max(0))
    return Curve(grid, heights, low, high)


def _outcome(run: Run, steps: NDArray[np.int64], values: Floats, window: float, span: tuple[float, float]) -> Outcome:
    best, last = (None, None)
    if len(values):
        whole = values[steps >= window]  # a mean over few episodes may be high by chance
        best, last = float(max(whole, default=values[-1])), float(values[-1])
    area: float | None = None
    if len(values) and span[0] <= span[1]:
        grid = np.linspace(*span, POINTS)
        area = float(area_under_curve(grid, on_grid(steps, values, grid)))
    seconds, per_update = _cost(run, span[1])
    return Outcome(run, run.final, best, last, area, seconds, per_update)


def _cost(run: Run, end: float) -> tuple[float | None, float | None]:
    """Seconds up to an agent step, and seconds for an update."""
    steps, seconds = run.clock()
    reached = np.flatnonzero(steps >= end)
    spent, updates = run.learning().sum(1)
    return float(seconds[reached[0]]) if len(reached) else None, float(spent / updates) if updates > 0 else None


# --- auxiliary tasks and the representation ---


def tail_mean(run: Run, tag: str) -> float | None:
    """Mean of a metric over the last tenth of its rows."""
    values = run.series(tag)[1]
    return float(values[-max(1, int(len(values) * TAIL)) :].mean()) if len(values) else None


def negative_share(run: Run, tag: str) -> float | None:
    """Share of rows in which a metric was below zero."""
    values = run.series(tag)[1]
    return float((values < 0).mean()) if len(values) else None


def over_runs(runs: Sequence[Run], tag: str, of: Callable[[Run, str], float | None] = tail_mean) -> Estimate | None:
    """Mean and interval of a metric over the runs that have it."""
    return estimate([value for run in runs if (value := of(run, tag)) is not None])


def ratio(value: Estimate | None, baseline: Estimate | None) -> float | None:
    """The ratio of two means; None if one is missing or the baseline is 0."""
    return value.value / baseline.value if value and baseline and baseline.value else None


def machine(run: Run) -> str:
    """The processor and the device of a run, as far as its report tells."""
    versions: Mapping[str, Any] = run.report.get("versions") or {}
    return f"{versions.get('cpu', '?')}, {run.config.get('device', '?')}"
