"""Statistics of scores: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".

The scores of several tasks are a sequence of arrays, one for each task. The last axis of an array is the runs, and
tasks may differ in their number of runs. Axes before it are resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.lazy import LazyModule

stats = LazyModule("scipy.stats")

Floats = NDArray[np.float64]
Tasks: TypeAlias = Sequence[ArrayLike]  # (..., n_t) of each task
RESAMPLES, FEW_RESAMPLES = 50_000, 2_000  # of a comparison; of each report, and of each point of a curve
BLOCK = 2_000_000  # scores drawn at once
TAILS = (0.025, 0.975)  # probabilities of the ends of 95 % intervals


def iqm(scores: ArrayLike) -> Any:
    """Interquartile mean over the last axis: the int(n / 4) lowest and highest of n scores are left out."""
    return stats.trim_mean(np.asarray(scores, dtype=np.float64), 0.25, axis=-1)


# --- aggregates over tasks ---


def mean_of_tasks(tasks: Tasks) -> Any:
    """Mean over the tasks of the mean of each."""
    return np.mean([np.asarray(scores).mean(-1) for scores in tasks], axis=0)


def median_of_tasks(tasks: Tasks) -> Any:
    """Median over the tasks of the mean of each."""
    return np.median([np.asarray(scores).mean(-1) for scores in tasks], axis=0)


def pooled_iqm(tasks: Tasks) -> Any:
    """Interquartile mean of all scores."""
    return iqm(_pooled(tasks))


def optimality_gap(tasks: Tasks) -> Any:
    """Mean amount by which scores fall short of 1; scores above 1 count as 1."""
    return 1 - np.minimum(_pooled(tasks), 1).mean(-1)


def run_profile(tasks: Tasks, thresholds: ArrayLike) -> Floats:
    """Share of all scores above each threshold."""
    return _above(_pooled(tasks), thresholds)


def mean_profile(tasks: Tasks, thresholds: ArrayLike) -> Floats:
    """Share of the tasks whose mean is above each threshold."""
    return _above(np.array([np.asarray(scores).mean() for scores in tasks]), thresholds)


def _pooled(tasks: Tasks) -> NDArray[Any]:
    return np.concatenate([np.asarray(scores) for scores in tasks], axis=-1)


def _above(scores: NDArray[Any], thresholds: ArrayLike) -> Floats:
    return np.asarray((scores > np.asarray(thresholds)[..., None]).mean(-1), dtype=np.float64)


# --- intervals ---


def stratified_interval(
    tasks: Tasks, statistic: Callable[[Tasks], Any], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic of tasks. The runs of each task are resampled independently.

    Args:
        tasks: scores (n_t,) of each task.
        statistic: maps arrays (R, n_t), one for each task, to (R,).
        resamples: number of resamples.
    """
    groups = [np.asarray(scores, dtype=np.float64) for scores in tasks]
    rng = np.random.default_rng(0)
    drawn = [
        statistic([scores[rng.integers(len(scores), size=(count, len(scores)))] for scores in groups])
        for count in _blocks(resamples, sum(map(len, groups)))
    ]
    return _percentiles(np.concatenate(drawn))


def curve_interval(runs: ArrayLike) -> tuple[Floats, Floats]:
    """95 % bootstrap interval of the mean at every point of the curves of runs (n, P): low (P,) and high (P,)."""
    curves = np.asarray(runs, dtype=np.float64)
    picked = np.random.default_rng(0).integers(len(curves), size=(FEW_RESAMPLES, len(curves)))
    means = np.mean([curves[column] for column in picked.T], axis=0)
    low, high = np.quantile(means, TAILS, axis=0)
    return low, high


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(TAILS[1], len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _blocks(resamples: int, scores: int) -> Iterator[int]:
    """Split `resamples` into counts that draw at most `BLOCK` scores each."""
    most = max(1, BLOCK // scores)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, TAILS)
    return float(low), float(high)


# --- two algorithms ---


def probability_of_improvement(x: Tasks, y: Tasks) -> float:
    """Mean over the tasks of the share of pairs of runs in which x is above y; ties count half."""
    return float(np.mean([wins.mean() for wins in _wins(x, y)]))


def improvement_interval(x: Tasks, y: Tasks) -> tuple[float, float]:
    """95 % bootstrap interval of `probability_of_improvement`. The runs of x and y are resampled independently."""
    rng = np.random.default_rng(0)
    drawn = []
    for wins in _wins(x, y):
        rows, columns = (rng.multinomial(n, [1 / n] * n, size=RESAMPLES) / n for n in wins.shape)
        drawn.append(np.einsum("ri,ri->r", rows @ wins, columns))
    return _percentiles(np.asarray(np.mean(drawn, axis=0)))


def _wins(x: Tasks, y: Tasks) -> list[Floats]:
    """(n_x, n_y) of each task: 1 where x is above y, a half where they are equal."""
    pairs = [(np.asarray(a)[:, None], np.asarray(b)[None, :]) for a, b in zip(x, y, strict=True)]
    return [(a > b) + 0.5 * (a == b) for a, b in pairs]


def difference_interval(x: Tasks, y: Tasks) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of `mean_of_tasks`. The runs of x and y are resampled independently."""
    tasks = len(x)

    def difference(drawn: Tasks) -> Any:
        return mean_of_tasks(drawn[:tasks]) - mean_of_tasks(drawn[tasks:])

    return stratified_interval([*x, *y], difference)


def paired_difference(x: ArrayLike, y: ArrayLike) -> tuple[float, tuple[float, float]]:
    """Mean of x - y, and its 95 % interval by a bootstrap over the seeds. The i-th runs of x and y share a seed."""
    differences = np.asarray(x, dtype=np.float64) - np.asarray(y, dtype=np.float64)
    return float(differences.mean()), stratified_interval([differences], mean_of_tasks)


def area_under_curve(x: ArrayLike, y: ArrayLike) -> Any:
    """Mean height of curves y (..., P) over x (P,): the area by trapezoids, divided by its width."""
    at, heights = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at[0] == at[-1]:
        return heights[..., 0]
    return np.trapezoid(heights, at, axis=-1) / (at[-1] - at[0])


# --- one agent ---


def summary(returns: Sequence[float]) -> dict[str, Any]:
    """The statistics of the returns of one agent for a report; intervals are 95 % bootstrap intervals.

    A single return says nothing about its spread: its standard deviation, standard error and intervals are None.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    scores = np.asarray(returns, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"cannot summarise {scores.size} returns: at least one is needed, and finite ones only")
    several = scores.size > 1
    std = float(scores.std(ddof=1)) if several else None

    def interval(statistic: Callable[[Tasks], Any]) -> tuple[float, float] | None:
        return stratified_interval([scores], statistic, resamples=FEW_RESAMPLES) if several else None

    return {
        "n": scores.size,
        "mean": float(scores.mean()),
        "mean_interval": interval(mean_of_tasks),
        "std": std,
        "standard_error": None if std is None else std / scores.size**0.5,
        "iqm": float(iqm(scores)),
        "iqm_interval": interval(pooled_iqm),
        "median": float(np.median(scores)),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "distinct": len(np.unique(scores)),
    }
