"""Deep bisimulation for control."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, TaskSetting
from aux_tasks.control.models import LatentTransition, action_vector, errors, mlp, negative_log_likelihood
from encoders import Encoder, dead_share
from harness.suggest import check_choice
from replay import Batch

FORMS = ("paper", "released", "robust")


class DBC(AuxTask):
    """Distances of latents match how differently their states behave (Zhang et al. 2021, "Learning invariant
    representations for reinforcement learning without reconstruction", equation 4):

        (|z_i - z_j|_1 - |r_i - r_j| - gamma * W2(P(z_i, a_i), P(z_j, a_j)))^2

    for random pairs i, j, with the stored actions. The W2 term has no gradient, neither for P nor for the latents in
    it; both latents of the distance have one. P and the reward model R are learned beside it: the likelihood of the
    next latent, whose own gradient is cut, and the squared error of R, read from the mean of P. Rewards are raw.

    Args:
        setting: the run.
        form: `paper`; `released`, the authors' code: the terms of each dimension, with smooth L1 for |.|; or `robust`:
            cosine distances of unit latents and of the mean predictions, for all pairs, and Huber loss instead of the
            square (SimSR, Zang et al. 2022, "SimSR: Simple distance-based state representations").
        model: of P: deterministic, gaussian (the paper's), or ensemble.
        hidden: width of the models' hidden layers.
        members: networks of an ensemble.
        bisimulation_weight: of the term above beside those of P and R; 0 is the ablation.

    Raises:
        ValueError: an unknown form or model.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "reward", "next_obs"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        form: str = "paper",
        model: str = "gaussian",
        hidden: int = 512,
        members: int = 5,
        bisimulation_weight: float = 0.5,
    ) -> None:
        super().__init__(setting)
        check_choice("form", form, FORMS)
        self.form, self.bisimulation_weight = form, bisimulation_weight
        self.gamma, self.action_dim = setting.gamma, setting.action_dim
        self.transition = LatentTransition(
            setting.feature_dim, setting.action_dim, kind=model, hidden=hidden, members=members
        )
        self.reward = mlp(setting.feature_dim, hidden, 1)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the bisimulation, transition and reward loss (B,)."""
        assert batch.next_obs is not None
        latent = self._latent(features)
        with torch.no_grad():
            target = self._latent(encoder(batch.next_obs))
        predicted = self.transition(latent, action_vector(batch.action, self.action_dim))
        mixture = predicted.moments()
        reward = self.reward(mixture.mean).squeeze(1).float()
        actual, wanted = self._distances(latent, batch.reward, mixture.coordinates().detach())
        penalty = F.huber_loss if self.form == "robust" else F.mse_loss
        bisimulation = penalty(actual, wanted, reduction="none").mean(1)
        models = negative_log_likelihood(predicted, target) + F.mse_loss(reward, batch.reward, reduction="none")
        metrics = {
            "bisimulation_error": bisimulation.detach().mean(),
            "correlation": _correlation(actual.detach(), wanted),
            "latent_std": latent.detach().std(0, correction=0).mean(),  # 0: collapsed
            "dead_share": dead_share(latent.detach()),
        }
        metrics |= errors("transition", mixture.mean, target) | errors("reward", reward, batch.reward)
        return AuxOutput(self.bisimulation_weight * bisimulation + models, metrics)

    def _latent(self, features: Tensor) -> Tensor:
        features = features.float()
        return F.normalize(features) if self.form == "robust" else features

    def _distances(self, latent: Tensor, reward: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances of latents and their targets, (B, 1) for `paper`, (B, Z) `released`, (B, B) `robust`."""
        if self.form == "robust":
            mean = F.normalize(coordinates[:, 0])
            return 1 - latent @ latent.T, (reward[:, None] - reward).abs() + self.gamma * (1 - mean @ mean.T)
        j = torch.randperm(len(latent), generator=self.generator, device=self.generator.device)
        reward, step = reward[:, None], coordinates - coordinates[j]
        if self.form == "released":
            rewards = F.smooth_l1_loss(reward, reward[j], reduction="none")
            return F.smooth_l1_loss(latent, latent[j], reduction="none"), rewards + self.gamma * step.norm(dim=1)
        wanted = (reward - reward[j]).abs() + self.gamma * step.flatten(1).norm(dim=1, keepdim=True)
        return (latent - latent[j]).abs().sum(1, keepdim=True), wanted


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation, 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    return F.cosine_similarity(x.flatten(), y.flatten(), dim=0)
