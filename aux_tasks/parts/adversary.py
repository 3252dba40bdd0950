"""The discriminator of adversarial tasks, and its loss."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized


class Discriminator(nn.Module):
    """Images (B, C, H, W), and latents (B, Z) if there are any, to logits (B,): real or generated.

    Spectral normalisation (Miyato et al. 2018) limits its slope. Its singular vectors move in `advance` alone, never in
    a forward pass. Nothing is normalised over the batch, where real and generated samples would give each other away.
    Latents are scaled to the norm of an image, whose many pixels would otherwise outweigh them under the shared norm.

    Args:
        image_shape: (C, H, W).
        latent_dim: Z.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int = 0) -> None:
        super().__init__()
        depth, height, width = image_shape
        self.stretch = math.sqrt(depth * height * width / max(1, latent_dim))
        layers: list[nn.Module] = []
        for layer in range(max(1, round(math.log2(min(height, width) / 6)))):
            wide = 32 * min(2, layer + 1)
            layers += [spectral_norm(nn.Conv2d(depth, wide, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            depth, height, width = wide, height // 2, width // 2
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Sequential(
            spectral_norm(nn.Linear(depth * height * width + latent_dim, 256)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(256, 1)),
        )
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the spectral norms, which would move their vectors at each pass in training mode."""
        super().train(mode)
        for module in self.modules():
            if is_parametrized(module):
                module.parametrizations.eval()  # type: ignore[union-attr]
        return self

    @torch.no_grad()
    def advance(self) -> None:
        """Make one power iteration of each spectral norm, as the paper does once an update (algorithm 1)."""
        for module in self.modules():
            if is_parametrized(module):
                (norm,) = module.parametrizations.weight  # type: ignore[union-attr,misc]
                norm.train()(module.parametrizations.weight.original)  # type: ignore[union-attr]
                norm.eval()

    def forward(self, image: Tensor, latent: Tensor | None = None) -> Tensor:
        """Return logits (B,), above 0 for real."""
        seen = self.trunk(image)
        known = seen if latent is None else torch.cat([seen, self.stretch * latent], dim=1)
        return self.classifier(known).squeeze(1).float()  # type: ignore[no-any-return]


def call_frozen(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Return the module's output, with a gradient for the inputs and none for its weights."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return functional_call(module, weights, inputs)  # type: ignore[no-any-return]


def discrimination_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Return the discriminator's loss: the mean cross-entropy of the logits of real and of generated samples."""
    return (F.softplus(-real) + F.softplus(generated)).mean()
