"""Denoising: the clean observation from a corrupted one."""

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, error_ratio
from aux_tasks.parts.decoder import centred, decoder, image_error, to_pixels
from encoders import Encoder
from harness.checks import check_choice, check_within
from replay import Batch

NOISES = ("masking", "gaussian", "salt_and_pepper")


class Denoising(AuxTask):
    """Mean squared error of the clean pixels decoded from features of corrupted ones, |D(E(x~)) - x|^2 (Vincent et al.
    2008, "Extracting and composing robust features with denoising autoencoders").

    Guards: there are no skip connections, and noise is the same in all channels and frames of a stack, or the others
    would give the answer away. Beside `error_ratio`, to the mean image, stands `copy_ratio`: the error over that of
    handing the corrupted pixels back.

    Args:
        setting: the run.
        noise: `masking` (pixels to 0), `gaussian`, or `salt_and_pepper` (pixels to 0 or 255).
        level: share of the pixels that are corrupted; of gaussian noise, its standard deviation over 255.
        emphasis: e, of pixels that differ within the batch: with their variance v each weighs 1 - e + e v / mean(v), so
            that small things that move count more than a large background.
        channels: of the decoder's feature maps.

    Raises:
        ValueError: an unknown noise, a level outside (0, 1), or an emphasis outside [0, 1].
    """

    def __init__(
        self,
        setting: TaskSetting,
        *,
        noise: str = "masking",
        level: float = 0.4,
        emphasis: float = 0.0,
        channels: int = 32,
    ) -> None:
        super().__init__(setting)
        check_choice("noise", noise, NOISES)
        check_within("(0, 1)", level=level)
        check_within("[0, 1]", emphasis=emphasis)
        self.noise, self.level, self.emphasis = noise, level, emphasis
        self.decoder = decoder(setting.feature_dim, setting.map_shape, setting.obs_shape, channels)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the reconstruction error (B,), by the pixels' weights."""
        target, corrupted = centred(batch.obs), self.corrupt(batch.obs)
        variance = target.var(0, correction=0)
        weight = 1 - self.emphasis + self.emphasis * variance / variance.mean().clamp_min(1e-12)
        output = image_error(self.decoder(encoder(corrupted)), target, weight)
        copied = image_error(centred(corrupted), target, weight).loss
        return AuxOutput(output.loss, output.metrics | {"copy_ratio": error_ratio(output.loss, copied)})

    def corrupt(self, obs: Tensor) -> Tensor:
        """Return uint8 pixels (B, C, H, W) with noise."""
        draw, device = self.generator, self.generator.device
        shape = (len(obs), 1, *obs.shape[2:])
        if self.noise == "gaussian":
            offset = torch.randn(shape, generator=draw, device=device) * (self.level * 255)
            return (obs + offset).round().clamp(0, 255).to(torch.uint8)
        chance = torch.rand(shape, generator=draw, device=device)
        hidden = obs.masked_fill(chance < self.level, 0)
        return hidden.masked_fill(chance < self.level / 2, 255) if self.noise == "salt_and_pepper" else hidden

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations: clean, corrupted and decoded."""
        obs = batch.obs[:4]
        corrupted = self.corrupt(obs)
        shown = {"clean": obs, "corrupted": corrupted, "predicted": to_pixels(self.decoder(encoder(corrupted)))}
        return Examples("What did the picture show before noise was added?", shown)
