import numpy as np

from envs import FrameStack, VectorStep


def test_stacks_are_the_last_frames_of_the_running_episode() -> None:
    rng = np.random.default_rng(0)
    n, stack, shape = 3, 4, (2, 5, 6)
    stacks = FrameStack(n, shape, stack)
    frame = rng.integers(256, size=(n, *shape), dtype=np.uint8)
    histories = [[one] for one in frame]  # the frames of each copy's episode
    got = stacks.reset(frame)
    for t in range(40):
        for i, history in enumerate(histories):
            padded = [np.zeros(shape, dtype=np.uint8)] * stack + history
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
