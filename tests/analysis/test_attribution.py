import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from analysis.attribution import (
    NOISE,
    PANEL,
    agreement,
    background,
    common_map,
    covered_window,
    occlusion,
    overlay,
    smoothgrad,
    write_maps,
)
from analysis.picture import GAP, rgb_frames
from harness.seeding import seeded

OBS = torch.randint(0, 256, (3, 4, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    with seeded(0, "test"):
        convolution = nn.Conv2d(4, 6, 3, stride=2)
        linear = nn.Linear(6 * 5 * 4, 5)
    return lambda obs: linear(torch.tanh(convolution(obs / 255)).flatten(1))


def test_only_the_pixels_that_a_linear_model_reads_light_up():
    weight = torch.zeros(4, 12, 10)
    weight[1, 7, 2], weight[3, 7, 2], weight[0, 4, 9] = 3.0, 4.0, 1.0

    def scores(obs):
        value = (obs * weight).sum((1, 2, 3))
        return torch.stack([value - 1e6, value], 1)

    expected = np.zeros((3, 1, 12, 10))
    expected[:, 0, 7, 2], expected[:, 0, 4, 9] = 1.0, 1 / 25
    np.testing.assert_allclose(smoothgrad(scores, OBS), expected, rtol=1e-5)
    expected = np.zeros((3, 2, 12, 10))  # of two frames of two channels, on one scale
    expected[:, 1, 7, 2], expected[:, 0, 7, 2], expected[:, 0, 4, 9] = 1.0, 9 / 16, 1 / 16
    np.testing.assert_allclose(smoothgrad(scores, OBS, frames=2), expected, rtol=1e-5)


def test_only_the_greatest_score_is_explained():
    def scores(obs):  # left half for class 0, right half for class 1; class 2 is out of reach
        halves = obs.unflatten(3, (2, 5)).sum((1, 2, 4))
        return torch.cat([halves, obs.sum((1, 2, 3))[:, None] - 1e9], 1)

    obs = torch.zeros(2, 4, 12, 10, dtype=torch.uint8)
    obs[0, ..., :5] = obs[1, ..., 5:] = 200
    heat = smoothgrad(scores, obs)[:, 0]
    assert heat[0, :, :5].all()
    assert not heat[0, :, 5:].any()
    np.testing.assert_array_equal(heat[1], heat[0, :, ::-1])


def test_matches_a_slow_loop_with_the_same_noise(network):
    samples = 7
    fast = smoothgrad(network, OBS, samples=samples)
    with seeded(0, "attribution"):
        noises = torch.normal(0, torch.full((3 * samples, 4, 12, 10), NOISE)).unflatten(0, (3, samples))
    for obs, its_noises, heat in zip(OBS.float(), noises, fast, strict=True):
        target = int(network(obs[None])[0].argmax())
        total = torch.zeros(12, 10)
        for n in its_noises:
            noisy = (obs + n).requires_grad_()
            network(noisy[None])[0, target].backward()
            total += (noisy.grad**2).sum(0)
        np.testing.assert_allclose(heat[0], total / total.max(), rtol=1e-4, atol=1e-6)


def test_noise_is_reproducible_in_chunks_of_any_size_and_leaves_the_global_stream_alone(network, monkeypatch):
    before = torch.get_rng_state()
    first, again = (smoothgrad(network, OBS) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    maps = []
    for chunk in (10_000, 5):
        monkeypatch.setattr("analysis.attribution.CHUNK", chunk)
        maps.append(smoothgrad(network, OBS, samples=400).ravel())
    assert np.corrcoef(*maps)[0, 1] > 0.95
    cut = smoothgrad(lambda obs: network(obs.detach()) + 0 * obs.sum(), OBS)  # no gradient reaches the pixels
    np.testing.assert_array_equal(cut, np.zeros((3, 1, 12, 10)))


def test_pictures_unstack_grey_and_rgb_and_overlays_are_coloured_where_it_is_hot():
    grey = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    np.testing.assert_array_equal(rgb_frames(grey, 4)[2], np.stack([grey[2]] * 3, axis=2))
    np.testing.assert_array_equal(rgb_frames(np.concatenate([grey[:3], grey[1:]]), 2)[1], grey[1:].transpose(1, 2, 0))
    shown = overlay(np.full((2, 2, 3), 100, np.uint8), np.array([[0.0, 1.0], [0.25, 0.0]]))
    assert (shown[0, 0] == 60).all()
    assert shown[0, 1].tolist() == [255, 120, 0]
    assert shown[1, 0].tolist() == pytest.approx([108, 75, 45], abs=1)


@pytest.mark.parametrize(("frames", "chunk"), [(4, 64), (2, 3), (1, 1)])
def test_occlusion_matches_a_slow_loop_over_squares(network, frames, chunk, monkeypatch):
    monkeypatch.setattr("analysis.attribution.CHUNK", chunk)
    fast, (height, width), side, channels = occlusion(network, OBS, frames=frames), (12, 10), 2, 4 // frames
    assert covered_window(height) == side
    for obs, heat in zip(OBS.float(), fast, strict=True):
        before, plain = network(obs[None])[0], obs.sort(2).values[:, :, 4, None].expand(obs.shape)
        total, times = torch.zeros(frames, height, width), torch.zeros(frames, height, width)
        for f, y, x in np.ndindex(frames, height - 1, width - 1):
            place = slice(channels * f, channels * (f + 1)), slice(y, y + side), slice(x, x + side)
            covered = obs.clone()
            covered[place] = plain[place]
            change = (network(covered[None])[0, before.argmax()] - before.max()).abs().detach()
            total[f, y : y + side, x : x + side] += change
            times[f, y : y + side, x : x + side] += 1
        np.testing.assert_allclose(heat, total / times / (total / times).max(), rtol=1e-3, atol=1e-5)


def test_covering_a_thing_takes_it_away_and_covering_the_background_changes_nothing():
    obs = torch.full((1, 2, 24, 24), 90, dtype=torch.uint8)
    obs[:, :, 10:] = 30  # rows of two colours
    obs[:, 1, 4:6, 6:8] = 200
    assert not (background(obs) == 200).any()
    heat = occlusion(lambda seen: seen.sum((1, 2, 3))[:, None], obs, frames=2)
    np.testing.assert_array_equal(np.argwhere(heat[0, 1] == heat.max()).mean(0).round(), [4, 6])
    assert not heat[0, 0].any()
    assert not heat[0, 1, 8:].any()
    assert not occlusion(lambda seen: 0 * seen.sum((1, 2, 3))[:, None], obs).any()


def test_only_what_both_maps_mark_is_marked():
    smooth, occluded = np.zeros((2, 1, 24, 24))
    smooth[0, 4:8, 4:8] = smooth[0, 4:8, 16:20] = occluded[0, 4:8, 4:8] = occluded[0, 16:20, 4:8] = 1
    marked = common_map(smooth, occluded)
    assert marked[0, 5, 5] == marked.max() == 1
    assert not marked[smooth * occluded == 0].any()
    assert not common_map(smooth, 0 * smooth).any()
    assert not common_map(0 * smooth, occluded).any()


def test_agreement_is_the_rank_correlation_over_the_squares_that_show_something():
    obs = torch.zeros(1, 24, 24, dtype=torch.uint8)
    obs[0, ::6, ::12] = 255  # 8 squares of 2 x 2
    first = np.random.default_rng(0).random((12, 12))
    second = first**3
    second[1] = 7  # squares that show nothing
    heat, alike = (np.kron(squares, np.ones((1, 2, 2))) for squares in (first, second))
    assert agreement((heat, alike), obs) == pytest.approx(1)
    assert agreement((heat, -alike), obs) == pytest.approx(-1)
    assert agreement((heat, 0 * heat), obs) is None
    assert agreement((heat, alike), 0 * obs) is None


def test_a_png_has_a_row_of_frames_and_for_each_head_one_of_each_method(tmp_path, network):
    def late(obs):  # reads the newest frame alone
        return network(torch.cat([torch.zeros_like(obs[:, :3]), obs[:, 3:]], 1))

    write_maps(tmp_path / "maps", list(OBS[:2].numpy()), {"Q": network, "late": late}, frame_stack=4)
    files = sorted((tmp_path / "maps").iterdir())
    assert [f.name for f in files] == ["agreement.json", "both_0.png", "both_1.png", "moment_0.png", "moment_1.png"]
    told = json.loads(files[0].read_text())
    assert told["methods"] == ["SmoothGrad", "occlusion"]
    for head in told["heads"].values():
        assert head["spearman"] == pytest.approx(np.mean(head["of_moments"]))
    assert np.asarray(Image.open(files[1])).shape == (
        3 * (PANEL + 18 + GAP) - GAP,
        4 * (PANEL + GAP) - GAP,
        3,
    )
    picture, high, wide = np.asarray(Image.open(files[3])), PANEL + 18 + GAP, PANEL + GAP
    assert picture.shape == (5 * high - GAP, 4 * wide - GAP, 3)
    padded = np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255).reshape(5, high, 4, wide, 3)
    assert (padded[:, -GAP:] == 255).all()  # frames stand apart
    assert (padded[:, :, :, -GAP:] == 255).all()
    frames, *maps = padded[:, 18:-GAP, :, :-GAP].swapaxes(1, 2).astype(int)
    np.testing.assert_array_equal(frames[:, 10::21, 12::25][:, :, :10, 0], OBS[0].numpy())
    coloured = [[bool((f[..., 0] - f[..., 2] > 1).any()) for f in of_head] for of_head in maps]
    assert coloured == [[True] * 4] * 2 + [[False] * 3 + [True]] * 2
