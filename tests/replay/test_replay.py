"""Replay against a list of episodes: every sampled field, and which rows can be sampled at all."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_help import NEXT, World, assert_equal_batches, build, filled

LAP = {"prioritized": True, "lap": True}


@settings(max_examples=200, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    depth=st.integers(1, 4),
    n_step=st.integers(1, 5),
    final_n_step=st.one_of(st.none(), st.integers(1, 5)),
    step=st.integers(0, 130),
    length=st.integers(2, 7),
    spare_rows=st.integers(0, 25),
    rows=st.integers(1, 80),
    mean_length=st.integers(1, 12),
    prioritized=st.booleans(),
    storage=st.sampled_from(["ram", "device"]),
    padding=st.sampled_from(["zeros", "repeat"]),
    action_space=st.sampled_from([Discrete(18), Box(-1, 1, (1,)), Box(-1, 1, (6,))]),
    seed=st.integers(0, 2**16),
)
def test_matches_episode_lists(
    num_envs, channels, depth, n_step, final_n_step, step, length, spare_rows, rows, mean_length, prioritized, storage,
    padding, action_space, seed,
):  # fmt: skip
    world, longest = World(num_envs, (channels, 5, 7), seed, mean_length, action_space), max(n_step, final_n_step or 0)
    held, annealed = depth + longest + spare_rows, {"final_n_step": final_n_step, "n_step_steps": 100}
    where = {"storage": storage, "padding": padding}
    replay = build(world, held * num_envs, depth, n_step, prioritized=prioritized, **where, **annealed)
    world.fill(rows, replay)
    expected = world.sampleable(held, depth, longest)
    if final_n_step:
        share = min(step, 100) / 100
        n_step = round(math.exp((1 - share) * math.log(n_step) + share * math.log(final_n_step)))
    assert len(replay) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="nothing to sample"):
            replay.sample(2, NEXT)
        return
    replay.advance(step)
    batch = replay.sample(20 * len(expected), NEXT | {"clip", "context"}, length)
    assert batch.clip.shape == (len(batch.index), length, *batch.obs.shape[1:])
    first_seen = dict(zip(reversed(batch.index.tolist()), range(len(batch.index) - 1, -1, -1), strict=True))
    seen = set()
    for index, b in first_seen.items():
        slot, copy = divmod(index, num_envs)
        row = next(row for row in range(world.rows - 1, -1, -1) if row % held == slot)
        episode, i = expected[row, copy]
        nstep_reward, discount, after = episode.window(i, n_step)
        seen.add((row, copy))
        for stack, at in (("obs", i), ("next_obs", i + 1), ("nstep_obs", after)):
            np.testing.assert_array_equal(getattr(batch, stack)[b], episode.stack(at, depth, padding))
        known = replace(episode, frames=episode.frames[max(0, world.rows - held - episode.begin) :])
        np.testing.assert_array_equal(batch.context[b], known.stack(0, depth, padding))
        assert batch.action[b].tolist() == episode.action[i]
        assert batch.reward[b] == episode.reward[i]
        assert batch.nstep_reward[b].item() == pytest.approx(nstep_reward, abs=1e-5)
        assert batch.discount[b].item() == pytest.approx(discount, abs=1e-6)
        inside = True
        np.testing.assert_array_equal(batch.clip[b, 0], batch.obs[b])
        for k in range(length - 1):
            inside = inside and i + k < len(episode.reward) and i + k + 1 < len(episode.frames)
            assert batch.clip_mask[b, k] == inside
            if not inside:
                continue
            np.testing.assert_array_equal(batch.clip[b, k + 1], episode.stack(i + k + 1, depth, padding))
            assert batch.clip_action[b, k].tolist() == episode.action[i + k]
            inside = not (episode.terminated[i + k] or episode.truncated[i + k])
    assert seen == set(expected)  # so many draws miss none


@pytest.mark.parametrize(
    ("space", "shape", "dtype"), [(Discrete(18), (), torch.int64), (Box(-1, 1, (6,)), (6,), torch.float32)]
)
def test_batch_layout(space, shape, dtype):
    _, replay = filled(30, 80, depth=2, n_step=1, clip_reward=False, action_space=space)
    batch = replay.sample(9, frozenset())
    assert batch.next_obs is None
    assert batch.rgb is None
    coloured = replay.sample(9, frozenset({"rgb"}))
    assert torch.equal(coloured.rgb, coloured.obs[:, -3:])
    assert batch.obs.shape == batch.nstep_obs.shape == (9, 2, 5, 7)
    assert batch.obs.is_contiguous(memory_format=torch.channels_last)
    assert (batch.obs.dtype, batch.action.dtype, batch.index.dtype) == (torch.uint8, dtype, torch.int64)
    assert batch.action.shape == (9, *shape)
    for name in ("reward", "nstep_reward", "discount", "weight"):
        assert getattr(batch, name).dtype == torch.float32
    assert torch.equal(batch.weight, torch.ones(9))
    assert torch.equal(batch.nstep_reward, batch.reward)
    assert batch.reward.abs().max() > 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"storage": "mmpa"}, "did you mean 'mmap'"),
        ({"storage": "cuda"}, "^replay.storage=cuda: .* not a CUDA device; use replay.storage=ram$"),
        ({"storage": "mmap"}, "replay.path belongs to"),
        ({"path": "x"}, "replay.path belongs to"),
        ({"n_step": 0}, "replay.n_step must be at least 1, got 0"),
        ({"final_n_step": 0}, "replay.final_n_step must be at least 1, got 0"),
        ({"lap": True}, "replay.lap=true needs prioritized replay: give replay=lap"),
        ({"alpha": 1.5}, r"replay.alpha must be in \[0, 1\], got 1.5"),
        ({"capacity": 12}, "set it to 14 or more"),
    ],
)
def test_bad_configs_are_named(config, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        filled(0, **config)


NO, WRONG = np.zeros(2, bool), [np.s_[:, 0], np.s_[:1], np.s_[:, :5]]
GOOD = {"frame": np.zeros((2, 1, 5, 7), np.uint8), "first": ~NO, "action": np.zeros((2, 6), np.float32)}
GOOD |= {"reward": np.zeros(2), "terminated": NO, "truncated": NO, "valid": ~NO}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frame": GOOD["frame"][:1]}, r"frame must be uint8 \(2, 1, 5, 7\)"),
        ({"frame": GOOD["frame"].astype(int)}, r"frame must be uint8 \(2, 1, 5, 7\), got int64"),
        ({"reward": np.zeros(1)}, r"valid must be \(2,\)"),
        *(({"action": GOOD["action"][part]}, r"action must be float32 \(2, 6\), got float32") for part in WRONG),
        ({"action": GOOD["action"].astype(complex)}, r"action must be float32 \(2, 6\), got complex"),
    ],
)
def test_rows_of_another_shape_or_type_are_refused(wrong, message):
    _, replay = filled(0, action_space=Box(-1, 1, (6,)))
    with pytest.raises(ValueError, match=message):
        replay.add(**GOOD | wrong)
    replay.add(**GOOD)
    with pytest.raises(ValueError, match=r"action must be int32 \(2,\), got float64 \(2,\)"):
        filled(0)[1].add(**GOOD | {"action": np.array([0.5, 1.0])})


def test_batches_do_not_share_memory():
    _, replay = filled(25)
    kept = [replay.sample(8, NEXT) for _ in range(4)]
    copies = [deepcopy(batch) for batch in kept]
    view = replay.sample(8, NEXT).obs[0]  # keeps the memory of a batch that is gone
    content = view.clone()
    for _ in range(5):
        replay.sample(8, NEXT)
    assert torch.equal(view, content)
    for batch, before in zip(kept, copies, strict=True):
        assert_equal_batches(batch, before)


places = pytest.mark.parametrize("storage", ["ram", "device"])


@places
def test_sampling_is_uniform(storage):
    _, replay = filled(47, 3 * 20, num_envs=3, mean_length=3, depth=2, n_step=2, storage=storage)
    draws = 40_000
    counts = np.bincount(np.concatenate([replay.sample(100, frozenset()).index for _ in range(draws // 100)]))
    counts = counts[counts > 0]
    assert len(counts) == len(replay)
    mean, freedom = draws / len(counts), len(counts) - 1
    assert ((counts - mean) ** 2 / mean).sum() < freedom + 4 * np.sqrt(2 * freedom)


@places
def test_weights_and_frequencies_follow_priorities(storage):
    _, replay = filled(30, 2 * 16, prioritized=True, alpha=0.7, beta=0.4, beta_steps=100, storage=storage)
    cells = torch.unique(replay.sample(500, frozenset()).index)
    assert len(cells) == len(replay)
    errors = torch.linspace(-3, 3, len(cells))
    replay.update_priorities(cells, errors)
    priority = {c: (abs(e) + 1e-6) ** 0.7 for c, e in zip(cells.tolist(), errors.tolist(), strict=True)}
    total = sum(priority.values())

    for step, beta in ((0, 0.4), (50, 0.7), (100, 1.0), (10_000, 1.0)):  # 1 at beta_steps, and never above
        replay.advance(step)
        batch = replay.sample(11, frozenset())
        slow = [(len(priority) * priority[c] / total) ** -beta for c in batch.index.tolist()]
        np.testing.assert_allclose(batch.weight, np.array(slow) / max(slow), rtol=1e-5)

    index = np.concatenate([replay.sample(50, frozenset()).index for _ in range(600)])
    for cell, p in priority.items():
        assert np.mean(index == cell) == pytest.approx(p / total, abs=0.004)


def test_lap_has_in_expectation_the_gradient_of_its_loss_under_uniform_sampling():
    _, replay = filled(30, 2 * 16, alpha=0.6, **LAP)
    cells = torch.unique(replay.sample(500, frozenset()).index)
    errors = torch.linspace(-4, 4, len(cells), dtype=torch.float64)
    replay.update_priorities(cells, errors)
    replay.advance(10**6)
    batch = replay.sample(40_000, frozenset())
    assert torch.equal(batch.weight, torch.ones(40_000))
    sampled = errors[torch.searchsorted(cells, batch.index)].clamp(-1, 1)  # the gradients of the Huber loss
    slopes = [e if abs(e) <= 1 else math.copysign(abs(e) ** 0.6, e) for e in errors.tolist()]  # of the paper's loss
    total = sum(max(abs(e) ** 0.6, 1) for e in errors.tolist())
    for side in (-1, 1):
        expected = sum(s for s in slopes if s * side > 0) / total
        assert sampled[sampled * side > 0].sum().item() / 40_000 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("kind", [{}, {"prioritized": True}, LAP | {"final_n_step": 1, "n_step_steps": 4}])
@pytest.mark.parametrize("action_space", [Discrete(18), Box(-1, 1, (2,))], ids=["discrete", "continuous"])
@pytest.mark.parametrize("rows", [2, 30, 130])
def test_load_continues_exactly(kind, action_space, rows):
    settings = {"num_envs": 3, "capacity": 3 * 50, "action_space": action_space, **kind}
    (world, kept), (_, loaded) = filled(rows, seed=3, **settings), filled(0, seed=99, **settings)
    if len(kept):
        batch = kept.sample(20, frozenset())
        kept.update_priorities(batch.index, torch.randn(20, generator=torch.Generator().manual_seed(0)))
    state = kept.state_dict()
    with pytest.raises(ValueError, match="n_step=3, this run has n_step=5"):
        filled(0, n_step=5, **settings)[1].load_state_dict(state)
    loaded.load_state_dict(state)
    assert len(loaded) == len(kept)
    for step in range(8):
        world.fill(9, kept, loaded)
        kept.advance(step)
        loaded.advance(step)
        left, right = kept.sample(16, NEXT), loaded.sample(16, NEXT)
        assert_equal_batches(left, right)
        kept.update_priorities(left.index, left.reward)
        loaded.update_priorities(right.index, right.reward)


@places
@pytest.mark.parametrize("prioritized", [False, True])
def test_a_cut_is_a_truncation_that_was_not_known_in_time(prioritized, storage):
    world = World(3, (1, 5, 7), seed=8, mean_length=10**9)
    known, cut = (build(world, 3 * 50, prioritized=prioritized, storage=storage) for _ in range(2))
    nobody = np.zeros(3, bool)
    for _ in range(2):
        world.fill(40, known, cut)
        frame, first, action, reward, terminated, _, valid = world.row()
        known.add(frame, first, action, reward, terminated, ~terminated, valid)
        cut.add(frame, first, action, reward, terminated, nobody, valid)
        last = world.row()[0]
        known.add(last, nobody, action, np.zeros(3), nobody, nobody, nobody)
        cut.cut(last)
        world.over[:] = True
        assert_equal_batches(known.sample(300, NEXT), cut.sample(300, NEXT))
