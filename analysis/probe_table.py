"""Scores of probes as tables on the terminal, and as lines of text."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.table import Table

from analysis.statistics import t_interval
from harness.progress import table_console

MAIN_METRICS = ("accuracy", "r2")
SHOWN = ("accuracy", "knn", "r2")  # on the terminal
MAX_CLASSES = 20  # up to which the accuracy of each class is shown too


class Row(NamedTuple):
    """What was scored."""

    split: str  # held-out or random
    label: str
    features: str  # baseline, pixels, initial maps, initial output, trained maps, trained output
    scaling: str  # standardised or raw
    metric: str


Scores: TypeAlias = dict[Row, list[float]]  # one for each seed


def differences(scores: Scores) -> Scores:
    """Trained minus initial, seed by seed, for each row of trained features."""
    trained = {row: values for row, values in scores.items() if row.features.startswith("trained")}
    partners = {row: scores[row._replace(features=row.features.replace("trained", "initial"))] for row in trained}
    return {row: [float(v) for v in np.subtract(values, partners[row])] for row, values in trained.items()}


def gaps(scores: Scores) -> Scores:
    """Random split minus held-out groups, seed by seed, for each row of the random split: how much that split leaks.

    A stopped probe has more seeds of the held-out groups. Accuracies of single classes are left out, since a class may
    be missing in some draws.
    """
    return {row: [float(v) for v in np.subtract(*pair)] for row, pair in both_splits(scores).items()}


def both_splits(scores: Scores) -> dict[Row, tuple[list[float], list[float]]]:
    """Scores of the random split and of held-out groups for the seeds of both, by the row of the random split."""
    found = {}
    for row, values in scores.items():
        held_out = scores.get(row._replace(split="held-out"))
        seeds = min(len(values), len(held_out or []))
        if held_out and seeds and row.split == "random" and not row.metric.startswith("accuracy/"):
            found[row] = values[:seeds], held_out[:seeds]
    return found


def format_gaps(scores: Scores) -> str:
    """Lines such as `class accuracy at pixels: random 0.971, held-out groups 0.578, gap +0.392`, with an interval."""
    lines, leaked = [], gaps(scores)
    for row, (random, held_out) in both_splits(scores).items():
        if row.metric in MAIN_METRICS and row.scaling == "standardised" and row.features != "baseline":
            gap = format_mean(leaked[row])
            text = f"random {np.mean(random):.3f}, held-out groups {np.mean(held_out):.3f}, gap {gap}"
            lines.append(f"{row.label} {row.metric} at {row.features}: {text}\n")
    return "".join(lines)


def print_tables(scores: Scores, compared: Scores) -> None:
    """Print a table for each split and scaling."""
    console = table_console()
    columns = dict.fromkeys(row.features for row in scores)
    for split, scaling in dict.fromkeys((row.split, row.scaling) for row in scores):
        table = Table(title=f"{split}, {scaling} features")
        table.add_column("label")
        for features in columns:
            table.add_column(features.replace(" ", "\n"), justify="right")
            if features.startswith("trained"):
                table.add_column("trained - initial", justify="right")
        for label, metrics in shown_metrics(scores).items():
            table.add_section()
            for metric in metrics:
                cells = []
                for features in columns:
                    row = Row(split, label, features, scaling, metric)
                    cells.append(f"{np.mean(scores[row]):.3f}" if row in scores else "")
                    if features.startswith("trained"):
                        cells.append(format_mean(compared[row]) if row in compared else "")
                table.add_row(f"{label} {metric}", *cells)
        console.print(table)


def print_denoising(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of the scores of `analysis.denoising.DenoisingTest`."""
    table = Table(title="denoising factor with seen and unseen backgrounds, R2 of the state and of the background")
    names = list(next(iter(scores.values())))
    table.add_column("features")
    for name in names:
        table.add_column(name, justify="right")
    for features, found in scores.items():
        table.add_row(features, *(f"{found[name]:.3f}" for name in names))
    table_console().print(table)


def shown_metrics(scores: Scores) -> dict[str, list[str]]:
    """The metrics to show of each label, with its classes if there are few and the label is not a number."""
    chosen = {}
    for label in dict.fromkeys(row.label for row in scores):
        metrics = dict.fromkeys(row.metric for row in scores if row.label == label and row.features != "baseline")
        classes = [metric for metric in metrics if metric.startswith("accuracy/")]
        few = "r2" not in metrics and len(classes) <= MAX_CLASSES
        chosen[label] = [metric for metric in SHOWN if metric in metrics] + (classes if few else [])
    return chosen


def format_mean(values: list[float]) -> str:
    """`+mean [low, high]`."""
    bounds = t_interval(values)
    return f"{np.mean(values):+.3f}" + (f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else "")


def format_summary(compared: Scores) -> str:
    """One line: trained minus initial on the held-out split, mean over the labels."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for row, values in compared.items():
        if row.metric in MAIN_METRICS and (row.split, row.scaling) == ("held-out", "standardised"):
            groups[f"{row.metric} at {row.features.removeprefix('trained ')}"].append(values)
    return "trained - initial: " + ", ".join(
        f"{name} {format_mean(list(np.mean(values, 0)))}" for name, values in groups.items()
    )
