"""The posterior of a variational autoencoder on features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.checks import check_least

LEAST_LOG_VARIANCE = math.log(1e-3)  # a smaller variance costs KL and makes no sharper picture
USED = 0.1  # nats of KL from which on a dimension counts as active


class Posterior(nn.Module):
    """N(mean, variance) of latents given features, by a linear layer each (Kingma & Welling 2014).

    Args:
        feature_dim: Z.
        latent_dim: L, at least 1.

    Raises:
        ValueError: there is no dimension.
    """

    def __init__(self, feature_dim: int, latent_dim: int) -> None:
        super().__init__()
        check_least(1, latent_dim=latent_dim)
        self.mean = nn.Linear(feature_dim, latent_dim)
        self.spread = nn.Linear(feature_dim, latent_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log-variances (B, L) from features (B, Z)."""
        return self.mean(features).float(), LEAST_LOG_VARIANCE + F.softplus(self.spread(features).float())


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """Return a latent (..., L) of each posterior, with gradient to mean and variance."""
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + (log_variance / 2).exp() * noise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) of each dimension, (B, L) nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def kl_metrics(kl: Tensor) -> dict[str, Tensor]:
    """Return the mean KL of a dimension, and how many dimensions are active, from (B, L) nats."""
    by_dimension = kl.detach().mean(0)
    return {"kl_per_dim": by_dimension.mean(), "active_dims": (by_dimension > USED).float().sum()}
