"""The transformer: tokens on their grid, their positions, and that all of them hear of each other."""

import pytest
import torch
from encoder_help import make, pixels

from encoders.vit import WIDTH, positional_encoding


@pytest.mark.parametrize(
    ("shape", "grid"), [((4, 84, 84), (11, 11)), ((1, 28, 28), (4, 4)), ((3, 17, 40), (3, 5)), ((2, 8, 5), (1, 1))]
)
def test_maps_are_the_tokens_of_eight_by_eight_pixels_and_features_their_mean(shape, grid):
    encoder, obs = make("vit", shape, layer_norm=False), pixels(2, *shape)
    maps = encoder.maps(obs)
    assert maps.shape == (2, WIDTH, *grid)
    torch.testing.assert_close(encoder(obs), maps.mean((2, 3)))


def test_a_token_stands_where_its_patch_is_and_hears_of_every_other():
    """Without blocks, a changed patch changes its own token alone."""
    encoder, obs = make("vit", (2, 24, 40), layer_norm=False), pixels(1, 2, 24, 40)
    changed = obs.clone()
    changed[:, :, 8:16, 24:32] ^= 255
    assert ((encoder.maps(changed) - encoder.maps(obs)).abs().sum((0, 1)) > 1e-4).all()
    encoder.trunk[0].blocks = torch.nn.Identity()
    moved = (encoder.maps(changed) - encoder.maps(obs)).abs().sum((0, 1)) > 1e-4
    assert moved.nonzero().tolist() == [[1, 3]]


def test_places_tell_every_cell_and_matter():
    grid = positional_encoding(torch.zeros(1, WIDTH, 11, 9)).flatten(1).T
    assert grid.shape == (99, WIDTH)
    assert float(torch.cdist(grid, grid).fill_diagonal_(torch.inf).min()) > 0.5
    rows, columns = positional_encoding(torch.zeros(1, WIDTH, 11, 9)).split(WIDTH // 2)
    assert torch.equal(rows[:, :, 0], rows[:, :, 8])
    assert torch.equal(columns[:, 0], columns[:, 10])
    encoder, obs = make("vit", (1, 16, 16), layer_norm=False), pixels(1, 1, 16, 16)
    assert (encoder(obs) - encoder(obs.roll(8, 3))).abs().max() > 1e-4
