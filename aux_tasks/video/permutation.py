"""Frame permutation: in which order were the frames of the stack?"""

from itertools import permutations
from math import factorial
from typing import Any

import torch
from torch import Tensor

from aux_tasks.base import TaskSetting
from aux_tasks.parts.orders import far_apart
from aux_tasks.transform import TransformTask

# A reversed sequence is as plausible as the sequence itself, so both are one class (Agarwal, Sinha, Ayush).
ORDERS = (
    ((0, 1, 2, 3), (3, 2, 1, 0)),
    ((0, 2, 1, 3), (3, 1, 2, 0)),
    ((0, 3, 2, 1), (1, 2, 3, 0)),
    ((1, 3, 0, 2), (2, 0, 3, 1)),
)
ENUMERABLE = 8  # frames whose orders are all looked at, 20160 of them; of longer stacks, as many random ones


class Permutation(TransformTask):
    """Which of some order classes the frames of a stack were permuted to (Agarwal, Sinha, Ayush; after Misra et al.
    2016, "Shuffle and learn"). Stacks of still frames carry no answer and bound the accuracy from above.

    Four classes of four frames are the study's; others are far apart, as `distant_orders` says.

    Args:
        setting: the run.
        classes: how many, with the unchanged order; by default 4, or the 3 that there are of three frames.
        options: of `TransformTask`.

    Raises:
        ValueError: the stack holds less than three frames, or has fewer orders than that.
    """

    question = (
        "In which order do the frames stand, if 01... is the true one? An order and its reverse count as the same."
    )
    default_weight = 0.1  # at 1 it costs an agent its first 200k steps of Pong: results/pong_settings.md

    def __init__(self, setting: TaskSetting, *, classes: int | None = None, **options: Any) -> None:
        frames = setting.frame_stack
        if frames < 3:
            raise ValueError(f"permutation needs frame_stack=4, got {frames}; any from 3 on would do")
        available = factorial(min(frames, ENUMERABLE)) // 2
        count = min(4, available) if classes is None else classes
        if not 2 <= count <= available:
            raise ValueError(f"classes must be 2 to {available} for stacks of {frames} frames, got {classes}")
        orders = torch.tensor(ORDERS) if (frames, count) == (4, 4) else distant_orders(frames, count)
        self.classes = tuple("".join(map(str, order)) for order in orders[:, 0].tolist())
        super().__init__(setting, **options)
        self.register_buffer("orders", orders, persistent=False)

    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Reorder the frames of sample i to class label[i], forwards or backwards with equal chance."""
        direction = torch.randint(2, label.shape, generator=self.generator, device=self.generator.device)
        order = self.get_buffer("orders")[label, direction]  # (B, frame_stack)
        channels = obs.shape[1] // self.frame_stack
        index = (order[:, :, None] * channels + torch.arange(channels, device=obs.device)).flatten(1)  # (B, C)
        pixels = obs.permute(0, 2, 3, 1)  # as they lie in memory: the result keeps the layout that convolutions like
        return pixels.gather(3, index[:, None, None].expand(pixels.shape)).permute(0, 3, 1, 2)


def distant_orders(frames: int, count: int) -> Tensor:
    """Return orders that are far apart and their reverses (count, 2, frames); the first is the identity."""
    if frames <= ENUMERABLE:
        pool = torch.tensor([order for order in permutations(range(frames)) if order[0] < order[-1]])
    else:
        draw = torch.Generator().manual_seed(0)
        pool = torch.rand(factorial(ENUMERABLE) // 2, frames, generator=draw).argsort(1)
        pool[0] = torch.arange(frames)
    chosen = far_apart(pool, count, either_way=True)
    return torch.stack([chosen, chosen.flip(1)], dim=1)
