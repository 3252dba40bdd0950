"""Temporal distance: embeddings as far apart as the steps from one picture to the other."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, Examples, TaskSetting
from aux_tasks.goals.base import GoalTask
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from encoders.momentum import follow, momentum_copy
from harness.checks import check_least, check_within
from replay import Batch

RANDOM = 0.375  # share of goals from other samples: 0.3 / (0.3 + 0.5), as OGBench draws them (Park et al. 2025)


class TemporalDistance(GoalTask):
    """The value of reaching g from s, V(s, g) = -|psi(s) - psi(g)|, by expectile regression (Park et al. 2024,
    "Foundation policies with Hilbert representations", equation 5):

        |expectile - 1(A < 0)| * (-1 + gamma * V'(s', g) - V(s, g))^2,  A = -1 + gamma * V'(s', g) - V'(s, g)

    V' is of momentum copies of psi and the encoder. g is a later observation of the episode, `Batch.future`, or, with
    probability 0.375, that of another sample. The goals g = s of OGBench are left out: here V(s, s) is 0 by itself.
    Unlike there, one psi stands for an ensemble of two. A high expectile takes the shortest of the ways that were seen.

    `accuracy` is the share of observations that are closer to their own future than to another sample's; chance 1 / 2.

    Args:
        setting: the run; distances are at most 1 / (1 - gamma).
        latent_dim: G.
        hidden: width of the hidden layer of psi.
        expectile: in [0.5, 1).
        momentum: share of the copies that each update keeps.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "next_obs", "future"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        latent_dim: int = 16,
        hidden: int = 256,
        expectile: float = 0.9,
        momentum: float = 0.995,
    ) -> None:
        super().__init__(setting)
        check_least(1, latent_dim=latent_dim)
        check_within("[0.5, 1)", expectile=expectile)
        check_within("[0, 1]", momentum=momentum)
        self.goal_dim, self.gamma, self.expectile, self.momentum = latent_dim, setting.gamma, expectile, momentum
        self.psi = mlp(setting.feature_dim, hidden, latent_dim)
        self.target_encoder, self.target_psi = momentum_copy(setting.encoder), momentum_copy(self.psi)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the expectile loss (B,)."""
        assert batch.next_obs is not None
        assert batch.future is not None
        goal, now = self.psi(encoder(batch.future)).float(), self.psi(features).float()
        elsewhere = torch.rand(len(goal), generator=self.generator, device=goal.device) < RANDOM
        source = torch.arange(len(goal), device=goal.device)
        source = torch.where(elsewhere, source.roll(1), source)
        with torch.no_grad():
            seen = torch.cat([batch.obs, batch.next_obs, batch.future])
            before, after, aim = self.target_psi(self.target_encoder(seen)).float().chunk(3)
            target = -1 + self.gamma * self._value(after, aim[source])
            worse = target < self._value(before, aim[source])
        error = target - self._value(now, goal[source])
        weight = torch.where(worse, 1 - self.expectile, self.expectile)
        own, other = -self._value(now, goal).detach(), -self._value(now, goal.roll(1, 0)).detach()
        metrics = {
            "accuracy": (own < other).float().mean(),
            "chance": torch.full_like(own[0], 0.5),
            "distance": own.mean(),
            "other_distance": other.mean(),
        }
        return AuxOutput(weight * error.square(), metrics)

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the momentum copies."""
        follow(self.target_encoder, encoder, self.momentum)
        follow(self.target_psi, self.psi, self.momentum)

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return (1 - gamma) * V (B,), in [-1, 0]: critics fit returns of hundreds slowly."""
        return (1 - self.gamma) * self._value(achieved, desired)

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return psi (B, G)."""
        embedding: Tensor = self.psi(encoder(obs)).float()
        return embedding

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations between their own future and another sample's, and which is closer."""
        assert batch.future is not None
        obs, own, other = batch.obs[:4], batch.future[:4], batch.future.roll(1, 0)[:4]
        now, *goals = self.embed(torch.cat([obs, own, other]), encoder).chunk(3)
        shown = {"later": own, "observation": obs, "from elsewhere": other}
        steps = torch.stack([-self._value(now, goal) for goal in goals], dim=1).tolist()
        closer = [f"{'later' if a < b else 'from elsewhere'} ({a:.0f} against {b:.0f} steps)" for a, b in steps]
        return Examples("Which of the two is closer to the observation?", shown, closer, ["later"] * len(obs))

    def _value(self, before: Tensor, goal: Tensor) -> Tensor:
        """Return V (B,) of embeddings (B, G)."""
        return super().reward(before, goal)
