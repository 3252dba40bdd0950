"""The one batch type that replay makes and every loss reads."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions on the run's device. A field with a default is made only if a loss reads it, except
    `goal`, which every environment with goals gives.

    Observations are uint8 in channels-last memory: the layout that convolutions are fastest in. States are float32, and
    so are the features (B, Z, 1, 1) of a frozen encoder that stand for observations in a `SyntheticReplay`.
    """

    obs: Tensor  # (B, C, H, W) uint8, C = frame_stack * channels, oldest frame first
    action: Tensor  # (B,) int64, or (B, A) float32 in [-1, 1]
    reward: Tensor  # (B,) float32, one step, raw
    nstep_reward: Tensor  # (B,) float32, sum of gamma**k * r over the n-step window (clipped if replay clips)
    nstep_obs: Tensor  # (B, C, H, W) uint8, the observation after the window
    discount: Tensor  # (B,) float32, gamma**n, 0 where terminated; truncation still bootstraps
    weight: Tensor  # (B,) float32 importance weight, 1 under uniform sampling
    index: Tensor  # (B,) int64, the rows sampled, for priorities
    next_obs: Tensor | None = None  # (B, C, H, W) uint8, one step later
    clip: Tensor | None = None  # (B, T, C, H, W) uint8, consecutive observations, the first is `obs`
    clip_action: Tensor | None = None  # (B, T - 1) int64 or (B, T - 1, A) float32, what was done between them
    clip_mask: Tensor | None = None  # (B, T - 1) float32, 0 after the episode's end, a lost life, or the newest row
    goal: Tensor | None = None  # (B, G) float32, what the rewards are for, where the environment has goals
    rgb: Tensor | None = None  # (B, 3, H, W) uint8, the newest frame of `obs` in colour
    context: Tensor | None = None  # (B, C, H, W) uint8, the first one held of the same episode, across lost lives
    # (B, C, H, W) uint8, the observation k >= 1 steps later of the same episode, across lost lives, P(k) ~ gamma^k
    future: Tensor | None = None
    views: Tensor | None = None  # (B, V, C, H, W) uint8, the moment of `obs` in V pictures, the first is `obs`
    clip_views: Tensor | None = None  # (B, T, V, C, H, W) uint8, each moment of `clip` in V pictures
