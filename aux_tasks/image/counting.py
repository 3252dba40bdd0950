"""Counting: the counts of an image equal the sum over its tiles."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.patches import PatchGrid, resizing, some_gray
from aux_tasks.views import matches
from encoders import Encoder
from harness.checks import check_above, check_least, check_within
from replay import Batch

SAMPLERS = ("area", "bilinear", "bicubic")
FIRST_COUNTS = 0.1  # scale of the first weights: larger counts, far above M, fall to zero at once and most stay there


class Counting(AuxTask):
    """|c(D x) - sum_j c(T_j x)|^2 + max(0, M - |c(D y) - sum_j c(T_j x)|^2) for counts c >= 0, D to half the size, the
    four quarters T_j, and another image y, the next of the batch (Noroozi et al. 2017, "Representation learning by
    learning to count"). All are resized to the encoder's input.

    The second term forbids counts of zero, whose loss is M: `error_ratio` is the loss over M. `accuracy` is the share
    of images whose tiles count closest to their own D x among the batch's, by chance 1 / B; `active_counts` the share
    of counts above 0 anywhere in the batch.

    Guards against telling D x from the tiles by their resolution: D smooths each image by a random kernel, and most
    colour images are turned gray. The image x is a window at a random position.

    Args:
        setting: the run.
        counts: number of things to count.
        margin: M.
        window: side of the window over that of the image.
        gray: share of colour images turned gray.

    Raises:
        ValueError: an option is out of range, or the observation is too small.
    """

    def __init__(
        self, setting: TaskSetting, *, counts: int = 64, margin: float = 10.0, window: float = 0.9, gray: float = 0.67
    ) -> None:
        super().__init__(setting)
        check_least(1, counts=counts)
        check_above(0, margin=margin)
        check_within("(0, 1]", window=window)
        check_within("[0, 1]", gray=gray)
        self.frame_stack, self.margin, self.gray = setting.frame_stack, margin, gray
        shape = setting.obs_shape[1:]
        self.grid = PatchGrid(shape, 1, window)
        self.tile = [side // 2 for side in self.grid.patch]
        for name, half, size in zip(("rows", "columns"), self.tile, shape, strict=True):
            down = torch.stack([resizing((2 * half, half, size), mode) for mode in SAMPLERS])
            self.register_buffer(f"down_{name}", down, persistent=False)
            self.register_buffer(f"up_{name}", resizing((half, size)), persistent=False)
        count = nn.Linear(setting.feature_dim, counts)
        nn.init.zeros_(count.bias)
        with torch.no_grad():
            count.weight *= FIRST_COUNTS
        self.count = nn.Sequential(count, nn.ReLU())

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the loss (B,); its trivial value is M."""
        whole, parts = self._counts(self._views(batch.obs), encoder)
        same, other = (whole - parts).square().sum(1), (whole.roll(-1, 0) - parts).square().sum(1)
        loss = same + F.relu(self.margin - other)
        found = classify(-torch.cdist(parts.detach(), whole.detach()), torch.arange(len(parts), device=parts.device))
        active = (whole > 0).any(0).float().mean()
        return AuxOutput(
            loss, found.metrics | {"error_ratio": loss.detach().mean() / self.margin, "active_counts": active}
        )

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight images at half size, their quarters, and the image that counts closest to these."""
        views = self._views(batch.obs)
        whole, parts = self._counts(views, encoder)
        chosen = torch.cdist(parts[:8], whole).argmin(1)
        images, tiles = views[:, 0].to(torch.uint8), views[: len(chosen), 1:].to(torch.uint8).unbind(1)
        quarters = {f"quarter {i + 1}": tile for i, tile in enumerate(tiles)}
        shown = {"picture": images[: len(chosen)], **quarters, "chosen": images[chosen]}
        question = f"Which of the {len(images)} pictures in the batch shows as much as the four quarters together?"
        return matches(question, shown, chosen)

    def _views(self, obs: Tensor) -> Tensor:
        """Return pixels (B, 5, C, H, W) in [0, 255]: D x, then T_1 x to T_4 x."""
        obs = some_gray(obs, self.frame_stack, self.gray, self.generator)
        height, width = self.tile
        window = self.grid.cut(obs, self.generator)[..., : 2 * height, : 2 * width].float()
        kernel = torch.randint(len(SAMPLERS), (len(obs), 1, 1), generator=self.generator, device=obs.device)
        down_rows, down_columns = self.get_buffer("down_rows")[kernel], self.get_buffer("down_columns")[kernel]
        whole = (down_rows @ window @ down_columns.mT).clamp(0, 255)  # bicubic kernels overshoot
        tiles = torch.cat([tile for half in window.chunk(2, dim=3) for tile in half.chunk(2, dim=4)], dim=1)
        return torch.cat([whole, self.get_buffer("up_rows") @ tiles @ self.get_buffer("up_columns").mT], dim=1)

    def _counts(self, views: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Return the counts (B, K) of D x, and the sums of those of the tiles (B, K)."""
        counts = self.count(encoder(views.flatten(0, 1))).float().reshape(*views.shape[:2], -1)
        return counts[:, 0], counts[:, 1:].sum(1)
