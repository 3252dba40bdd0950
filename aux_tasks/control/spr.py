"""Self-predictive representations: the latents of the next steps, one after the other."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, TaskSetting
from aux_tasks.parts.dynamics import action_vector
from encoders import Encoder
from encoders.augment import random_shift
from encoders.momentum import follow, momentum_copy
from harness.checks import check_least, check_within
from replay import Batch


class SPR(AuxTask):
    """Mean over k = 1..K of 1 - cos(predictor(y_k), target_k), doubled, where a convolutional model leads the feature
    maps k steps along the actions taken (Schwarzer et al. 2021, "Data-efficient reinforcement learning with
    self-predictive representations"). Steps outside the episode count 0.

    `accuracy` is the share of predictions closest to their own target among the batch's of the same step: by chance
    1 / B, also for collapsed features, on which the loss itself is 0. Unlike the paper's, the projection is the task's
    own rather than the Q head's first layer, group normalisation keeps samples apart where theirs is over the batch,
    the augmentation is the shift alone, and the weight is 1 where their code has 5.

    Args:
        setting: the run.
        horizon: K; the batch's clips hold at least K + 1 observations.
        projection_dim: size of the projected latents.
        pad: the largest shift, pixels.
        momentum: share of the target's encoder and projection that each update keeps; the paper's is 0 with
            augmentation.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_action", "clip_mask"})

    def __init__(
        self, setting: TaskSetting, *, horizon: int = 5, projection_dim: int = 256, pad: int = 4, momentum: float = 0.0
    ) -> None:
        super().__init__(setting)
        check_least(1, horizon=horizon, projection_dim=projection_dim)
        check_least(0, pad=pad)
        check_within("[0, 1]", momentum=momentum)
        self.horizon, self.clip_length = horizon, horizon + 1
        self.pad, self.momentum, self.action_dim = pad, momentum, setting.action_dim
        channels, height, width = setting.map_shape
        self.transition = nn.Sequential(
            nn.Conv2d(channels + setting.action_dim, channels, 3, padding=1),
            nn.ReLU(),
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.projection = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, projection_dim))
        self.predictor = nn.Linear(projection_dim, projection_dim)
        self.target_encoder = momentum_copy(setting.encoder)
        self.target_projection = momentum_copy(self.projection)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the mean cosine loss (B,) over the horizon, in [0, 4]."""
        clip, taken, mask = batch.clip, batch.clip_action, batch.clip_mask
        assert clip is not None
        assert taken is not None
        assert mask is not None
        size, length, *shape = clip.shape
        assert length > self.horizon, f"expected clips of at least {self.horizon + 1} observations, got {length}"
        action = action_vector(taken, self.action_dim)
        pixels = random_shift(clip[:, : self.horizon + 1].flatten(0, 1), self.pad, self.generator)
        pixels = pixels.reshape(size, -1, *shape)
        with torch.no_grad():
            maps = renormalize(self.target_encoder.maps(pixels[:, 1:].flatten(0, 1)))
            targets = F.normalize(self.target_projection(maps).float()).reshape(size, self.horizon, -1)
        maps = renormalize(encoder.maps(pixels[:, 0]))
        loss, hits = torch.zeros_like(mask[:, 0]), torch.zeros_like(mask[:, 0])
        for k in range(self.horizon):
            planes = action[:, k, :, None, None].expand(-1, -1, *maps.shape[2:])
            maps = renormalize(self.transition(torch.cat([maps, planes], dim=1)))
            predicted = F.normalize(self.predictor(self.projection(maps)).float())
            cosine = predicted @ targets[:, k].T  # (B, B)
            loss = loss + mask[:, k] * (2 - 2 * cosine.diagonal()) / self.horizon
            own = torch.arange(size, device=mask.device)
            hits = hits + mask[:, k] * (cosine.detach().argmax(1) == own)
        steps = mask[:, : self.horizon].sum().clamp_min(1)
        return AuxOutput(loss, {"accuracy": hits.sum() / steps, "chance": torch.full_like(steps, 1 / size)})

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the momentum copies."""
        follow(self.target_encoder, encoder, self.momentum)
        follow(self.target_projection, self.projection, self.momentum)


def renormalize(maps: Tensor) -> Tensor:
    """Stretch each sample's maps (B, C', H', W') to [0, 1]."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low + 1e-5)
