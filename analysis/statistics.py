"""Statistics of scores: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def iqm(scores: ArrayLike) -> Any:
    """Interquartile mean over the last axis: int(n / 4) of the n scores are cut at each end."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    n = ordered.shape[-1]
    return ordered[..., n // 4 : n - n // 4].mean(-1)


def mean(scores: ArrayLike) -> Any:
    """Mean over the last axis."""
    return np.asarray(scores, dtype=np.float64).mean(-1)


def bootstrap_interval(
    strata: Sequence[ArrayLike],
    statistic: Callable[[Floats], Floats],
    *,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of pooled scores.

    Args:
        strata: scores (n_i,) of each game, or of the only one; each is resampled within itself.
        statistic: reduces the last axis, such as `iqm`.
        seed: of the resampling.
        resamples: how often.
        confidence: share of the resampled statistics inside.
    """
    rng = np.random.default_rng(seed)
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    pooled = np.concatenate([g[rng.integers(len(g), size=(resamples, len(g)))] for g in groups], axis=1)
    low, high = np.quantile(statistic(pooled), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summary(returns: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """What a report says of the returns of one agent; intervals are 95 % and bootstrapped.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    scores = np.asarray(returns, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"cannot summarise {scores.size} returns: at least one is needed, and finite ones only")
    std = float(scores.std(ddof=1)) if scores.size > 1 else 0.0
    return {
        "n": scores.size,
        "mean": float(scores.mean()),
        "mean_interval": bootstrap_interval([scores], mean, seed=seed),
        "std": std,
        "standard_error": std / scores.size**0.5,
        "iqm": float(iqm(scores)),
        "iqm_interval": bootstrap_interval([scores], iqm, seed=seed),
        "median": float(np.median(scores)),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "distinct": len(np.unique(scores)),
    }
