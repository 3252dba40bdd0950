"""Models of rewards and of the next latent state, and distances between what they predict."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.parts.mlp import mlp
from harness.checks import check_choice, check_least

KINDS = ("deterministic", "gaussian", "ensemble")
MIN_STD = 0.01  # a smaller one lets the likelihood of a still scene outgrow every other gradient
KERNEL_WIDTHS = (0.5, 1.0, 2.0)  # times sqrt(Z), the norm of layer-normalised features


def action_vector(action: Tensor, width: int) -> Tensor:
    """Return float32 vectors (..., width): integer actions (...) one-hot, continuous ones (..., width) as they are."""
    return action if action.is_floating_point() else F.one_hot(action, width).float()


@dataclass(frozen=True)
class Gaussian:
    """Diagonal normal distributions; without `std` each is a point."""

    mean: Tensor  # (B, Z), or (E, B, Z) of E ensemble members
    std: Tensor | None

    def moments(self) -> "Gaussian":
        """Return the normal (B, Z) with the moments of the members' mixture (Lakshminarayanan et al. 2017, 2.4)."""
        mean = self.mean.mean(0)
        if self.std is None:
            return Gaussian(mean, None)
        return Gaussian(mean, (self.std.square() + (self.mean - mean).square()).mean(0).sqrt())

    def coordinates(self) -> Tensor:
        """Return points (B, 2, Z), or (B, 1, Z) without `std`; W2 distances of normals are Euclidean ones of these.

        W2(N(m, S), N(n, T))^2 = |m - n|^2 + |S^1/2 - T^1/2|_F^2 for commuting S and T.
        """
        return torch.stack([self.mean] if self.std is None else [self.mean, self.std], dim=1)


class LatentTransition(nn.Module):
    """P(z' | z, a) on features: one hidden layer, or an ensemble of them.

    Args:
        feature_dim: Z.
        action_dim: A.
        kind: deterministic, gaussian, or ensemble, of `members` Gaussian networks that differ in their initial weights.
        hidden: width of the hidden layer.
        members: E, at least 1.

    Raises:
        ValueError: an unknown kind, or no member.
    """

    def __init__(self, feature_dim: int, action_dim: int, *, kind: str, hidden: int, members: int) -> None:
        super().__init__()
        check_choice("model", kind, KINDS)
        check_least(1, members=members)
        self.deterministic = kind == "deterministic"
        width = feature_dim if self.deterministic else 2 * feature_dim
        count = members if kind == "ensemble" else 1
        self.members = nn.ModuleList(mlp(feature_dim + action_dim, hidden, width) for _ in range(count))

    def forward(self, latent: Tensor, action: Tensor) -> Gaussian:
        """Return each member's prediction (E, B, Z) from latents (B, Z) and action vectors (B, A)."""
        inputs = torch.cat([latent, action], dim=1)
        outputs = torch.stack([member(inputs) for member in self.members]).float()
        if self.deterministic:
            return Gaussian(outputs, None)
        mean, raw = outputs.chunk(2, dim=2)
        return Gaussian(mean, F.softplus(raw) + MIN_STD)


class MapTransition(nn.Module):
    """The next feature maps by one convolution for each discrete action (DeepMDP on Atari, Gelada et al. 2019).

    Args:
        map_shape: (C', H', W').
        num_actions: A.
    """

    def __init__(self, map_shape: tuple[int, int, int], num_actions: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(map_shape[0], num_actions * map_shape[0], 3, padding=1)

    def forward(self, maps: Tensor, action: Tensor) -> Gaussian:
        """Return flat point predictions (1, B, C' * H' * W') from maps (B, C', H', W') and one-hot actions (B, A)."""
        by_action = self.conv(maps).unflatten(1, (action.shape[1], -1))
        chosen = by_action[torch.arange(len(maps), device=maps.device), action.argmax(1)]
        return Gaussian(chosen.flatten(1).float()[None], None)


def negative_log_likelihood(predicted: Gaussian, target: Tensor) -> Tensor:
    """Return the likelihood loss (B,), mean over members and dimensions, without the constant; points have variance 1.

    Args:
        predicted: of E members, (E, B, Z).
        target: (B, Z).
    """
    error = predicted.mean - target
    if predicted.std is None:
        return error.square().mean((0, 2)) / 2
    return ((error / predicted.std).square() / 2 + predicted.std.log()).mean((0, 2))


def wasserstein(predicted: Gaussian, target: Tensor) -> Tensor:
    """Return the Wasserstein distance (B,) of points, which is the Euclidean one, mean over members."""
    return (predicted.mean - target).norm(dim=2).mean(0)  # type: ignore[no-any-return]


def mmd(predicted: Gaussian, target: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy (B,) of predictions to targets (Gretton et al. 2012, lemma 6).

    In closed form for Gaussian kernels exp(-|x - y|^2 / (2 w^2)), mean over the widths w = KERNEL_WIDTHS * sqrt(Z) and
    over members. One sample of the next state gives an unbiased gradient, which the Wasserstein distance of a
    distribution does not.
    """
    error = (predicted.mean - target).square()
    variance = torch.zeros_like(error) if predicted.std is None else predicted.std.square()
    total = torch.zeros_like(error[..., 0])
    for width in KERNEL_WIDTHS:
        w2 = width**2 * error.shape[2]
        within = torch.log1p(2 * variance / w2).sum(2) / -2
        across = (torch.log1p(variance / w2) + error / (w2 + variance)).sum(2) / -2
        total = total + within.exp() - 2 * across.exp() + 1
    return total.mean(0) / len(KERNEL_WIDTHS)


def errors(name: str, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the mean squared error of predictions (B, ...), and as `baseline` that of predicting the batch mean."""
    return {
        f"{name}_error": F.mse_loss(predicted.detach(), target),
        f"{name}_baseline": target.var(0, correction=0).mean(),
    }
