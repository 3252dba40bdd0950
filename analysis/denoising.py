"""How much of the background remains in an encoder's features, measured without returns (Luo et al. 2025)."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.policies import random_policy
from analysis.probes import CHUNK, comparable, ridge
from encoders.augment import luma
from envs import Rollout
from envs.distractors import SPLITS, add_noise
from envs.scenes import SceneConfig
from harness.lazy import LazyModule
from harness.seeding import derive, numpy_stream

distance, metrics = map(LazyModule, ("scipy.spatial.distance", "sklearn.metrics"))

Embed: TypeAlias = Callable[[Tensor], Tensor]  # observations (B, C, H, W) uint8 to (B, Z)

COPIES, STEPS = 12, 60  # of the recorded random play
ANCHORS = 100  # states whose features are compared
OTHERS = 8  # further backgrounds for each anchor
CLIPS = 256  # background clips of each split
TEST_SHARE = 0.25  # of the copies, and of the clips, for the probes
NAMES = {"train": "seen", "eval": "unseen"}  # backgrounds, by split


@dataclass(frozen=True)
class Scenes:
    """Moments of play with their backgrounds cut out, and background clips to put behind them."""

    pictures: NDArray[np.uint8]  # (M, T, 3, H, W) stacks of frames
    empty: NDArray[np.bool_]  # (M, T, H, W) where the background stands
    state: NDArray[np.float64]  # (M, D) numbers of the simulator's state that vary
    copy: NDArray[np.int64]  # (M,) environment copy of each moment
    clips: Mapping[str, NDArray[np.uint8]]  # (CLIPS, T, 3, H, W) by split
    noise: float = 0.0  # standard deviation of pixel noise

    def before(self, split: str, moment: NDArray[np.int64], clip: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Observations (B, 3 * T, H, W) of (B,) moments in front of (B,) clips."""
        shown = np.where(self.empty[moment, :, None], self.clips[split][clip], self.pictures[moment])
        if self.noise:  # another one for each pair of moment and clip
            shown = add_noise(shown, self.noise, np.random.default_rng([int(moment[0]), int(clip[0])]))
        return shown.reshape(len(shown), -1, *shown.shape[3:])


def record_scenes(env: SceneConfig, frame_stack: int) -> Scenes:
    """Record random play in stacks of frames, the same for every run of an environment."""
    env = replace(env, num_envs=COPIES)
    rows: list[tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]] = []
    with closing(env.build(labels=True)) as vector:
        rollout = Rollout(vector, 1, env.padding)
        policy = random_policy(vector.action_space, numpy_stream(0, "denoising/actions"))
        rollout.reset(derive(0, "denoising/env"))
        for _ in range(STEPS):
            state = np.stack(list(vector.labels().values()), axis=1).astype(np.float64)
            rows.append((*vector.foreground(), rollout.first, state))
            rollout.step(policy)
    pictures, empty, first, state = (_windows(np.stack(column), frame_stack) for column in zip(*rows, strict=True))
    whole = ~first[:, 1:].any(1)  # of one episode
    copy = np.tile(np.arange(COPIES), STEPS - frame_stack + 1)[whole]
    numbers = state[whole, -1]
    clips = {split: env.background_clips(split, CLIPS, frame_stack) for split in SPLITS}
    return Scenes(
        pictures[whole], empty[whole], numbers[:, np.ptp(numbers, axis=0) > 1e-6], copy, clips, env.pixel_noise
    )


def _windows(steps: NDArray[Any], length: int) -> NDArray[Any]:
    """All windows (M, length, ...) of consecutive steps of (STEPS, COPIES, ...); copies are adjacent."""
    windows = np.stack([steps[k : STEPS - length + 1 + k] for k in range(length)], axis=2)
    return windows.reshape(-1, *windows.shape[2:])


class DenoisingTest:
    """Scores of an encoder, always on the same scenes and without randomness.

    `seen` and `unseen` are denoising factors (n - p) / (n + p), with backgrounds of training and of evaluation. p is
    the mean distance between features of the same state with different backgrounds, n that between features of
    different states with different backgrounds. At 1 the background has no effect. At 0 another background moves the
    features as much as another state does; below 0, more.

    `state_r2` and `background_r2` are R2 of ridge regressions of the simulator's state, and of the brightness of each
    quarter of the newest background, tested on other episodes and other unseen backgrounds than fitted. The less of the
    background is left in the features, the higher the first and the lower the second.

    Args:
        scenes: from `record_scenes`.
        gray: the encoder reads luma.
        device: of the encoder.
    """

    def __init__(self, scenes: Scenes, *, gray: bool, device: torch.device) -> None:
        self._scenes, self._gray, self._device = scenes, gray, device
        rng, count = numpy_stream(0, "denoising/choice"), len(scenes.pictures)
        self._anchors = rng.choice(count, min(ANCHORS, count), replace=False)
        test = scenes.copy >= COPIES * (1 - TEST_SHARE)
        known, border = len(scenes.clips["eval"]), int(len(scenes.clips["eval"]) * (1 - TEST_SHARE))
        self._test = test
        self._behind = np.where(test, rng.integers(border, known, count), rng.integers(border, size=count))
        newest = scenes.clips["eval"][self._behind, -1].astype(np.float64).mean(1)  # (M, H, W)
        height, width = (side // 2 for side in newest.shape[1:])
        quarters = [newest[:, y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
        self._brightness = np.stack([quarter.mean((1, 2)) for quarter in quarters], axis=1)

    def __call__(self, embed: Embed) -> dict[str, float]:
        """The scores of features (B, Z) = embed(observations (B, C, H, W) uint8)."""
        scores = {name: self.factor(embed, split) for split, name in NAMES.items()}
        features = self._embed(embed, "eval", np.arange(len(self._test)), self._behind)
        train, test = comparable(features[~self._test], features[self._test])
        for name, truth in (("state", self._scenes.state), ("background", self._brightness)):
            if not np.ptp(truth):  # the backgrounds are pixel noise alone
                continue
            scores[f"{name}_r2"] = float(metrics.r2_score(truth[self._test], ridge(train, truth[~self._test], test)))
        return scores

    def factor(self, embed: Embed, split: str) -> float:
        """The denoising factor with backgrounds of a split."""
        order, count = np.arange(len(self._anchors)), len(self._scenes.clips[split])
        shown = [self._embed(embed, split, self._anchors, (order + k) % count) for k in range(OTHERS + 1)]
        same = np.mean([np.linalg.norm(other - shown[0], axis=1).mean() for other in shown[1:]])
        apart = distance.cdist(shown[0], shown[0])
        other = apart.sum() / (len(order) * (len(order) - 1))
        return float((other - same) / max(other + same, 1e-12))

    @torch.no_grad()
    def _embed(
        self, embed: Embed, split: str, moment: NDArray[np.int64], clip: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        parts = []
        for rows in np.array_split(np.arange(len(moment)), -(-len(moment) // CHUNK)):
            obs = torch.from_numpy(self._scenes.before(split, moment[rows], clip[rows])).to(self._device)
            if self._gray:
                obs = luma(obs).round_().to(torch.uint8)
            parts.append(embed(obs).double().cpu().numpy())
        return np.concatenate(parts)


def raw_pixels(obs: Tensor) -> Tensor:
    """The observations (B, C, H, W) themselves as features, flat: the baseline."""
    return obs.flatten(1).float()
