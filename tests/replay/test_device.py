"""Drawing on a device: exact frequencies, and nothing that a captured update could not do."""

import numpy as np
import pytest
import torch
from capture_help import NoHost
from replay_help import build, filled
from scipy.stats import chisquare
from torch._subclasses.fake_tensor import FakeTensorMode

from replay.device_sampler import UNITS, DeviceSampler
from replay.samplers import LapSampler, PrioritizedSampler

CPU, NONE = torch.device("cpu"), np.zeros(0, np.int64)
FORMULAS = {"per": PrioritizedSampler(1, 0.6).priority, "lap": LapSampler(1, 0.4).priority, "uniform": None}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_million_draws_follow_the_priorities_and_none_is_of_a_closed_cell(formula):
    sampler, rng = DeviceSampler(1_000, FORMULAS[formula], CPU), np.random.default_rng(0)
    opened = np.sort(rng.choice(1_000, 700, replace=False))
    opened[-1] = 999  # the last cell can be drawn
    sampler.change(opened, NONE)
    errors = torch.from_numpy(rng.gamma(0.3, 2, len(opened)))
    sampler.update(torch.from_numpy(opened), errors)
    sampler.change(NONE, opened[::7])
    sampler.update(torch.from_numpy(opened), errors)  # closed ones stay closed
    still = np.setdiff1d(opened, opened[::7])
    assert sampler.size == len(still)
    draw = torch.Generator().manual_seed(1)
    cells = torch.cat([sampler.sample(1_000, draw)[0] for _ in range(1_000)])
    counts = torch.bincount(cells, minlength=1_000).numpy()
    assert counts[np.setdiff1d(np.arange(1_000), still)].sum() == 0
    wanted = np.ones(1_000) if formula == "uniform" else np.zeros(1_000)
    if formula != "uniform":
        wanted[opened] = FORMULAS[formula](errors.numpy())
    expected = wanted[still] / wanted[still].sum() * 1e6
    seldom = expected < 5  # too few for the statistic, each by itself
    groups = [np.append(values[~seldom], values[seldom].sum()) for values in (counts[still], expected)]
    groups = [values if seldom.any() else values[:-1] for values in groups]
    # Stratified draws scatter less than independent ones.
    assert chisquare(*groups).pvalue > 1e-3


def test_priorities_are_cut_off_rather_than_overflow_and_bad_errors_are_no_index():
    sampler = DeviceSampler(8, FORMULAS["per"], CPU)
    sampler.change(np.arange(8), NONE)
    sampler.update(torch.arange(8), torch.tensor([1e30, -1e30, torch.inf, torch.nan, 0, 1e-20, 1, 1]))
    assert 0 < int(sampler._priority.sum()) < 2**63
    cells, priority = sampler.sample(64, torch.Generator().manual_seed(0))
    assert set(cells.tolist()) <= set(range(8))
    assert priority.isfinite().all()
    assert priority.min() >= 1 / UNITS


def test_of_a_cell_drawn_twice_the_larger_error_counts():
    sampler = DeviceSampler(4, PrioritizedSampler(1, 1.0).priority, CPU)
    sampler.change(np.arange(4), NONE)
    sampler.update(torch.tensor([1, 2, 1, 1]), torch.tensor([0.5, 0.25, -0.75, 0.125]))
    assert (sampler._priority / UNITS).tolist() == pytest.approx([1, 0.75, 0.25, 1], abs=2e-6)


FIELDS = frozenset({"next_obs", "clip", "context", "future", "rgb"})


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_batch_and_its_priorities_need_nothing_of_the_host(prioritized):
    """Tensors without data raise where a value is read or decides a shape."""
    _, replay = filled(40, storage="device", prioritized=prioritized, final_n_step=1)
    mode = FakeTensorMode()
    _fake(replay, mode)
    with mode, NoHost():
        batch = replay.sample(8, FIELDS, clip_length=5)
        replay.update_priorities(batch.index, batch.reward)
    assert batch.clip.shape == (8, 5, 4, 5, 7)


def _fake(part: object, mode: FakeTensorMode) -> None:
    """Take the data away from every tensor within the replay."""
    held = vars(part)
    for name, value in held.items():
        if isinstance(value, torch.Tensor):
            held[name] = mode.from_tensor(value)
        elif type(value).__module__.startswith("replay.") and hasattr(value, "__dict__") and name != "_config":
            _fake(value, mode)


def test_a_window_shortens_with_the_step_without_another_shape():
    world, replay = filled(60, storage="device", n_step=5, final_n_step=2, n_step_steps=100, mean_length=10**9)
    lengths = []
    for step in (0, 100):
        replay.advance(step)
        lengths.append(replay._windows(torch.tensor([5, 9]), torch.tensor([0, 1]), None)[3].tolist())
    assert lengths == [[5, 5], [2, 2]]
    assert build(world, 60).on_device is False
