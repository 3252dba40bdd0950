"""A small vision transformer for game frames."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH, WIDTH, DEPTH, HEADS = 8, 96, 3, 4


def vit(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Patches of 8x8 pixels as tokens of a pre-norm transformer, their mean as features (Dosovitskiy et al. 2021, "An
    image is worth 16x16 words").

    Feature maps are the tokens on their grid. Fixed positions in sines and cosines fit every size of observation.
    """
    return nn.Sequential(Tokens(channels)), nn.Sequential(nn.Unflatten(1, (WIDTH, -1)), _Mean())


class Tokens(nn.Module):
    """Pixels (B, C, H, W) to tokens on a grid (B, WIDTH, H', W')."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(block() for _ in range(DEPTH)))

    def forward(self, pixels: Tensor) -> Tensor:
        """All tokens; each attends to all others."""
        tokens = self.embed(pixels)
        blended = self.blocks(tokens.flatten(2).mT)  # (B, H' * W', WIDTH)
        return blended.mT.unflatten(2, tokens.shape[2:])  # type: ignore[no-any-return]

    def visible(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """The tokens (B, K, WIDTH) of the patches `shown` (B, K), which attend only to each other."""
        tokens = self.embed(pixels).flatten(2).mT
        return self.blocks(tokens.gather(1, shown[..., None].expand(-1, -1, WIDTH)))  # type: ignore[no-any-return]

    def embed(self, pixels: Tensor) -> Tensor:
        """Each patch by itself, and its position (B, WIDTH, H', W')."""
        maps = self.patches(padded(pixels))
        return maps + positional_encoding(maps)  # type: ignore[no-any-return]


def block() -> nn.TransformerEncoderLayer:
    """A pre-norm layer on tokens (B, N, WIDTH)."""
    return nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def padded(pixels: Tensor) -> Tensor:
    """Zeros below and on the right, so that no row and column is left unread."""
    down, right = (-size % PATCH for size in pixels.shape[2:])
    return F.pad(pixels, (0, right, 0, down))


def positional_encoding(maps: Tensor) -> Tensor:
    """(WIDTH, H', W') of the positions of maps (B, WIDTH, H', W'), in sinusoids of growing length."""
    count = WIDTH // 4
    rates = torch.exp(-math.log(10_000) * torch.arange(count, device=maps.device) / count)
    return sinusoids(rates, maps.shape[2], maps.shape[3])


def sinusoids(rates: Tensor, height: int, width: int) -> Tensor:
    """(4 * R, height, width): half of the channels encode the row, half the column, as sinusoids (Vaswani et al. 2017,
    "Attention is all you need", section 3.5). Their products tell how far two cells are apart.

    Args:
        rates: (R,) radians from a cell to the next.
        height, width: cells.
    """
    row, column = (rates[:, None] * torch.arange(size, device=rates.device) for size in (height, width))
    rows, columns = row[:, :, None].expand(-1, -1, width), column[:, None].expand(-1, height, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])


class _Mean(nn.Module):
    """The mean of the tokens (B, WIDTH, N)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(2)
