import numpy as np
import pytest

from analysis.statistics import iqm, mean_of_tasks, pooled_iqm, stratified_interval, summary


def test_iqm_literals_and_against_a_loop():
    assert iqm(np.random.default_rng(0).permutation(100)) == 49.5
    assert iqm([-1000, 1, 2, 1000]) == 1.5
    # scipy.stats.trim_mean(x, 0.25) cuts int(0.25 * 7) = 1 score at each end, no fraction of a second one.
    assert iqm([50, 1, 2, 3, 4, 9, 0]) == pytest.approx(19 / 5)
    assert iqm([3, 4, 20]) == 9
    scores = np.random.default_rng(1).normal(size=(3, 10))  # the last axis is reduced
    np.testing.assert_allclose(iqm(scores), [np.mean(sorted(row)[2:8]) for row in scores])


@pytest.mark.parametrize("statistic", [mean_of_tasks, pooled_iqm])
def test_interval_covers_the_truth_about_95_times_in_100(statistic):
    rng = np.random.default_rng(2)
    intervals = [stratified_interval([rng.normal(5, 2, size=50)], statistic, resamples=2_000) for _ in range(200)]
    assert 0.90 <= np.mean([low <= 5 <= high for low, high in intervals]) <= 0.99


def test_interval_of_the_mean_is_the_normal_one_and_strata_keep_their_share():
    scores = np.random.default_rng(3).normal(0, 1, size=400)
    half = 1.96 * scores.std() / 20
    expected = pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.01)
    assert stratified_interval([scores], mean_of_tasks, resamples=20_000) == expected
    # Without stratification the IQM would vary with the number of scores drawn from each game.
    assert stratified_interval([[0.0] * 5, [10.0] * 15], pooled_iqm) == (10.0, 10.0)


def test_an_interval_repeats():
    scores = np.random.default_rng(4).normal(size=30)
    first, again = (stratified_interval([scores], pooled_iqm, resamples=2_000) for _ in range(2))
    assert first == again


def test_summary_literals():
    result = summary([2, 4, 4, 4, 5, 5, 7, 9])
    low, high = result.pop("mean_interval")
    iqm_low, iqm_high = result.pop("iqm_interval")
    assert 2 < low < 5 < high < 9
    assert 2 < iqm_low <= 4.5 <= iqm_high < 9
    spread = {"std": pytest.approx(2.13809), "standard_error": pytest.approx(0.755929), "min": 2.0, "max": 9.0}
    assert result == spread | {"n": 8, "mean": 5.0, "iqm": 4.5, "median": 4.5, "distinct": 5}


def test_one_return_has_no_spread():
    value = dict.fromkeys(["mean", "iqm", "median", "min", "max"], 3.0)
    unknown = dict.fromkeys(["std", "standard_error", "mean_interval", "iqm_interval"])
    assert summary([3.0]) == value | unknown | {"n": 1, "distinct": 1}


@pytest.mark.parametrize("returns", [[], [1.0, float("nan")]])
def test_summary_refuses(returns):
    with pytest.raises(ValueError, match=f"cannot summarise {len(returns)} returns"):
        summary(returns)
