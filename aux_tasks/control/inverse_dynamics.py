"""Inverse dynamics: which action led from here to there?"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.dynamics import errors
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from replay import Batch


class InverseDynamics(AuxTask):
    """The action from z and z', both with gradient (Pathak et al. 2017, "Curiosity-driven exploration by
    self-supervised prediction").

    Discrete actions: cross-entropy and `accuracy`; chance is the share of the commonest action. Continuous ones: mean
    squared error and `r2`, 0 for the batch mean.

    Args:
        setting: the run.
        hidden: width of the head's hidden layer.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "next_obs"})

    def __init__(self, setting: TaskSetting, *, hidden: int = 256) -> None:
        super().__init__(setting)
        self.head = mlp(2 * setting.feature_dim, hidden, setting.action_dim)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the cross-entropy or squared error (B,)."""
        output = self._predict(batch, features, encoder)
        if batch.action.is_floating_point():
            error = errors("action", output, batch.action)
            r2 = 1 - error["action_error"] / error["action_baseline"].clamp_min(1e-6)
            return AuxOutput(F.mse_loss(output, batch.action, reduction="none").mean(1), {"r2": r2})
        answer = classify(output, batch.action)
        answer.metrics["chance"] = F.one_hot(batch.action, output.shape[1]).float().mean(0).amax()
        return answer

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight observations, with the predicted and the true action."""
        output, action = self._predict(batch, encoder(batch.obs), encoder)[:8], batch.action[:8]
        if not action.is_floating_point():
            output = output.argmax(1)
        assert batch.next_obs is not None
        shown = {"before": batch.obs[:8], "after": batch.next_obs[:8]}
        return Examples("Which action was taken in between?", shown, _words(output), _words(action))

    def _predict(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:
        """Return logits or actions (B, A)."""
        assert batch.next_obs is not None
        return self.head(torch.cat([features, encoder(batch.next_obs)], dim=1)).float()  # type: ignore[no-any-return]


def _words(action: Tensor) -> list[str]:
    if not action.is_floating_point():
        return [str(a) for a in action.tolist()]
    return [" ".join(f"{a:+.1f}" for a in row) for row in action.tolist()]
