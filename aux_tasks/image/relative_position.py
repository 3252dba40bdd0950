"""Relative patch position: where does this patch lie, seen from that one?"""

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.mlp import mlp
from aux_tasks.parts.patches import (
    PatchGrid,
    classify_valid,
    drop_colours,
    normalize,
    resizing,
    textured,
)
from encoders import Encoder
from harness.checks import check_within
from replay import Batch

DIRECTIONS = ("top left", "top", "top right", "left", "right", "bottom left", "bottom", "bottom right")
CENTRE = 4  # of a 3 x 3 grid; the other cells follow each other in the order of the directions
DETAILS = 4  # a coarse patch keeps 1/4, 2/4 or 3/4 of its lines and columns


class RelativePosition(AuxTask):
    """Cross-entropy on which of eight directions leads from one patch to the other, for the centre of a 3 x 3 grid and
    each of its neighbours, in both orders (Doersch et al. 2015, "Unsupervised visual representation learning by context
    prediction"). Chance is 1 / 8. Each patch is encoded alone, resized to the encoder's input.

    Guards against answers without content: a patch lies at a random position in its cell, which leaves gaps that lines
    do not cross; one colour of three is kept, which hides chromatic aberration; mean and contrast of each patch are
    normalised, into the range of pixels (mean 127.5); some patches have a low resolution. Images without content in the
    centre, or around it, are left out of loss and metrics.

    Args:
        setting: the run.
        hidden: width of the head's hidden layer.
        patch_ratio: side of a patch over that of its cell.
        coarse: share of patches at a lower resolution.
        keep_one_colour: of each patch, where frames have three.

    Raises:
        ValueError: `patch_ratio` or `coarse` is out of range, or the observation is too small.
    """

    def __init__(
        self,
        setting: TaskSetting,
        *,
        hidden: int = 256,
        patch_ratio: float = 0.75,
        coarse: float = 0.33,
        keep_one_colour: bool = True,
    ) -> None:
        super().__init__(setting)
        check_within("(0, 1]", patch_ratio=patch_ratio)
        check_within("[0, 1]", coarse=coarse)
        channels, *shape = setting.obs_shape
        self.grid, self.coarse = PatchGrid(shape, 3, patch_ratio), coarse
        self.keep_one_colour = keep_one_colour and channels == 3 * setting.frame_stack
        for name, side, size in zip(("rows", "columns"), self.grid.patch, shape, strict=True):
            lost = [(side, max(1, side * k // DETAILS), size) for k in range(1, DETAILS)]
            matrices = torch.stack([resizing(sizes) for sizes in (*lost, (side, size))])
            self.register_buffer(name, matrices, persistent=False)
        self.head = mlp(2 * setting.feature_dim, hidden, len(DIRECTIONS))

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,), mean over the 16 pairs of an image."""
        patches = self.grid.cut(batch.obs, self.generator)
        content = textured(patches)
        valid = content[:, CENTRE] & (content.sum(1) > 1)
        logits = self._logits(self._inputs(patches), encoder)
        direction = torch.arange(len(DIRECTIONS), device=logits.device)
        label = torch.cat([direction, direction.flip(0)])
        return classify_valid(logits, label.expand(len(logits), -1), valid)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the centre of one observation beside each of its neighbours, as the encoder sees them."""
        inputs = self._inputs(self.grid.cut(batch.obs[:1], self.generator))
        predicted = self._logits(inputs, encoder)[0, : len(DIRECTIONS)].argmax(1).tolist()
        patches = inputs[0].to(torch.uint8)
        neighbours = torch.cat([patches[:CENTRE], patches[CENTRE + 1 :]])
        whole, centre = batch.obs[0].expand_as(neighbours), patches[CENTRE].expand_as(neighbours)
        shown = {"picture": whole, "centre": centre, "neighbour": neighbours}
        question = "Where is the neighbour, seen from the centre?"
        return Examples(question, shown, [DIRECTIONS[i] for i in predicted], list(DIRECTIONS))

    def _inputs(self, patches: Tensor) -> Tensor:
        """Return patches (B, 9, C, h, w) as the encoder sees them, (B, 9, C, H, W) in [0, 255]."""
        patches, (batch, count) = normalize(patches), patches.shape[:2]
        if self.keep_one_colour:
            patches = drop_colours(patches, self.generator)
        device, full = patches.device, DETAILS - 1
        lost = torch.randint(full, (batch, count), generator=self.generator, device=device)
        whole = torch.rand(batch, count, generator=self.generator, device=device) >= self.coarse
        detail = torch.where(whole, full, lost)[:, :, None]
        rows, columns = self.get_buffer("rows")[detail], self.get_buffer("columns")[detail]
        return rows @ patches @ columns.mT

    def _logits(self, inputs: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (B, 16, 8): first from the centre to each neighbour, then back."""
        features = encoder(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        neighbours = torch.cat([features[:, :CENTRE], features[:, CENTRE + 1 :]], dim=1)
        centre = features[:, CENTRE, None].expand_as(neighbours)
        there, back = torch.cat([centre, neighbours], dim=2), torch.cat([neighbours, centre], dim=2)
        return self.head(torch.cat([there, back], dim=1))  # type: ignore[no-any-return]
