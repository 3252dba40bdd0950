"""Replay against a list of episodes: every sampled field, and which rows can be sampled at all."""

from dataclasses import dataclass, field, fields

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import Replay, ReplayConfig, build_replay
from replay.batch import Batch
from replay.samplers import UniformSampler
from replay.storage import FrameStorage

GAMMA = 0.9
CPU = torch.device("cpu")


@dataclass
class Episode:
    """frames[i] -action[i], reward[i]-> frames[i + 1]; frame i was written in row begin + i."""

    begin: int
    frames: list = field(default_factory=list)
    action: list = field(default_factory=list)
    reward: list = field(default_factory=list)
    terminated: list = field(default_factory=list)
    truncated: list = field(default_factory=list)

    def stack(self, i, depth):
        blank = np.zeros_like(self.frames[0])
        return np.concatenate([self.frames[j] if j >= 0 else blank for j in range(i - depth + 1, i + 1)])

    def window(self, i, n):
        """Return, discount and index of the frame after the window; that frame may not exist yet."""
        total, discount = 0.0, 1.0
        for j in range(i, i + n):
            if j == len(self.reward):
                return total, discount, len(self.frames) + n
            total += discount * min(max(self.reward[j], -1), 1)
            discount *= GAMMA
            if self.terminated[j] or self.truncated[j]:
                return total, 0.0 if self.terminated[j] else discount, j + 1
        return total, discount, i + n


class World:
    """Random episodes of `num_envs` copies, written into replays and kept as lists."""

    def __init__(self, num_envs, frame_shape, seed, mean_length=6, action_space=Discrete(18)):  # noqa: B008
        self.rng = np.random.default_rng(seed)
        self.num_envs, self.frame_shape, self.mean_length = num_envs, frame_shape, mean_length
        self.action_space = action_space
        self.episodes = [[] for _ in range(num_envs)]
        self.rows = 0
        self.over = np.ones(num_envs, bool)  # the next row opens an episode
        self.last = np.zeros(num_envs, bool)  # the next row only holds an episode's last frame

    def row(self):
        n, rng = self.num_envs, self.rng
        frame = rng.integers(1, 256, (n, *self.frame_shape), dtype=np.uint8)
        if isinstance(self.action_space, Discrete):
            action = rng.integers(0, self.action_space.n, n)
        else:
            action = rng.uniform(-1, 1, (n, *self.action_space.shape)).astype(np.float32)
        reward = rng.normal(0, 2, n).astype(np.float32)
        first, valid = self.over.copy(), ~self.last
        ends = valid & (rng.random(n) < 1 / self.mean_length)
        kind = rng.integers(0, 3, n)
        life_lost = valid & ~ends & (rng.random(n) < 0.1)
        terminated = (ends & (kind != 0)) | life_lost
        truncated = ends & (kind != 1)
        for copy, episodes in enumerate(self.episodes):
            if first[copy]:
                episodes.append(Episode(self.rows))
            episodes[-1].frames.append(frame[copy])
            if valid[copy]:
                for name, value in (("action", action), ("reward", reward), ("terminated", terminated)):
                    getattr(episodes[-1], name).append(value[copy].tolist())
                episodes[-1].truncated.append(truncated[copy].item())
        self.over, self.last = self.last, ends
        self.rows += 1
        return frame, first, action, reward, terminated, truncated, valid

    def fill(self, rows, *replays):
        for _ in range(rows):
            row = self.row()
            for replay in replays:
                replay.add(*row)

    def sampleable(self, held, depth, n):
        """{(row, copy): (episode, step)} by the definition, when the newest `held` rows are still there."""
        oldest = max(0, self.rows - held)
        return {
            (e.begin + i, copy): (e, i)
            for copy, episodes in enumerate(self.episodes)
            for e in episodes
            for i in range(len(e.reward))
            if e.begin + max(0, i - depth + 1) >= oldest and e.window(i, n)[2] < len(e.frames)
        }


def build(world, capacity, depth=4, n_step=3, seed=0, clip_reward=True, **config):
    return build_replay(
        ReplayConfig(capacity=capacity, n_step=n_step, **config),
        num_envs=world.num_envs,
        frame_shape=world.frame_shape,
        action_space=world.action_space,
        frame_stack=depth,
        gamma=GAMMA,
        clip_reward=clip_reward,
        rng=np.random.default_rng(seed),
        device=CPU,
    )


def assert_equal_batches(left, right):
    for name in (f.name for f in fields(Batch)):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), name


NEXT = frozenset({"next_obs"})


