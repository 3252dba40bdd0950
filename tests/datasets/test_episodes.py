"""Recorded episodes and the batches drawn from them, against loops that do one thing at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from datasets import Episodes, EpisodeSampler
from replay import Batch

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


def drawn(source: EpisodeSampler, *fields: str, count: int = 300, clip: int = 0, seed: int = 0) -> Batch:
    return source.sample(count, frozenset({"obs", *fields}), clip, np.random.default_rng(seed))


def test_no_drawn_stack_is_black_where_its_episode_has_full_ones() -> None:
    long = made().rows(1, 3)
    for source in (sampler(made()), sampler(made(), among=long)):
        batch = drawn(source)
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
    assert batch.clip.shape == (100, length, *source.obs_shape)
    assert batch.clip_mask.shape == (100, length - 1)
    assert batch.clip_mask.min() == 1
    assert batch.action.dtype == batch.clip_action.dtype == batch.reward.dtype == torch.float32
    for i, row in enumerate(index):
        np.testing.assert_array_equal(batch.obs[i], stacked(episodes, row, 2))
        np.testing.assert_array_equal(batch.next_obs[i], stacked(episodes, row + 1, 2))
        np.testing.assert_array_equal(batch.rgb[i], episodes.frames[row])
        np.testing.assert_allclose(batch.action[i], episodes.action[row], rtol=1e-6)
        assert batch.reward[i] == row / 2
        for t in range(length):
            np.testing.assert_array_equal(batch.clip[i, t], stacked(episodes, row + t, 2))
        np.testing.assert_allclose(batch.clip_action[i], episodes.action[row : row + length - 1], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.6, 1.0])
def test_the_future_is_of_the_same_episode_and_the_context_its_beginning(gamma: float) -> None:
    source = sampler(made(labels={}), frame_stack=2, gamma=gamma)
    assert {"context", "future"} <= source.provides
    batch = drawn(source, "context", "future", count=4000)
    observed = {row: stacked(source.episodes, row, 2).tobytes() for row in source.episodes.rows()}
    assert len(set(observed.values())) == len(observed)
    named = {picture: row for row, picture in observed.items()}
    steps = np.array([named[later.numpy().tobytes()] for later in batch.future.contiguous()]) - batch.index.numpy()
    for index in np.unique(batch.index.numpy()):
        most = END[np.searchsorted(END, index, "right")] - 1 - index
        share = gamma ** np.arange(most)
        found = np.bincount(steps[batch.index.numpy() == index] - 1, minlength=most)
        assert chisquare(found, found.sum() * share / share.sum()).pvalue > 1e-3 or most == 1
        assert len(found) == most
    begin = BEGIN[np.searchsorted(BEGIN, batch.index.numpy(), "right") - 1]
    assert all(named[obs.numpy().tobytes()] == b for obs, b in zip(batch.context.contiguous(), begin, strict=True))


@pytest.mark.parametrize("grayscale", [False, True])
def test_views_are_observations_of_one_moment(grayscale: bool) -> None:
    views = np.random.default_rng(1).integers(256, size=(COUNT, 3, 3, *SIZE), dtype=np.uint8)
    episodes = replace(made(3), frames=views[:, 0], views=views)
    source = sampler(episodes, frame_stack=2, grayscale=grayscale)
    assert "views" in source.provides
    assert "views" not in sampler(made()).provides
    batch = drawn(source, "views", "clip_views", count=20, clip=3)
    assert batch.clip is None
    assert batch.views.shape == (20, 3, *source.obs_shape)
    assert torch.equal(batch.views[:, 0], batch.obs)
    for v in range(3):
        alone = sampler(replace(episodes, frames=views[:, v]), frame_stack=2, grayscale=grayscale)
        assert torch.equal(batch.views[:, v], alone.observe(batch.index.numpy()))
        for t in range(3):
            assert torch.equal(batch.clip_views[:, t, v], alone.observe(batch.index.numpy() + t))


@pytest.mark.parametrize("field", ["next_obs", "action", "reward", "future"])
def test_what_the_last_frame_of_an_episode_lacks_is_never_drawn(field: str) -> None:
    batch = drawn(sampler(made(), frame_stack=1), field)
    assert set(batch.index.tolist()) == set(range(COUNT)) - {11} - set(END - 1)


def test_only_what_was_asked_for_is_made_and_a_seed_decides_it() -> None:
    first, again, other = (drawn(sampler(made()), clip=4, count=7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.obs, again.obs)
    assert not torch.equal(first.obs, other.obs)
    assert first.next_obs is first.clip is first.rgb is first.context is first.future is first.views is None
    assert first.weight.tolist() == [1] * 7
    assert set(drawn(sampler(made(), among=np.array([1, 8]))).index.tolist()) == {1, 8}


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


def test_what_a_source_has_not_is_not_promised_and_the_number_of_actions_not_guessed() -> None:
    integers = sampler(made(action=np.zeros(COUNT, np.uint8), num_actions=6))
    assert drawn(integers, "action").action.dtype == torch.int64
    assert [source.actions for source in (integers, sampler(made()), sampler(made(action=None)))] == [
        *((6, 6), (None, A), (None, 0))
    ]
    still = sampler(Episodes(made().frames, np.arange(COUNT), np.arange(COUNT) + 1))
    assert still.provides == {"obs", "features", "index", "context"}
    assert [("rgb" in sampler(made(channels)).provides) for channels in (1, 3)] == [False, True]


def owners(episodes: Episodes) -> set[tuple[int, int]]:
    return set(zip(episodes.begin.tolist(), episodes.end.tolist(), strict=True))


def split(episodes: Episodes, share: float = 0.5, seed: int = 0) -> list[Episodes]:
    return episodes.split(share, seed)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_a_split_deals_whole_episodes(share: float, count: int) -> None:
    episodes = made()
    parts = [split(episodes, share, seed) for seed in range(20)]
    for train, test in parts:
        assert owners(train) | owners(test) == owners(episodes)
        assert not owners(train) & owners(test)
        assert len(test.begin) == count
        assert (np.diff(test.begin) > 0).all()
        batch = drawn(sampler(test, 2), count=30)
        for obs, row in zip(batch.obs, batch.index.tolist(), strict=True):
            np.testing.assert_array_equal(obs, stacked(episodes, row, 2))
    assert len({tuple(test.begin) for _, test in parts}) > 1


def named(count: int, share: float, seed: int, start: int = 0) -> set[str]:
    """The names that are held out of `count` of them."""
    names = np.array([f"cat/{i}.png" for i in range(start, start + count)])
    row = np.arange(count)
    return set(Episodes(np.zeros((count, 1, 1, 1), np.uint8), row, row + 1, names=names).split(share, seed)[1].names)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_names_that_come_or_go_move_no_other(share: float, seed: int) -> None:
    whole, half, late = (named(count, share, seed, start) for count, start in ((400, 0), (200, 0), (300, 100)))
    assert half == {f"cat/{i}.png" for i in range(200)} & whole
    assert late == {f"cat/{i}.png" for i in range(100, 400)} & whole
    assert abs(len(whole) - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5
    assert whole != named(400, share, seed + 1)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_few_names_leave_no_part_empty(share: float, count: int) -> None:
    assert all(0 < len(named(count, share, seed)) < count for seed in range(20))


def test_a_split_keeps_groups_together_and_an_official_test_set_apart() -> None:
    group = np.zeros(COUNT, np.int64)
    group[4:5] = group[12:] = 7
    names = np.array(["a", "b", "a", "b"])
    for changes in ({"labels": {"group": group}}, {"names": names}):
        for seed in range(5):
            halves = [owners(part) for part in split(made(**changes), 0.2, seed)]
            assert sorted(halves, key=min) == [{(0, 4), (5, 11)}, {(4, 5), (12, 15)}]
    train, test = split(made(test=np.array([False, True, False, False]), names=names), 0.9)
    assert owners(test) == {(4, 5)}
    again = split(train, 0.3)  # the rest can be split again
    assert owners(again[0]) | owners(again[1]) == owners(train)


def test_a_fingerprint_is_of_everything() -> None:
    first = made(test=np.array([False, True, False, False]), names=np.array(list("abcd")))
    assert first.fingerprint == replace(first, frames=first.frames.copy()).fingerprint
    assert first.reward is not None
    changed = [
        replace(first, frames=first.frames ^ (np.arange(COUNT) == 11).astype(np.uint8)[:, None, None, None]),
        replace(first, names=np.array(list("abce"))),
        replace(first, labels={"line": first.labels["row"]}),
        replace(first, labels={"row": first.labels["row"] + 1}),
        replace(first, reward=first.reward + 1),
        replace(first, action=None),
        replace(first, test=None),
        replace(first, end=np.array([4, 5, 12, 15])),
        replace(first, padding="repeat"),
        replace(first, views=first.frames[:, None]),
    ]
    assert len({first.fingerprint, *(episodes.fingerprint for episodes in changed)}) == len(changed) + 1


@pytest.mark.parametrize(
    ("changes", "use", "message"),
    [
        ({"begin": BEGIN[:0], "end": END[:0]}, None, "got 0 episodes"),
        ({"begin": np.array([0, 4, 5, 15])}, None, "episodes of one frame or more"),
        ({"begin": BEGIN[::-1], "end": END[::-1]}, None, "follow each other"),
        ({"begin": np.array([0, 3, 5, 12])}, None, "follow each other"),
        ({"end": np.array([4, 5, 11, 16])}, None, "within its 15 frames"),
        ({"reward": np.zeros(3, np.float32)}, None, "15 frames, but 3 values of reward"),
        ({"labels": {"x": np.zeros(16)}}, None, "15 frames, but 16 values of x"),
        ({"action": np.zeros(COUNT, np.int64)}, None, "num_actions"),
        ({"action": np.arange(COUNT), "num_actions": 14}, None, "from 0 to 14, num_actions=14"),
        ({"action": np.arange(COUNT) - 1, "num_actions": 20}, None, "from -1 to 13"),
        ({"test": np.zeros(3, bool)}, None, "4 episodes, but 3"),
        ({"names": np.array(["a"])}, None, "4 episodes, but 1 names"),
        ({"begin": BEGIN[:3]}, None, "3 episodes, but 4 ends"),
        ({"frames": np.zeros((COUNT, 30), np.uint8)}, None, r"frames of a source cannot be uint8 of shape \(15, 30\)"),
        ({"frames": np.zeros((COUNT, 1, *SIZE), np.float32)}, None, "frames of a source cannot be float32"),
        ({"begin": BEGIN.astype(float)}, None, "begin of a source cannot be float64"),
        ({"end": END[:, None]}, None, r"end of a source cannot be int64 of shape \(4, 1\)"),
        ({"reward": np.zeros((COUNT, 2), np.float32)}, None, "reward of a source cannot be"),
        ({"reward": np.full(COUNT, np.nan, np.float32)}, None, "reward of a source is not finite"),
        ({"action": np.full((COUNT, 2), np.inf)}, None, "action of a source is not finite"),
        ({"labels": {"x": np.zeros((COUNT, 2))}}, None, "x of a source cannot be float64"),
        ({"labels": {"x": np.array([{}] * COUNT)}}, None, "x of a source cannot be object"),
        ({"views": made().frames}, None, "views of a source cannot be uint8"),
        (
            {"views": made(3).frames[:, None]},
            None,
            r"views of a source are of shape \(3, 5, 6\), but its frames of",
        ),
        ({"views": made().frames[:3, None]}, None, "15 frames, but 3 values of views"),
        ({"begin": BEGIN[:1], "end": END[:1]}, split, "one episode cannot be split"),
        ({"labels": {"group": np.zeros(COUNT)}}, split, "one group cannot be split"),
        ({"frames": made(2).frames}, sampler, "1 or 3 channels, got 2"),
        ({}, lambda whole: drawn(sampler(whole), "clip", clip=7), "clips of 7 frames .* but the longest episode has 6"),
        (
            {},
            lambda whole: drawn(sampler(whole, among=END - 1), "next_obs"),
            "clips of 2 frames .* none of the chosen frames is followed by 1 more",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], use: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        (use or (lambda _: None))(replace(made(), **changes))
