"""A comparison as a figure, PNG and SVG: curves, final scores and performance profiles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from analysis.comparison.measure import FEW, Comparison
from analysis.comparison.runs import SCORE
from analysis.comparison.scale import normalised_scores
from analysis.comparison.scores_csv import Published
from analysis.statistics import mean_profile, run_profile
from harness.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")  # Okabe and Ito
GREY = "#888888"


def colour(i: int) -> str:
    """The colour of the i-th group; colours repeat after eight."""
    return COLOURS[i % len(COLOURS)]


def _style(i: int) -> dict[str, str]:
    """Colour and line style of the i-th group; the style tells it from the group eight before."""
    return {"color": colour(i), "linestyle": ("-", "--", ":")[i // len(COLOURS) % 3]}


def caption(comparison: Comparison) -> str:
    """The caption: what lines, bands and points are."""
    few = any(len(runs) < FEW for group in comparison.groups for runs in group.runs.values())
    many = any(len(runs) >= FEW for group in comparison.groups for runs in group.runs.values())
    band = "Bands: 95 % bootstrap interval of the mean over the seeds. " if many else ""
    thin = f"Groups of fewer than {FEW} seeds have a thin line for each seed instead of a band. " if few else ""
    return (
        f"Thick lines: {metric_name(comparison)}, mean over the seeds, up to the end of the shortest run of the group. "
        f"{band}{thin}"
        "Points: final evaluation of each seed; bars: its mean with a 95 % interval."
    )


def write_figure(comparison: Comparison, published: Sequence[Published], *paths: Path) -> None:
    """Write the figure to .png or .svg: a row for each task, with curves, final scores and performance profile."""
    scores = normalised_scores(comparison)
    rows = len(comparison.tasks) + bool(scores)
    figure = Figure(figsize=(13, 3.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(rows, 3, squeeze=False, width_ratios=[3, 1.6, 1.4])
    for task, (curves, points, profile) in zip(comparison.tasks, panels, strict=False):
        _draw_curves(curves, comparison, task, published)
        _draw_points(points, comparison, task)
        _draw_profile(profile, comparison, task)
    if scores:
        _draw_overall(panels[-1], comparison, scores)
    for path in paths:
        with replacing(path) as temporary:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=110, metadata=metadata)


def metric_name(comparison: Comparison) -> str:
    """The name of the curves' metric."""
    return "mean return of the training episodes" if comparison.metric == SCORE else comparison.metric


def axis_label(comparison: Comparison) -> str:
    """The label of the curves' x axis."""
    return "agent steps" if comparison.x == "steps" else "seconds of wall clock"


def span(values: ArrayLike) -> tuple[float, float]:
    """The lowest and the highest value, with a margin for an axis."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_curves(axes: Any, comparison: Comparison, task: str, published: Sequence[Published]) -> None:
    if comparison.x == "steps":
        for other in published:
            label = f"{_plain(other.label)}: another protocol"
            axes.plot(other.steps, other.score, "--", color=GREY, linewidth=1, label=label)
            if other.low is not None and other.high is not None:
                axes.fill_between(other.steps, other.low, other.high, color=GREY, alpha=0.15, linewidth=0)
    for cell in comparison.of_task(task):
        if not (curve := cell.curve):
            continue
        shade = colour(comparison.groups.index(cell.group))
        if len(curve.runs) < FEW:
            for line in curve.runs:
                axes.plot(curve.x, line, color=shade, linewidth=0.7, alpha=0.6)
        else:
            axes.fill_between(curve.x, curve.low, curve.high, color=shade, alpha=0.18, linewidth=0)
        label = f"{_plain(cell.group.label)} (n={len(curve.runs)})"
        axes.plot(curve.x, curve.mean, **_style(comparison.groups.index(cell.group)), linewidth=2, label=label)
    if ends := [float(cell.curve.x[-1]) for cell in comparison.of_task(task) if cell.curve]:
        axes.set_xlim(left=0, right=max(ends))  # a published curve may be longer
    axes.set(xlabel=axis_label(comparison), ylabel=_plain(metric_name(comparison)), title=_plain(task))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small" if len(axes.lines) < 3 * len(COLOURS) else "xx-small")


def _draw_points(axes: Any, comparison: Comparison, task: str) -> None:
    cells = comparison.of_task(task)
    for i, cell in enumerate(cells):
        values, mean = cell.values("final"), cell.estimate("final")
        if mean is None:
            continue
        shade = colour(comparison.groups.index(cell.group))
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(i + spread, values, "o", color=shade, alpha=0.7, markersize=5)
        axes.plot([i - 0.3, i + 0.3], [mean.value] * 2, color=shade, linewidth=2.5)
        if mean.low is not None and mean.high is not None and mean.n >= FEW:
            axes.plot([i, i], [mean.low, mean.high], color=shade, linewidth=1)
    names = [_plain(cell.group.label).replace(" ", "\n") for cell in cells]
    turned = 30 if len(cells) <= len(COLOURS) else 60
    axes.set_xticks(range(len(cells)), names, rotation=turned, ha="right", fontsize="small")
    axes.set(title="final evaluation", xlim=(-0.6, len(cells) - 0.4))
    axes.grid(alpha=0.25, axis="y")


def _draw_profile(axes: Any, comparison: Comparison, task: str) -> None:
    cells = comparison.of_task(task)
    scores = [value for cell in cells for value in cell.values("final")]
    if scores:
        thresholds = np.linspace(*span(scores), 200)
        for cell in cells:
            if values := cell.values("final"):
                style = _style(comparison.groups.index(cell.group))
                axes.plot(thresholds, run_profile([values], thresholds), **style, linewidth=2)
    axes.locator_params(axis="x", nbins=4)
    axes.set(title="performance profile", xlabel="score", ylabel="share of seeds above", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.25)


def _draw_overall(panels: Any, comparison: Comparison, scores: Mapping[str, list[list[float]]]) -> None:
    """Share of runs, and of tasks by their means, above each normalised score."""
    highest = max(value for tasks in scores.values() for runs in tasks for value in runs)
    thresholds = np.linspace(0, max(0.1, 1.05 * highest), 200)
    shades = {group.label: colour(i) for i, group in enumerate(comparison.groups)}
    for label, tasks in scores.items():
        panels[0].plot(
            thresholds, run_profile(tasks, thresholds), color=shades[label], linewidth=2, label=_plain(label)
        )
        panels[0].plot(thresholds, mean_profile(tasks, thresholds), ":", color=shades[label], linewidth=1.5)
    title = "all tasks: runs (solid), means of tasks (dotted)"
    panels[0].set(title=title, xlabel="normalised score", ylabel="share above", ylim=(-0.03, 1.03))
    panels[0].grid(alpha=0.25)
    panels[0].legend(fontsize="small")
    for axes in panels[1:]:
        axes.set_axis_off()


def _plain(text: str) -> str:
    """The text with dollar signs escaped for matplotlib."""
    return text.replace("$", r"\$")
