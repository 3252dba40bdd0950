"""Double dueling DQN with n-step returns."""

import math
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, Observation, Streams, Suite
from agents.config import DQNConfig, Head, Target
from agents.heads import DistributionalHead, DuelingHead, ImplicitHead, QuantileHead, SpatialHead, huber, quantile_huber
from encoders import Encoder
from encoders.momentum import momentum_copy
from harness.schedules import linear
from replay import Batch


class DQN(Agent):
    """DQN (Mnih et al. 2015) with double targets (van Hasselt et al. 2016), unless `double` is false, and one of the
    heads in `agents.heads`.

    Args:
        num_actions: A. The others are those of `Agent`.
    """

    config: DQNConfig

    def __init__(
        self,
        config: DQNConfig,
        encoder: Encoder,
        num_actions: int,
        suite: Suite,
        streams: Streams,
        goal_dim: int = 0,
    ) -> None:
        super().__init__(config, encoder, suite, streams, goal_dim)
        self.num_actions = num_actions
        self.head = build_head(config, encoder, goal_dim, num_actions)
        self.target_encoder, self.target_head = momentum_copy(self.encoder), momentum_copy(self.head)
        averaged_modules = {"encoder": self.encoder, "head": self.head} if config.average_tau else {}
        self.average = momentum_copy(nn.ModuleDict(averaged_modules))  # by the names of what it averages
        self.register_buffer("averaged", torch.zeros((), dtype=torch.float64), persistent=bool(averaged_modules))
        networks = [*self.encoder.children(), *self.target_encoder.children(), self.head, self.target_head]
        self.set_up(self.parameter_groups(self.head), compiled=networks)
        self.online: list[Tensor] = [*self.encoder.parameters(), *self.head.parameters()]
        self.target: list[Tensor] = [*self.target_encoder.parameters(), *self.target_head.parameters()]

    def schedules(self) -> dict[str, Callable[[int], float]]:
        """The learning rate, and epsilon, the probability of a random action."""
        c = self.config
        return super().schedules() | {
            "epsilon": lambda step: linear(c.epsilon_start, c.epsilon_end, step, c.epsilon_steps)
        }

    @torch.no_grad()
    def act(self, obs: Observation, *, explore: bool) -> NDArray[np.int64]:
        """Epsilon-greedy actions (N,) of the online network, or greedy ones of the network that is evaluated."""
        pixels, goal = torch.from_numpy(obs.pixels).to(self.device), self.goal_of(obs)
        if not explore:
            greedy: NDArray[np.int64] = self.q_values(pixels, goal).argmax(1).cpu().numpy()
            return greedy
        action = self.captured_outputs(pixels, goal).cpu().numpy()
        random = self.streams.explore.random(len(action)) < self.schedule.values["epsilon"]
        return np.where(random, self.streams.explore.integers(self.num_actions, size=len(action)), action)

    def policy_outputs(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Greedy actions (N,) of the network that learns."""
        return self.online_q(obs, goal).argmax(1)

    @property
    def copies_target(self) -> bool:
        """Whether the newest update copies the online network into the target network."""
        return self.config.target is Target.hard and self.updates % self.config.target_every == 0

    def phase(self) -> Hashable:
        """See `Agent.phase`: whether the target is copied."""
        return super().phase(), self.copies_target

    def online_q(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Action values (B, A) of the network that learns, at pixels (B, C, H, W)."""
        return self.head(self.beside_goal(self.encoder(obs), goal)).float()  # type: ignore[no-any-return]

    def q_values(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Action values (B, A) of the network that is evaluated, the average if there is one."""
        if not self.average:
            return self.online_q(obs, goal)
        inputs = self.beside_goal(self.average["encoder"](obs), goal)
        return self.average["head"](inputs).float()  # type: ignore[no-any-return]

    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Huber loss of Q(s, a) - (R_n + discount * E Q'(s_n, a_n)); see `Agent.td_loss`.

        a_n is argmax_a Q(s_n, a), or argmax_a Q'(s_n, a) where `double` is false, but `target_epsilon` of the time any
        action (Expected SARSA, van Seijen et al. 2009).
        With a distributional head, quantile regression of the return; the TD error is then the loss, as in Dopamine.
        """
        features = self.beside_goal(features, batch.goal)
        if isinstance(self.head, DistributionalHead):
            return self.quantile_loss(self.head, features, batch, next_obs)
        q = self.head(features).float().gather(1, batch.action[:, None]).squeeze(1)
        with torch.no_grad():
            next_qs = self.target_head(self.beside_goal(self.target_encoder(next_obs), batch.goal)).float()
            best = self.choose(next_qs, next_obs, batch.goal)[:, None]
            next_q = next_qs.gather(1, best).squeeze(1).lerp(next_qs.mean(1), self.config.target_epsilon)
            target_q = batch.nstep_reward + batch.discount * next_q
        loss = huber(q - target_q)
        metrics = {"train/loss": loss, "train/q_mean": q, "train/target_q_mean": target_q}
        return loss, (q - target_q).detach().abs(), {name: value.detach().mean() for name, value in metrics.items()}

    def quantile_loss(
        self, head: DistributionalHead, features: Tensor, batch: Batch, next_obs: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`td_loss` of a distributional head; the features stand beside the goals, where there are goals."""
        generator, size = self.streams.policy, len(features)
        fractions = head.fractions(features, generator)
        q = head.quantiles(features, fractions)
        q = q[torch.arange(size, device=q.device), :, batch.action]
        with torch.no_grad():
            next_features = self.beside_goal(self.target_encoder(next_obs), batch.goal)
            assert isinstance(self.target_head, DistributionalHead)
            next_q = self.target_head.quantiles(next_features, head.fractions(next_features, generator))
            target_q = batch.nstep_reward[:, None, None] + batch.discount[:, None, None] * next_q
            policy = F.one_hot(self.choose(next_q.mean(1), next_obs, batch.goal), self.num_actions).float()
            policy = policy.lerp(torch.full_like(policy, 1 / self.num_actions), self.config.target_epsilon)
            share = (policy[:, None] / target_q.shape[1]).expand_as(target_q)
        loss = quantile_huber(q, fractions, target_q.flatten(1), share.flatten(1))
        metrics = {"train/loss": loss, "train/q_mean": q, "train/target_q_mean": (share * target_q).sum((1, 2))}
        return loss, loss.detach(), {name: value.detach().mean() for name, value in metrics.items()}

    def choose(self, target_q: Tensor, next_obs: Tensor, goal: Tensor | None) -> Tensor:
        """The actions (B,) that targets are of, given the target network's values (B, A)."""
        return (self.online_q(next_obs, goal) if self.config.double else target_q).argmax(1)

    @torch.no_grad()
    def update_targets(self) -> None:
        """Blend or copy the online network into the target network, and blend it into the average."""
        if self.config.target is Target.soft:
            torch._foreach_lerp_(self.target, self.online, self.config.target_tau)
        elif self.copies_target:
            torch._foreach_copy_(self.target, self.online)
        if self.average:  # the share falls from 0.9, so that the average forgets the first weights
            averaged = self.get_buffer("averaged").add_(1)
            share = (9 / (9 + averaged)).clamp_min(self.config.average_tau).to(torch.float32)
            torch._foreach_lerp_(list(self.average.parameters()), self.online, [share] * len(self.online))

    def acting_weights(self) -> dict[str, Tensor]:
        """See `Agent.acting_weights`; an average is given in place of what it averages."""
        weights = super().acting_weights()
        weights.pop("averaged", None)
        return weights | {name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}

    def load_acting_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See `Agent.load_acting_weights`."""
        super().load_acting_weights(weights)
        self.average.load_state_dict({name: weights[name] for name in self.average.state_dict()})


def build_head(
    config: DQNConfig, encoder: Encoder, goal_dim: int, num_actions: int
) -> DuelingHead | QuantileHead | ImplicitHead | SpatialHead:
    """The head of a config, on the features of an encoder beside goals.

    Raises:
        ValueError: the actions are not positions in the encoder's maps.
    """
    if config.head == Head.spatial:
        if encoder.feature_dim != math.prod(shape := encoder.map_shape):
            raise ValueError(
                "agent.head=spatial needs features that are the encoder's maps: give encoder.feature_dim=null and an "
                "encoder of convolutions alone, control_fast for example"
            )
        return SpatialHead(shape, goal_dim, num_actions, config.hidden)
    inputs = encoder.feature_dim + goal_dim
    if config.head == Head.plain:
        return DuelingHead(inputs, num_actions, config.hidden, config.layer_norm)
    kind = QuantileHead if config.head == Head.quantile else ImplicitHead
    return kind(inputs, num_actions, config.hidden, config.layer_norm, config.quantiles)