@settings(max_examples=150, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    depth=st.integers(1, 4),
    n_step=st.integers(1, 5),
    spare_rows=st.integers(0, 25),
    rows=st.integers(1, 80),
    mean_length=st.integers(1, 12),
    prioritized=st.booleans(),
    action_space=st.sampled_from([Discrete(18), Box(-1, 1, (1,)), Box(-1, 1, (6,))]),
    seed=st.integers(0, 2**16),
)
def test_matches_episode_lists(
    num_envs, channels, depth, n_step, spare_rows, rows, mean_length, prioritized, action_space, seed
):
    world = World(num_envs, (channels, 5, 7), seed, mean_length, action_space)
    held = depth + n_step + spare_rows
    replay = build(world, held * num_envs, depth, n_step, prioritized=prioritized)
    world.fill(rows, replay)
    expected = world.sampleable(held, depth, n_step)
    assert len(replay) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="nothing to sample"):
            replay.sample(2, NEXT)
        return
    batch = replay.sample(20 * len(expected), NEXT)
    first_seen = dict(zip(reversed(batch.index.tolist()), range(len(batch.index) - 1, -1, -1), strict=True))
    seen = set()
    for index, b in first_seen.items():
        slot, copy = divmod(index, num_envs)
        row = next(row for row in range(world.rows - 1, -1, -1) if row % held == slot)
        episode, i = expected[row, copy]
        nstep_reward, discount, after = episode.window(i, n_step)
        seen.add((row, copy))
        np.testing.assert_array_equal(batch.obs[b], episode.stack(i, depth))
        np.testing.assert_array_equal(batch.next_obs[b], episode.stack(i + 1, depth))
        np.testing.assert_array_equal(batch.nstep_obs[b], episode.stack(after, depth))
        assert batch.action[b].tolist() == episode.action[i]
        assert batch.reward[b] == episode.reward[i]
        assert batch.nstep_reward[b].item() == pytest.approx(nstep_reward, abs=1e-5)
        assert batch.discount[b].item() == pytest.approx(discount, abs=1e-6)
    assert seen == set(expected)  # so many draws miss none


@settings(max_examples=60, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    depth=st.integers(1, 4),
    n_step=st.integers(1, 3),
    length=st.integers(2, 7),
    spare_rows=st.integers(0, 25),
    rows=st.integers(8, 80),
    action_space=st.sampled_from([Discrete(18), Box(-1, 1, (6,))]),
    seed=st.integers(0, 2**16),
)
def test_clips_match_episode_lists(num_envs, depth, n_step, length, spare_rows, rows, action_space, seed):
    world = World(num_envs, (1, 5, 7), seed, mean_length=8, action_space=action_space)
    held = depth + n_step + spare_rows
    replay = build(world, held * num_envs, depth, n_step)
    world.fill(rows, replay)
    expected = world.sampleable(held, depth, n_step)
    if not expected:
        return
    batch = replay.sample(3 * len(expected), frozenset({"clip"}), clip_length=length)
    assert batch.clip.shape == (len(batch.index), length, depth, 5, 7)
    for b, index in enumerate(batch.index.tolist()):
        slot, copy = divmod(index, num_envs)
        row = next(row for row in range(world.rows - 1, -1, -1) if row % held == slot)
        episode, i = expected[row, copy]
        for first in (batch.clip[b, 0], batch.obs[b]):
            np.testing.assert_array_equal(first, episode.stack(i, depth))
        inside = True
        for k in range(length - 1):
            inside = inside and i + k < len(episode.reward) and i + k + 1 < len(episode.frames)
            assert batch.clip_mask[b, k] == inside
            if not inside:
                continue
            np.testing.assert_array_equal(batch.clip[b, k + 1], episode.stack(i + k + 1, depth))
            assert batch.clip_action[b, k].tolist() == episode.action[i + k]
            inside = not (episode.terminated[i + k] or episode.truncated[i + k])


def test_batch_layout():
    world = World(2, (3, 5, 7), seed=1)
    replay = build(world, 80, depth=2)
    world.fill(30, replay)
    batch = replay.sample(9, frozenset())
    assert batch.next_obs is None
    assert batch.obs.shape == batch.nstep_obs.shape == (9, 6, 5, 7)
    assert batch.obs.is_contiguous(memory_format=torch.channels_last)
    assert (batch.obs.dtype, batch.action.dtype, batch.index.dtype) == (torch.uint8, torch.int64, torch.int64)
    for name in ("reward", "nstep_reward", "discount", "weight"):
        assert getattr(batch, name).dtype == torch.float32
    assert torch.equal(batch.weight, torch.ones(9))


def test_actions_are_integers_or_float32_vectors_and_nothing_else():
    world = World(2, (1, 5, 7), seed=1, action_space=Box(-1, 1, (6,)))
    replay = build(world, 80)
    world.fill(30, replay)
    action = replay.sample(9, frozenset()).action
    assert (action.shape, action.dtype) == ((9, 6), torch.float32)
    frame, first, action, *rest = world.row()
    for wrong in (action[:, 0], action[:1], action[:, :5]):
        with pytest.raises(ValueError, match=r"action must be float32 \(2, 6\), got float32"):
            replay.add(frame, first, wrong, *rest)
    discrete = World(2, (1, 5, 7), seed=1)
    frame, first, _, *rest = discrete.row()
    with pytest.raises(ValueError, match=r"action must be int32 \(2,\), got float64 \(2,\)"):
        build(discrete, 80).add(frame, first, np.array([0.5, 1.0]), *rest)


