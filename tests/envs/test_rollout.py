"""What a policy is shown, and that replay gives back the same stacks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_help import NEXT, build

from envs import FrameStack, Padding, Rollout, ToyConfig, VectorStep


@pytest.mark.parametrize("padding", ["zeros", "repeat"])
def test_stacks_are_the_last_frames_of_the_running_episode(padding: Padding) -> None:
    rng = np.random.default_rng(0)
    n, stack, shape = 3, 4, (2, 5, 6)
    stacks = FrameStack(n, shape, stack, padding)
    frame = rng.integers(256, size=(n, *shape), dtype=np.uint8)
    histories = [[one] for one in frame]  # the frames of each copy's episode
    got = stacks.reset(frame)
    for t in range(40):
        for i, history in enumerate(histories):
            padded = [history[0] if padding == "repeat" else np.zeros(shape, dtype=np.uint8)] * stack + history
            np.testing.assert_array_equal(got[i], np.concatenate(padded[-stack:]))
        frame = rng.integers(256, size=(n, *shape), dtype=np.uint8)
        first = rng.random(n) < 0.2
        none = np.zeros(n, dtype=np.bool_)
        if t == 20:
            got, first = stacks.reset(frame), ~none
        else:
            got = stacks.push(VectorStep(frame, none.astype(np.float32), none, none, game_over=none, first=first))
        histories = [[new] if f else [*h, new] for h, new, f in zip(histories, frame, first, strict=True)]
    assert got.shape == (3, 8, 5, 6)
    assert got.flags.c_contiguous


@settings(max_examples=40, deadline=None)
@given(
    padding=st.sampled_from(["zeros", "repeat"]),
    frame_stack=st.integers(1, 5),
    n_step=st.integers(1, 3),
    rows=st.integers(9, 30),
    time_limit=st.integers(2, 9),
    bursts=st.lists(st.integers(1, 40), min_size=1, max_size=4),  # steps between resets
)
def test_replay_gives_back_what_was_shown(
    padding: Padding, frame_stack: int, n_step: int, rows: int, time_limit: int, bursts: list[int]
) -> None:
    env = ToyConfig(num_envs=2, size=12, balls=2, time_limit=time_limit).build()
    rollout, rng = Rollout(env, frame_stack, padding), np.random.default_rng(0)
    replay = build(env, rows * 2, frame_stack, n_step, padding=padding)
    shown: list[np.ndarray] = []  # by row of the ring, the observation of both copies
    for seed, burst in enumerate(bursts):
        rollout.reset(seed)
        for _ in range(burst):
            shown.append(rollout.observation.pixels.copy())
            replay.add(*rollout.step(lambda _: rng.integers(3, size=2)))
        shown.append(rollout.observation.pixels.copy())
        replay.cut(rollout.frame)
    if not len(replay):
        return
    batch = replay.sample(100, NEXT)
    for index, obs, next_obs in zip(batch.index.tolist(), batch.obs, batch.next_obs, strict=True):
        slot, copy = divmod(index, 2)
        row = next(row for row in range(len(shown) - 1, -1, -1) if row % rows == slot)
        np.testing.assert_array_equal(obs, shown[row][copy])
        np.testing.assert_array_equal(next_obs, shown[row + 1][copy])
