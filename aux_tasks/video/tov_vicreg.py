"""TOV-VICReg: VICReg between views, and whether three moments are in their order."""

from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, Examples, TaskSetting, classify
from aux_tasks.image.vicreg import VICReg
from aux_tasks.parts.clips import contrast, observations, score
from aux_tasks.parts.mlp import mlp
from aux_tasks.parts.orders import verifications
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

ORDERS = tuple(permutations(range(3)))  # the first is the right one


class TOVVICReg(VICReg):
    """VICReg between two views of an observation, plus `order` times the cross-entropy on whether three observations,
    `stride` apart, stand in their order (Goulão, Oliveira 2022, "Pretraining the vision transformer using
    self-supervised methods for vision based deep reinforcement learning").

    The three moments are seen in one view, so that their motion stays what it is; stacks must not overlap, since shared
    frames would give the order away. Half of the samples are in order and half in one of the five others, the reverse
    among them; the authors draw all six alike. A hidden layer compares the features, standardised by `contrast`, where
    theirs is linear. Broken clips leave the order out. `accuracy` and `chance` are those of the order,
    `view_accuracy` is the share of views whose closest view in the batch is their other view. Still clips carry no
    answer.

    Args:
        setting: the run.
        stride: steps between the three observations, at least the frame stack.
        order: weight of the temporal order; the authors' script has 0.1 beside 10 for each of VICReg's.
        options: of `VICReg`.

    Raises:
        ValueError: the stride is shorter than the frame stack, or an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "clip", "clip_mask"})

    def __init__(self, setting: TaskSetting, *, stride: int = 4, order: float = 1.0, **options: Any) -> None:
        super().__init__(setting, **options)
        if stride < setting.frame_stack:
            raise ValueError(f"stride must be at least the frame stack of {setting.frame_stack}, got {stride}")
        check_least(0, order=order)
        self.stride, self.clip_length, self.order = stride, 2 * stride + 1, order
        self.verifier = mlp(3 * setting.feature_dim, 256, 2)
        self.register_buffer("orders", torch.tensor(ORDERS), persistent=False)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return VICReg and temporal order (B,)."""
        _, latents, whole = self._moments(batch, encoder)
        both = (self.head(view).float() for view in (latents[:, 0], encoder(self.view(batch.obs))))
        views = self.compare(*both)
        order = self.draw(len(latents))
        answer = self._answer(latents, whole, order)
        hits = (answer.detach().argmax(1) == (order == 0)).float()
        verified = score(classify(answer, (order == 0).long()).loss, hits, whole, 0.5)
        metrics = verified.metrics | {"view_accuracy": views.metrics["accuracy"], "std": views.metrics["std"]}
        return AuxOutput(views.loss + self.order * verified.loss, metrics)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the three moments of eight clips as they were arranged."""
        seen, latents, whole = self._moments(batch, encoder)
        order = self.draw(len(seen))
        said = self._answer(latents, whole, order)[:8].argmax(1)
        return verifications(self.arrange(seen, order)[:8].to(torch.uint8), said, order[:8] == 0)

    def _moments(self, batch: Batch, encoder: Encoder) -> tuple[Tensor, Tensor, Tensor]:
        """Return views (B, 3, C, H, W) of the three moments, their latents (B, 3, Z), and 1 in (B,) for whole clips."""
        moments, valid = observations(batch, 3, self.stride)
        seen = self.views(moments.flatten(1, 2), self.generator, 3 * self.frame_stack)
        latents = encoder(seen.reshape(-1, *batch.obs.shape[1:])).view(len(batch.obs), 3, -1)
        return seen.reshape(moments.shape), latents, valid[:, -1]

    def _answer(self, latents: Tensor, whole: Tensor, order: Tensor) -> Tensor:
        """Return logits (B, 2)."""
        return self.verifier(self.arrange(contrast(latents, whole), order).flatten(1))  # type: ignore[no-any-return]

    def draw(self, count: int) -> Tensor:
        """Return indices (B,) into ORDERS: 0 for half, the others alike."""
        ticket = torch.randint(2 * (len(ORDERS) - 1), (count,), generator=self.generator, device=self.generator.device)
        return (ticket - (len(ORDERS) - 2)).clamp_min(0)

    def arrange(self, moments: Tensor, order: Tensor) -> Tensor:
        """Put the moments (B, 3, ...) of sample i into the order ORDERS[order[i]]."""
        sample = torch.arange(len(moments), device=moments.device)[:, None]
        return moments[sample, self.get_buffer("orders")[order]]
