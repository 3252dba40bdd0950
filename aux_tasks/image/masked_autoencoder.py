"""Masked autoencoder: the patches of a picture that a transformer was not shown."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify, error_ratio
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from encoders.vit import PATCH, WIDTH, Tokens, block, padded, positional_encoding
from harness.checks import check_least, check_within
from replay import Batch

EPS = 1e-6  # of a patch's variance
TEMPERATURE = 0.1


class MaskedAutoencoder(AuxTask):
    """Squared error of the hidden patches, from the tokens of the visible ones (He et al. 2022, "Masked autoencoders
    are scalable vision learners"), plus `contrast` times InfoNCE between the mean visible tokens of two maskings of a
    picture (Mishra et al. 2022, "A simple, efficient and scalable contrastive masked autoencoder").

    Tokens of hidden patches never enter the encoder, which makes it cheap; a small transformer gets a common token in
    their place. Targets are patches with mean 0 and standard deviation 1, those of flat ones 0. `error_ratio` is to
    the error of the batch's mean patch at the position.

    Args:
        setting: the run, whose encoder is `vit`.
        mask_ratio: share of the patches that are hidden.
        contrast: weight of the contrastive term; 0 without one.
        decoder_depth: layers of the decoder.

    Raises:
        ValueError: the encoder has no tokens, or an option is out of range.
    """

    def __init__(
        self, setting: TaskSetting, *, mask_ratio: float = 0.75, contrast: float = 0.0, decoder_depth: int = 2
    ) -> None:
        super().__init__(setting)
        check_within("(0, 1)", mask_ratio=mask_ratio)
        check_least(0, contrast=contrast)
        check_least(1, decoder_depth=decoder_depth)
        if not isinstance(tokens_of(setting.encoder), Tokens):
            raise ValueError("masked_autoencoder hides tokens, which this encoder has not: encoder=vit")
        self.grid = setting.map_shape[1:]
        count = self.grid[0] * self.grid[1]
        self.shown = count - round(mask_ratio * count)
        if not 0 < self.shown < count:
            raise ValueError(f"mask_ratio={mask_ratio} of {count} patches must leave some to see and some to guess")
        self.contrast = contrast
        self.mask_token = nn.Parameter(torch.zeros(WIDTH))
        self.blocks = nn.Sequential(
            *(block() for _ in range(decoder_depth)),
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, setting.obs_shape[0] * PATCH**2),
        )
        self.project = mlp(WIDTH, 256, 64) if contrast else None

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the error (B,) of the hidden patches."""
        target = standardize_patches(patches(encoder.normalised(batch.obs)))
        order = self.draw(len(target))
        latents, guess = self.predict(batch.obs, order, encoder)
        unseen = order[:, self.shown :, None].expand(-1, -1, target.shape[2])
        errors = (guess - target).square().gather(1, unseen).mean((1, 2))
        trivial = (target - target.mean(0)).square().gather(1, unseen)
        metrics = {"error_ratio": error_ratio(errors, trivial)}
        if self.project is None:
            return AuxOutput(errors, metrics)
        other, _ = self._encode(batch.obs, self.draw(len(target)), encoder)
        first, second = (F.normalize(self.project(each.mean(1)).float()) for each in (latents, other))
        same = classify(first @ second.T / TEMPERATURE, torch.arange(len(first), device=first.device))
        return AuxOutput(errors + self.contrast * same.loss, metrics | {"view_accuracy": same.metrics["accuracy"]})

    def draw(self, count: int) -> Tensor:
        """Return the patches (count, N) of each picture in a random order, those to be shown first."""
        chance = torch.rand(count, self.grid[0] * self.grid[1], generator=self.generator, device=self.generator.device)
        return chance.argsort(1)

    def predict(self, obs: Tensor, order: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Return the visible tokens (B, K, WIDTH), and standardised patches (B, N, C * PATCH^2) at their positions."""
        latents, shown = self._encode(obs, order, encoder)
        where = positional_encoding(latents.new_empty(1, WIDTH, *self.grid)).flatten(1).T
        tokens = self.mask_token.expand(len(obs), len(where), WIDTH)
        tokens = tokens.scatter(1, shown[..., None].expand_as(latents), latents.float()) + where
        return latents, self.blocks(tokens).float()

    def _encode(self, obs: Tensor, order: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
        shown = order[:, : self.shown]
        return tokens_of(encoder).visible(encoder.normalised(obs), shown), shown

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four pictures: whole, what is shown of them, and with the hidden patches filled in."""
        obs = batch.obs[:4]
        order = self.draw(len(obs))
        _, guess = self.predict(obs, order, encoder)
        pixels = patches(padded(obs.float()))
        mean, std = (each(dim=2, keepdim=True) for each in (pixels.mean, pixels.std))
        hidden = torch.ones(pixels.shape[:2], device=obs.device).scatter(1, order[:, : self.shown], 0)[..., None]
        filled = torch.where(hidden > 0, guess * std + mean, pixels)  # by the right contrast, which it is not asked for
        shown = {"whole": pixels, "shown": pixels * (1 - hidden), "filled in": filled}
        sides = obs.shape[1:]
        pictures = {name: unpatched(each, sides).clamp(0, 255).to(torch.uint8) for name, each in shown.items()}
        return Examples("What do the hidden patches show?", pictures)


def tokens_of(encoder: Encoder) -> Tokens:
    """The transformer of a `vit`."""
    trunk = encoder.trunk
    return trunk[0] if isinstance(trunk, nn.Sequential) else trunk  # type: ignore[return-value]


def patches(pixels: Tensor) -> Tensor:
    """Return (B, N, C * PATCH^2) of pixels (B, C, H, W)."""
    return F.unfold(padded(pixels), PATCH, stride=PATCH).mT


def unpatched(found: Tensor, shape: torch.Size) -> Tensor:
    """Return the pixels (B, C, H, W) of patches, `shape` being (C, H, W)."""
    height, width = (-(-side // PATCH) * PATCH for side in shape[1:])
    return F.fold(found.mT, (height, width), PATCH, stride=PATCH)[..., : shape[1], : shape[2]]


def standardize_patches(found: Tensor) -> Tensor:
    """Patches (B, N, D) with mean 0 and standard deviation 1 each."""
    centred = found - found.mean(2, keepdim=True)
    return centred * (centred.square().mean(2, keepdim=True) + EPS).rsqrt()
