"""Views against a loop over samples and pixels, and what their parameters do to frames, borders and colours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from encoder_help import generator, pixels

from encoders.augment import LUMA, random_shift
from encoders.views import VIEWS, Views

SAMPLES = 7
EVERYTHING = Views(
    shift=0.1, area=(0.5, 1.4), aspect=1.5, rotation=40, flip=0.5, intensity=0.3, contrast=0.5, saturation=0.5, hue=0.2,
    gray=0.3,
)  # fmt: skip


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """The value at a position in pixels, whole numbers at their centres, borders repeated."""
    height, width = plane.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    dy, dx = y - top, x - left
    upper = (1 - dx) * plane[top, left] + dx * plane[top, left + 1]
    lower = (1 - dx) * plane[top + 1, left] + dx * plane[top + 1, left + 1]
    return (1 - dy) * upper + dy * lower


def slow_view(view: Views, obs: torch.Tensor, draw: torch.Generator) -> np.ndarray:
    """`view(obs, draw, frame_stack=2)`, one sample, frame, channel and pixel after the other, 6 channels."""
    count, channels, height, width = obs.shape
    theta = view.affine(obs, draw).double().numpy()
    colours = view.recolouring(obs, draw).double().numpy()
    gains = [1 + reach * (2 * torch.rand(count, generator=draw) - 1) for reach in (view.intensity, view.contrast)]
    result = np.empty(obs.shape)
    for i, sample in enumerate(obs.double().numpy()):
        for row in range(height):
            for column in range(width):
                place = np.array([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1])
                x, y = theta[i] @ place
                for c in range(channels):
                    at = ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2
                    result[i, c, row, column] = bilinear(sample[c], *at)
        for first in (0, 3):
            result[i, first : first + 3] = np.einsum("ij,jhw->ihw", colours[i], result[i, first : first + 3])
        mean = result[i].mean()
        result[i] = float(gains[0][i]) * (mean + float(gains[1][i]) * (result[i] - mean))
    return result.clip(0, 255)


def test_a_view_is_the_slow_one_the_preset_for_games_a_shift_times_an_intensity_and_an_empty_one_nothing():
    obs = pixels(SAMPLES, 6, 9, 12)
    seen = EVERYTHING(obs, generator(3), frame_stack=2)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(seen.numpy(), slow_view(EVERYTHING, obs, generator(3)), atol=0.02)
    draw = generator()
    shifted, gain = random_shift(obs, 4, draw), 1 + 0.1 * (2 * torch.rand(SAMPLES, 1, 1, 1, generator=draw) - 1)
    torch.testing.assert_close(VIEWS["shift"](obs, generator(), 6), (shifted * gain).clamp(0, 255), atol=1e-3, rtol=0)
    assert torch.equal(Views()(obs, generator(), 2), obs.float())
    assert torch.equal(replace(Views(), shift=1e-9, hue=1e-9)(obs, generator(), 2).round(), obs.float())


@pytest.mark.parametrize("preset", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_treat_all_frames_of_a_sample_alike_and_the_generator_alone_decides(preset, channels):
    obs, before = pixels(1, channels, 28, 24).repeat(6, 4, 1, 1), torch.get_rng_state()
    seen = replace(VIEWS[preset], noise=0)(obs, generator(), 4).unflatten(1, (4, channels))
    torch.testing.assert_close(seen, seen[:, :1].expand_as(seen), atol=1e-3, rtol=0)
    assert all(not torch.equal(seen[i], seen[j]) for i in range(6) for j in range(i))
    first, again, other = (VIEWS[preset](obs, generator(seed), 4) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 <= float(first.min()) <= float(first.max()) <= 255


def test_places_turn_rigidly_in_oblong_images_and_lie_in_the_image():
    obs = pixels(4000, 1, 20, 40)
    theta = Views(area=(0.25, 1), rotation=30).affine(obs, generator())
    size = torch.tensor([40.0, 20.0])
    moves = theta[:, :, :2] * size[:, None] / size  # in pixels
    scale = moves.det().abs().sqrt()
    turned = moves / scale[:, None, None]
    torch.testing.assert_close(turned @ turned.mT, torch.eye(2).expand(4000, 2, 2), atol=1e-5, rtol=0)
    angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]).rad2deg()
    assert 29.9 < float(angle.max()) <= 30.01
    assert -30.01 <= float(angle.min()) < -29.9
    area = scale.square()
    assert 0.249 < float(area.min()) < float(area.max()) < 1.001
    assert abs(float(area.mean()) - 0.625) < 4 * 0.75 / 12**0.5 / 4000**0.5  # uniform
    assert (theta[:, :, 2].abs() <= 1 - scale[:, None] + 1e-5).all(), "a crop leaves the image"
    assert float((theta[:, :, 2].abs() / (1 - scale[:, None])).nan_to_num().max()) > 0.99, "a crop reaches the border"


def test_shift_is_a_share_of_the_side_and_aspect_bounds_the_ratio():
    obs = pixels(2000, 1, 20, 40)
    theta = Views(shift=0.2, area=(0.5, 0.5), aspect=4 / 3).affine(obs, generator())
    ratio = theta[:, 0, 0] / theta[:, 1, 1]
    assert 0.75 <= float(ratio.min()) < 0.76
    assert 1.32 < float(ratio.max()) <= 4 / 3 + 1e-5
    torch.testing.assert_close(theta[:, 0, 0] * theta[:, 1, 1], torch.full((2000,), 0.5))
    plain = Views(shift=0.2).affine(obs, generator())
    assert 0.39 < float(plain[:, :, 2].abs().max()) <= 0.4  # of [-1, 1]


def test_a_mirrored_view_is_the_flip_of_the_plain_one_and_off_by_default():
    obs = pixels(400, 1, 6, 8)
    seen = Views(flip=0.3)(obs, generator()).round()
    mirrored = (seen == obs.flip(3)).flatten(1).all(1)
    assert ((seen == obs).flatten(1).all(1) ^ mirrored).all()
    assert abs(int(mirrored.sum()) - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5
    for view in (Views(), VIEWS["shift"], VIEWS["digits"]):
        assert view.flip == 0


def test_recolouring_keeps_gray_gray_and_the_brightness():
    obs, gray, luma = pixels(3000, 3, 4, 4), torch.full((3,), 100.0), torch.tensor(LUMA).expand(3, 3)
    maps = Views(saturation=0.5, hue=0.25).recolouring(obs[:50], generator())
    torch.testing.assert_close(maps @ gray, gray.expand(50, 3), atol=0.2, rtol=0)
    torch.testing.assert_close(luma[0] @ maps, luma[0].expand(50, 3), atol=2e-3, rtol=0)
    none = Views(hue=0.25, gray=1.0)(obs[:5], generator())
    torch.testing.assert_close(none, none[:, :1].expand_as(none), atol=1e-3, rtol=0)
    turned = Views(hue=1.0).recolouring(obs, generator())  # half a turn mirrors colours around gray
    assert float((turned - (2 * luma - torch.eye(3))).abs().amax((1, 2)).min()) < 0.02
    colours = Views(saturation=0.9, hue=0.3, gray=0.5)  # three gray frames look like one in colour: the stack tells
    assert torch.equal(colours(obs[:4], generator(), frame_stack=3), obs[:4].float())
    assert not torch.equal(colours(obs[:4], generator(), frame_stack=1), obs[:4].float())


def test_intensity_and_contrast_reach_their_bounds_and_noise_is_of_its_own_in_every_pixel():
    obs = torch.full((3000, 1, 2, 2), 100, dtype=torch.uint8)
    seen = Views(intensity=0.25, contrast=0.9)(obs, generator())[:, 0, 0, 0]
    assert 75 <= float(seen.min()) < 76
    assert 124 < float(seen.max()) <= 125
    obs[:, :, 0] = 140  # mean 120
    half = (Views(contrast=0.5)(obs, generator())[:, 0, 0, 0] - 120) / 20
    assert 0.5 <= float(half.min()) < 0.51
    assert 1.49 < float(half.max()) <= 1.5
    noise = Views(noise=8)(torch.full((64, 2, 16, 16), 128, dtype=torch.uint8), generator(), 2) - 128
    assert abs(float(noise.std()) - 8) < 0.2
    assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 2
