"""Alignment against loops."""

import numpy as np
import pytest

from analysis.alignment import alignment_error, nearest_moments


def test_the_closest_moment_and_the_error_against_loops():
    views = np.random.default_rng(0).normal(size=(3, 9, 4))
    errors = []
    for a in range(3):
        for b in range(3):
            if a == b:
                continue
            found = nearest_moments(views[a], views[b])
            for t in range(9):
                distances = [((views[a, t] - views[b, j]) ** 2).sum() for j in range(9)]
                assert found[t] == distances.index(min(distances))
                errors.append(abs(found[t] - t) / 9)
    assert alignment_error(views) == pytest.approx(np.mean(errors))


def test_equal_views_are_exact_and_random_ones_at_a_third():
    rng = np.random.default_rng(0)
    assert alignment_error(np.repeat(rng.normal(size=(1, 20, 3)), 2, axis=0)) == 0
    assert alignment_error(rng.normal(size=(2, 2_000, 8))) == pytest.approx(1 / 3, abs=0.03)
    with pytest.raises(ValueError, match="two views or more, got 1"):
        alignment_error(rng.normal(size=(1, 20, 3)))
