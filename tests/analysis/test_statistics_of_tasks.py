"""Statistics of runs and tasks against the literals of rliable 1.2.0, and against loops."""

import numpy as np
import pytest

from analysis.statistics import (
    area_under_curve,
    curve_interval,
    difference_interval,
    improvement_interval,
    mean_of_tasks,
    mean_profile,
    median_of_tasks,
    optimality_gap,
    paired_difference,
    pooled_iqm,
    probability_of_improvement,
    run_profile,
    stratified_interval,
)


def tasks(rows):
    """The columns of a matrix of runs x tasks."""
    return [*np.array(rows, dtype=float).T]


X, Y = tasks([[1, 2], [2, 2], [1, 1], [2, 1]]), tasks([[1, 1], [2, 2], [3, 3]])
A = tasks([[0.10, 0.50, 1.20], [0.20, 0.55, 0.90], [0.15, 0.70, 1.50], [0.30, 0.40, 1.10], [0.05, 0.65, 2.00]])
B = tasks([[0.12, 0.45, 1.00], [0.25, 0.60, 0.80], [0.10, 0.50, 1.40], [0.22, 0.35, 1.30], [0.18, 0.52, 0.95]])
OF_A = {
    mean_of_tasks: (0.6866667, (0.57667, 0.81333)),
    median_of_tasks: (0.56, (0.47, 0.65)),
    pooled_iqm: (0.5888889, (0.52222, 0.68333)),
    optimality_gap: (0.4333333, (0.39333, 0.47333)),
}


@pytest.mark.parametrize("statistic", [mean_of_tasks, median_of_tasks, pooled_iqm])
def test_small_literals(statistic):
    assert (statistic(X), statistic(Y)) == (1.5, 2.0)


@pytest.mark.parametrize("statistic", OF_A)
def test_aggregates_and_their_intervals(statistic):
    value, bounds = OF_A[statistic]
    assert statistic(A) == pytest.approx(value, abs=1e-6)
    assert stratified_interval(A, statistic, resamples=20_000) == pytest.approx(bounds, abs=0.01)


def test_aggregates_of_b():
    found = [statistic(B) for statistic in OF_A]
    assert found == pytest.approx([0.5826667, 0.484, 0.5155556, 0.464], abs=1e-6)


def test_probability_of_improvement():
    assert probability_of_improvement(X, Y) == pytest.approx(1 / 3)
    assert probability_of_improvement(Y, X) == pytest.approx(2 / 3)
    assert probability_of_improvement(A, B) == pytest.approx(0.6)
    assert probability_of_improvement(A, A) == 0.5
    assert improvement_interval(A, B) == pytest.approx((0.3867, 0.80), abs=0.01)


def test_profiles():
    thresholds = [0.1, 0.5, 1, 1.5]
    assert run_profile(A, thresholds) == pytest.approx([0.866667, 0.533333, 0.266667, 0.066667], abs=1e-6)
    assert mean_profile(A, thresholds) == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_tasks_may_have_different_numbers_of_runs():
    uneven = [[0.0, 2.0], [4.0, 4.0, 4.0, 10.0]]
    assert mean_of_tasks(uneven) == 3.25
    assert pooled_iqm(uneven) == np.mean([2, 4, 4, 4])  # int(6 / 4) cut at each end
    low, high = stratified_interval(uneven, mean_of_tasks)
    assert (low, high) == (2.0, 4.75)  # of the 27 possible means, the extremes keep 2.5 % and more
    assert probability_of_improvement(uneven, [[1.0], [4.0]]) == (0.5 + (1.5 + 1) / 4) / 2


def test_a_resampling_in_blocks_is_one_resampling(monkeypatch):
    whole = stratified_interval(A, pooled_iqm)
    monkeypatch.setattr("analysis.statistics.BLOCK", 7 * 15)
    assert stratified_interval(A, pooled_iqm) == pytest.approx(whole, abs=0.01)


def test_pairs_by_seed_are_narrower_only_where_seeds_matter():
    rng = np.random.default_rng(0)
    shared, noise = rng.normal(0, 10, 20), rng.normal(0, 1, (2, 20))
    x, y = shared + noise[0] + 3, shared + noise[1]
    difference, (low, high) = paired_difference(x, y)
    assert difference == pytest.approx(np.mean(x - y))
    assert low < 3 < high
    wide_low, wide_high = difference_interval([x], [y])
    assert high - low < 0.3 * (wide_high - wide_low)
    # by hand: each of two seeds, or both
    assert paired_difference([1, 5], [0, 0]) == (3.0, (1.0, 5.0))


def test_area_is_the_mean_height():
    assert area_under_curve([0, 1, 3], [[0, 2, 2], [1, 1, 1]]) == pytest.approx([5 / 3, 1])
    assert area_under_curve([7], [[4.0]]) == 4
    assert area_under_curve([7, 7], [[4.0, 4.0]]) == 4


def test_the_interval_of_a_curve_is_that_of_each_point():
    curves = np.random.default_rng(0).normal(size=(6, 4))
    low, high = curve_interval(curves)
    points = [stratified_interval([point], mean_of_tasks) for point in curves.T]
    np.testing.assert_allclose(np.stack([low, high], 1), points, atol=0.06)


def test_rliable_agrees():
    theirs = pytest.importorskip("rliable.metrics")
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 0.4, (7, 5)), rng.normal(0.6, 0.4, (9, 5)).round(1)
    for ours, name in {
        mean_of_tasks: "aggregate_mean",
        median_of_tasks: "aggregate_median",
        pooled_iqm: "aggregate_iqm",
        optimality_gap: "aggregate_optimality_gap",
    }.items():
        assert ours([*x.T]) == pytest.approx(getattr(theirs, name)(x))
    assert probability_of_improvement([*x.T], [*y.T]) == pytest.approx(theirs.probability_of_improvement(x, y))
