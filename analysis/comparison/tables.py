"""A comparison as tables of text, for the terminal, Markdown and the HTML page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.comparison.measure import (
    OUTCOMES,
    Cell,
    Comparison,
    Estimate,
    estimate,
    negative_share,
    over_runs,
    ratio,
)
from analysis.comparison.notes import Note, marks
from analysis.comparison.runs import Run
from analysis.comparison.scale import MEANING, normalised_scores, normaliser
from analysis.statistics import (
    difference_interval,
    improvement_interval,
    mean_of_tasks,
    median_of_tasks,
    optimality_gap,
    paired_difference,
    pooled_iqm,
    probability_of_improvement,
    stratified_interval,
)

NONE = "-"
AGGREGATES: dict[str, Callable[..., Any]] = {
    "mean": mean_of_tasks,
    "median": median_of_tasks,
    "IQM": pooled_iqm,
    "optimality gap": optimality_gap,
}


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    caption: str = ""


def tables(comparison: Comparison, found: list[Note]) -> list[Table]:
    """All tables of a comparison, without empty ones."""
    tasks = comparison.tasks
    every = [_scores(comparison, task, found) for task in tasks] + [_differences(comparison, task) for task in tasks]
    every += [_aggregates(comparison)]
    every += [_costs(comparison, task) for task in tasks] + [_auxiliary(comparison, task) for task in tasks]
    every += [_settings(comparison), _runs(comparison)]
    return [table for table in every if table.rows]


def format_number(value: float | None, digits: int | None = None) -> str:
    """A number with about three significant digits, or with `digits` decimal places."""
    if value is None:
        return NONE
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 or not value else 4
    return f"{value:,.{digits}f}"


def format_estimate(found: Estimate | None, signed: bool = False) -> str:
    """`value [low, high]`, all with the same number of decimal places."""
    if found is None:
        return NONE
    size = max(abs(bound) for bound in (found.value, found.low or 0, found.high or 0))
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2
    sign = "+" if signed else ""
    bounds = "" if found.low is None or found.high is None else f" [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"
    return f"{found.value:{sign},.{digits}f}{bounds}"


def _scores(comparison: Comparison, task: str, found: list[Note]) -> Table:
    normal = normaliser(comparison, task)
    rows = []
    for cell in comparison.of_task(task):
        final = cell.values("final")
        row = [cell.group.label + marks(found, cell.group.label, task), str(len(cell.outcomes))]
        fewer = f" (n={len(final)})" if len(final) < len(cell.outcomes) else ""
        row += [format_estimate(cell.estimate("final")) + fewer]
        row += [format_number(pooled_iqm([final]) if final else None)]
        row += [format_estimate(cell.estimate(name)) for name in ("best", "last", "area")]
        if normal:
            row.append(format_number(normal[1](sum(final) / len(final)) if final else None))
        rows.append(row)
    header = ["group", "seeds", "final evaluation", "its IQM", "best training", "last training", "area under curve"]
    header += [normal[0]] if normal else []
    for name, title in {"success_rate": "success rate", "goal_distance": "distance to the goal"}.items():
        columns = [cell.evaluated(name) for cell in comparison.of_task(task)]
        if any(columns):
            header.append(title)
            for row, values in zip(rows, columns, strict=True):
                row.append(format_estimate(estimate(values)))
    caption = (
        "Mean over the seeds with its 95 % bootstrap interval. Training scores are moving means over a tenth "
        "of the longest run. The area is the mean height of the curve up to the end of the shortest run, at "
        f"{comparison.ends[task]:,.0f} agent steps."
    )
    if normal:
        caption += f" {MEANING[normal[0]]}"
    return Table(f"Scores: {task}", header, rows, caption)


def _differences(comparison: Comparison, task: str) -> Table:
    cells = comparison.of_task(task)
    baseline, rows = cells[0], []
    for cell in cells[1:]:
        for name, title in {"final": "final evaluation", "area": "area under curve"}.items():
            x, y = cell.values(name), baseline.values(name)
            if x and y:
                value, chance = _free(x, y)
                shown = [format_estimate(value, signed=True), *_paired(cell, baseline, name), format_estimate(chance)]
                rows.append([cell.group.label, title, *shown])
    header = ["group", "of", "difference", "paired by seed", "pairs", "probability of improvement"]
    title = f"Difference from {baseline.group.label}: {task}" if cells else task
    caption = "95 % bootstrap intervals: of independent runs, and of the pairs that share a seed."
    return Table(title, header, rows, caption)


def _free(x: list[float], y: list[float]) -> tuple[Estimate, Estimate]:
    """The difference of the means and the probability of improvement, of independent runs."""
    n, difference = min(len(x), len(y)), float(mean_of_tasks([x]) - mean_of_tasks([y]))
    chance = probability_of_improvement([x], [y])
    if n == 1:
        return Estimate(difference, n), Estimate(chance, n)
    of_chance = improvement_interval([x], [y])
    return Estimate(difference, n, *difference_interval([x], [y])), Estimate(chance, n, *of_chance)


def _paired(cell: Cell, baseline: Cell, name: str) -> list[str]:
    """The mean difference over the seeds of both groups, and the number of these seeds."""
    ours, theirs = ({o.run.seed: getattr(o, name) for o in c.outcomes} for c in (cell, baseline))
    seeds = [s for s in ours if ours[s] is not None and theirs.get(s) is not None]
    if len(seeds) < 2:
        return [NONE, str(len(seeds))]
    value, bounds = paired_difference([ours[s] for s in seeds], [theirs[s] for s in seeds])
    return [format_estimate(Estimate(value, len(seeds), *bounds), signed=True), str(len(seeds))]


def _aggregates(comparison: Comparison) -> Table:
    """Aggregates over all tasks, if they have a common scale."""
    rows, every = [], normalised_scores(comparison)
    baseline = comparison.groups[0].label
    for label, scores in every.items():
        several = any(len(runs) > 1 for runs in scores)  # else no interval
        shown = [
            Estimate(float(of(scores)), 0, *(stratified_interval(scores, of) if several else (None, None)))
            for of in AGGREGATES.values()
        ]
        better = None
        if label != baseline and baseline in every:
            several = several or any(len(runs) > 1 for runs in every[baseline])
            bounds = improvement_interval(scores, every[baseline]) if several else (None, None)
            better = Estimate(probability_of_improvement(scores, every[baseline]), 0, *bounds)
        rows.append([label, *map(format_estimate, [*shown, better])])
    caption = "Of normalised final evaluations; 95 % intervals by a bootstrap stratified by task."
    return Table("Over all tasks", ["group", *AGGREGATES, "probability of improvement"], rows, caption)


def _costs(comparison: Comparison, task: str) -> Table:
    cells = comparison.of_task(task)
    rows = []
    for cell in cells:
        seconds, update = (cell.estimate(name) for name in ("seconds", "per_update"))
        if not seconds and not update:
            continue
        base = [ratio(value, cells[0].estimate(name)) for name, value in (("seconds", seconds), ("per_update", update))]
        minutes, milli = seconds.value / 60 if seconds else None, 1000 * update.value if update else None
        shown = [format_number(minutes), format_number(base[0], 2), format_number(milli), format_number(base[1], 2)]
        rows.append([cell.group.label, *shown])
    header = ["group", "minutes", "ratio of minutes", "ms per update", "ratio of ms"]
    caption = (
        f"Minutes of wall clock up to {comparison.ends[task]:,.0f} agent steps, evaluations and diagnoses included. "
        "An update counts with the environment steps before it; evaluations, diagnoses and probes are left out. "
        f"Ratios to {cells[0].group.label}."
    )
    return Table(f"Cost: {task}", header, rows, caption)


def _auxiliary(comparison: Comparison, task: str) -> Table:
    rows = []
    for cell in comparison.of_task(task):
        runs = [o.run for o in cell.outcomes]
        rank = format_number(_value(over_runs(runs, "repr/effective_rank")))
        solved = [[*_solved(runs, aux), rank] for aux in runs[0].tasks]
        rows += [[cell.group.label, *row] for row in solved if {*row[2:]} != {NONE}]
        if not runs[0].tasks and rank != NONE:
            rows.append([cell.group.label, *[NONE] * 6, rank])
    header = ["group", "task", "metric", "value", "chance", "gradient cosine", "below 0", "effective rank"]
    caption = (
        "Means over the last tenth of each run. Chance of an error ratio is 1, the trivial answer. The cosine is that "
        "of the task's gradient with the agent's on the encoder; below 0: share of all measurements."
    )
    return Table(f"Auxiliary tasks: {task}", header, rows, caption)


def _solved(runs: Sequence[Run], aux: str) -> list[str]:
    """The cells of an auxiliary task: its metric beside chance, and how its gradient agrees with the agent's."""
    found = {name: over_runs(runs, f"aux/{aux}/{name}") for name in ("accuracy", "error_ratio", "loss", "chance")}
    metric = next((name for name in ("accuracy", "error_ratio") if found[name]), "loss")
    chance = {"accuracy": format_number(_value(found["chance"]), 3), "error_ratio": "1", "loss": NONE}[metric]
    cosine = over_runs(runs, f"aux/{aux}/grad_cosine")
    below = over_runs(runs, f"aux/{aux}/grad_cosine", negative_share)
    conflict = [format_number(_value(cosine), 3), f"{100 * below.value:.0f} %" if below else NONE]
    return [aux, metric, format_number(_value(found[metric]), 3), chance, *conflict]


def _value(found: Estimate | None) -> float | None:
    return found.value if found else None


def _settings(comparison: Comparison) -> Table:
    """The config keys that differ between groups."""
    keys = list(comparison.groups[0].settings)
    rows = []
    for key in keys:
        values = [str(group.settings[key]) if key in group.all_runs[0].config else NONE for group in comparison.groups]
        rows.append([key, *values])
    return Table("What differs", ["key", *(group.label for group in comparison.groups)], rows)


def _runs(comparison: Comparison) -> Table:
    rows = []
    for (task, label), cell in comparison.cells.items():
        for o in cell.outcomes:
            scores = [format_number(getattr(o, name)) for name in OUTCOMES[:4]]
            rows.append([label, task, str(o.run.seed), f"{o.run.steps:,}", *scores, o.run.state, o.run.name])
    header = ["group", "task", "seed", "agent steps", "final", "best", "last", "area", "state", "run"]
    return Table("Runs", header, rows)
