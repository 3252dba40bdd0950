"""Predictive task: a discounted mean of the latents to come."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, TaskSetting
from aux_tasks.parts.dynamics import action_vector, errors
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from harness.checks import check_least, check_within
from replay import Batch


class Predictive(AuxTask):
    """|T(z, a) - ((1 - g) z' + g T(z', a'))|^2 + negative_weight * exp(-|z_i - z_j|), after Fang and Stachenfeld 2024,
    "Predictive auxiliary objectives in deep RL mimic learning in the brain".

    T is a mean of the latents to come along the actions taken, the nearest most, up to the end of the episode:
    successor features of the latents, scaled by 1 - g so that a longer horizon predicts nothing larger. The target has
    no gradient; the second term, for random pairs of the batch, has one in both latents and keeps them apart where no
    other loss does. The square is a mean over dimensions.

    Args:
        setting: the run.
        horizon_gamma: g in [0, 1), a discount of the prediction's own: it looks 1 / (1 - g) steps ahead, 0 one step.
        hidden: width of the hidden layer of T.
        negative_weight: of the second term; 0 leaves it to the RL loss to prevent collapse.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "clip", "clip_action", "clip_mask"})
    clip_length = 3  # the third observation says that there was a second action

    def __init__(
        self, setting: TaskSetting, *, horizon_gamma: float = 0.5, hidden: int = 512, negative_weight: float = 1.0
    ) -> None:
        super().__init__(setting)
        check_within("[0, 1)", horizon_gamma=horizon_gamma)
        check_least(0, negative_weight=negative_weight)
        self.horizon_gamma, self.negative_weight = horizon_gamma, negative_weight
        self.action_dim = setting.action_dim
        self.transition = mlp(setting.feature_dim + setting.action_dim, hidden, setting.feature_dim)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the sum of prediction and negative term (B,)."""
        assert batch.clip is not None
        assert batch.clip_action is not None
        assert batch.clip_mask is not None
        action, mask = action_vector(batch.clip_action[:, :2], self.action_dim), batch.clip_mask
        # Before the target: autocast may keep the casts of weights that are first used without gradient.
        predicted, latent = self._predict(features, action[:, 0]), features.float()
        with torch.no_grad():
            after = encoder(batch.clip[:, 1])
            further = self.horizon_gamma * mask[:, 1:2]  # 0 at the end of the episode
            target = torch.lerp(after.float(), self._predict(after, action[:, 1]), further)
        j = torch.randperm(len(latent), generator=self.generator, device=self.generator.device)
        alike = (-(latent - latent[j]).norm(dim=1)).exp()
        return AuxOutput(
            (predicted - target).square().mean(1) + self.negative_weight * alike,
            errors("prediction", predicted, target) | {"alike": alike.detach().mean()},
        )

    def _predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.transition(torch.cat([latent, action], dim=1)).float()  # type: ignore[no-any-return]
