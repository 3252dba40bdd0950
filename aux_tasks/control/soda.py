"""SODA: predict a momentum encoder's projection of the clean observation from one with a picture mixed in."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, TaskSetting
from aux_tasks.image.byol import BYOL
from aux_tasks.views import retrieval, spread
from encoders import Encoder
from encoders.augment import overlay, overlay_pictures
from replay import Batch


class SODA(BYOL):
    """2 - 2 cos(predictor(z), z'): z is the projection of an observation that a picture is mixed into, z' that of the
    clean one by momentum copies (Hansen and Wang 2021, "Generalization in reinforcement learning by soft data
    augmentation", equation 3).

    The encoder learns to leave out what changes with the picture, and the agent still learns from clean observations
    alone. The pictures are generated colour fields. `accuracy` is the share of observations whose closest clean
    one in the batch is their own.

    Args:
        setting: the run.
        momentum: share of the copies of encoder and projection that each update keeps; the paper's.
        options: of `BYOL`.

    Raises:
        ValueError: the frames have no colours.
    """

    separate_views: ClassVar[bool] = False  # the views have losses of their own

    pictures: Tensor  # (M, 3, H, W) uint8

    def __init__(self, setting: TaskSetting, *, momentum: float = 0.995, **options: Any) -> None:
        channels, height, width = setting.obs_shape
        if channels != 3 * setting.frame_stack:
            raise ValueError("aux=soda mixes pictures in colour into observations: env.grayscale=false")
        super().__init__(setting, momentum=momentum, **options)
        self.register_buffer("pictures", overlay_pictures(height, width), persistent=False)

    def two_views(self, obs: Tensor) -> Tensor:
        """Return views (2B, C, H, W): observations with pictures in them, and the same ones clean."""
        clean = self.view(obs).to(torch.uint8)
        return torch.cat([overlay(clean, self.pictures, self.generator), clean])

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cosine loss (B,), in [0, 4]."""
        mixed, clean = self.two_views(batch.obs).chunk(2)
        embedding = self.embed(mixed, encoder)
        predicted, target = self.predictor(embedding).float(), self.target(clean)
        loss = 2 - 2 * F.cosine_similarity(predicted, target)
        return AuxOutput(loss, retrieval(predicted, target) | {"spread": spread(embedding)})
