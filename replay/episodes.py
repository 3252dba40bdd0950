"""Recorded frames that do not change: what pretraining and probes draw from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replay.batch import Batch
from replay.frames import ArrayFrames


@dataclass(frozen=True)
class Episodes:
    """N frames with episodes among them. An image is an episode of one frame, a video one of many.

    Raises:
        ValueError: frames and what belongs to them differ in number, or an episode is empty.
    """

    frames: NDArray[np.uint8]  # (N, C, H, W), in memory or mapped from a file
    begin: NDArray[np.int64]  # (E,) first frame of each episode
    end: NDArray[np.int64]  # (E,) behind its last
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,) each: integers are classes, floats measures
    action: NDArray[Any] | None = None  # (N,) integers or (N, A) floats, done at the frame
    reward: NDArray[np.float32] | None = None  # (N,) what it brought

    def __post_init__(self) -> None:
        if not len(self.begin) or (self.begin >= self.end).any():
            raise ValueError(f"a source needs episodes of one frame or more, got {len(self.begin)} episodes")
        beside = {**self.labels, "action": self.action, "reward": self.reward}
        for name, values in beside.items():
            if values is not None and len(values) != len(self.frames):
                raise ValueError(f"a source has {len(self.frames)} frames, but {len(values)} values of {name}")

    def split(self, share: float, rng: np.random.Generator) -> tuple["Episodes", "Episodes"]:
        """Two sets of whole episodes; the second holds `share` of them, at least one.

        Raises:
            ValueError: there are not two episodes.
        """
        if len(self.begin) < 2:
            raise ValueError("a source of one episode cannot be split into training and test: record more episodes")
        order = rng.permutation(len(self.begin))
        cut = len(order) - min(max(round(share * len(order)), 1), len(order) - 1)
        first, second = np.sort(order[:cut]), np.sort(order[cut:])
        return self._only(first), self._only(second)

    def _only(self, kept: NDArray[np.int64]) -> "Episodes":
        return replace(self, begin=self.begin[kept], end=self.end[kept])

    def rows(self, length: int = 1) -> NDArray[np.int64]:
        """The frames that `length - 1` more of their episode follow."""
        last = np.maximum(self.end - length + 1, self.begin)
        return np.concatenate([np.arange(b, e) for b, e in zip(self.begin, last, strict=True)])


class EpisodeSampler:
    """Batches of stacked observations and clips from recorded episodes.

    Args:
        episodes: where from.
        frame_stack: frames in an observation; before an episode's first they are black.
        grayscale: give the luma of colour frames as observations.
        device: where batches go.

    Raises:
        ValueError: the frames have neither one channel nor three, or gray is to be made of one.
    """

    def __init__(self, episodes: Episodes, *, frame_stack: int, grayscale: bool, device: torch.device) -> None:
        channels = episodes.frames.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"frames must have 1 or 3 channels, got {channels}")
        self.episodes, self.frame_stack, self.device = episodes, frame_stack, device
        self.colour, self.grayscale = channels == 3, grayscale and channels == 3
        self._frames = ArrayFrames.over(episodes.frames)
        self._rows = {1: episodes.rows()}  # by the length of the clips that may begin there
        self._start = np.repeat(episodes.begin, episodes.end - episodes.begin)  # of the episode of each of them

    @property
    def obs_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one observation."""
        channels, height, width = self.episodes.frames.shape[1:]
        return (self.frame_stack * (1 if self.grayscale else channels), height, width)

    @property
    def actions(self) -> tuple[int | None, int]:
        """How many actions there are, None if they are continuous or unknown, and the width of an action vector."""
        action = self.episodes.action
        if action is None:
            return None, 0
        return (None, action.shape[1]) if action.ndim == 2 else (int(action.max()) + 1, int(action.max()) + 1)

    @property
    def provides(self) -> frozenset[str]:
        """Batch fields that a loss may read."""
        optional = {
            "rgb": self.colour,
            "action": self.episodes.action is not None,
            "clip_action": self.episodes.action is not None,
            "reward": self.episodes.reward is not None,
        }
        return frozenset({"obs", "features", "index", "next_obs", "clip", "clip_mask"}) | {
            name for name, there in optional.items() if there
        }

    def sample(self, batch_size: int, fields: frozenset[str], clip_length: int, rng: np.random.Generator) -> Batch:
        """Draw a batch, with replacement, from the frames that enough of their episode follows.

        Args:
            batch_size: B.
            fields: what the losses read; the others are empty, or stand for nothing.
            clip_length: T, observations in a clip.
            rng: the only source of chance.

        Raises:
            ValueError: no episode is long enough.
        """
        length = max(clip_length if "clip" in fields else 1, 2 if "next_obs" in fields else 1)
        if length not in self._rows:
            self._rows[length] = self.episodes.rows(length)
        possible = self._rows[length]
        if not len(possible):
            longest = int((self.episodes.end - self.episodes.begin).max())
            raise ValueError(f"clips of {length} frames are needed, but the longest episode has {longest}")
        row = possible[rng.integers(len(possible), size=batch_size)]
        obs = self.observe(row)
        nothing, one = obs.new_empty(0), torch.ones(batch_size, device=self.device)
        batch = Batch(
            obs=obs,
            action=self._values(self.episodes.action, row, nothing),
            reward=self._values(self.episodes.reward, row, nothing),
            nstep_reward=nothing,
            nstep_obs=nothing,
            discount=nothing,
            weight=one,
            index=torch.from_numpy(row).to(self.device),
        )
        more: dict[str, Tensor] = {}
        if "next_obs" in fields:
            more["next_obs"] = self.observe(row + 1)
        if "rgb" in fields:
            more["rgb"] = self._stack(row, 1)
        if "clip" in fields:
            rows = row[:, None] + np.arange(clip_length)
            more["clip"] = self.observe(rows.ravel()).view(*rows.shape, *self.obs_shape)
            more["clip_action"] = self._values(self.episodes.action, rows[:, :-1], nothing)
            more["clip_mask"] = torch.ones(batch_size, clip_length - 1, device=self.device)
        return replace(batch, **more)

    def observe(self, row: NDArray[np.int64]) -> Tensor:
        """The observations (B, C, H, W) uint8 at (B,) rows."""
        obs = self._stack(row, self.frame_stack)
        return luma(obs) if self.grayscale else obs

    def _stack(self, row: NDArray[np.int64], depth: int) -> Tensor:
        rows = row[:, None] + np.arange(1 - depth, 1)
        start = self._start[np.searchsorted(self._rows[1], row)]
        blank = rows < start[:, None]
        return self._frames.stack(np.where(blank, 0, rows), blank).to(self.device)

    def _values(self, values: NDArray[Any] | None, row: NDArray[np.int64], nothing: Tensor) -> Tensor:
        return nothing if values is None else torch.from_numpy(values[row]).to(self.device)


def luma(pixels: Tensor) -> Tensor:
    """Gray (B, K, H, W) of K colour frames (B, 3 * K, H, W) uint8, by the weights of ITU-R BT.601."""
    red, green, blue = (pixels[:, colour::3].float() for colour in range(3))
    gray = (0.299 * red + 0.587 * green + 0.114 * blue).round_().to(torch.uint8)
    return gray.contiguous(memory_format=torch.channels_last)
