"""CURL: which key is another view of this query?"""

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.views import choices
from encoders import Encoder
from encoders.augment import random_shift
from encoders.momentum import follow, momentum_copy
from harness.checks import check_least, check_within
from replay import Batch


class CURL(AuxTask):
    """InfoNCE between two shifts of an observation, -log softmax_j(q_i^T W k_j) at j = i (Laskin et al. 2020, "CURL:
    Contrastive unsupervised representations for reinforcement learning"). Chance is 1 / B.

    Queries go through the shared encoder; keys, without gradient, through its momentum copy. All frames of a stack
    move together.

    Args:
        setting: the run.
        pad: the largest shift, pixels.
        momentum: share of the copy that each update keeps. The authors keep 0.95 = 0.9747^2 at every second update.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, setting: TaskSetting, *, pad: int = 4, momentum: float = 0.9747) -> None:
        super().__init__(setting)
        check_least(0, pad=pad)
        check_within("[0, 1]", momentum=momentum)
        self.pad, self.momentum = pad, momentum
        self.target_encoder = momentum_copy(setting.encoder)
        # The authors draw W from U(0, 1), whose first logits grow with Z; this keeps them of the order of sqrt(Z).
        self.similarity = nn.Parameter(torch.eye(setting.feature_dim) / setting.feature_dim**0.5)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return InfoNCE (B,) and the share of queries closest to their own key."""
        query, key = self._views(batch.obs)
        logits = self._logits(encoder(query), key)
        return classify(logits, torch.arange(len(logits), device=logits.device))

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the momentum copy."""
        follow(self.target_encoder, encoder, self.momentum)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight queries with their keys, and the closest keys."""
        query, key = self._views(batch.obs)
        return choices("query", "key", torch.cat([query, key]), self._logits(encoder(query[:8]), key).argmax(1))

    def _views(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return random_shift(obs, self.pad, self.generator), random_shift(obs, self.pad, self.generator)

    def _logits(self, query: Tensor, key_obs: Tensor) -> Tensor:
        """Return similarities (B, B') of query features (B, Z) with the keys of pixels (B', C, H, W)."""
        with torch.no_grad():
            key = self.target_encoder(key_obs)
        return (query @ self.similarity @ key.T).float()  # type: ignore[no-any-return]
