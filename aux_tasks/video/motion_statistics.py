"""Motion and appearance statistics: where a clip moves most, in which direction, and in which colour."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, over_valid
from aux_tasks.parts.clips import camera_path, contrast, observations
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
LEVELS = 8  # of gray; in colour, two of each channel
SINGULAR = 1.0  # gray levels squared: added to the structure tensor, where a flat cell has none


class MotionStatistics(AuxTask):
    """Which cell of a grid moves most in a clip, in which of eight directions, and its dominant colour, mean of three
    cross-entropies (Wang et al. 2019, "Self-supervised spatio-temporal representation learning for videos by predicting
    motion and appearance statistics").

    The features of some observations, standardised by `contrast`, are concatenated over time. Motion is the mean change
    of the pixels of a cell from frame to frame, its direction that of the cell's flow (Lucas and Kanade 1981), its
    colour the fullest of eight bins in the last frame. The paper regresses these numbers, of three patterns of cells,
    from the flow's boundaries; here they are classes of one grid, and clips of a moving camera are left out, as are
    those in which hardly anything moves.

    `accuracy` and `chance`, always naming the most frequent class of the batch, are means over the three questions.

    Args:
        setting: the run.
        frames: observations that are read of a clip.
        stride: from one of them to the next.
        cells: on a side of the grid.
        motion_floor: the least mean change in the cell, gray levels a step.
        hidden: width of the head.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        frames: int = 4,
        stride: int = 1,
        cells: int = 4,
        motion_floor: float = 1.0,
        hidden: int = 256,
    ) -> None:
        super().__init__(setting)
        check_least(2, frames=frames)
        check_least(1, stride=stride, hidden=hidden)
        check_least(0, motion_floor=motion_floor)
        channels, *sides = setting.obs_shape
        if not 2 <= cells <= min(sides) // 4:
            raise ValueError(f"cells must be 2 to {min(sides) // 4}, of 4 pixels at least, got {cells}")
        self.frames, self.stride, self.clip_length = frames, stride, (frames - 1) * stride + 1
        self.cells, self.motion_floor = cells, motion_floor
        self.newest = channels // setting.frame_stack  # channels of a frame
        self.classes = {"region": cells**2, "direction": len(DIRECTIONS), "colour": LEVELS}
        self.head = nn.Sequential(
            nn.Linear(frames * setting.feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, sum(self.classes.values()))
        )

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the mean cross-entropy (B,)."""
        clip, inside = observations(batch, self.frames, self.stride)
        labels, moving = self.statistics(clip)
        valid = inside[:, -1] * moving
        losses, hits, guesses = [], {}, []
        for (name, label), logits in zip(labels.items(), self._logits(clip, valid, encoder), strict=True):
            losses.append(F.cross_entropy(logits, label, reduction="none"))
            hits[name] = over_valid((logits.detach().argmax(1) == label).float(), valid).mean()
            counts = (F.one_hot(label, logits.shape[1]) * valid[:, None]).sum(0)
            guesses.append(counts.amax() / valid.sum().clamp_min(1))
        accuracy, chance = (torch.stack(list(each)).mean() for each in (hits.values(), guesses))
        metrics = {"accuracy": accuracy, "chance": chance, "valid": valid.mean()}
        metrics |= {f"accuracy_{name}": share for name, share in hits.items()}
        return AuxOutput(over_valid(torch.stack(losses).mean(0), valid), metrics)

    @torch.no_grad()
    def statistics(self, clip: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the classes (B,) of clips (B, T, C, H, W) by name, and 1 in (B,) where something moves before a still
        camera.
        """
        colours = clip[:, :, -self.newest :].float()
        frames = colours.mean(2)
        after, before = frames[:, 1:], frames[:, :-1]
        motion, region = self._pool((after - before).abs().mean(1)).max(1)
        down, right = torch.gradient((after + before) / 2, dim=(2, 3))
        change = after - before
        products = (right * right, right * down, down * down, right * change, down * change)
        xx, xy, yy, xt, yt = (self._pool(each.mean(1)).gather(1, region[:, None])[:, 0] for each in products)
        xx, yy = xx + SINGULAR, yy + SINGULAR
        angle = torch.atan2(xy * xt - xx * yt, xy * yt - yy * xt)  # of the flow; the determinant is positive
        eighth = 2 * torch.pi / len(DIRECTIONS)
        direction = (angle / eighth).round().long() % len(DIRECTIONS)
        shares = torch.stack([self._pool(bin) for bin in self._bins(colours[:, -1]).unbind(1)], dim=1)
        colour = shares.gather(2, region[:, None, None].expand(-1, LEVELS, -1))[..., 0].argmax(1)
        still = (camera_path(frames) == 0).all(2).all(1)
        return {"region": region, "direction": direction, "colour": colour}, still * (motion >= self.motion_floor)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return eight clips, the observations side by side, with the head's and the right answers."""
        clip, inside = (each[:8] for each in observations(batch, self.frames, self.stride))
        labels, moving = self.statistics(clip)
        said = [logits.argmax(1) for logits in self._logits(clip, inside[:, -1] * moving, encoder)]
        shown = {f"moment {t + 1}": pixels for t, pixels in enumerate(clip.unbind(1))}
        question = f"Which of the {self.cells} x {self.cells} cells moves most, where to, and in which colour (0 to 7)?"
        return Examples(question, shown, self._told(said), self._told(list(labels.values())))

    def _told(self, classes: list[Tensor]) -> list[str]:
        rows = zip(*(each.tolist() for each in classes), strict=True)
        return [f"row {r // self.cells + 1}, column {r % self.cells + 1}, {DIRECTIONS[d]}, {c}" for r, d, c in rows]

    def _pool(self, image: Tensor) -> Tensor:
        """The means (B, cells^2) of images (B, H, W) over the cells."""
        return F.adaptive_avg_pool2d(image[:, None], self.cells).flatten(1)

    def _bins(self, frame: Tensor) -> Tensor:
        """Frames (B, C, H, W) as 1 in the bin (B, LEVELS, H, W) of each pixel's colour."""
        if self.newest == 3:
            bits = (frame >= 128).long()
            index = bits[:, 0] * 4 + bits[:, 1] * 2 + bits[:, 2]
        else:
            index = (frame.mean(1) * LEVELS / 256).long()
        return F.one_hot(index, LEVELS).movedim(3, 1).float()

    def _logits(self, clip: Tensor, valid: Tensor, encoder: Encoder) -> tuple[Tensor, ...]:
        features = encoder(clip.flatten(0, 1)).view(len(clip), self.frames, -1)
        logits = self.head(contrast(features, valid).flatten(1)).float()
        return logits.split(list(self.classes.values()), dim=1)  # type: ignore[no-any-return]
