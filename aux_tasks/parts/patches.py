"""Patches of images: cut out, freed of what would tell their position without a look at the content."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, over_valid
from encoders.augment import luma, random_shift

FLAT = 1.0  # gray levels: a smaller standard deviation is no content, and is not stretched
MIDDLE, SPREAD = 127.5, 127.5 / 3  # gray levels: mean and standard deviation of a normalised patch
NOISE = 0.01  # of a dropped colour, standard deviations of the one that stays


class PatchGrid:
    """One patch at a random position in each of `cells` x `cells` cells of an image: the room around it is gap and
    jitter.

    Args:
        shape: (H, W) of the image.
        cells: along each axis; patches are in row-major order.
        patch_ratio: side of a patch over that of its cell, in (0, 1].
        overlap: each cell shares half its side with the next; those two apart never overlap.

    Raises:
        ValueError: patches would be smaller than 3 x 3.
    """

    def __init__(self, shape: Sequence[int], cells: int, patch_ratio: float, *, overlap: bool = False) -> None:
        self.shape, self.cells = tuple(shape), cells
        self.cell = [2 * size // (cells + 1) if overlap else size // cells for size in shape]
        self.patch = [round(patch_ratio * side) for side in self.cell]
        if min(self.patch) < 3:
            height, width = shape
            raise ValueError(f"{cells}x{cells} patches of {height}x{width} pixels are smaller than 3x3: use fewer")

    def cut(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return patches (B, cells * cells, C, h, w) of pixels (B, C, H, W) of any type; all channels are cut alike."""
        batch, channels, height, width = pixels.shape
        assert (height, width) == self.shape, f"expected {self.shape}, got {(height, width)}"
        cell = torch.arange(self.cells**2, device=pixels.device)
        lines = []
        for axis, position in enumerate((cell // self.cells, cell % self.cells)):
            room, side = self.shape[axis] - self.cell[axis], self.patch[axis]
            start = position * room // max(1, self.cells - 1)
            slack = self.cell[axis] - side + 1
            start = start + torch.randint(slack, (batch, len(cell)), generator=generator, device=pixels.device)
            lines.append(start[:, :, None] + torch.arange(side, device=pixels.device))
        sample = torch.arange(batch, device=pixels.device)[:, None, None]
        index = (sample * height + lines[0])[..., None] * width + lines[1][:, :, None]  # (B, N, h, w)
        chosen = pixels.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, index.flatten())
        return chosen.view(*index.shape, channels).permute(0, 1, 4, 2, 3)

    def join(self, patches: Tensor) -> Tensor:
        """Return uint8 pictures (B, C, H, W) of patches (B, cells * cells, C, h, w), stretched to the image."""
        height, width = patches.shape[3:]
        grid = patches.float().reshape(len(patches), self.cells, self.cells, -1, height, width)
        joined = grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, self.cells * height, self.cells * width)
        return F.interpolate(joined, self.shape).to(torch.uint8)


def crop(images: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Return windows (B, C, *size) of images (B, C, H, W); their top left corners are `corner` (B, 2)."""
    device = images.device
    rows = corner[:, 0, None] + torch.arange(size[0], device=device)
    columns = corner[:, 1, None] + torch.arange(size[1], device=device)
    sample = torch.arange(len(images), device=device)[:, None, None]
    return images.movedim(1, -1)[sample, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def corner_of(index: Tensor, width: int) -> Tensor:
    """Return the rows and columns (B, 2) of flat indices (B,) into a map of that width, as `crop` reads them."""
    return torch.stack([index // width, index % width], dim=1)


def normalize(patches: Tensor) -> Tensor:
    """Return float patches (..., h, w), each channel with mean 127.5 and standard deviation 42.5, clamped to [0, 255].

    That is zero mean and unit variance in the range of pixels, which is what an encoder takes.
    """
    pixels = patches.float()
    std, mean = torch.std_mean(pixels, (-2, -1), correction=0, keepdim=True)
    return (MIDDLE + (pixels - mean) * (SPREAD / std.clamp_min(FLAT))).clamp(0, 255)


def textured(patches: Tensor) -> Tensor:
    """Return a mask (B, N) of the patches (B, N, C, h, w) that show anything in some channel."""
    return (patches.float().std((-2, -1), correction=0) >= FLAT).any(2)


def drop_colours(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Keep one random colour of each normalised patch (B, N, frames * 3, h, w); the others become faint noise.

    Lenses shift colours against each other, the more the farther from the centre (Doersch et al. 2015).
    """
    coloured = patches.reshape(*patches.shape[:2], -1, 3, *patches.shape[3:])
    kept = torch.randint(3, (*patches.shape[:2], 1, 1, 1, 1), generator=generator, device=patches.device)
    noise = torch.randn(coloured.shape, generator=generator, device=patches.device)
    colour = torch.arange(3, device=patches.device).view(3, 1, 1)
    return torch.where(colour == kept, coloured, MIDDLE + NOISE * SPREAD * noise).flatten(2, 3)


def shift_colours(patches: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move each colour of each patch (B, N, frames * 3, h, w) by up to `most` pixels; edges repeat.

    That blurs what a lens tells of the position (Noroozi and Favaro 2016), and keeps the colours.
    """
    batch, count, _, *sides = patches.shape
    colours = patches.reshape(batch, count, -1, 3, *sides).transpose(2, 3)
    moved = random_shift(colours.flatten(0, 2), most, generator)
    return moved.view(batch, count, 3, -1, *sides).transpose(2, 3).flatten(2, 3)


def some_gray(obs: Tensor, frame_stack: int, share: float, generator: torch.Generator) -> Tensor:
    """Turn the random `share` of colour observations (B, frames * 3, H, W) gray; gray ones (B, frames, H, W) stay."""
    if obs.shape[1] != 3 * frame_stack:
        return obs
    coloured = obs.reshape(len(obs), -1, 3, *obs.shape[2:])
    gray = luma(obs).round()[:, :, None].to(obs.dtype)
    chosen = torch.rand(len(obs), 1, 1, 1, 1, generator=generator, device=obs.device) < share
    return torch.where(chosen, gray, coloured).flatten(1, 2)


def resize(patches: Tensor, shape: Sequence[int]) -> Tensor:
    """Return patches (B, N, C, h, w) as images (B * N, C, H, W), bilinear."""
    return F.interpolate(patches.flatten(0, 1), tuple(shape), mode="bilinear")


def resizing(sizes: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Return the matrix (sizes[-1], sizes[0]) that resizes a line of pixels to each size in turn, antialiased."""
    matrix = torch.eye(sizes[0])[None, None]
    for size in sizes[1:]:
        antialias = {} if mode == "area" else {"antialias": True}
        matrix = F.interpolate(matrix, (size, sizes[0]), mode=mode, **antialias)
    return matrix[0, 0]


def classify_valid(logits: Tensor, label: Tensor, valid: Tensor) -> AuxOutput:
    """Return the mean cross-entropy (B,) of Q questions on each image, with the accuracy, over the `valid` images.

    Args:
        logits: (B, Q, K).
        label: (B, Q) int64.
        valid: (B,), independent of the labels, so that a blind guess is right in 1 / K.
    """
    loss = F.cross_entropy(logits.float().flatten(0, 1), label.flatten(), reduction="none").view_as(label).mean(1)
    hits = (logits.detach().argmax(2) == label).float().mean(1)
    accuracy = over_valid(hits, valid).mean()
    return AuxOutput(
        over_valid(loss, valid), {"accuracy": accuracy, "chance": torch.full_like(accuracy, 1 / logits.shape[2])}
    )
