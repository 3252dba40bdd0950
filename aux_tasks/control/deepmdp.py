"""DeepMDP: predict the reward and the next latent state."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, TaskSetting
from aux_tasks.parts.dynamics import (
    LatentTransition,
    MapTransition,
    action_vector,
    errors,
    mmd,
    negative_log_likelihood,
    wasserstein,
)
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from harness.checks import check_choice, check_least
from replay import Batch

DISTANCES = {"wasserstein": wasserstein, "likelihood": negative_log_likelihood, "mmd": mmd}


class DeepMDP(AuxTask):
    """D(P(z, a), z') + reward_weight * Huber(R(z, a) - r) (Gelada et al. 2019, "DeepMDP: Learning continuous latent
    space models for representation learning"), of one step.

    z' has no gradient: with one, a constant encoder would be a perfect model, and only the RL loss would stand against
    it. `*_error` is logged beside `*_baseline`, the error of predicting the batch mean.

    Args:
        setting: the run.
        model: deterministic (the paper's), gaussian, or ensemble.
        distance: wasserstein (the paper's; Euclidean between points), likelihood, or mmd.
        space: features, or maps: one convolution for each action on the encoder's feature maps (the paper's on Atari).
        hidden: width of the models' hidden layers.
        members: networks of an ensemble.
        reward_weight: of the reward loss beside the transition loss.

    Raises:
        ValueError: an unknown choice, choices that exclude each other, or an option out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "reward", "next_obs"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        model: str = "deterministic",
        distance: str = "wasserstein",
        space: str = "features",
        hidden: int = 512,
        members: int = 5,
        reward_weight: float = 1.0,
    ) -> None:
        super().__init__(setting)
        check_choice("distance", distance, DISTANCES)
        check_choice("space", space, ("features", "maps"))
        check_least(0, reward_weight=reward_weight)
        if distance == "wasserstein" and model != "deterministic":
            raise ValueError(
                f"distance=wasserstein to one next state would drive the std of model={model} to zero: "
                "use distance=likelihood or distance=mmd"
            )
        self.distance, self.on_maps = DISTANCES[distance], space == "maps"
        self.action_dim, self.reward_weight = setting.action_dim, reward_weight
        self.transition: LatentTransition | MapTransition
        if self.on_maps:
            if setting.num_actions is None or model != "deterministic":
                raise ValueError("space=maps needs discrete actions and model=deterministic: use space=features")
            self.transition = MapTransition(setting.map_shape, setting.num_actions)
            latent_dim = torch.Size(setting.map_shape).numel()
        else:
            latent_dim = setting.feature_dim
            self.transition = LatentTransition(
                latent_dim, setting.action_dim, kind=model, hidden=hidden, members=members
            )
        self.reward = mlp(latent_dim + setting.action_dim, hidden, 1)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the transition and reward loss (B,)."""
        assert batch.next_obs is not None
        latent = encoder.maps(batch.obs) if self.on_maps else features
        with torch.no_grad():
            target = (encoder.maps(batch.next_obs) if self.on_maps else encoder(batch.next_obs)).flatten(1).float()
        action = action_vector(batch.action, self.action_dim)
        predicted = self.transition(latent, action)
        reward = self.reward(torch.cat([latent.flatten(1), action], dim=1)).squeeze(1).float()
        reward_loss = F.huber_loss(reward, batch.reward, reduction="none")
        return AuxOutput(
            self.distance(predicted, target) + self.reward_weight * reward_loss,
            errors("transition", predicted.moments().mean, target) | errors("reward", reward, batch.reward),
        )
