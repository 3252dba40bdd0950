"""Normalised scores, from 0 to about 1, which can be averaged over tasks."""

from collections.abc import Callable

from analysis.comparison.measure import Comparison

# game: (random play, human), of Wang et al. 2016 as in rliable and most papers since; Mnih et al. 2015 have others
ATARI = {"pong": (-20.7, 14.6), "breakout": (1.7, 30.5)}

MEANING = {
    "human-normalised": "Human-normalised: 0 is random play, 1 is the human score, by the table of Wang et al. 2016.",
    "of 1000": "Of 1000: the highest return of dm_control is 1.",
}


def normaliser(comparison: Comparison, task: str) -> tuple[str, Callable[[float], float]] | None:
    """The scale of a task, a key of `MEANING`, and the function that normalises returns; None if there is no scale."""
    if task in ATARI:
        random, human = ATARI[task]
        return "human-normalised", lambda score: (score - random) / (human - random)
    runs = [run for group in comparison.groups for run in group.runs.get(task, [])]
    if any(run.config.get("env.name") == "dmc" for run in runs):
        return "of 1000", lambda score: score / 1000
    return None


def normalised_scores(comparison: Comparison) -> dict[str, list[list[float]]]:
    """Normalised final evaluations of each task, by label of the groups that have some on every task.

    Empty if there is one task alone, or a task without a scale.
    """
    scales = [normaliser(comparison, task) for task in comparison.tasks]
    if len(scales) < 2 or not all(scales):
        return {}
    found = {}
    for group in comparison.groups:
        cells = [comparison.cells.get((task, group.label)) for task in comparison.tasks]
        scores = [
            [scale[1](value) for value in cell.values("final")]
            for cell, scale in zip(cells, scales, strict=True)
            if cell and scale
        ]
        if len(scores) == len(scales) and all(scores):
            found[group.label] = scores
    return found
