"""Frame permutation: in which order were the frames of the stack?"""

from typing import Any

import torch
from torch import Tensor

from aux_tasks.base import TaskSetting
from aux_tasks.transform import TransformTask

# A reversed sequence is as plausible as the sequence itself, so both are one class (Agarwal, Sinha, Ayush).
ORDERS = (
    ((0, 1, 2, 3), (3, 2, 1, 0)),
    ((0, 2, 1, 3), (3, 1, 2, 0)),
    ((0, 3, 2, 1), (1, 2, 3, 0)),
    ((1, 3, 0, 2), (2, 0, 3, 1)),
)


class Permutation(TransformTask):
    """Which of four order classes the frames of a stack were permuted to (Agarwal, Sinha, Ayush; after Misra et al.
    2016, "Shuffle and learn"). Stacks of still frames carry no answer and bound the accuracy from above.

    Raises:
        ValueError: the stack does not hold four frames.
    """

    classes = ("0123", "0213", "0321", "1302")

    def __init__(self, setting: TaskSetting, **options: Any) -> None:
        super().__init__(setting, **options)
        if setting.frame_stack != 4:
            raise ValueError(f"permutation needs frame_stack=4, got {setting.frame_stack}")
        self.register_buffer("orders", torch.tensor(ORDERS), persistent=False)

    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Reorder the frames of sample i to class label[i], forwards or backwards with equal chance."""
        direction = torch.randint(2, label.shape, generator=self.generator, device=self.generator.device)
        order = self.get_buffer("orders")[label, direction]  # (B, 4)
        channels = obs.shape[1] // self.frame_stack
        index = (order[:, :, None] * channels + torch.arange(channels, device=obs.device)).flatten(1)  # (B, C)
        pixels = obs.permute(0, 2, 3, 1)  # as they lie in memory: the result keeps the layout that convolutions like
        return pixels.gather(3, index[:, None, None].expand(pixels.shape)).permute(0, 3, 1, 2)