def test_unclipped_returns_are_raw():
    world = World(1, (1, 5, 7), seed=3)
    replay = build(world, 60, n_step=1, clip_reward=False)
    world.fill(50, replay)
    batch = replay.sample(40, frozenset())
    assert torch.equal(batch.nstep_reward, batch.reward)
    assert batch.reward.abs().max() > 1


def test_batches_do_not_share_memory():
    world = World(2, (1, 5, 7), seed=4)
    replay = build(world, 60)
    world.fill(25, replay)
    kept = [replay.sample(8, NEXT) for _ in range(4)]
    copies = [(b.obs.clone(), b.nstep_obs.clone(), b.next_obs.clone()) for b in kept]
    view = replay.sample(8, NEXT).obs[0]  # keeps the memory of a batch that is gone
    content = view.clone()
    for _ in range(5):
        replay.sample(8, NEXT)
    assert torch.equal(view, content)
    for batch, (obs, nstep_obs, next_obs) in zip(kept, copies, strict=True):
        assert torch.equal(batch.obs, obs)
        assert torch.equal(batch.nstep_obs, nstep_obs)
        assert torch.equal(batch.next_obs, next_obs)


def test_sampling_is_uniform():
    world = World(3, (1, 2, 3), seed=5, mean_length=3)
    replay = build(world, 3 * 20, depth=2, n_step=2)
    world.fill(47, replay)
    draws = 40_000
    counts = np.bincount(np.concatenate([replay.sample(100, frozenset()).index for _ in range(draws // 100)]))
    counts = counts[counts > 0]
    assert len(counts) == len(replay)
    mean = draws / len(counts)
    chi_square = ((counts - mean) ** 2 / mean).sum()
    freedom = len(counts) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_weights_and_frequencies_follow_priorities():
    world = World(2, (1, 2, 3), seed=6)
    replay = build(world, 2 * 16, prioritized=True, alpha=0.7, beta=0.4)
    world.fill(30, replay)
    cells = torch.unique(replay.sample(500, frozenset()).index)
    assert len(cells) == len(replay)
    errors = torch.linspace(-3, 3, len(cells))
    replay.update_priorities(cells, errors)
    priority = {c: (abs(e) + 1e-6) ** 0.7 for c, e in zip(cells.tolist(), errors.tolist(), strict=True)}
    total = sum(priority.values())

    batch = replay.sample(11, frozenset(), progress=0.5)
    slow = [(len(priority) * priority[c] / total) ** -0.7 for c in batch.index.tolist()]
    np.testing.assert_allclose(batch.weight, np.array(slow) / max(slow), rtol=1e-5)

    index = np.concatenate([replay.sample(50, frozenset()).index for _ in range(600)])
    for cell, p in priority.items():
        assert np.mean(index == cell) == pytest.approx(p / total, abs=0.004)


@pytest.mark.parametrize("storage", ["mmap", "tensor"])
def test_storages_agree(storage, tmp_path):
    world = World(3, (3, 5, 7), seed=7)
    ram = build(world, 3 * 24, seed=2)
    if storage == "mmap":
        other = build(world, 3 * 24, seed=2, storage="mmap", path=str(tmp_path / "new" / "frames.bin"))
    else:
        other = Replay(
            FrameStorage(3 * 24, 3, (3, 5, 7), Discrete(18), device=CPU),
            UniformSampler(3 * 24),
            frame_stack=4,
            n_step=3,
            gamma=GAMMA,
            clip_reward=True,
            beta=0.4,
            rng=np.random.default_rng(2),
            device=CPU,
        )
    world.fill(40, ram, other)
    for _ in range(3):
        assert_equal_batches(ram.sample(16, NEXT), other.sample(16, NEXT))
    assert other.sample(16, NEXT).obs.is_contiguous(memory_format=torch.channels_last)
    for (name, left), (other_name, right) in zip(
        ram.state_dict()["storage"]["segments"], other.state_dict()["storage"]["segments"], strict=True
    ):
        assert name == other_name
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("action_space", [Discrete(18), Box(-1, 1, (2,))], ids=["discrete", "continuous"])
@pytest.mark.parametrize("rows", [2, 30, 130])
def test_load_continues_exactly(prioritized, action_space, rows):
    world = World(3, (1, 5, 7), seed=8, action_space=action_space)
    kept = build(world, 3 * 50, prioritized=prioritized, seed=3)
    world.fill(rows, kept)
    if len(kept):
        batch = kept.sample(20, frozenset())
        kept.update_priorities(batch.index, torch.randn(20, generator=torch.Generator().manual_seed(0)))
    state = kept.state_dict()
    loaded = build(world, 3 * 50, prioritized=prioritized, seed=99)
    loaded.load_state_dict(state)
    assert len(loaded) == len(kept)
    for _ in range(8):
        world.fill(9, kept, loaded)
        left, right = kept.sample(16, NEXT), loaded.sample(16, NEXT)
        assert_equal_batches(left, right)
        kept.update_priorities(left.index, left.reward)
        loaded.update_priorities(right.index, right.reward)


def test_segments_keep_their_names_and_bytes():
    world = World(2, (1, 5, 7), seed=9)
    replay = build(world, 2 * 100)
    seen, shared = {}, []
    for _ in range(30):
        world.fill(11, replay)
        segments = dict(replay.state_dict()["storage"]["segments"])
        assert sum(len(frames) for frames in segments.values()) == min(world.rows, 100)
        assert len(segments) <= 36
        shared.append(len(seen.keys() & segments.keys()) / len(segments))
        for name, frames in segments.items():
            begin, end = map(int, name.removeprefix("rows-").split("-"))
            assert frames.shape == (end - begin, 2, 1, 5, 7)
            np.testing.assert_array_equal(frames, seen.setdefault(name, frames.copy()))
    assert np.mean(shared[10:]) > 0.75


def test_load_refuses_another_shape():
    world = World(2, (1, 5, 7), seed=10)
    replay = build(world, 60)
    world.fill(20, replay)
    with pytest.raises(ValueError, match="n_step=3, this run has n_step=5"):
        build(world, 60, n_step=5).load_state_dict(replay.state_dict())


@pytest.mark.parametrize("prioritized", [False, True])
def test_memory_of_a_million_atari_transitions(prioritized):
    replay = build(World(8, (1, 84, 84), seed=0), 1_000_000, prioritized=prioritized)
    assert replay.nbytes <= 7.6e9
    assert replay.bytes_per_transition <= 84 * 84 + 20


def test_announces_memory(caplog):
    with caplog.at_level("INFO"):
        build(World(8, (1, 84, 84), seed=0), 100_000)
    assert "replay: 0.71 GB of " in caplog.text
    assert "GB (100000 transitions of 84x84x1)" in caplog.text


@pytest.mark.parametrize("storage", ["ram", "mmap"])
def test_too_large_names_a_capacity_that_fits(storage, tmp_path):
    world = World(8, (1, 84, 84), seed=0)
    path = str(tmp_path / "frames.bin") if storage == "mmap" else None
    with pytest.raises(
        MemoryError, match=r"10+ transitions of 84x84x1 need .* GB is free|set replay.capacity to"
    ) as error:
        build(world, 10**10, storage=storage, path=path)
    fits = int(str(error.value).split("set replay.capacity to ")[1].split()[0])
    build(world, fits, storage=storage, path=path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"storage": "mmpa"}, "did you mean mmap"),
        ({"storage": "mmap"}, "replay.path belongs to"),
        ({"path": "x"}, "replay.path belongs to"),
        ({"n_step": 0}, "replay.n_step must be 1 or more, got 0"),
        ({"alpha": 1.5}, r"replay.alpha must be in \[0, 1\], got 1.5"),
        ({"capacity": 18}, "set it to 21 or more"),
    ],
)
def test_bad_configs_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build(World(3, (1, 5, 7), seed=0), **{"capacity": 60, **config})


def test_rows_out_of_order_are_refused():
    world = World(2, (1, 5, 7), seed=11)
    frame, first, action, reward, *_ = world.row()
    no, yes = np.zeros(2, bool), np.ones(2, bool)
    storage = FrameStorage(20, 2, (1, 5, 7), world.action_space)
    with pytest.raises(ValueError, match="row 0 of copy 0 breaks the order"):
        storage.add(frame, no, action, reward, no, no, yes)
    storage.add(frame, first, action, reward, no, no, yes)
    with pytest.raises(ValueError, match="breaks the order"):  # the frame after the last action is missing
        storage.add(frame, first, action, reward, no, no, yes)
    with pytest.raises(ValueError, match="row 1 of copy 1 breaks the order"):  # nothing ended there
        storage.add(frame, no, action, reward, no, no, np.array([True, False]))
    with pytest.raises(ValueError, match=r"frame must be uint8 \(2, 1, 5, 7\)"):
        storage.add(frame[:1], no, action, reward, no, no, yes)
    storage.add(frame, no, action, reward, no, yes, yes)
    storage.add(frame, no, action, reward, no, no, no)
    storage.add(frame, no, action, reward, no, no, no)
    storage.add(frame, first, action, reward, no, no, yes)
    assert storage.written == 5
