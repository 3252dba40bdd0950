"""Scores of probes: what both splits have."""

import pytest

from analysis.probe_table import Row, format_gaps, gaps


def scores(random: list[float], held_out: list[float]) -> dict[Row, list[float]]:
    row = Row("random", "fake", "pixels", "standardised", "accuracy")
    found = {row._replace(split="held-out"): held_out, row: random}
    single = {r._replace(metric="accuracy/yes"): values[1:] for r, values in found.items()}  # missing in a draw
    return found | single


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_gaps_are_of_the_seeds_that_both_splits_have(seeds):
    found = scores([0.9, 0.8, 0.7][:seeds], [0.5, 0.6, 0.6])  # stopped before the last draws of the random split
    (row,) = gaps(found)
    assert row.metric == "accuracy"
    assert gaps(found)[row] == pytest.approx([0.4, 0.2, 0.1][:seeds])
    assert f"random {[0.9, 0.85, 0.8][seeds - 1]:.3f}, held-out groups" in format_gaps(found)


def test_without_a_random_split_there_is_no_gap():
    assert gaps(scores([], [0.5])) == {}
    assert format_gaps(scores([], [0.5])) == ""
