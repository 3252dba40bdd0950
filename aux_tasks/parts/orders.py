"""Orders that are easy to tell apart, and the question whether three moments are in order."""

import torch
from torch import Tensor

from aux_tasks.base import Examples

NAMES = ("shuffled", "in order")
MOMENTS = ("first", "second", "third")


def far_apart(pool: Tensor, count: int, *, either_way: bool = False) -> Tensor:
    """Choose orders (count, L) of a pool (N, L): its first, then the one farthest from all chosen before, and so on.

    Distance is in how many positions two orders differ (Noroozi and Favaro 2016 choose their jigsaw puzzles by it).

    Args:
        pool: orders; where some are equally far, the choice falls on the same one every time.
        count: at most N.
        either_way: an order and its reverse are one.
    """
    chosen, distance = [pool[0]], torch.full((len(pool),), pool.shape[1])
    while len(chosen) < count:
        for order in (chosen[-1], chosen[-1].flip(0)) if either_way else chosen[-1:]:
            distance = distance.minimum((pool != order).sum(1))
        chosen.append(pool[distance.argmax()])
    return torch.stack(chosen)


def verifications(moments: Tensor, said: Tensor, right: Tensor) -> Examples:
    """Return examples of the question whether three moments (K, 3, C, H, W) are in order.

    Args:
        moments: uint8 pixels.
        said, right: (K,) the head's and the right answers, 1 for in order.
    """
    pictures = dict(zip(MOMENTS, moments.unbind(1), strict=True))
    predicted, correct = ([NAMES[int(answer)] for answer in each.tolist()] for each in (said, right))
    return Examples("Are the three moments in order?", pictures, predicted, correct)
