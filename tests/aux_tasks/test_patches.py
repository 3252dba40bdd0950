"""Patches against what they were cut from, one at a time."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from aux_help import generator, noise

from aux_tasks.image.patches import (
    PatchGrid,
    check_share,
    classify_valid,
    drop_colours,
    normalize,
    resize,
    resizing,
    shift_colours,
    some_gray,
    textured,
)


def numbered(batch: int, height: int, width: int) -> torch.Tensor:
    """(B, 2, H, W): rows in the first channel, columns in the second."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).expand(height, width)
    return torch.stack([rows, columns]).expand(batch, -1, -1, -1)


@pytest.mark.parametrize(
    ("shape", "cells", "overlap"), [((28, 32), 3, False), ((84, 84), 6, True), ((33, 28), 5, True)]
)
def test_every_patch_is_a_window_inside_its_own_cell_and_uses_all_the_room_there(shape, cells, overlap):
    grid = PatchGrid(shape, cells, 0.8, overlap=overlap)
    patches = grid.cut(numbered(80, *shape), generator())
    assert patches.shape == (80, cells**2, 2, *grid.patch)
    for axis, place in ((0, torch.arange(cells**2) // cells), (1, torch.arange(cells**2) % cells)):
        lines = patches[:, :, axis].movedim(2 + axis, -1)  # (B, N, other, this)
        start, side, cell = lines[:, :, 0, 0], grid.patch[axis], grid.cell[axis]
        assert torch.equal(lines, (start[:, :, None, None] + torch.arange(side)).expand_as(lines))
        for i in range(cells**2):
            first = int(place[i]) * (shape[axis] - cell) // (cells - 1)
            assert set((start[:, i] - first).tolist()) == set(range(cell - side + 1))
    assert not torch.equal(patches[0], patches[1])


def test_batch_and_channels_are_not_mixed():
    pixels = noise(5, 4, 20, 20)
    patches = PatchGrid((20, 20), 2, 1.0).cut(pixels, generator())
    for b in range(5):
        for n, (y, x) in enumerate([(0, 0), (0, 10), (10, 0), (10, 10)]):
            assert torch.equal(patches[b, n], pixels[b, :, y : y + 10, x : x + 10])


@pytest.mark.parametrize("size", [28, 32, 36, 84])
@pytest.mark.parametrize("cells", [4, 5, 6, 7])
def test_overlapping_cells_share_half_with_the_next_and_nothing_with_the_one_after(size, cells):
    grid = PatchGrid((size, size), cells, 1.0, overlap=True)
    starts = grid.cut(numbered(1, size, size), generator())[0, :cells, 1, 0, 0].tolist()
    side = grid.patch[1]
    assert (starts[0], starts[-1] + side) == (0, size)
    for a, b in pairwise(starts):
        assert abs(a + side - b - side / 2) <= 1
    assert all(a + side <= b for a, b in zip(starts, starts[2:], strict=False))


def test_a_normalised_patch_keeps_neither_brightness_nor_contrast():
    patches = noise(4, 3, 2, 9, 7) // 4
    seen = normalize(patches)
    for b in range(4):
        for n in range(3):
            for c in range(2):
                z = (patches[b, n, c].double() - patches[b, n, c].double().mean()) / patches[b, n, c].double().std(
                    correction=0
                )
                torch.testing.assert_close(seen[b, n, c], (127.5 + 42.5 * z).float(), rtol=0, atol=1e-3)
    torch.testing.assert_close(normalize(3 * patches + 17), seen, rtol=0, atol=1e-3)


def test_a_normalised_patch_stays_in_the_range_of_pixels_and_a_flat_one_is_gray():
    spot = torch.zeros(1, 1, 1, 20, 20, dtype=torch.uint8)
    assert torch.equal(normalize(spot), torch.full_like(spot, 1.0, dtype=torch.float32) * 127.5)
    spot[..., 3, 3] = 255
    assert normalize(spot).max() == 255
    assert normalize(spot).min() >= 0
    faint = torch.full((1, 1, 1, 20, 20), 90.0)
    faint[..., ::2] += 1.0  # half a level to either side is not stretched to full contrast
    torch.testing.assert_close(normalize(faint) - 127.5, (faint - 90.5) * 42.5)
    assert textured(torch.cat([spot, faint.byte()], dim=1)).tolist() == [[True, False]]


def test_one_random_colour_stays_and_the_others_are_faint_noise():
    patches = normalize(noise(50, 4, 6, 8, 8))  # two frames of three colours
    seen, stays = drop_colours(patches, generator()).view(50, 4, 2, 3, 8, 8), patches.view(50, 4, 2, 3, 8, 8)
    same = (seen == stays).all(-1).all(-1)  # (B, N, frame, colour)
    assert torch.equal(same.sum(3), torch.ones(50, 4, 2, dtype=torch.long))
    assert torch.equal(same[:, :, 0], same[:, :, 1])
    assert same[:, :, 0].sum((0, 1)).min() > 45  # of 200: each colour has its turn, also within an image
    dropped = seen[~same] - 127.5
    assert abs(float(dropped.std()) - 0.425) < 0.01
    assert abs(float(dropped.mean())) < 0.01


def test_each_colour_of_a_patch_moves_by_itself_and_its_edges_repeat():
    patches = noise(40, 2, 6, 7, 9)  # of two frames
    moved = shift_colours(patches, 2, generator()).view(40, 2, 2, 3, 7, 9)
    wide = F.pad(patches.flatten(0, 1).float(), (2, 2, 2, 2), mode="replicate").view(40, 2, 2, 3, 11, 13)
    seen = [(moved == wide[..., y : y + 7, x : x + 9]).all(-1).all(-1) for y in range(5) for x in range(5)]
    found = torch.stack(seen)  # (25, B, N, frame, colour)
    assert torch.equal(found.sum(0), torch.ones(40, 2, 2, 3, dtype=torch.long))
    assert torch.equal(found[:, :, :, 0], found[:, :, :, 1])
    assert found[:, :, :, 0].sum((1, 2, 3)).min() > 0  # of 240: every way
    ways = found[:, :, :, 0].long().argmax(0)
    assert float((ways[..., 0] == ways[..., 1]).double().mean()) < 0.15


def test_the_share_of_gray_images():
    obs = noise(300, 6, 4, 4)
    seen = some_gray(obs, 2, 0.3, generator()).view(300, 2, 3, 4, 4)
    gray = (seen == seen[:, :, :1]).flatten(1).all(1)
    assert 60 < int(gray.sum()) < 120
    assert torch.equal(seen[~gray], obs.view(300, 2, 3, 4, 4)[~gray])
    r, g, b = obs.view(300, 2, 3, 4, 4)[gray].double().unbind(2)
    torch.testing.assert_close(seen[gray][:, :, 0].double(), 0.299 * r + 0.587 * g + 0.114 * b, rtol=0, atol=0.51)
    assert some_gray(obs, 6, 1.0, generator()) is obs  # six gray frames


def test_patches_are_resized_as_images_are():
    patches = noise(2, 3, 4, 7, 5).float()
    assert torch.equal(
        resize(patches, (28, 20))[3 + 1], F.interpolate(patches[1, 1][None], (28, 20), mode="bilinear")[0]
    )


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_a_resizing_matrix_does_what_interpolation_does(mode):
    images = noise(2, 1, 12, 12).double()
    smooth = {} if mode == "area" else {"antialias": True}
    small = F.interpolate(images, (5, 6), mode=mode, **smooth)
    large = F.interpolate(small, (20, 18), mode=mode, **smooth)
    rows, columns = resizing((12, 5, 20), mode).double(), resizing((12, 6, 18), mode).double()
    torch.testing.assert_close(rows @ images @ columns.T, large, rtol=1e-5, atol=1e-3)


def test_classification_over_valid_images_against_a_loop():
    logits, label = torch.randn(5, 4, 3, generator=generator()), torch.randint(3, (5, 4), generator=generator(1))
    valid = torch.tensor([True, False, True, True, False])
    output = classify_valid(logits, label, valid)
    hits = 0.0
    for b in range(5):
        loss = sum(-float(logits[b, q].softmax(0)[label[b, q]].log()) for q in range(4)) / 4
        assert float(output.loss[b]) == pytest.approx(loss * 5 / 3 if valid[b] else 0, rel=1e-5)
        hits += bool(valid[b]) * sum(int(logits[b, q].argmax()) == int(label[b, q]) for q in range(4))
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / 12)
    assert float(output.metrics["chance"]) == pytest.approx(1 / 3)
    assert not classify_valid(logits, label, torch.zeros(5)).loss.any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"a patch must take a share in \(0, 1\] of its cell's side, got 1.5"):
        PatchGrid((28, 28), 3, 1.5)
    with pytest.raises(ValueError, match="9x9 patches of 20x28 pixels are smaller than 3x3: use fewer"):
        PatchGrid((20, 28), 9, 1.0)
    with pytest.raises(ValueError, match=r"gray must be in \[0, 1\], got -0.1"):
        check_share("gray", -0.1)
