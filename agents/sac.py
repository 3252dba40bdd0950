"""Soft actor-critic from pixels."""

import math
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, Observation, Streams, Suite
from agents.config import SACConfig
from agents.learning import weighted_sum
from encoders import Encoder, orthogonal
from encoders.momentum import momentum_copy
from replay import Batch

LOG_STD = (-10.0, 2.0)  # range of the policy's log standard deviation


class SAC(Agent):
    """SAC (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications") on an encoder that the critics train.

    As in SAC-AE (Yarats et al. 2019) the actor reads the critics' convolutions without moving them, through a neck of
    its own, the target is an average of critics and encoder, and actor and target follow every other update. The actor
    learns on features of the encoder after the critics' step, so the observations are encoded a second time. With
    windows of n > 1 steps, the entropy of the steps within is left out of the return.

    Args:
        action_dim: A. The others are those of `Agent`.
    """

    config: SACConfig

    def __init__(self, config: SACConfig, encoder: Encoder, action_dim: int, suite: Suite, streams: Streams) -> None:
        super().__init__(config, encoder, suite, streams)
        self.action_dim = action_dim
        self.actor = Actor(encoder, action_dim, config.hidden)
        self.critic = TwinCritic(encoder.feature_dim, action_dim, config.hidden)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.init_temperature)))
        self.target_encoder, self.target_critic = momentum_copy(self.encoder), momentum_copy(self.critic)
        self.policy: list[Tensor] = [*self.actor.parameters(), self.log_temperature]
        networks = [*self.encoder.children(), *self.target_encoder.children()]
        self.set_up(
            self.groups(self.critic),
            [{"params": self.policy, "scale": 1.0}],
            compiled=[*networks, self.actor, self.critic, self.target_critic],
        )
        self.online: list[Tensor] = [*self.encoder.parameters(), *self.critic.parameters()]
        self.target: list[Tensor] = [*self.target_encoder.parameters(), *self.target_critic.parameters()]

    @property
    def num_shifts(self) -> int:
        """Shifted copies of each observation."""
        return self.config.num_shifts

    @torch.no_grad()
    def act(self, obs: Observation, *, explore: bool) -> NDArray[np.float32]:
        """Actions (N, A): sampled, uniform before the first update, or the squashed mean that is evaluated."""
        if explore and not self.updates:
            return self.streams.explore.uniform(-1, 1, (len(obs.pixels), self.action_dim)).astype(np.float32)
        mean, log_std = self.actor(self.encoder.maps(torch.from_numpy(obs.pixels).to(self.device)))
        if explore:
            mean = mean + log_std.exp() * torch.from_numpy(self.streams.explore.standard_normal(mean.shape)).to(mean)
        action: NDArray[np.float32] = mean.tanh().cpu().numpy()
        return action

    def q_values(self, obs: Tensor) -> Tensor:
        """Value (B, 1) of the action that the evaluated policy takes."""
        maps = self.encoder.maps(obs)
        mean, _ = self.actor(maps)
        return self.critic(self.encoder.features(maps), mean.tanh()).amin(0)[:, None]  # type: ignore[no-any-return]

    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Squared errors of both critics (equation 5), summed; see `Agent.td_loss`. The TD error is their mean.

        Of K shifted copies (K * B, ...) in place of features and `next_obs`, as DrQ's equations 1 and 3.
        """
        copies = len(features) // len(batch.obs)
        with torch.no_grad():
            next_action, log_prob = self.sample(self.encoder.maps(next_obs))
            next_q = self.target_critic(self.target_encoder(next_obs), next_action).amin(0)
            soft_value = (next_q - self.log_temperature.exp() * log_prob).view(copies, -1).mean(0)
            target_q = batch.nstep_reward + batch.discount * soft_value
        q = self.critic(features, batch.action.repeat(copies, 1)).view(2, copies, -1)
        error = q - target_q
        loss = error.square().mean(1).sum(0)
        metrics = {"train/loss": loss, "train/q_mean": q, "train/target_q_mean": target_q}
        td_error = error.detach().abs().mean((0, 1))
        return loss, td_error, {name: value.detach().mean() for name, value in metrics.items()}

    def policy_terms(self, maps: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Losses (B,) of the actor (equation 9) and of the temperature (equation 18, target entropy -A).

        Args:
            maps, features: (B, C', H', W') and (B, Z), detached: the actor does not train the encoder.
        """
        action, log_prob = self.sample(maps)
        q = self.critic(features, action).amin(0)
        temperature = self.log_temperature.exp()
        return {
            "actor": temperature.detach() * log_prob - q,
            "temperature": temperature * (self.action_dim - log_prob.detach()),
        }

    def update_policy(self, obs: Tensor, sample_weight: Tensor) -> dict[str, Tensor]:
        """One step of actor and temperature at every `policy_delay`-th update; scalars to log."""
        if self.updates % self.config.policy_delay:
            return {}
        with self.autocast():
            with torch.no_grad():
                maps = self.encoder.maps(obs)
                features = self.encoder.features(maps)
            terms = self.policy_terms(maps, features)
        total = weighted_sum(terms, dict.fromkeys(terms, 1.0), sample_weight)
        total.backward(inputs=self.policy)  # type: ignore[no-untyped-call]  # the critics only pass gradients on
        self.optimizers[1].step()
        self.optimizers[1].zero_grad()
        return {
            "train/actor_loss": terms["actor"].detach().mean(),
            "train/ent_coef": self.log_temperature.detach().exp(),
        }

    @torch.no_grad()
    def update_targets(self) -> None:
        """Blend encoder and critics into their targets at every `policy_delay`-th update."""
        if self.updates % self.config.policy_delay == 0:
            torch._foreach_lerp_(self.target, self.online, self.config.target_tau)

    def sample(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, A) of the policy and their log-densities (B,), differentiable in the actor."""
        mean, log_std = self.actor(maps)
        noise = torch.randn(mean.shape, generator=self.streams.policy, device=mean.device)
        return squash(mean, log_std, noise)


class Actor(nn.Module):
    """Feature maps (B, C', H', W') to mean and log standard deviation, each (B, A), of a Gaussian before its tanh.

    Its neck begins as the encoder's and then learns what the actor needs.
    """

    def __init__(self, encoder: Encoder, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.neck = deepcopy(encoder.neck).requires_grad_(True)  # also where the encoder is frozen
        self.layers = mlp(encoder.feature_dim, hidden, 2 * action_dim)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the Gaussian; the log standard deviation is squashed into `LOG_STD`."""
        mean, raw = self.layers(self.neck(maps.flatten(1))).float().chunk(2, dim=1)
        low, high = LOG_STD
        return mean, low + (high - low) * (raw.tanh() + 1) / 2


class TwinCritic(nn.Module):
    """Two action values (2, B) of features (B, Z) and actions (B, A); the smaller one is to be believed."""

    def __init__(self, feature_dim: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.twins = nn.ModuleList(mlp(feature_dim + action_dim, hidden, 1) for _ in range(2))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Action values."""
        inputs = torch.cat([features, action], dim=1)
        return torch.cat([twin(inputs) for twin in self.twins], dim=1).float().t()


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers, orthogonal weights, biases 0."""
    layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers).apply(orthogonal)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u = mean + std * noise, with its log-density log N(u) - sum log(1 - tanh(u)**2) (appendix C).

    Args:
        mean, log_std, noise: (B, A), the last standard normal.

    Returns:
        (B, A) actions in [-1, 1], and (B,).
    """
    u = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    slope = 2 * (math.log(2) - u - F.softplus(-2 * u))  # log(1 - tanh(u)**2), also where tanh rounds to 1
    return u.tanh(), (gaussian - slope).sum(1)
