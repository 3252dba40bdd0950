"""Soft actor-critic from pixels."""

import math
from collections.abc import Hashable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, Observation, Streams, Suite
from agents.config import SACConfig, Svea
from agents.learning import weighted_sum
from encoders import Encoder, orthogonal
from encoders.augment import overlay, overlay_pictures, random_conv
from encoders.momentum import momentum_copy
from replay import Batch

LOG_STD = (-10.0, 2.0)  # range of the policy's log standard deviation


class SAC(Agent):
    """SAC (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications") on an encoder that the critics train.

    As in SAC-AE (Yarats et al. 2019), the actor shares the critics' convolutions but does not train them, and has a
    neck of its own; actor, temperature and targets are updated at every `policy_delay`-th update. The observations are
    encoded again for the actor, after the critics' step. With windows of n > 1 steps, the entropy of the steps within
    is left out of the return.

    With `config.svea` the critics learn on the observations and on an augmented copy of each, in equal parts, towards
    the same targets; targets, actor and auxiliary tasks see the former alone (Hansen et al. 2021, "Stabilizing deep
    Q-learning with ConvNets and vision transformers under data augmentation", with alpha = beta = 0.5).

    Args:
        action_dim: A. The others are those of `Agent`.
    """

    config: SACConfig
    pictures: Tensor  # (M, 3, H, W) uint8 that `svea=overlay` mixes in

    def __init__(
        self,
        config: SACConfig,
        encoder: Encoder,
        action_dim: int,
        suite: Suite,
        streams: Streams,
        goal_dim: int = 0,
    ) -> None:
        super().__init__(config, encoder, suite, streams, goal_dim)
        self.action_dim = action_dim
        _, height, width = encoder.obs_shape
        if config.svea is Svea.overlay:
            self.register_buffer("pictures", overlay_pictures(height, width), persistent=False)
        self.actor = Actor(encoder, self.input_dim, action_dim, config.hidden)
        self.critic = TwinCritic(self.input_dim, action_dim, config.hidden)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.init_temperature)))
        self.target_encoder, self.target_critic = momentum_copy(self.encoder), momentum_copy(self.critic)
        self.policy_parameters: list[Tensor] = [*self.actor.parameters(), self.log_temperature]
        networks = [*self.encoder.children(), *self.target_encoder.children()]
        self.set_up(
            self.parameter_groups(self.critic),
            [{"params": self.policy_parameters, "scale": 1.0}],
            compiled=[*networks, self.actor, self.critic, self.target_critic],
        )
        self.online: list[Tensor] = [*self.encoder.parameters(), *self.critic.parameters()]
        self.target: list[Tensor] = [*self.target_encoder.parameters(), *self.target_critic.parameters()]

    def with_hard_copies(self, obs: Tensor) -> Tensor:
        """See `Agent.with_hard_copies`: a copy of each as `config.svea` changes it."""
        match self.config.svea:
            case Svea.overlay:
                return torch.cat([obs, overlay(obs, self.pictures, self.streams.augment)])
            case Svea.random_conv:
                return torch.cat([obs, random_conv(obs, self.streams.augment)])
            case _:
                return obs

    @property
    def num_shifts(self) -> int:
        """Shifted copies of each observation."""
        return self.config.num_shifts

    @torch.no_grad()
    def act(self, obs: Observation, *, explore: bool) -> NDArray[np.float32]:
        """Actions (N, A): sampled, uniform before the first update, or the squashed mean that is evaluated."""
        if explore and not self.updates:
            return self.streams.explore.uniform(-1, 1, (len(obs.pixels), self.action_dim)).astype(np.float32)
        pixels, goal = torch.from_numpy(obs.pixels).to(self.device), self.goal_of(obs)
        mean, log_std = (self.captured_outputs if explore else self.policy_outputs)(pixels, goal).cpu()
        if explore:
            mean = mean + log_std.exp() * torch.from_numpy(self.streams.explore.standard_normal(mean.shape)).to(mean)
        action: NDArray[np.float32] = mean.tanh().numpy()
        return action

    def policy_outputs(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Mean and log standard deviation (2, N, A) of the policy."""
        return torch.stack(self.policy_at(self.encoder.maps(obs), goal))

    def phase(self) -> Hashable:
        """See `Agent.phase`: whether actor, temperature and targets are updated."""
        return super().phase(), self.updates_policy

    @property
    def updates_policy(self) -> bool:
        """Whether the newest update is one of actor, temperature and targets too."""
        return self.updates % self.config.policy_delay == 0

    def q_values(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Value (B, 1) of the action that the evaluated policy takes."""
        maps = self.encoder.maps(obs)
        mean, _ = self.policy_at(maps, goal)
        inputs = self.beside_goal(self.encoder.features(maps), goal)
        return self.critic(inputs, mean.tanh()).amin(0)[:, None]  # type: ignore[no-any-return]

    def policy_at(self, maps: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (B, A) of the policy at feature maps, for goals (B, G) if there are any."""
        mean, log_std = self.actor(self.beside_goal(self.actor.features(maps), goal))
        return mean, log_std

    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Squared errors of both critics (equation 5), summed; see `Agent.td_loss`. The TD error is their mean.

        Of shifted copies, losses and targets are means (DrQ, equations 1 and 3).
        """
        copies, target_copies = len(features) // len(batch.obs), len(next_obs) // len(batch.obs)
        with torch.no_grad():
            next_action, log_prob = self.sample(self.encoder.maps(next_obs), batch.goal)
            next_inputs = self.beside_goal(self.target_encoder(next_obs), batch.goal)
            next_q = self.target_critic(next_inputs, next_action).amin(0)
            soft_value = (next_q - self.log_temperature.exp() * log_prob).view(target_copies, -1).mean(0)
            target_q = batch.nstep_reward + batch.discount * soft_value
        inputs = self.beside_goal(features, batch.goal)
        q = self.critic(inputs, batch.action.repeat(copies, 1)).view(2, copies, -1)
        error = q - target_q
        loss = error.square().mean(1).sum(0)
        metrics = {"train/loss": loss, "train/q_mean": q, "train/target_q_mean": target_q}
        td_error = error.detach().abs().mean((0, 1))
        return loss, td_error, {name: value.detach().mean() for name, value in metrics.items()}

    def policy_terms(self, maps: Tensor, features: Tensor, goal: Tensor | None = None) -> dict[str, Tensor]:
        """Losses (B,) of the actor (equation 9) and of the temperature (equation 18, target entropy -A).

        Args:
            maps, features: (B, C', H', W') and (B, Z), detached: the actor does not train the encoder.
            goal: (B, G) where there are goals.
        """
        action, log_prob = self.sample(maps, goal)
        q = self.critic(self.beside_goal(features, goal), action).amin(0)
        temperature = self.log_temperature.exp()
        return {
            "actor": temperature.detach() * log_prob - q,
            "temperature": temperature * (self.action_dim - log_prob.detach()),
        }

    def update_policy(self, obs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """One step of actor and temperature at every `policy_delay`-th update; scalars to log."""
        if not self.updates_policy:
            return {}
        with self.autocast():
            with torch.no_grad():
                maps = self.encoder.maps(obs)
                features = self.encoder.features(maps)
            terms = self.policy_terms(maps, features, batch.goal)
        total = weighted_sum(terms, dict.fromkeys(terms, 1.0), batch.weight)
        total.backward(inputs=self.policy_parameters)  # type: ignore[no-untyped-call]  # the critics only pass gradients on
        self.optimizers[1].step()
        self.optimizers[1].zero_grad()
        return {
            "train/actor_loss": terms["actor"].detach().mean(),
            "train/ent_coef": self.log_temperature.detach().exp(),
        }

    @torch.no_grad()
    def update_targets(self) -> None:
        """Blend encoder and critics into their targets at every `policy_delay`-th update."""
        if self.updates_policy:
            torch._foreach_lerp_(self.target, self.online, self.config.target_tau)

    def sample(self, maps: Tensor, goal: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Actions (B, A) of the policy and their log-densities (B,), differentiable in the actor."""
        mean, log_std = self.policy_at(maps, goal)
        noise = torch.randn(mean.shape, generator=self.streams.policy, device=mean.device)
        return squash(mean, log_std, noise)


class Actor(nn.Module):
    """Feature maps (B, C', H', W') to mean and log standard deviation, each (B, A), of a Gaussian before its tanh.

    Its neck begins as the encoder's and then learns what the actor needs.

    Args:
        encoder: whose neck it copies.
        input_dim: features, and the goal where there are goals.
        action_dim: A.
        hidden: width of the layers.
    """

    def __init__(self, encoder: Encoder, input_dim: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.neck = encoder.own_neck()
        self.layers = mlp(input_dim, hidden, 2 * action_dim)

    def features(self, maps: Tensor) -> Tensor:
        """Features (B, Z) of the actor's own."""
        return self.neck(maps.flatten(1))  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the Gaussian; the log standard deviation is squashed into `LOG_STD`."""
        mean, raw = self.layers(inputs).float().chunk(2, dim=1)
        low, high = LOG_STD
        return mean, low + (high - low) * (raw.tanh() + 1) / 2


class TwinCritic(nn.Module):
    """Two action values (2, B) of inputs (B, I) and actions (B, A). Targets use the smaller one."""

    def __init__(self, input_dim: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.twins = nn.ModuleList(mlp(input_dim + action_dim, hidden, 1) for _ in range(2))

    def forward(self, inputs: Tensor, action: Tensor) -> Tensor:
        """Action values."""
        inputs = torch.cat([inputs, action], dim=1)
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
