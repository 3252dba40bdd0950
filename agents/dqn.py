"""Double dueling DQN with n-step returns."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, AgentConfig, Auxiliary, Update
from encoders import Encoder
from encoders.momentum import momentum_copy
from replay import Batch


class Target(StrEnum):
    """How the target network follows."""

    soft = "soft"
    hard = "hard"


class AuxSchedule(StrEnum):
    """When the side quests learn."""

    joint = "joint"  # in one sum with the Q loss
    alternating = "alternating"  # a Q step, then a step of theirs


@dataclass(frozen=True)
class DQNConfig(AgentConfig):
    """Hyperparameters; steps are agent steps."""

    learning_rate: float = 2.5e-4
    final_learning_rate: float | None = None  # reached linearly after `decay_steps`
    decay_steps: int = 400_000
    adam_eps: float = 1.5e-4
    max_grad_norm: float = 10.0
    hidden: int = 256  # width of each stream of the dueling head
    layer_norm: bool = True  # in the head
    target: Target = Target.soft
    target_tau: float = 0.005  # soft: share of the online network blended in at each update
    target_every: int = 1000  # hard: updates between copies
    average_tau: float = 0.0  # share blended at each update into the average that is judged; 0: the last weights are
    target_epsilon: float = 0.0  # share of random actions in the policy that the target values: 0 is Q-learning
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    epsilon_steps: int = 30_000
    aux_schedule: AuxSchedule = AuxSchedule.joint

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("at least 1", lambda x: x >= 1, "hidden", "target_every", "epsilon_steps", "decay_steps")
        self._check("at least 0", lambda x: x >= 0, "final_learning_rate")
        shares = ("epsilon_start", "epsilon_end", "target_epsilon", "average_tau")
        self._check("in [0, 1]", lambda x: 0 <= x <= 1, *shares)
        self._check("in (0, 1]", lambda x: 0 < x <= 1, "target_tau")


class DuelingHead(nn.Module):
    """Q = V + A - mean A (Wang et al. 2016, equation 9): features (B, Z) to action values (B, A)."""

    def __init__(self, feature_dim: int, num_actions: int, hidden: int, layer_norm: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_dim, 2 * hidden)  # both streams in one product
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) if layer_norm else nn.Identity() for _ in range(2))
        self.value = nn.Linear(hidden, 1)
        self.advantage = nn.Linear(hidden, num_actions)

    def forward(self, features: Tensor) -> Tensor:
        """Action values."""
        streams = self.hidden(features).chunk(2, dim=1)
        value, advantage = (F.relu(norm(s)) for norm, s in zip(self.norms, streams, strict=True))
        advantage = self.advantage(advantage)
        return self.value(value) + advantage - advantage.mean(1, keepdim=True)  # type: ignore[no-any-return]


class DQN(Agent):
    """DQN (Mnih et al. 2015) with double targets (van Hasselt et al. 2016) and a dueling head.

    Args:
        num_actions: A. The others are those of `Agent`.
    """

    config: DQNConfig

    def __init__(
        self,
        config: DQNConfig,
        encoder: Encoder,
        num_actions: int,
        auxiliary: Auxiliary,
        *,
        explore_rng: np.random.Generator,
        augment_generator: torch.Generator,
    ) -> None:
        super().__init__(config, encoder, auxiliary, explore_rng=explore_rng, augment_generator=augment_generator)
        self.num_actions = num_actions
        self.head = DuelingHead(encoder.feature_dim, num_actions, config.hidden, config.layer_norm)
        self.target_encoder = momentum_copy(self.encoder)
        self.target_head = momentum_copy(self.head)
        judged = {"encoder": self.encoder, "head": self.head} if config.average_tau else {}
        self.target_average = momentum_copy(nn.ModuleDict(judged))  # by the names of what it averages
        self.to(self.device)
        self.online: list[Tensor] = [*self.encoder.parameters(), *self.head.parameters()]
        self.target: list[Tensor] = [*self.target_encoder.parameters(), *self.target_head.parameters()]
        self.average: list[Tensor] = list(self.target_average.parameters())
        self.optimizers = [torch.optim.Adam(self.groups(self.head), eps=config.adam_eps, fused=True)]
        if config.compile:
            for network in (*self.encoder.children(), *self.target_encoder.children(), self.head, self.target_head):
                network.compile()

    def epsilon(self, step: int) -> float:
        """Probability of a random action at an agent step."""
        c = self.config
        return linear(c.epsilon_start, c.epsilon_end, step / c.epsilon_steps)

    def learning_rate(self, step: int) -> float:
        """Of encoder and Q head at an agent step; the heads of the side quests keep theirs."""
        c = self.config
        if c.final_learning_rate is None:
            return c.learning_rate
        return linear(c.learning_rate, c.final_learning_rate, step / c.decay_steps)

    def schedules(self, step: int) -> dict[str, float]:
        """The share of random actions and the learning rate."""
        return {"rollout/exploration_rate": self.epsilon(step), "train/learning_rate": self.learning_rate(step)}

    @torch.no_grad()
    def act(self, obs: NDArray[np.uint8], *, step: int, explore: bool) -> NDArray[np.int64]:
        """Epsilon-greedy actions (N,), or greedy ones."""
        pixels = torch.from_numpy(obs).to(self.device)
        action: NDArray[np.int64] = self.q_values(pixels).argmax(1).cpu().numpy()
        if explore:
            random = self.explore_rng.random(len(obs)) < self.epsilon(step)
            action = np.where(random, self.explore_rng.integers(self.num_actions, size=len(obs)), action)
        return action

    def q_values(self, obs: Tensor) -> Tensor:
        """Action values (B, A) of pixels (B, C, H, W)."""
        return self.head(self.encoder(obs)).float()  # type: ignore[no-any-return]

    def update(self, batch: Batch, *, step: int) -> Update:
        """One Q step with the side quests in the same sum, or a Q step and then one of theirs."""
        weights = self.auxiliary.weights(step)
        for group in self.optimizers[0].param_groups:
            group["lr"] = self.learning_rate(step) * group["scale"]
        joint = self.config.aux_schedule is AuxSchedule.joint
        obs, next_obs = self.augment(batch.obs), self.augment(batch.nstep_obs)
        with self.autocast():
            features = self.encoder(obs)
            td_loss, td_error, metrics = self.td_loss(features, batch, next_obs)
            terms = {"td": td_loss}
            if joint:
                aux_terms, aux_metrics = self.auxiliary.losses(batch, features, self.encoder)
                terms |= aux_terms
                metrics |= aux_metrics
        norm = self.descend(terms, {"td": 1.0} | (weights if joint else {}), batch.weight)
        if weights and not joint:
            with self.autocast():
                aux_terms, aux_metrics = self.auxiliary.losses(batch, self.encoder(obs), self.encoder)
            metrics |= aux_metrics
            if any(weights.values()):  # at weight 0, Adam's momentum alone would still move the encoder
                self.descend(aux_terms, weights, batch.weight)
        self.auxiliary.after_step(batch, self.encoder)
        self.update_target()
        return Update(td_error, metrics | {"health/grad_norm": norm})

    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Huber loss of Q(s, a) - (R_n + discount * E Q'(s_n, a_n)); see `Agent.td_loss`.

        a_n is argmax_a Q(s_n, a), but `target_epsilon` of the time any action (Expected SARSA, van Seijen et al. 2009).
        """
        q = self.head(features).float().gather(1, batch.action[:, None]).squeeze(1)
        with torch.no_grad():
            best = self.q_values(next_obs).argmax(1, keepdim=True)
            next_qs = self.target_head(self.target_encoder(next_obs)).float()
            next_q = next_qs.gather(1, best).squeeze(1).lerp(next_qs.mean(1), self.config.target_epsilon)
            target_q = batch.nstep_reward + batch.discount * next_q
        loss = huber(q - target_q)
        metrics = {"train/loss": loss, "train/q_mean": q, "train/target_q_mean": target_q}
        return loss, (q - target_q).detach().abs(), {name: value.detach().mean() for name, value in metrics.items()}

    @torch.no_grad()
    def update_target(self) -> None:
        """Blend or copy the online network into the target network, and blend it into the average."""
        self.updates += 1
        if self.config.target is Target.soft:
            torch._foreach_lerp_(self.target, self.online, self.config.target_tau)
        elif self.updates % self.config.target_every == 0:
            torch._foreach_copy_(self.target, self.online)
        if self.average:  # begun late enough to forget the first weights
            share = max(self.config.average_tau, 9 / (9 + self.updates))
            torch._foreach_lerp_(self.average, self.online, share)


def linear(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 and after."""
    return start + (end - start) * min(1.0, progress)


def huber(error: Tensor) -> Tensor:
    """Huber loss with threshold 1, unreduced: the gradient of an error is clipped to [-1, 1]."""
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")
