"""Reconstruction of the observation by a regularised autoencoder."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.decoder import decoder, image_error, to_pixels
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class Reconstruction(AuxTask):
    """Mean squared error of the decoded pixels + latent_weight * |z|^2 / 2 (Yarats et al. 2021, "Improving sample
    efficiency in model-free reinforcement learning from images", SAC-AE), with weight decay on the decoder.

    Target pixels are reduced to `bits` and dithered, in [-0.5, 0.5). `error_ratio` is the error over that of the
    batch's mean image.

    Args:
        setting: the run.
        bits: of a target pixel, 1 to 8.
        channels: of the decoder's feature maps.
        latent_weight: of the penalty on the features.
        weight_decay: of the decoder.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        bits: int = 5,
        channels: int = 32,
        latent_weight: float = 1e-6,
        weight_decay: float = 1e-7,
    ) -> None:
        super().__init__(setting)
        if not 1 <= bits <= 8:
            raise ValueError(f"bits must be 1 to 8, got {bits}")
        check_least(0, latent_weight=latent_weight, weight_decay=weight_decay)
        self.bits, self.latent_weight, self.weight_decay = bits, latent_weight, weight_decay
        self.decoder = decoder(setting.feature_dim, setting.map_shape, setting.obs_shape, channels)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the reconstruction error and penalty (B,)."""
        target = self.target(batch.obs)
        pixels = image_error(self.decoder(features), target)
        penalty = features.float().square().sum(1) / 2
        return AuxOutput(pixels.loss + self.latent_weight * penalty, pixels.metrics)

    def target(self, obs: Tensor) -> Tensor:
        """Return uint8 pixels (B, C, H, W) reduced to `bits`, with uniform noise of one level, in [-0.5, 0.5)."""
        levels = 1 << self.bits
        noise = torch.empty_like(obs, dtype=torch.float32).uniform_(generator=self.generator)  # in the layout of obs
        return noise.add_(obs >> (8 - self.bits)).div_(levels).sub_(0.5)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations, each beside its reconstruction."""
        obs = batch.obs[:4]
        shown = {"observation": obs, "predicted": to_pixels(self.decoder(encoder(obs)))}
        return Examples("What does the picture show, rebuilt from its features?", shown)
