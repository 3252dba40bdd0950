"""Recorded episodes and the batches drawn from them, against loops that do one thing at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from datasets import Episodes, EpisodeSampler

CPU = torch.device("cpu")
BEGIN, END = np.array([0, 4, 5, 12]), np.array([4, 5, 11, 15])  # frame 11 belongs to no episode, frame 4 is alone
COUNT, SIZE, A = 15, (5, 6), 2


def made(channels: int = 1, **changes: Any) -> Episodes:
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 256, size=(COUNT, channels, *SIZE), dtype=np.uint8)  # no frame is black
    parts = {
        "labels": {"row": np.arange(COUNT)},
        "action": rng.uniform(-1, 1, (COUNT, A)),
        "reward": np.arange(COUNT, dtype=np.float32) / 2,
    }
    return Episodes(frames, BEGIN, END, **{**parts, **changes})


def sampler(episodes: Episodes, frame_stack: int = 3, grayscale: bool = False, **changes: Any) -> EpisodeSampler:
    return EpisodeSampler(episodes, frame_stack=frame_stack, grayscale=grayscale, device=CPU, **changes)


def stacked(episodes: Episodes, row: int, depth: int) -> np.ndarray:
    """The observation at a row, frame by frame."""
    begin = next(int(b) for b, e in zip(BEGIN, END, strict=True) if b <= row < e)
    before = episodes.frames[begin] if episodes.padding == "repeat" else np.zeros_like(episodes.frames[0])
    return np.concatenate([episodes.frames[r] if r >= begin else before for r in range(row - depth + 1, row + 1)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["zeros", "repeat"])
def test_a_stack_is_padded_before_its_episode(channels: int, padding: str) -> None:
    episodes = made(channels, padding=padding)
    source = sampler(episodes)
    rows = episodes.rows()
    assert sorted(rows) == [row for row in range(COUNT) if row != 11]
    obs = source.observe(rows)
    assert obs.shape == (len(rows), *source.obs_shape)
    assert obs.is_contiguous(memory_format=torch.channels_last)
    for one, row in zip(obs.numpy(), rows, strict=True):
        np.testing.assert_array_equal(one, stacked(episodes, row, 3))


@pytest.mark.parametrize("length", range(1, 8))
@pytest.mark.parametrize("depth", range(1, 5))
def test_rows_are_those_that_enough_of_their_episode_follows_and_precedes(length: int, depth: int) -> None:
    wanted = []
    for b, e in zip(BEGIN, END, strict=True):
        followed = [r for r in range(b, e) if r + length <= e]
        wanted += [r for r in followed if r - depth + 1 >= b] or followed
    np.testing.assert_array_equal(made().rows(length, depth), wanted)


def test_no_drawn_stack_is_black_where_its_episode_has_full_ones() -> None:
    long = made().rows(1, 3)
    for source in (sampler(made()), sampler(made(), among=long)):
        batch = source.sample(300, frozenset({"obs"}), 0, np.random.default_rng(0))
        assert set(batch.index.tolist()) == set(long)
        dark = {row for row, obs in zip(batch.index.tolist(), batch.obs, strict=True) if not obs[0].any()}
        assert dark == {4}  # an episode of one frame


def test_a_batch_holds_whole_clips_and_what_belongs_to_them() -> None:
    episodes, length = made(3), 3
    source = sampler(episodes, frame_stack=2)
    fields = frozenset({"obs", "next_obs", "action", "reward", "clip", "clip_action", "clip_mask", "rgb"})
    assert fields <= source.provides
    batch = source.sample(100, fields, length, np.random.default_rng(1))
    index = batch.index.tolist()
    assert set(index) == set(episodes.rows(length, 2))
    assert batch.clip is not None
    assert batch.clip_action is not None
    assert batch.clip_mask is not None
    assert batch.next_obs is not None
    assert batch.rgb is not None
    assert batch.clip.shape == (100, length, *source.obs_shape)
    assert batch.clip_mask.shape == (100, length - 1)
    assert batch.clip_mask.min() == 1
    assert batch.action.dtype == batch.clip_action.dtype == batch.reward.dtype == torch.float32
    assert episodes.action is not None
    for i, row in enumerate(index):
        np.testing.assert_array_equal(batch.obs[i], stacked(episodes, row, 2))
        np.testing.assert_array_equal(batch.next_obs[i], stacked(episodes, row + 1, 2))
        np.testing.assert_array_equal(batch.rgb[i], episodes.frames[row])
        np.testing.assert_allclose(batch.action[i], episodes.action[row], rtol=1e-6)
        assert batch.reward[i] == row / 2
        for t in range(length):
            np.testing.assert_array_equal(batch.clip[i, t], stacked(episodes, row + t, 2))
        for t in range(length - 1):
            np.testing.assert_allclose(batch.clip_action[i, t], episodes.action[row + t], rtol=1e-6)


@pytest.mark.parametrize("field", ["next_obs", "action", "reward"])
def test_what_the_last_frame_of_an_episode_lacks_is_never_drawn(field: str) -> None:
    batch = sampler(made(), frame_stack=1).sample(200, frozenset({"obs", field}), 0, np.random.default_rng(0))
    assert set(batch.index.tolist()) == set(range(COUNT)) - {11} - set(END - 1)


def test_only_what_was_asked_for_is_made_and_a_seed_decides_it() -> None:
    source = sampler(made())
    first, again, other = (source.sample(7, frozenset({"obs"}), 4, np.random.default_rng(s)) for s in (0, 0, 1))
    assert torch.equal(first.obs, again.obs)
    assert not torch.equal(first.obs, other.obs)
    assert first.next_obs is first.clip is first.rgb is None
    assert first.weight.tolist() == [1] * 7
    drawn = sampler(made(), among=np.array([1, 8])).sample(50, frozenset({"obs"}), 0, np.random.default_rng(0))
    assert set(drawn.index.tolist()) == {1, 8}


def test_gray_observations_are_the_luma_of_each_frame_of_a_stack() -> None:
    episodes = made(3)
    source = sampler(episodes, frame_stack=2, grayscale=True)
    assert source.obs_shape == (2, *SIZE)
    for one, row in zip(source.observe(episodes.rows()), episodes.rows(), strict=True):
        for gray, colours in zip(one.numpy(), np.split(stacked(episodes, row, 2), 2), strict=True):
            red, green, blue = colours.astype(np.float64)
            exact = 0.299 * red + 0.587 * green + 0.114 * blue
            assert np.abs(gray - exact).max() <= 0.5 + 1e-4
    white = made(3, labels={})
    white.frames[:] = 255
    assert (sampler(white, 1, grayscale=True).observe(white.rows()) == 255).all()
    assert sampler(made(1), 1, grayscale=True).obs_shape == (1, *SIZE)


def test_the_number_of_actions_is_not_guessed_from_those_that_occur() -> None:
    integers = made(action=np.zeros(COUNT, np.uint8), num_actions=6)
    assert sampler(integers).actions == (6, 6)
    assert sampler(integers).sample(3, frozenset({"action"}), 0, np.random.default_rng(0)).action.dtype == torch.int64
    assert sampler(made()).actions == (None, A)
    assert sampler(made(action=None)).actions == (None, 0)


def test_what_a_source_has_not_is_not_promised() -> None:
    still = sampler(Episodes(made().frames, np.arange(COUNT), np.arange(COUNT) + 1))
    assert still.provides == {"obs", "features", "index"}
    assert "rgb" in sampler(made(3)).provides
    assert "rgb" not in sampler(made(1)).provides
    with pytest.raises(ValueError, match="clips of 7 frames are needed, but the longest episode has 6"):
        sampler(made()).sample(2, frozenset({"clip"}), 7, np.random.default_rng(0))


def owners(episodes: Episodes) -> set[tuple[int, int]]:
    return set(zip(episodes.begin.tolist(), episodes.end.tolist(), strict=True))


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_a_split_deals_whole_episodes(share: float, count: int) -> None:
    episodes = made()
    parts = [episodes.split(share, np.random.default_rng(seed)) for seed in range(20)]
    for train, test in parts:
        assert owners(train) | owners(test) == owners(episodes)
        assert not owners(train) & owners(test)
        assert len(test.begin) == count
        assert (np.diff(test.begin) > 0).all()
        drawn = sampler(test, 2).sample(30, frozenset({"obs"}), 0, np.random.default_rng(0))
        for obs, row in zip(drawn.obs, drawn.index.tolist(), strict=True):
            np.testing.assert_array_equal(obs, stacked(episodes, row, 2))
    assert len({tuple(test.begin) for _, test in parts}) > 1


def test_a_split_keeps_groups_together() -> None:
    group = np.zeros(COUNT, np.int64)
    group[4:5] = group[12:] = 7
    for seed in range(5):
        halves = [owners(part) for part in made(labels={"group": group}).split(0.2, np.random.default_rng(seed))]
        assert sorted(halves, key=min) == [{(0, 4), (5, 11)}, {(4, 5), (12, 15)}]


def test_an_official_test_set_stays_apart_and_the_rest_can_be_split_again() -> None:
    official = np.array([False, True, False, False])
    train, test = made(test=official).split(0.9, np.random.default_rng(0))
    assert owners(test) == {(4, 5)}
    again = train.split(0.3, np.random.default_rng(0))
    assert owners(again[0]) | owners(again[1]) == owners(train)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"begin": BEGIN[:0], "end": END[:0]}, "got 0 episodes"),
        ({"begin": np.array([0, 4, 5, 15])}, "episodes of one frame or more"),
        ({"begin": BEGIN[::-1], "end": END[::-1]}, "follow each other"),
        ({"begin": np.array([0, 3, 5, 12])}, "follow each other"),
        ({"end": np.array([4, 5, 11, 16])}, "within its 15 frames"),
        ({"reward": np.zeros(3, np.float32)}, "15 frames, but 3 values of reward"),
        ({"labels": {"x": np.zeros(16)}}, "15 frames, but 16 values of x"),
        ({"action": np.zeros(COUNT, np.int64)}, "num_actions"),
        ({"test": np.zeros(3, bool)}, "4 episodes, but 3"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(made(), **changes)


def test_one_episode_or_one_group_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="one episode cannot be split"):
        replace(made(), begin=BEGIN[:1], end=END[:1]).split(0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="one group cannot be split"):
        made(labels={"group": np.zeros(COUNT)}).split(0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        sampler(made(2))
