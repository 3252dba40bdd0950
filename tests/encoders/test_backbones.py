"""AlexNet and residual networks: torchvision's numbers for torchvision's weights, and statistics that do not move."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoder_help import generator, make, pixels
from torch import Tensor

from encoders import fit_moments
from encoders.backbones import MEAN, STD, torchvision_names
from encoders.base import measure_norms

SHAPE = (3, 70, 66)
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
NAMES = ["alexnet", *DEPTHS]


def weights_of(name: str) -> dict[str, Tensor]:
    """Weights in torchvision's naming, with statistics that are not those of a new network."""
    draw, encoder = generator(1), make(name, SHAPE, layer_norm=False)
    state, names = encoder.state_dict(), torchvision_names(encoder.state_dict())
    found = {theirs: state[ours].clone() for theirs, ours in names.items()}
    for key, value in found.items():
        if "running_mean" in key:
            value.normal_(0, 0.1, generator=draw)
        elif key.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            value.uniform_(0.5, 1.5, generator=draw)
    return found


def features(name: str, weights: dict[str, Tensor], obs: Tensor) -> Tensor:
    """Both networks again, by functions alone."""
    x = (obs / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    if name == "alexnet":
        for layer, (stride, padding) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
            key = f"features.{layer}"
            x = F.relu(F.conv2d(x, weights[f"{key}.weight"], weights[f"{key}.bias"], stride, padding))
            x = F.max_pool2d(x, 3, 2) if layer in (0, 3, 10) else x
        x = F.adaptive_avg_pool2d(x, 6).flatten(1)
        for layer in (1, 4):
            x = F.relu(F.linear(x, weights[f"classifier.{layer}.weight"], weights[f"classifier.{layer}.bias"]))
        return x

    def normed(x: Tensor, convolution: str, norm: str, stride: int) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        mean, var, scale, shift = (
            weights[f"{norm}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = F.max_pool2d(F.relu(normed(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage, depth in enumerate(DEPTHS[name], start=1):
        for key in (f"layer{stage}.{block}" for block in range(depth)):
            stride = 2 if stage > 1 and key.endswith(".0") else 1
            count = 3 if f"{key}.conv3.weight" in weights else 2
            own = 2 if count == 3 else 1
            y = x
            for i in range(1, count + 1):
                y = normed(y, f"{key}.conv{i}", f"{key}.bn{i}", stride if i == own else 1)
                y = F.relu(y) if i < count else y
            if f"{key}.downsample.0.weight" in weights:
                x = normed(x, f"{key}.downsample.0", f"{key}.downsample.1", stride)
            x = F.relu(x + y)
    return x.mean((2, 3))


def loaded(name: str, weights: dict[str, Tensor]) -> Any:
    encoder = make(name, SHAPE, layer_norm=False)
    names = torchvision_names(encoder.state_dict())
    assert names.keys() == weights.keys()
    encoder.load_state_dict({names[key]: value for key, value in weights.items()})
    return encoder


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize(("name", "width"), [*zip(NAMES, (4096, 512, 2048), strict=True)])
def test_features_are_those_of_the_functions_in_every_mode(name: str, width: int) -> None:
    weights, obs = weights_of(name), pixels(2, *SHAPE)
    encoder = loaded(name, weights)
    expected, found = features(name, weights, obs), encoder(obs)
    assert found.shape == (2, width)
    assert_same(found, expected)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert torch.equal(encoder.train()(obs), found)
    assert_same(encoder(obs[:1]), found[:1])
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_features_are_torchvisions(name: str) -> None:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # its wheel for CUDA does not load beside torch for the CPU
        pytest.skip(f"torchvision: {error}")
    theirs = getattr(models, name)().eval()
    weights, obs = weights_of(name), pixels(2, *SHAPE)
    assert set(theirs.state_dict()) - set(weights) == (
        {f"{'classifier.6' if name == 'alexnet' else 'fc'}.{key}" for key in ("weight", "bias")}
    )
    theirs.load_state_dict(weights, strict=False)
    last = theirs.classifier if name == "alexnet" else theirs
    setattr(last, "6" if name == "alexnet" else "fc", torch.nn.Identity())
    given = (obs / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert_same(loaded(name, weights)(obs), theirs(given))


def test_statistics_are_those_of_the_first_batch_and_only_scale_and_shift_learn() -> None:
    encoder, obs = make("resnet18", SHAPE), pixels(6, *SHAPE)
    copied = copy.deepcopy(encoder)
    fit_moments(torch.nn.ModuleList([encoder, copied]), obs)
    with torch.no_grad():
        maps = encoder.trunk[:3](encoder.normalised(obs))  # after the first normalisation
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.var((0, 2, 3)), torch.ones(64), atol=1e-3, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(encoder.buffers(), copied.buffers(), strict=True))
    before = [buffer.clone() for buffer in encoder.buffers()]
    measure_norms(encoder, obs // 2)
    encoder.train()(obs // 3).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(encoder.buffers(), before, strict=True))
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(("channels", "colours"), [(3, 3), (6, 6), (1, 1), (4, 1)])
def test_pixels_are_scaled_by_imagenets_moments_frame_by_frame(channels: int, colours: int) -> None:
    normalize = make("resnet18", (channels, 32, 32)).trunk[0]
    mean, std = normalize.moments.flatten(1)
    wanted = [MEAN[i % 3] for i in range(colours)] if colours > 1 else [sum(MEAN) / 3]
    assert mean.tolist() == pytest.approx(wanted)
    white = normalize(torch.ones(1, channels, 2, 2))
    assert white[0, 0, 0, 0] == pytest.approx((1 - float(mean[0])) / float(std[0]))
    with pytest.raises(ValueError, match=r"encoder.standardize=true: encoder=resnet18 scales pixels by ImageNet's"):
        make("resnet18", (channels, 32, 32), standardize=True)


def test_63_pixels_are_enough_for_alexnet() -> None:
    assert make("alexnet", (3, 63, 63), feature_dim=5).feature_dim == 5
    with pytest.raises(ValueError, match=r"\(3, 62, 63\) are too small for encoder=alexnet: encoder=small fits"):
        make("alexnet", (3, 62, 63))
