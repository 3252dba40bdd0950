"""Random episodes, kept as lists and written into replays."""

from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from unittest.mock import patch

import numpy as np
import torch
from gymnasium.spaces import Discrete

from replay import ReplayConfig, build_replay
from replay.batch import Batch

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

    def stack(self, i, depth, padding="zeros"):
        blank = self.frames[0] if padding == "repeat" else np.zeros_like(self.frames[0])
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


def build(
    world, capacity, depth=4, n_step=3, seed=0, clip_reward=True, device=CPU, padding="zeros", features=None, **config
):
    """A replay of what has `num_envs`, a `frame_shape` and an `action_space`.

    storage="device" is what storage=cuda is on a GPU, on the CPU.
    """
    on_device = config.get("storage") == "device"
    with patch("replay.build._check") if on_device else nullcontext():
        return build_replay(
            ReplayConfig(capacity=capacity, n_step=n_step, **config | ({"storage": "cuda"} if on_device else {})),
            num_envs=world.num_envs,
            frame_shape=world.frame_shape,
            action_space=world.action_space,
            frame_stack=depth,
            gamma=GAMMA,
            clip_reward=clip_reward,
            rng=np.random.default_rng(seed),
            device_rng=torch.Generator().manual_seed(seed),
            device=device,
            padding=padding,
            features=features,
        )


def filled(rows, capacity=60, num_envs=2, mean_length=6, action_space=Discrete(18), **options):  # noqa: B008
    """A small world, and a replay of it that has `rows` rows."""
    world = World(num_envs, (1, 5, 7), 1, mean_length, action_space)
    replay = build(world, capacity, **options)
    world.fill(rows, replay)
    return world, replay


def assert_equal_batches(left, right):
    for name in (f.name for f in fields(Batch)):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), name


NEXT = frozenset({"next_obs"})
