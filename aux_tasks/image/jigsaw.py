"""Jigsaw puzzles: in which order were the tiles of the image laid out?"""

import math

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.mlp import mlp
from aux_tasks.parts.orders import far_apart
from aux_tasks.parts.patches import (
    PatchGrid,
    classify_valid,
    normalize,
    resize,
    shift_colours,
    some_gray,
    textured,
)
from encoders import Encoder
from harness.checks import check_least, check_within
from replay import Batch

CANDIDATES = 10_000  # random permutations to choose the set from: all there are of 2 x 2 tiles


class Jigsaw(AuxTask):
    """Cross-entropy on which permutation of a fixed set the tiles of an image were laid out in (Noroozi and Favaro
    2016, "Unsupervised learning of visual representations by solving jigsaw puzzles"). Of K, chance is 1 / K.

    Each tile is encoded alone, once, resized to the encoder's input; its features are then laid out in `puzzles`
    orders, so that no tile's position gives the label away. Permutations of the set differ in as many positions as can
    be found, so that two tiles that look alike leave the answer clear.

    Guards against answers without content: gaps of random width between tiles, which lines do not cross; mean and
    contrast of each tile are normalised, into the range of pixels (mean 127.5); some colour images are turned gray, and
    in the others each tile's colours are shifted against each other, which hides chromatic aberration. Images with
    fewer than two tiles of some content are left out of loss and metrics.

    Args:
        setting: the run.
        cells: tiles along each axis; 2 suits small images.
        permutations: K.
        permutation_seed: of the set, which is kept with the weights.
        puzzles: per image.
        embedding_dim: size of a tile's embedding in the head.
        hidden: width of the head's hidden layer.
        patch_ratio: side of a tile over that of its cell.
        gray: share of colour images turned gray.
        colour_jitter: pixels by which each colour of a tile moves at most.

    Raises:
        ValueError: an option is out of range, or the observation is too small.
    """

    permutations: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        cells: int = 3,
        permutations: int = 30,
        permutation_seed: int = 0,
        puzzles: int = 8,
        embedding_dim: int = 64,
        hidden: int = 256,
        patch_ratio: float = 0.75,
        gray: float = 0.3,
        colour_jitter: int = 2,
    ) -> None:
        super().__init__(setting)
        check_least(2, cells=cells)
        most = min(CANDIDATES // 10, math.factorial(cells**2))
        if not 2 <= permutations <= most:
            raise ValueError(f"permutations of {cells}x{cells} tiles must be 2 to {most}, got {permutations}")
        check_least(1, puzzles=puzzles, embedding_dim=embedding_dim)
        check_least(0, colour_jitter=colour_jitter)
        check_within("(0, 1]", patch_ratio=patch_ratio)
        check_within("[0, 1]", gray=gray)
        self.frame_stack, self.shape = setting.frame_stack, setting.obs_shape[1:]
        self.grid, self.puzzles = PatchGrid(self.shape, cells, patch_ratio), puzzles
        self.gray, self.colour_jitter = gray, colour_jitter
        self.register_buffer("permutations", distant_permutations(permutations, cells**2, permutation_seed))
        self.tile = nn.Sequential(nn.Linear(setting.feature_dim, embedding_dim), nn.ReLU())
        self.head = mlp(cells**2 * embedding_dim, hidden, permutations)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,), mean over the puzzles of an image."""
        tiles = self._tiles(batch.obs)
        label = self._labels(len(tiles), self.puzzles)
        return classify_valid(self._logits(tiles, label, encoder), label, textured(tiles).sum(1) > 1)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return eight puzzles, their solutions, and the solutions by the predicted permutations."""
        tiles = self._tiles(batch.obs[:8])
        label = self._labels(len(tiles), 1)
        predicted = self._logits(tiles, label, encoder)[:, 0].argmax(1)
        laid = self.lay_out(normalize(tiles), label)[:, 0]  # (8, T, C, h, w)
        said, right = ([str(i) for i in numbers.tolist()] for numbers in (predicted, label[:, 0]))
        positions = self.permutations[predicted].argsort(1)  # where each tile of the picture was laid
        solved = laid[torch.arange(len(laid), device=laid.device)[:, None], positions]
        shown = {"puzzle": laid, "solution": normalize(tiles), "predicted": solved}
        question = f"In which of {len(self.permutations)} orders were the tiles laid out?"
        return Examples(question, {name: self.grid.join(pixels) for name, pixels in shown.items()}, said, right)

    def lay_out(self, tiles: Tensor, label: Tensor) -> Tensor:
        """Return tiles (B, T, ...) as puzzles (B, P, T, ...): p has tile permutations[label[b, p], t] at position t."""
        sample = torch.arange(len(tiles), device=tiles.device)[:, None, None]
        return tiles[sample, self.permutations[label]]

    def _tiles(self, obs: Tensor) -> Tensor:
        tiles = self.grid.cut(obs, self.generator)
        if tiles.shape[2] != 3 * self.frame_stack:
            return tiles
        moved, frames = shift_colours(tiles, self.colour_jitter, self.generator), tiles.shape[1] * self.frame_stack
        return some_gray(moved.flatten(1, 2), frames, self.gray, self.generator).view_as(tiles)

    def _labels(self, batch: int, puzzles: int) -> Tensor:
        count, device = len(self.permutations), self.generator.device
        return torch.randint(count, (batch, puzzles), generator=self.generator, device=device)

    def _logits(self, tiles: Tensor, label: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (B, P, K) of tiles (B, T, C, h, w) laid out in the permutations `label` (B, P)."""
        features = self.tile(encoder(resize(normalize(tiles), self.shape)))
        features = features.reshape(*tiles.shape[:2], -1)
        return self.head(self.lay_out(features, label).flatten(2))  # type: ignore[no-any-return]


def distant_permutations(count: int, length: int, seed: int) -> Tensor:
    """Return permutations (count, length) that are far apart, chosen among random ones."""
    draw = torch.Generator().manual_seed(seed)
    return far_apart(torch.rand(CANDIDATES, length, generator=draw).argsort(1), count)
