"""The one batch type that replay makes and every loss reads."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions on the run's device. `next_obs` is None unless a loss asked for it.

    Observations are uint8 in channels-last memory: the layout that convolutions are fastest in.
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

    FIELDS = ("obs", "action", "reward", "nstep_reward", "nstep_obs", "discount", "weight", "index", "next_obs")
