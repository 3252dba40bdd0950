"""Recorded frames that do not change: what pretraining and probes draw from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.augment import luma
from harness.derive import held_out
from harness.seeding import numpy_stream
from replay.arrays import ahead
from replay.batch import Batch
from replay.frames import ArrayFrames, Padding, pad

TRANSITION = {"action", "reward", "next_obs", "future"}  # fields that need a next frame
CLIPS = {"clip", "clip_views"}  # fields that need several consecutive frames


@dataclass(frozen=True)
class Episodes:
    """N frames, and the episodes among them. An image is an episode of one frame, a video an episode of many.

    `action` and `reward` are undefined at the last frame of an episode.

    Raises:
        ValueError: there is no episode, one is empty, two overlap, or an array has another length than `frames`.
    """

    frames: NDArray[np.uint8]  # (N, C, H, W), in memory or mapped from a file
    begin: NDArray[np.int64]  # (E,) first frame of each episode, ascending
    end: NDArray[np.int64]  # (E,) one past the last frame of each
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,): names, integers or floats
    action: NDArray[Any] | None = None  # (N,) integers or (N, A) floats in [-1, 1], taken at the frame
    reward: NDArray[np.float32] | None = None  # (N,) raw reward of that action
    num_actions: int | None = None  # of discrete actions; None: they are continuous
    test: NDArray[np.bool_] | None = None  # (E,) episodes of the official test set
    names: NDArray[np.str_] | None = None  # (E,) a split keeps a name together; default: the label `group`
    padding: Padding = "zeros"  # frames of a stack before the first frame of an episode
    views: NDArray[np.uint8] | None = None  # (N, V, C, H, W) each frame from V cameras; view 0 equals frames

    def __post_init__(self) -> None:
        if self.action is not None and (self.action.ndim == 1) != (self.num_actions is not None):
            raise ValueError("a source needs num_actions if its actions are integers, and only then")
        self._check_arrays()
        for name, each in {"ends": self.end, "marks for testing": self.test, "names": self.names}.items():
            if each is not None and len(each) != len(self.begin):
                raise ValueError(f"a source has {len(self.begin)} episodes, but {len(each)} {name}")
        if not len(self.begin) or (self.begin >= self.end).any():
            raise ValueError(f"a source needs episodes of one frame or more, got {len(self.begin)} episodes")
        if self.begin[0] < 0 or (self.end[:-1] > self.begin[1:]).any() or self.end[-1] > len(self.frames):
            raise ValueError(f"the episodes of a source must follow each other within its {len(self.frames)} frames")
        beside = {**self.labels, "action": self.action, "reward": self.reward, "views": self.views}
        for name, values in beside.items():
            if values is not None and len(values) != len(self.frames):
                raise ValueError(f"a source has {len(self.frames)} frames, but {len(values)} values of {name}")

    def _check_arrays(self) -> None:
        """Raise ValueError for an array with the wrong type or shape, or with values that are not finite."""
        act = (("f",), 2) if self.num_actions is None else (("i", "u"), 1)
        for name, values, kinds, dims in [
            ("frames", self.frames, ("u1",), 4),
            ("views", self.views, ("u1",), 5),
            ("begin", self.begin, ("i", "u"), 1),
            ("end", self.end, ("i", "u"), 1),
            ("action", self.action, *act),
            ("reward", self.reward, ("f",), 1),
            *((name, values, ("i", "u", "f", "b", "U"), 1) for name, values in self.labels.items()),
        ]:
            if values is None:
                continue
            if values.ndim != dims or not values.dtype.str[1:].startswith(kinds):
                raise ValueError(f"{name} of a source cannot be {values.dtype} of shape {values.shape}")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{name} of a source is not finite everywhere")
        if self.views is not None and self.views.shape[2:] != self.frames.shape[1:]:
            shape = self.views.shape[2:]
            raise ValueError(f"views of a source are of shape {shape}, but its frames of {self.frames.shape[1:]}")
        if self.action is not None and self.num_actions is not None:
            lowest, highest = self.action.min(initial=0), self.action.max(initial=0)
            if lowest < 0 or highest >= self.num_actions:
                raise ValueError(
                    f"actions of a source reach from {lowest} to {highest}, num_actions={self.num_actions}"
                )

    def split(self, share: float, seed: int) -> tuple["Episodes", "Episodes"]:
        """Two sets of whole episodes, for training and for testing.

        The second is the official test set, if there is one. Otherwise about `share` of the episodes are held out.
        With names, all episodes of a name go together, and only the seed and the name decide, so that adding files
        moves no others. Each set gets at least one.

        Raises:
            ValueError: there are not two episodes, or names.
        """
        test = self._held_out(share, seed) if self.test is None else self.test
        return self._only(~test), self._only(test)

    @property
    def split_names(self) -> NDArray[Any] | None:
        """(E,) the names that decide a split; None if the test set is official, or episodes are drawn."""
        group = self.labels.get("group")
        if self.test is not None or (self.names is None and group is None):
            return None
        return group[self.begin] if self.names is None and group is not None else self.names

    def _held_out(self, share: float, seed: int) -> NDArray[np.bool_]:
        names, episode = self.split_names, np.arange(len(self.begin))
        units, owner = np.unique(episode if names is None else names, return_inverse=True)
        if len(units) < 2:
            unit = "episode" if names is None else "group"
            raise ValueError(f"a source of one {unit} cannot be split into training and test: it needs more")
        if names is not None:
            return held_out(map(str, units), share, seed)[owner]
        count = min(max(round(share * len(units)), 1), len(units) - 1)
        return np.isin(episode, numpy_stream(seed, "split").choice(units, count, replace=False))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all arrays."""
        digest = hashlib.sha256(repr((self.num_actions, self.padding)).encode())
        names = ("frames", "begin", "end", "action", "reward", "test", "names", "views")
        parts = {name: getattr(self, name) for name in names}
        for name, values in (parts | {f"labels/{name}": values for name, values in self.labels.items()}).items():
            if values is not None:
                digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def _only(self, kept: NDArray[np.bool_]) -> "Episodes":
        names = None if self.names is None else self.names[kept]
        return replace(self, begin=self.begin[kept], end=self.end[kept], names=names, test=None)

    def rows(self, length: int = 1, depth: int = 1) -> NDArray[np.int64]:
        """Frames at which a clip of `length` frames can start.

        The first `depth - 1` frames of an episode are left out, unless it has no others.
        """
        last = np.maximum(self.end - length + 1, self.begin)
        first = np.where(self.begin + depth - 1 < last, self.begin + depth - 1, self.begin)
        return np.concatenate([np.arange(b, e) for b, e in zip(first, last, strict=True)])


