"""Temporal alignment: how well an embedding matches the moments of two views of the same sequence."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.floating]  # (T, D)


def nearest_moments(first: Embedding, second: Embedding) -> NDArray[np.int64]:
    """For each moment (T,) of one view, the index of the nearest moment of another view, by Euclidean distance."""
    squares = np.square(second).sum(1)
    found: NDArray[np.int64] = (squares - 2 * first @ second.T).argmin(1)
    return found


def alignment_error(views: NDArray[np.floating]) -> float:
    """Mean of |nearest - t| / T over moments and ordered pairs of views, of embeddings (V, T, D).

    0 is exact. Random moments give 1/3 - 1/(3 T^2), and always the same moment gives between 1/4 and 1/2 (Sermanet et
    al. 2018, section IV.A).

    Raises:
        ValueError: there are fewer than two views.
    """
    if len(views) < 2:
        raise ValueError(f"an alignment is of two views or more, got {len(views)}")
    time = np.arange(views.shape[1])
    errors = [np.abs(nearest_moments(a, b) - time).mean() for a, b in permutations(views, 2)]
    return float(np.mean(errors)) / len(time)
