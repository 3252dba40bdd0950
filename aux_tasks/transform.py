"""Tasks that change the pixels in one of K ways and ask the head which."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class TransformTask(AuxTask):
    """Cross-entropy on which transformation was applied; labels are uniform, so chance is 1 / K.

    Args:
        setting: the run.
        hidden: width of the head's hidden layer, 0 for a linear head.
        crop_rows: keep only these rows [top, bottom) and stretch them back to H: hides a score bar that gives the
            answer away. Masking would not do, since the mask itself would be transformed.

    Raises:
        ValueError: `hidden` is negative, or `crop_rows` is no range of rows of the observation.
    """

    classes: tuple[str, ...]  # the transformations' names
    question: ClassVar[str] = "Which transformation was applied?"
    rows: Tensor | None

    def __init__(self, setting: TaskSetting, *, hidden: int = 256, crop_rows: tuple[int, int] | None = None) -> None:
        super().__init__(setting)
        check_least(0, hidden=hidden)
        self.frame_stack = setting.frame_stack
        layers = [nn.Linear(setting.feature_dim, hidden), nn.ReLU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or setting.feature_dim, len(self.classes)))
        height = setting.obs_shape[1]
        rows = None
        match crop_rows:
            case None:
                pass
            case [int(top), int(bottom)] if 0 <= top < bottom <= height:
                rows = torch.linspace(top, bottom - 1, height).round().long()
            case _:
                raise ValueError(f"crop_rows must be [top, bottom] with 0 <= top < bottom <= {height}, got {crop_rows}")
        self.register_buffer("rows", rows, persistent=False)

    @abstractmethod
    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Apply transformation `label` (B,) to the pixels (B, C, H, W), sample by sample."""

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,) with the transformation drawn, the mean where a sample has several."""
        inputs, label = self._draw(batch.obs)
        output = classify(self.head(encoder(inputs)), label)
        return replace(output, loss=output.loss.view(len(batch.obs), -1).mean(1))

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight transformed observations, with predicted and applied transformation."""
        inputs, label = (drawn[:8] for drawn in self._draw(batch.obs[:8]))
        predicted = self.head(encoder(inputs)).argmax(1)
        said, right = ([self.classes[i] for i in answers.tolist()] for answers in (predicted, label))
        return Examples(self.question, {"input": inputs}, said, right)

    def logits(self, obs: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (B, K) of pixels (B, C, H, W) as they are."""
        return self.head(encoder(self._crop(obs)))  # type: ignore[no-any-return]

    def _draw(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return transformed observations (K * B, C, H, W), sample by sample, and labels (K * B,); here K is 1."""
        label = torch.randint(len(self.classes), (len(obs),), generator=self.generator, device=self.generator.device)
        return self.transform(self._crop(obs), label), label

    def _crop(self, obs: Tensor) -> Tensor:
        return obs if self.rows is None else obs[:, :, self.rows]


def questions(module: nn.Module, encoder: Encoder) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return, by task in `module`, the function from pixels (B, C, H, W) as they are to its logits (B, K)."""
    tasks = {name.rpartition(".")[2]: task for name, task in module.named_modules() if isinstance(task, TransformTask)}
    return {name: partial(task.logits, encoder=encoder) for name, task in tasks.items()}
