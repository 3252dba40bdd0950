"""Forms of a bisimulation metric on latents: what is far apart, and how far it should be.

Distances are of pairs, broadcast over the leading dimensions: latents (..., Z) or coordinates (..., C, Z) of normal
distributions (`Gaussian.coordinates`) to (..., K), where K is 1, or Z for a form that compares each dimension.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Transformation: TypeAlias = Callable[[Tensor, float], Tensor]  # of latents (B, Z), and the radius of a ball

MICO_ANGLE, RAP_ANGLE = 0.1, 1e-6  # weights of the angle


def unchanged(latent: Tensor, radius: float) -> Tensor:  # noqa: ARG001
    """The latents as they are."""
    return latent


def unit(latent: Tensor, radius: float) -> Tensor:  # noqa: ARG001
    """Latents of length 1."""
    return F.normalize(latent)


def project(latent: Tensor, radius: float) -> Tensor:
    """Latents (B, Z), those outside of the ball of that radius moved to its surface."""
    inside: Tensor = latent * (radius / latent.norm(dim=1, keepdim=True).clamp_min(1e-6)).clamp_max(1)
    return inside


class Form(NamedTuple):
    """One published form of d(x, y) = |r_x - r_y| + gamma * d(x', y')."""

    latents: Distance  # on latents (..., Z)
    futures: Distance  # on what follows, coordinates (..., C, Z)
    rewards: Distance  # on (...)
    penalty: Distance  # on a distance and its target
    transform: Transformation = unchanged  # of latents, before they are compared or predicted
    all_pairs: bool = False  # as published, else a random partner for each sample
    models: bool = True  # a model tells the future, else it is the latents that were observed next
    # rewards are normally distributed given latents; their variances are subtracted from `rewards`, which are squares,
    # and `penalty` compares that with (d(x, y) - gamma * d(x', y'))^2
    variance: bool = False


def smooth_l1(x: Tensor, y: Tensor) -> Tensor:
    """Smooth L1 of each element."""
    error = x - y
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")


def smooth_l1_mean(x: Tensor, y: Tensor) -> Tensor:
    """Smooth L1, mean over dimensions."""
    return smooth_l1(x, y).mean(-1, keepdim=True)


def absolute(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| of each element."""
    return (x - y).abs()


def square(x: Tensor, y: Tensor) -> Tensor:
    """(x - y)^2 of each element."""
    return (x - y).square()


def manhattan(x: Tensor, y: Tensor) -> Tensor:
    """L1 distance."""
    return (x - y).abs().sum(-1, keepdim=True)


def wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """W2 of diagonal normal distributions."""
    return torch.linalg.vector_norm((x - y).flatten(-2), dim=-1, keepdim=True)  # type: ignore[no-any-return]


def wasserstein_each(x: Tensor, y: Tensor) -> Tensor:
    """W2 of the normal distribution of each dimension."""
    return torch.linalg.vector_norm(x - y, dim=-2)  # type: ignore[no-any-return]


def wasserstein_mean(x: Tensor, y: Tensor) -> Tensor:
    """Mean over dimensions of the W2 of each."""
    return wasserstein_each(x, y).mean(-1, keepdim=True)


def smooth_l1_moments(x: Tensor, y: Tensor) -> Tensor:
    """Smooth L1, mean over dimensions, of the means and of the standard deviations, summed."""
    return smooth_l1(x, y).mean(-1).sum(-1, keepdim=True)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos."""
    return 1 - _cosines(x, y)[..., None]


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    """Over the last dimension; of all pairs by one product of matrices, which needs no tensor (B, B, Z)."""
    return torch.einsum("...z,...z->...", F.normalize(x, dim=-1), F.normalize(y, dim=-1))


def cosine_of_means(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of the means."""
    return cosine(x[..., 0, :], y[..., 0, :])


def mico(x: Tensor, y: Tensor, weight: float = MICO_ANGLE) -> Tensor:
    """(|x|^2 + |y|^2) / 2 + weight * angle (Castro et al. 2021, equation 3): a state is not at distance 0 from itself,
    where its future is random.
    """
    cos = _cosines(x, y)
    angle = torch.atan2((1 - cos.square()).clamp_min(1e-9).sqrt(), cos)  # whose gradient is finite everywhere
    return ((x.square().sum(-1) + y.square().sum(-1)) / 2 + weight * angle)[..., None]


def mico_of_means(x: Tensor, y: Tensor) -> Tensor:
    """MICo's distance of the means."""
    return mico(x[..., 0, :], y[..., 0, :])


def rap(x: Tensor, y: Tensor) -> Tensor:
    """MICo's distance with next to no angle."""
    return mico(x, y, RAP_ANGLE)


FORMS = {
    "paper": Form(manhattan, wasserstein, absolute, square),
    "released": Form(smooth_l1, wasserstein_each, smooth_l1, square),
    "normed": Form(smooth_l1_mean, smooth_l1_moments, smooth_l1, square, project),
    "robust": Form(cosine, cosine_of_means, absolute, smooth_l1, unit, all_pairs=True),
    "mico": Form(mico, mico_of_means, absolute, smooth_l1, all_pairs=True, models=False),
    "rap": Form(rap, wasserstein_mean, square, smooth_l1, all_pairs=True, variance=True),
}
