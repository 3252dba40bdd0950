"""Deep bisimulation for control."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, BonusTask, TaskSetting
from aux_tasks.parts.bisimulation import FORMS
from aux_tasks.parts.dynamics import LatentTransition, action_vector, errors, negative_log_likelihood
from aux_tasks.parts.mlp import mlp
from encoders import Encoder, dead_share
from encoders.momentum import follow, momentum_copy
from harness.checks import check_choice, check_least, check_within
from replay import Batch

PAIRS = ("published", "permutation", "all")


class DBC(BonusTask):
    """Distances of latents match how differently their states behave (Zhang et al. 2021, "Learning invariant
    representations for reinforcement learning without reconstruction", equation 4):

        (|z_i - z_j|_1 - |r_i - r_j| - gamma * W2(P(z_i, a_i), P(z_j, a_j)))^2

    with the stored actions. What is said of the future has no gradient, neither for P nor for the latents in it; both
    latents of the distance have one. P and the reward model R are learned beside it: the likelihood of the next latent,
    whose own gradient is cut, and the squared error of R, read from the mean of P.

    `form` names a published variant; docs/dbc.md has their equations in one table.

    - `paper`: the equation above. `released`: the authors' code, the same terms in each dimension, smooth L1 for |.|.
    - `normed`: smooth L1 means, and latents within a ball (Kemertas and Aumentado-Armstrong 2021).
    - `robust`: cosine distances of unit latents, Huber loss (SimSR, Zang et al. 2022).
    - `mico`: MICo's distance, also between the latents that were observed next: no models (Castro et al. 2021).
    - `rap`: (d - gamma * W2)^2 matches (r_i - r_j)^2 less the variances of both, by a normal R on latents (Chen and Pan
      2022).

    The exploration bonus is the squared error of P's mean. It guides the agent while all rewards are equal, when all
    states are bisimilar (Kemertas and Aumentado-Armstrong 2021). `mico` has no P and no bonus.

    Args:
        setting: the run.
        form: paper, released, normed, robust, mico or rap.
        pairs: permutation, a random partner for each sample; all, the batch with itself; published, as the form was.
        model: of P: deterministic, gaussian (the paper's), or ensemble.
        hidden: width of the models' hidden layers.
        members: networks of an ensemble.
        bisimulation_weight: of the term above beside those of P and R; 0 is the ablation.
        reward_weight: of the loss of R; 0 leaves R out, as SimSR does.
        reward_scale: factor of rewards. `normed` bounds the latents' norm for scaled rewards in [0, 1].
        momentum: share of a moving average of the encoder that each update keeps; the future is then told from its
            latents. 0: no average.

    Raises:
        ValueError: an unknown choice, or an option out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "reward", "next_obs"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        form: str = "paper",
        pairs: str = "published",
        model: str = "gaussian",
        hidden: int = 512,
        members: int = 5,
        bisimulation_weight: float = 0.5,
        reward_weight: float = 1.0,
        reward_scale: float = 1.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(setting)
        check_choice("form", form, FORMS)
        check_choice("pairs", pairs, PAIRS)
        check_least(0, bisimulation_weight=bisimulation_weight, reward_weight=reward_weight, reward_scale=reward_scale)
        check_within("[0, 1)", momentum=momentum)
        self.form = FORMS[form]
        if self.form.variance and not reward_weight:
            raise ValueError(f"form={form} needs the variance of its reward model: reward_weight above 0")
        self.all_pairs = self.form.all_pairs if pairs == "published" else pairs == "all"
        self.bisimulation_weight, self.reward_weight = bisimulation_weight, reward_weight
        self.reward_scale = reward_scale
        self.radius = reward_scale / (1 - setting.gamma) / 2 if setting.gamma < 1 else math.inf
        self.gamma, self.action_dim, self.momentum = setting.gamma, setting.action_dim, momentum
        self.transition: LatentTransition | None = None
        self.reward = None
        self.target_encoder = momentum_copy(setting.encoder) if momentum else None
        self.offers_bonus = self.form.models
        if not self.form.models:
            return
        size = (setting.feature_dim, setting.action_dim)
        self.transition = LatentTransition(*size, kind=model, hidden=hidden, members=members)
        if reward_weight:
            self.reward = mlp(setting.feature_dim, hidden, 2 if self.form.variance else 1)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the bisimulation, transition and reward loss (B,)."""
        latent, reward = self._latent(features), batch.reward * self.reward_scale
        action, ahead = action_vector(batch.action, self.action_dim), self._ahead(batch, encoder)
        future, models, metrics = ahead[:, None], torch.zeros_like(reward), {}
        variance = torch.zeros_like(reward)
        if self.transition is not None:
            predicted = self.transition(latent, action)
            mixture = predicted.moments()
            models = negative_log_likelihood(predicted, ahead)
            metrics = errors("transition", mixture.mean, ahead)
            future = mixture.coordinates().detach()
            if self.target_encoder is not None:
                with torch.no_grad():
                    seen = self._latent(self.target_encoder(batch.obs))
                    future = self.transition(seen, action).moments().coordinates()
        if self.reward is not None:
            reward_loss, mean, variance = self._reward(latent if self.form.variance else mixture.mean, reward)
            models = models + self.reward_weight * reward_loss
            metrics |= errors("reward", mean, reward)
        bisimulation, actual, wanted = self._bisimulation(latent, future, reward, variance)
        metrics |= {
            "bisimulation_error": bisimulation.detach().mean(),
            "correlation": _correlation(actual.detach(), wanted),
            "latent_std": latent.detach().std(0, correction=0).mean(),  # 0: collapsed
            "dead_share": dead_share(latent.detach()),
        }
        return AuxOutput(self.bisimulation_weight * bisimulation + models, metrics)

    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:
        """Return half the squared error of the mean of P, mean over dimensions (B,)."""
        assert self.transition is not None
        predicted = self.transition(self._latent(features), action_vector(batch.action, self.action_dim))
        return (predicted.moments().mean - self._ahead(batch, encoder)).square().mean(1) / 2  # type: ignore[no-any-return]

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the average of the encoder."""
        if self.target_encoder is not None:
            follow(self.target_encoder, encoder, self.momentum)

    def _latent(self, features: Tensor) -> Tensor:
        return self.form.transform(features.float(), self.radius)

    @torch.no_grad()
    def _ahead(self, batch: Batch, encoder: Encoder) -> Tensor:
        """The latents (B, Z) that followed."""
        assert batch.next_obs is not None
        return self._latent((self.target_encoder or encoder)(batch.next_obs))

    def _reward(self, inputs: Tensor, reward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (B,), mean and detached variance of the reward model; the latter 0 unless the model is a normal one."""
        assert self.reward is not None
        output = self.reward(inputs).float()
        mean = output[:, 0]
        if not self.form.variance:
            return (mean - reward).square(), mean, torch.zeros_like(mean)
        variance = F.softplus(output[:, 1]) + 1e-4
        return ((mean - reward).square() / variance + variance.log()) / 2, mean, variance.detach()

    def _bisimulation(
        self, latent: Tensor, future: Tensor, reward: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (B,), and distances (B, P, K) of P pairs a sample with their targets."""
        chosen = None  # all
        if not self.all_pairs:
            chosen = torch.randperm(len(latent), generator=self.generator, device=self.generator.device)

        def partners(values: Tensor) -> Tensor:
            return values[None] if chosen is None else values[chosen][:, None]

        actual = self.form.latents(latent[:, None], partners(latent))
        ahead = self.gamma * self.form.futures(future[:, None], partners(future))
        gap = self.form.rewards(reward[:, None], partners(reward))[..., None]
        if self.form.variance:
            gap = gap - (variance[:, None] + partners(variance))[..., None]
            wanted = ahead + gap.clamp_min(0).sqrt()
            error = self.form.penalty((actual - ahead).square(), gap)
        else:
            wanted = ahead + gap
            error = self.form.penalty(actual, wanted)
        return error.mean((1, 2)), actual, wanted.expand_as(actual)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation, 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    return F.cosine_similarity(x.flatten(), y.flatten(), dim=0)
