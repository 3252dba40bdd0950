"""Shuffle and learn: does the middle observation lie between the other two in time?"""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.clips import at_times, change, contrast, draw_times, observations, score
from aux_tasks.parts.mlp import mlp
from aux_tasks.parts.orders import verifications
from encoders import Encoder
from harness.checks import check_least, check_within
from replay import Batch

MIDDLES = (2, 0, 4)  # of a < b < c < d < e: only c lies between b and d


class ShuffleLearn(AuxTask):
    """Whether three observations are in order (Misra et al. 2016, "Shuffle and learn: unsupervised learning using
    temporal order verification").

    Of five times a < b < c < d < e, (b, c, d) is in order, (b, a, d) and (b, e, d) are not. Half of the samples run
    backwards, which is as much in order. Each sample asks all three, so that the middle alone decides:

        loss = positives * CE(b, c, d) + (1 - positives) * (CE(b, a, d) + CE(b, e, d)) / 2

    `accuracy` is the balanced one, 0.5 by chance. Left out are samples whose episode ends before e, where b, c and d
    hardly move, and where a or e is nearly c, as in cyclic motion. The head reads features standardised by `contrast`
    and has, unlike the paper's, a hidden layer: a linear one scores each observation by itself.

    Args:
        setting: the run.
        clip_length: observations that the five are drawn from.
        gap: the least distance between neighbours; by default `frame_stack`, so that no two of them share a frame.
        positives: weight of the triple in order; the paper finds its 0.25 best.
        motion_floor: the least mean change of a pixel from b over c to d, in gray levels a step.
        swap_floor: the least change from c to a and to e, in parts of that motion.
        hidden: width of the head's hidden layer.

    Raises:
        ValueError: an option is out of range, or five observations do not fit into the clip.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        clip_length: int = 17,
        gap: int | None = None,
        positives: float = 0.25,
        motion_floor: float = 0.05,
        swap_floor: float = 0.5,
        hidden: int = 256,
    ) -> None:
        super().__init__(setting)
        self.gap = setting.frame_stack if gap is None else gap
        check_least(1, gap=self.gap)
        if clip_length <= 4 * self.gap:
            raise ValueError(
                f"five observations {self.gap} apart need clip_length={4 * self.gap + 1}, got {clip_length}"
            )
        check_within("(0, 1)", positives=positives)
        check_least(0, motion_floor=motion_floor, swap_floor=swap_floor)
        self.clip_length, self.motion_floor, self.swap_floor = clip_length, motion_floor, swap_floor
        self.positives = positives
        self.head = mlp(3 * setting.feature_dim, hidden, 2)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the weighted cross-entropy (B,) of the three questions."""
        clip, inside = observations(batch, self.clip_length)
        times, backwards = self._draw(len(clip))
        frames = at_times(clip, times)
        valid = (at_times(inside, times[:, 4]) > 0) & self.answerable(frames)
        logits = self._answers(frames, backwards, valid, encoder)
        label = (torch.arange(3, device=clip.device) == 0).long().expand(len(clip), 3)
        loss = classify(logits.flatten(0, 1), label.flatten()).loss.view_as(label)
        hits = (logits.argmax(2) == label).float()
        loss, accuracy = (
            in_order * answers[:, 0] + (1 - in_order) * answers[:, 1:].mean(1)
            for answers, in_order in ((loss, self.positives), (hits, 0.5))
        )
        return score(loss, accuracy, valid, 0.5)

    def answerable(self, frames: Tensor) -> Tensor:
        """Return a mask (B,) of the frames (B, 5, C, H, W) in which b, c and d move and neither a nor e is nearly c."""
        motion = change(frames[:, 1:4]).mean(1)
        swap = change(frames, stride=2)[:, ::2].amin(1)  # from a to c, and from c to e
        return (motion >= self.motion_floor) & (swap >= self.swap_floor * motion)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return a triple of each of the first eight clips, side by side."""
        clip = observations(batch, self.clip_length)[0][:8]
        times, backwards = self._draw(len(clip))
        frames = at_times(clip, times)
        asked = torch.arange(len(clip), device=clip.device) % 3
        answers = self._answers(frames, backwards, self.answerable(frames), encoder)
        moments = at_times(triples(frames, backwards), asked)
        return verifications(moments, at_times(answers, asked).argmax(1), asked == 0)

    def _draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Return five times (B, 5), and whether the sample runs backwards (B,)."""
        times = draw_times(size, 5, self.clip_length, self.gap, self.generator)
        return times, torch.randint(2, (size,), generator=self.generator, device=self.generator.device) > 0

    def _answers(self, frames: Tensor, backwards: Tensor, valid: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (B, 3, 2) of the three questions."""
        features = encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.head(triples(contrast(features, valid), backwards).flatten(2))  # type: ignore[no-any-return]


def triples(five: Tensor, backwards: Tensor) -> Tensor:
    """Return triples (B, 3, 3, ...), with c, a and e in the middle, of the values (B, 5, ...) at the five times."""
    ends = five[:, 1::2]
    ends = torch.where(backwards.view(-1, *[1] * (five.dim() - 1)), ends.flip(1), ends)
    return torch.stack([torch.stack([ends[:, 0], five[:, middle], ends[:, 1]], dim=1) for middle in MIDDLES], dim=1)
