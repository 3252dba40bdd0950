"""The way back to pixels: sizes, units, and errors against a loop."""

import numpy as np
import pytest
import torch
from aux_help import noise

from aux_tasks.decoder import centred, decoder, gallery, image_error, to_pixels


def test_each_layer_about_doubles_the_grid():
    grids = [layer.size for layer in decoder(5, (64, 4, 5), (9, 84, 60), 2) if hasattr(layer, "size")]
    assert grids == [(9, 9), (18, 17), (39, 32), (84, 60)]


def test_every_pixel_survives_the_way_there_and_back():
    obs = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(centred(obs)), obs)
    assert float(centred(obs).mean()) == pytest.approx(0, abs=1e-6)
    assert to_pixels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("shape", [None, (1, 3, 5, 7), (4, 1, 5, 7)])
def test_the_error_against_a_loop(shape):
    torch.manual_seed(0)
    decoded, target = torch.randn(2, 4, 3, 5, 7)
    weight = None if shape is None else torch.rand(shape)
    w = np.broadcast_to(np.ones(1) if weight is None else weight.numpy(), target.shape)
    expected, baseline = np.zeros(4), np.zeros(4)
    for i in range(4):
        for place in np.ndindex(3, 5, 7):
            mean = sum(float(target[(j, *place)]) for j in range(4)) / 4
            share = w[(i, *place)] / w[i].sum()
            expected[i] += share * float(decoded[(i, *place)] - target[(i, *place)]) ** 2
            baseline[i] += share * (mean - float(target[(i, *place)])) ** 2
    output = image_error(decoded.requires_grad_(), target, weight)
    np.testing.assert_allclose(output.loss.detach().numpy(), expected, rtol=1e-5)
    assert float(output.metrics["error_ratio"]) == pytest.approx(expected.mean() / baseline.mean(), rel=1e-5)


def test_the_mean_image_has_a_ratio_of_one():
    target = centred(noise(6, 2, 4, 4))
    assert float(image_error(target.mean(0).expand_as(target), target).metrics["error_ratio"]) == pytest.approx(1)


def test_pictures_of_one_sample_stand_together():
    left, right = noise(3, 1, 2, 2), noise(3, 1, 2, 2, seed=1)
    shown = gallery(left=left, right=right)
    assert torch.equal(shown.inputs[0::2], left)
    assert torch.equal(shown.inputs[1::2], right)
    assert shown.correct is None
    assert shown.predicted == ["left", "right"] * 3
