"""BiGAN: an encoder that inverts a generator, for a discriminator of pairs."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.adversary import Discriminator, call_frozen, discrimination_loss
from aux_tasks.parts.decoder import centred, decoder, image_error, to_pixels
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class BiGAN(AuxTask):
    """log(1 + exp A(x, E(x))) + log(1 + exp -A(G(z), z)) for encoder and generator, the non-saturating side of the game
    against a discriminator A of pairs (Donahue, Krähenbühl, Darrell 2017, "Adversarial feature learning").

    z is uniform in [-1, 1]; E is the shared encoder with a linear map to z, behind a normalisation over the batch:
    without it all images come to have one code, since most of a feature is common to all. The gradient passes through A
    and leaves its weights alone. Only pairs that belong together fool A, so E has to invert G, though no term asks for
    it: `accuracy` is the share of images that are the nearest in the batch to their own G(E(x)), `error_ratio` its
    error over that of the batch's mean image. `error_ratio` stays above 1 for long and at first falls only because G
    learns the mean, so read `accuracy`. Training is slow, and unstable at learning rates far above the adversary's
    2e-4. An `adversary_accuracy` that stays at 1 means that it has failed.

    Args:
        setting: the run.
        latent_dim: of z.
        channels: of the generator's feature maps.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features"})
    adversary: Discriminator

    def __init__(self, setting: TaskSetting, *, latent_dim: int = 50, channels: int = 32) -> None:
        super().__init__(setting)
        check_least(1, latent_dim=latent_dim)
        self.latent_dim = latent_dim
        varying = nn.BatchNorm1d(setting.feature_dim, affine=False, track_running_stats=False)
        self.to_latent = nn.Sequential(varying, nn.Linear(setting.feature_dim, latent_dim))
        self.generate = decoder(latent_dim, setting.map_shape, setting.obs_shape, channels)
        self.adversary = Discriminator(setting.obs_shape, latent_dim)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the loss (B,) of an encoded and of a generated pair."""
        image, latent, z = centred(batch.obs), self.to_latent(features), self._prior(len(batch.obs))
        real = call_frozen(self.adversary, image, latent)
        generated = call_frozen(self.adversary, self.generate(z), z)
        correct = torch.cat([real.detach() > 0, generated.detach() <= 0]).float().mean()
        metrics = self._inversion(image, latent) | {"adversary_accuracy": correct}
        return AuxOutput(F.softplus(real) + F.softplus(-generated), metrics)

    def adversary_loss(self, batch: Batch, encoder: Encoder) -> Tensor:
        """Return the cross-entropy of telling encoded from generated pairs."""
        z = self._prior(len(batch.obs))
        with torch.no_grad():
            latent, image = self.to_latent(encoder(batch.obs)), self.generate(z)
        return discrimination_loss(self.adversary(centred(batch.obs), latent), self.adversary(image, z))

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Let the discriminator's spectral norms follow its weights."""
        self.adversary.advance()

    @torch.no_grad()
    def _inversion(self, image: Tensor, latent: Tensor) -> dict[str, Tensor]:
        rebuilt = self.generate(latent).float()
        own = torch.arange(len(image), device=image.device)
        nearest = classify(-torch.cdist(rebuilt.flatten(1), image.flatten(1)), own)
        return image_error(rebuilt, image).metrics | nearest.metrics

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations, each with what the generator makes of its code, and of a random one."""
        latents = {"rebuilt": self.to_latent(encoder(batch.obs)), "invented": self._prior(len(batch.obs))}
        pictures = {name: to_pixels(self.generate(latent)[:4]) for name, latent in latents.items()}
        question = "Can the generator rebuild the picture from its code, and invent pictures from random codes?"
        return Examples(question, {"picture": batch.obs[:4], **pictures})

    def _prior(self, size: int) -> Tensor:
        device = self.generator.device
        return torch.rand(size, self.latent_dim, generator=self.generator, device=device) * 2 - 1
