"""The sum tree against cumulative sums, and what samplers do with cells that close."""

import numpy as np
import pytest

from replay.samplers import LapSampler, PrioritizedSampler, SumTree, UniformSampler


@pytest.mark.parametrize("size", [1, 5, 64, 65, 5000])
def test_sum_tree_finds_what_a_cumulative_sum_finds(size):
    rng = np.random.default_rng(size)
    tree, leaves = SumTree(size), np.zeros(size)
    for _ in range(20):
        index = rng.integers(0, size, 37)
        values = rng.integers(0, 4, 37).astype(float)
        tree.set(index, values)
        for i, value in zip(index, values, strict=True):
            leaves[i] = value
        np.testing.assert_array_equal(tree.leaves, leaves)
        assert tree.total == leaves.sum()
        if tree.total:
            mass = rng.random(23) * tree.total
            np.testing.assert_array_equal(tree.find(mass), np.searchsorted(leaves.cumsum(), mass, side="right"))


def test_sum_tree_never_finds_a_zero_leaf():
    rng = np.random.default_rng(0)
    tree = SumTree(300)
    index = np.arange(0, 290, 7)
    for _ in range(200):
        tree.set(index, rng.random(len(index)) ** 8 + 1e-12)
        edges = np.array([0.0, np.nextafter(tree.total, 0), tree.total])
        mass = np.concatenate((edges, np.nextafter(tree.leaves.cumsum(), rng.choice([0, 9]))))
        assert (tree.leaves[tree.find(mass)] > 0).all()


def test_closed_cells_keep_no_priority():
    sampler = PrioritizedSampler(10, alpha=1.0)
    sampler.change(opened=np.array([2, 5, 7]), closed=np.array([], np.int64))
    for cell, error in ((5, -4.0), (7, 0.5)):
        sampler.update(np.array([cell]), np.array([error], np.float32))
    sampler.change(opened=np.array([8]), closed=np.array([2, 3]))
    sampler.update(np.array([2, 3]), np.array([9.0, 9.0], np.float32))
    with pytest.raises(ValueError, match="td_error must be finite"):
        sampler.update(np.array([5]), np.array([np.nan]))
    assert sampler.size == 3
    cells, priority = sampler.sample(400, np.random.default_rng(0))
    by_cell = dict(zip(cells.tolist(), priority.tolist(), strict=True))
    assert by_cell == pytest.approx({5: 4 + 1e-6, 7: 0.5 + 1e-6, 8: 4 + 1e-6}, rel=1e-9)  # 8 opened with the largest


def test_lap_draws_errors_up_to_1_alike():
    sampler, cells = LapSampler(10, alpha=0.5), np.arange(5)
    sampler.change(opened=cells, closed=cells[:0])
    sampler.update(cells, np.array([0.0, -0.3, 1.0, -4.0, 9.0]))
    sampler.change(opened=np.array([5]), closed=cells[:1])
    drawn, priority = sampler.sample(400, np.random.default_rng(0))
    assert dict(zip(drawn.tolist(), priority.tolist(), strict=True)) == {1: 1, 2: 1, 3: 2, 4: 3, 5: 3}


def test_uniform_draws_only_open_cells():
    sampler = UniformSampler(1000)
    sampler.change(np.array([3, 4, 900]), np.array([], np.int64))
    sampler.change(np.array([5]), np.array([4, 10]))
    cells, priority = sampler.sample(300, np.random.default_rng(0))
    assert (sampler.size, set(cells.tolist()), set(priority)) == (3, {3, 5, 900}, {1})
