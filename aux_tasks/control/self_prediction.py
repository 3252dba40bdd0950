"""Self-prediction: the next latent of a slowly moving copy of the encoder."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, BonusTask, TaskSetting, error_ratio
from aux_tasks.parts.dynamics import LatentTransition, action_vector, errors, negative_log_likelihood
from encoders import Encoder
from encoders.momentum import follow, momentum_copy
from harness.checks import check_within
from replay import Batch


class SelfPrediction(BonusTask):
    """|P(z, a) - z'|^2 / 2, mean over dimensions, where z' is a momentum copy's: no metric, no reward, no projection.

    With layer-normalised features, the default of encoders, it accounts for most of what metrics gain with
    distractors (Luo et al. 2025). `error_ratio` is the error over that of the batch's mean latent. The loss is also the
    exploration bonus, as in BYOL-Explore (Guo et al. 2022).

    Args:
        setting: the run.
        hidden: width of the hidden layer of P.
        momentum: share of the copy that each update keeps.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "next_obs"})

    def __init__(self, setting: TaskSetting, *, hidden: int = 512, momentum: float = 0.99) -> None:
        super().__init__(setting)
        check_within("[0, 1]", momentum=momentum)
        self.momentum, self.action_dim = momentum, setting.action_dim
        size = (setting.feature_dim, setting.action_dim)
        self.transition = LatentTransition(*size, kind="deterministic", hidden=hidden, members=1)
        self.target_encoder = momentum_copy(setting.encoder)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the prediction loss (B,)."""
        assert batch.next_obs is not None
        with torch.no_grad():
            target = self.target_encoder(batch.next_obs).float()
        predicted = self.transition(features, action_vector(batch.action, self.action_dim))
        metrics = errors("transition", predicted.moments().mean, target)
        metrics["error_ratio"] = error_ratio(metrics["transition_error"], metrics["transition_baseline"])
        return AuxOutput(negative_log_likelihood(predicted, target), metrics)

    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:
        """Return the prediction loss (B,)."""
        return self.loss(batch, features, encoder).loss

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the momentum copy."""
        follow(self.target_encoder, encoder, self.momentum)
