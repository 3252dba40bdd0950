"""Random shift against padding and cropping one sample at a time."""

import itertools
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from encoder_help import generator, pixels

from encoders.augment import color_fields, overlay, random_conv, random_shift


def offsets(shifted: torch.Tensor, obs: torch.Tensor, pad: int, unique: bool = True) -> list[tuple[int, int]]:
    """The crop of the padded sample that each shifted sample equals in all channels: one, if it is unique."""
    height, width = obs.shape[2:]
    found = []
    for sample, result in zip(obs, shifted, strict=True):
        padded = F.pad(sample[None].float(), (pad,) * 4, mode="replicate")[0].to(obs.dtype)
        crops = [
            (dy - pad, dx - pad)
            for dy, dx in itertools.product(range(2 * pad + 1), repeat=2)
            if torch.equal(padded[:, dy : dy + height, dx : dx + width], result)
        ]
        assert len(crops) == 1 or (crops and not unique), f"{len(crops)} crops of the padded sample match"
        found.append(crops[0])
    return found


@pytest.mark.parametrize(("pad", "side"), [(1, 10), (4, 10), (9, 3)])  # 9: of more than the image
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shift_is_a_crop_of_the_sample_padded_by_its_border(pad, side, dtype):
    obs = pixels(7, 3, side, side + 3).to(dtype)
    shifted = random_shift(obs, pad, generator(), num_shifts=3)
    assert shifted.shape == (21, *obs.shape[1:])
    assert shifted.dtype == dtype
    assert shifted.is_contiguous(memory_format=torch.channels_last)
    found = offsets(shifted, torch.cat([obs] * 3), pad, unique=side > pad)
    assert len({tuple(found[copy : copy + 7]) for copy in (0, 7, 14)}) == 3, "copies move apart"
    assert len(set(found)) > 1, "every sample moves on its own"


def test_offsets_are_uniform_on_both_axes_and_independent():
    pad, draws = 2, 4000
    obs = torch.arange(12 * 11, dtype=torch.uint8).reshape(1, 1, 12, 11).expand(draws, 2, -1, -1)
    counts = Counter(offsets(random_shift(obs, pad, generator(5)), obs, pad))
    assert len(counts) == 25
    expected = draws / 25
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 58.6  # chi-square, 24 degrees, p = 1e-4


def test_the_generator_alone_decides():
    obs, before = pixels(5, 4, 9, 9), torch.get_rng_state()
    first, again, other = (random_shift(obs, 3, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_overlay_is_the_mean_with_one_picture_for_all_frames():
    obs = torch.randint(256, (3, 6, 5, 4), dtype=torch.uint8, generator=generator(1))
    pictures = torch.randint(256, (2, 3, 5, 4), dtype=torch.uint8, generator=generator(2))
    mixed = overlay(obs, pictures, generator(3))
    for sample, result in zip(obs.double(), mixed.double(), strict=True):
        means = [(sample + picture.repeat(2, 1, 1)) / 2 for picture in pictures.double()]
        assert sum(bool(((result - mean).abs() <= 1).all()) for mean in means) == 1
    assert torch.equal(mixed, overlay(obs, pictures, generator(3)))


def test_a_random_convolution_against_a_loop():
    obs = torch.randint(256, (2, 6, 5, 4), dtype=torch.uint8, generator=generator(1))
    weight = torch.randn(2, 3, 3, 3, 3, generator=generator(3)).double()
    padded = F.pad(obs.double() / 255, (1, 1, 1, 1), mode="replicate")
    result = random_conv(obs, generator(3))
    for i, t, c, y, x in itertools.product(range(2), range(2), range(3), range(5), range(4)):
        patch = padded[i, 3 * t : 3 * t + 3, y : y + 3, x : x + 3]
        expected = 255 / (1 + math.exp(-float((patch * weight[i, c]).sum())))
        assert abs(float(result[i, 3 * t + c, y, x]) - expected) <= 0.51


def test_color_fields_differ_and_use_the_whole_range():
    fields = color_fields(4, 20, 16, generator(1))
    assert fields.shape == (4, 3, 20, 16)
    assert len({field.numpy().tobytes() for field in fields}) == 4
    assert fields.amin((1, 2, 3)).tolist() == [0] * 4
    assert fields.amax((1, 2, 3)).tolist() == [255] * 4