class EpisodeSampler:
    """Batches of stacked observations and clips from recorded episodes.

    Args:
        episodes: the source.
        frame_stack: frames in an observation; the episodes' `padding` stands before their first.
        grayscale: give the luma of colour frames as observations.
        device: where batches go.
        among: (M,) frames to draw from. Default: frames with a full stack, since padding would show where an episode
            begins; all frames of an episode that is too short for one.
        gamma: discount of `Batch.future`, in (0, 1].

    Raises:
        ValueError: the frames have neither one channel nor three.
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        frame_stack: int,
        grayscale: bool,
        device: torch.device,
        among: NDArray[np.int64] | None = None,
        gamma: float = 0.99,
    ) -> None:
        channels = episodes.frames.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"frames must have 1 or 3 channels, got {channels}")
        self.episodes, self.frame_stack, self.device, self.gamma = episodes, frame_stack, device, gamma
        self.colour, self.grayscale = channels == 3, grayscale and channels == 3
        self._frames = ArrayFrames.over(episodes.frames)
        views = () if episodes.views is None else episodes.views.swapaxes(0, 1)
        self._views = [ArrayFrames.over(view) for view in views]
        self._among = among
        self._rows: dict[int, NDArray[np.int64]] = {}  # by the length of the clips that may begin there
        self._start, self._end = np.zeros((2, len(episodes.frames)), np.int64)  # of the episode of each frame
        for at, of in ((episodes.begin, self._start), (episodes.end, self._end)):
            of[episodes.rows()] = np.repeat(at, episodes.end - episodes.begin)

    @property
    def obs_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one observation."""
        channels, height, width = self.episodes.frames.shape[1:]
        return (self.frame_stack * (1 if self.grayscale else channels), height, width)

    @property
    def actions(self) -> tuple[int | None, int]:
        """How many actions there are, None if they are continuous or unknown, and the width of an action vector."""
        action, choices = self.episodes.action, self.episodes.num_actions
        if choices is not None:
            return choices, choices
        return None, 0 if action is None else action.shape[1]

    @property
    def provides(self) -> frozenset[str]:
        """Batch fields that a loss may read."""
        source = self.episodes
        there = {
            ("obs", "features", "index", "context"): True,
            ("rgb",): self.colour,
            ("next_obs", "future", "clip", "clip_mask"): bool((source.end - source.begin > 1).any()),
            ("action", "clip_action"): source.action is not None,
            ("reward",): source.reward is not None,
            ("views", "clip_views"): source.views is not None,
        }
        return frozenset(name for names, given in there.items() if given for name in names)

    def sample(self, batch_size: int, fields: frozenset[str], clip_length: int, rng: np.random.Generator) -> Batch:
        """Draw a batch with replacement, from frames with enough successors in their episode.

        Args:
            batch_size: B.
            fields: what the losses read; other fields are empty or undefined.
            clip_length: T, observations in a clip.
            rng: generator for all random draws.

        Raises:
            ValueError: no episode is long enough.
        """
        possible = self.drawable(fields, clip_length)
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
        if "context" in fields:
            more["context"] = self.observe(self._start[row])
        if "future" in fields:
            more["future"] = self.observe(row + ahead(self._end[row] - 1 - row, self.gamma, rng))
        if "rgb" in fields:
            more["rgb"] = self._stack(self._frames, row, 1)
        if "views" in fields:
            more["views"] = self.observe_views(row)
        rows = row[:, None] + np.arange(clip_length)
        if "clip_views" in fields:
            views = self.observe_views(rows.ravel())
            more["clip_views"] = views.view(*rows.shape, *views.shape[1:])
        if "clip" in fields:
            more["clip"] = self.observe(rows.ravel()).view(*rows.shape, *self.obs_shape)
            more["clip_action"] = self._values(self.episodes.action, rows[:, :-1], nothing)
            more["clip_mask"] = torch.ones(batch_size, clip_length - 1, device=self.device)
        return replace(batch, **more)

    def drawable(self, fields: frozenset[str], clip_length: int) -> NDArray[np.int64]:
        """The frames that batches of these fields and clips are drawn from.

        Raises:
            ValueError: no episode is long enough.
        """
        length = max(clip_length if fields & CLIPS else 1, 2 if fields & TRANSITION else 1)
        if length not in self._rows:
            full, among = self.episodes.rows(length, self.frame_stack), self._among
            self._rows[length] = full if among is None else np.intersect1d(among, self.episodes.rows(length))
        if not len(self._rows[length]):
            longest = int((self.episodes.end - self.episodes.begin).max())
            found = f"the longest episode has {longest}"
            if self._among is not None:
                found = f"none of the chosen frames is followed by {length - 1} more of its episode"
            raise ValueError(f"clips of {length} frames are needed, but {found}")
        return self._rows[length]

    def observe(self, row: NDArray[np.int64]) -> Tensor:
        """The observations (B, C, H, W) uint8 at (B,) rows."""
        return self._observe(self._frames, row)

    def observe_views(self, row: NDArray[np.int64]) -> Tensor:
        """The views (B, V, C, H, W) uint8 of the moments at (B,) rows, each as an observation."""
        return torch.stack([self._observe(view, row) for view in self._views], dim=1)

    def _observe(self, frames: ArrayFrames, row: NDArray[np.int64]) -> Tensor:
        obs = self._stack(frames, row, self.frame_stack)
        if not self.grayscale:
            return obs
        return luma(obs).round_().to(torch.uint8).contiguous(memory_format=torch.channels_last)

    def _stack(self, frames: ArrayFrames, row: NDArray[np.int64], depth: int) -> Tensor:
        rows = row[:, None] + np.arange(1 - depth, 1)
        start = self._start[row]
        blank = rows < start[:, None]
        rows, blank = pad(np.where(blank, 0, rows), blank, self.episodes.padding)
        return frames.stack(rows, blank).to(self.device)

    def _values(self, values: NDArray[Any] | None, row: NDArray[np.int64], nothing: Tensor) -> Tensor:
        if values is None:
            return nothing
        dtype = torch.int64 if np.issubdtype(values.dtype, np.integer) else torch.float32
        return torch.from_numpy(values[row]).to(self.device, dtype)
