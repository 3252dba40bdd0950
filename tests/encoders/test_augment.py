"""Random shift against padding and cropping one sample at a time."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from encoders.augment import random_shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def offsets(shifted: torch.Tensor, obs: torch.Tensor, pad: int) -> list[tuple[int, int]]:
    """The crop of the padded sample that each shifted sample equals in all channels: it must be exactly one."""
    height, width = obs.shape[2:]
    found = []
    for sample, result in zip(obs, shifted, strict=True):
        padded = F.pad(sample[None].float(), (pad,) * 4, mode="replicate")[0].to(obs.dtype)
        crops = [
            (dy - pad, dx - pad)
            for dy in range(2 * pad + 1)
            for dx in range(2 * pad + 1)
            if torch.equal(padded[:, dy : dy + height, dx : dx + width], result)
        ]
        assert len(crops) == 1, f"{len(crops)} crops of the padded sample match"
        found += crops
    return found


@pytest.mark.parametrize("pad", [1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shift_is_a_crop_of_the_sample_padded_by_its_border(pad, dtype):
    obs = torch.randint(256, (7, 3, 10, 13), generator=generator(1)).to(dtype)
    shifted = random_shift(obs, pad, generator())
    assert shifted.shape == obs.shape
    assert shifted.dtype == dtype
    assert shifted.is_contiguous(memory_format=torch.channels_last)
    assert len(set(offsets(shifted, obs, pad))) > 1, "every sample moves on its own"


def test_copies_follow_one_another_and_move_apart():
    obs = torch.randint(256, (5, 3, 10, 13), dtype=torch.uint8, generator=generator(1))
    shifted = random_shift(obs, 4, generator(), copies=3)
    found = offsets(shifted, torch.cat([obs] * 3), 4)
    assert len({tuple(found[copy : copy + 5]) for copy in (0, 5, 10)}) == 3


def test_a_shift_of_more_than_the_image_repeats_the_border():
    obs = torch.randint(256, (20, 2, 3, 4), dtype=torch.uint8, generator=generator(1))
    shifted = random_shift(obs, 9, generator())
    for sample, result in zip(obs, shifted, strict=True):
        padded = F.pad(sample[None].float(), (9,) * 4, mode="replicate")[0].to(torch.uint8)
        assert any(torch.equal(padded[:, y : y + 3, x : x + 4], result) for y in range(19) for x in range(19))


def test_offsets_are_uniform_on_both_axes_and_independent():
    pad, draws = 2, 4000
    obs = torch.arange(12 * 11, dtype=torch.uint8).reshape(1, 1, 12, 11).expand(draws, 2, -1, -1)
    counts = Counter(offsets(random_shift(obs, pad, generator(5)), obs, pad))
    assert len(counts) == 25
    expected = draws / 25
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 58.6  # chi-square, 24 degrees, p = 1e-4


def test_the_generator_alone_decides():
    obs = torch.randint(256, (5, 4, 9, 9), dtype=torch.uint8, generator=generator(1))
    before = torch.get_rng_state()
    first, again, other = (random_shift(obs, 3, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
