"""Heads of DQN: dueling action values, dueling quantiles of the return, and spatial action values."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COSINES = 64  # that stand for a fraction in the implicit head, n of Dabney et al. 2018b


class DuelingHead(nn.Module):
    """Q = V + A - mean A (Wang et al. 2016, equation 9).

    Args:
        feature_dim: Z.
        num_actions: A.
        hidden: width of each stream.
        layer_norm: of the hidden layers.
        outputs: N, dueling functions in one network.
    """

    def __init__(self, feature_dim: int, num_actions: int, hidden: int, layer_norm: bool, outputs: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.hidden = nn.Linear(feature_dim, 2 * hidden)  # both streams in one product
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) if layer_norm else nn.Identity() for _ in range(2))
        self.value = nn.Linear(hidden, outputs)
        self.advantage = nn.Linear(hidden, outputs * num_actions)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., Z) to action values (..., A), or (..., N, A) of more than one output."""
        streams = self.hidden(features).chunk(2, dim=-1)
        value, advantage = (F.relu(norm(s)) for norm, s in zip(self.norms, streams, strict=True))
        value, advantage = self.value(value), self.advantage(advantage)
        if self.outputs > 1:
            value, advantage = value.unsqueeze(-1), advantage.unflatten(-1, (self.outputs, -1))
        return value + advantage - advantage.mean(-1, keepdim=True)  # type: ignore[no-any-return]


class SpatialHead(nn.Module):
    """Action values of a grid of positions in the image, by convolutions of the encoder's maps (Wu et al. 2020,
    "Spatial action maps"). The goal scales and shifts the hidden maps (Perez et al. 2018, "FiLM", equation 2).

    Args:
        map_shape: (C', H', W') of the maps whose numbers are the features.
        goal_dim: G, numbers behind the features; at least 1.
        num_actions: A = H' r x W' r positions, row by row, for a whole r.
        hidden: feature maps of the hidden layer.

    Raises:
        ValueError: there are no goals, or `num_actions` is not such a number.
    """

    def __init__(self, map_shape: tuple[int, int, int], goal_dim: int, num_actions: int, hidden: int) -> None:
        super().__init__()
        if not goal_dim:
            raise ValueError("agent.head=spatial chooses a position for a goal, but this environment has no goals")
        channels, height, width = self.map_shape = map_shape
        self.parts = [math.prod(map_shape), goal_dim]
        self.finer = math.isqrt(num_actions // (height * width))
        if num_actions != height * width * self.finer**2:
            raise ValueError(
                f"agent.head=spatial: {num_actions} actions are not a grid of positions that divides the "
                f"{height} x {width} maps of the encoder"
            )
        self.hidden, self.goal = nn.Conv2d(channels, hidden, 1), nn.Linear(goal_dim, 2 * hidden)
        self.value = nn.Conv2d(hidden, self.finer**2, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps and goal side by side (B, C' * H' * W' + G) to action values (B, A)."""
        maps, goal = torch.split(features, self.parts, dim=1)
        scale, shift = self.goal(goal)[:, :, None, None].chunk(2, dim=1)
        hidden = F.relu(self.hidden(maps.reshape(-1, *self.map_shape)) * (1 + scale) + shift)
        return F.pixel_shuffle(self.value(hidden), self.finer).flatten(1)


class DistributionalHead(nn.Module):
    """Quantiles of the return of each action. The action value is the mean over N midpoints."""

    number: int  # N

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, Z) to action values (B, A)."""
        return self.quantiles(features, midpoints(features, self.number)).mean(1)

    def fractions(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """The fractions (B, N) of a loss."""
        raise NotImplementedError

    def quantiles(self, features: Tensor, fractions: Tensor) -> Tensor:
        """Quantiles (B, N, A) of the return at fractions (B, N)."""
        raise NotImplementedError


class QuantileHead(DistributionalHead):
    """N fixed quantiles of the return of each action (Dabney et al. 2018, "Distributional reinforcement learning with
    quantile regression"), at the fractions (i + 1/2) / N. The action value is their mean.

    Args:
        quantiles: N. The others are those of `DuelingHead`.
    """

    def __init__(self, feature_dim: int, num_actions: int, hidden: int, layer_norm: bool, quantiles: int) -> None:
        super().__init__()
        self.number = quantiles
        self.dueling = DuelingHead(feature_dim, num_actions, hidden, layer_norm, outputs=quantiles)

    def fractions(self, features: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - as the implicit head
        """The midpoints (B, N)."""
        return midpoints(features, self.number)

    def quantiles(self, features: Tensor, fractions: Tensor) -> Tensor:  # noqa: ARG002 - they never change
        """Quantiles (B, N, A) of the return at the midpoints."""
        return self.dueling(features).float().view(len(features), self.number, -1)  # type: ignore[no-any-return]


class ImplicitHead(DistributionalHead):
    """Quantiles of the return at any fractions (Dabney et al. 2018b, "Implicit quantile networks for distributional
    reinforcement learning"). The action value is the mean over N midpoints, where the paper draws the fractions.

    Args:
        quantiles: N, fractions that a loss draws, and midpoints of an action value. The others are those of
            `DuelingHead`.
    """

    def __init__(self, feature_dim: int, num_actions: int, hidden: int, layer_norm: bool, quantiles: int) -> None:
        super().__init__()
        self.number = quantiles
        self.embedding = nn.Linear(COSINES, feature_dim)
        self.dueling = DuelingHead(feature_dim, num_actions, hidden, layer_norm)

    def fractions(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Fractions (B, N) from U(0, 1)."""
        return torch.rand(len(features), self.number, generator=generator, device=features.device)

    def quantiles(self, features: Tensor, fractions: Tensor) -> Tensor:
        """Quantiles (B, N, A) of the return at fractions (B, N), by equation 4."""
        cosines = torch.cos(math.pi * torch.arange(COSINES, device=features.device) * fractions[:, :, None])
        return self.dueling(features[:, None] * F.relu(self.embedding(cosines))).float()  # type: ignore[no-any-return]


def midpoints(features: Tensor, number: int) -> Tensor:
    """The fractions (i + 1/2) / N, (B, N)."""
    return ((torch.arange(number, device=features.device) + 0.5) / number).expand(len(features), number)


def quantile_huber(predicted: Tensor, fractions: Tensor, target: Tensor, share: Tensor) -> Tensor:
    """Quantile regression with the Huber loss of threshold 1 (Dabney et al. 2018, equation 10).

    Args:
        predicted: (B, N) quantiles at `fractions` (B, N).
        target: (B, M) samples of the return.
        share: (B, M) probability of each sample; a row sums to 1.

    Returns:
        (B,) mean over the predicted quantiles. The paper has the sum: with the mean, the gradient is of the size of
        that of plain DQN, and the weights of auxiliary tasks carry over.
    """
    error = target[:, None, :] - predicted[:, :, None]
    tilt = (fractions[:, :, None] - (error.detach() < 0).float()).abs()
    return (tilt * huber(error) * share[:, None, :]).sum(2).mean(1)


def huber(error: Tensor) -> Tensor:
    """Huber loss with threshold 1, unreduced: the gradient of an error is clipped to [-1, 1]."""
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")
