"""The encoders: what they read, what they give, and that their weights alone are enough."""

import copy

import numpy as np
import pytest
import torch
from encoder_help import make, pixels
from safetensors.torch import load_file, save_file
from torch import nn

from encoders import ENCODERS, Encoder, EncoderConfig, FrozenEncoder, build_encoder, dead_share, fit_moments, track

# features of 84x84 pixels
FLAT = {
    "nature": 64 * 7 * 7,
    "nips": 32 * 9 * 9,
    "der": 64 * 4 * 4,
    "study": 512,
    "impala": 256,
    "impala_small": 256,
    "small": 128,
    "keypoints": 64,
}
FLAT |= {"control": 32 * 35 * 35, "control_fast": 32 * 11 * 11, "study_digits": 128, "vit": 96, "resnet18": 512}
LARGE = {"alexnet", "resnet50"}  # test_backbones.py


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - LARGE - {"state"}))
@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 60, 48)])
def test_what_every_encoder_promises(name, shape, tmp_path):
    encoder, obs = make(name, shape), pixels(3, *shape)
    before, features = torch.get_rng_state(), encoder(obs)
    assert features.shape == (3, encoder.feature_dim)
    assert features.dtype == torch.float32
    if shape[1] == 84:
        assert encoder.feature_dim == FLAT[name]
    assert torch.equal(encoder.train()(obs), features)
    assert torch.equal(torch.get_rng_state(), before), "nothing in it is random"

    wide = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in wide)
    assert encoder.maps(obs).is_contiguous(memory_format=torch.channels_last)

    other = make(name, shape, seed=1)
    assert not torch.equal(other(obs), features)
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(other(obs), features), "the weights alone do not carry them"

    plain, normed = (make(name, shape, layer_norm=wanted) for wanted in (False, True))
    assert not any(isinstance(m, nn.LayerNorm) for m in plain.neck.modules())
    raw = plain(obs)
    expected = (raw - raw.mean(1, keepdim=True)) / (raw.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(normed(obs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 40, 60), (3, 48, 48)])
def test_keypoints_are_the_expected_places_of_a_softmax(shape):
    encoder, obs = make("keypoints", shape, layer_norm=False), pixels(2, *shape)
    before = encoder.trunk[:-1](obs / 255).detach().double().numpy()
    height, width = before.shape[2:]
    share = np.exp(before) / np.exp(before).sum((2, 3), keepdims=True)
    x = sum(share[..., j].sum(2) * (2 * j / (width - 1) - 1) for j in range(width))
    y = sum(share[..., i, :].sum(2) * (2 * i / (height - 1) - 1) for i in range(height))
    np.testing.assert_allclose(encoder(obs).detach().numpy(), np.concatenate([x, y], 1), atol=1e-5)


def test_the_encoder_is_where_pixels_become_floats_in_0_1():
    seen = []
    trunk = nn.Conv2d(2, 3, 1)
    trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder, obs = Encoder(trunk, nn.Sequential(), (2, 5, 6)), pixels(4, 2, 5, 6)
    out = encoder(obs)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[-1], obs.double().div(255).float())
    torch.testing.assert_close(out, encoder(obs.float()))


def test_a_frozen_encoder_takes_features_in_place_of_pixels_and_keeps_the_names():
    shape = (4, 36, 36)
    encoder, obs = make("control_fast", shape, feature_dim=6, standardize=True), pixels(3, *shape)
    fit_moments(encoder, obs)
    features, before = encoder(obs), copy.deepcopy(encoder.state_dict())
    frozen = FrozenEncoder(encoder)
    for given in (obs, obs.float(), features[:, :, None, None]):
        assert torch.equal(frozen(given), features)
        assert torch.equal(frozen.own_neck()(frozen.maps(given).flatten(1)), features)
    assert frozen.map_shape == (6, 1, 1)
    fit_moments(frozen, features[:, :, None, None])
    after = frozen.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_standardized_pixels_are_measured_once_by_every_encoder_that_wants_them():
    seen = []
    trunk = nn.Conv2d(4, 3, 1)
    trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder, plain, obs = Encoder(trunk, nn.Sequential(), (4, 5, 6), standardize=True), make("der"), pixels(7, 4, 5, 6)
    both = nn.ModuleDict({"encoder": encoder, "target": copy.deepcopy(encoder), "plain": plain})
    before = plain(pixels(1, 4, 84, 84))
    encoder(obs)
    torch.testing.assert_close(seen[-1], obs / 255)
    fit_moments(both, obs)
    encoder(obs)
    values = obs.double() / 255
    torch.testing.assert_close(seen[-1], ((values - values.mean()) / values.std()).float(), rtol=1e-4, atol=1e-5)
    measured = {name: buffer.clone() for name, buffer in both.named_buffers()}
    assert measured.keys() == {"encoder.pixel_moments", "target.pixel_moments"}
    fit_moments(both, obs // 2)
    assert all(torch.equal(buffer, measured[name]) for name, buffer in both.named_buffers())
    assert torch.equal(plain(pixels(1, 4, 84, 84)), before)


def test_the_share_of_dead_dimensions_where_their_mean_hides_them():
    alive, dead = torch.randn(40, 3), 5 + 1e-3 * torch.randn(40, 1)
    assert float(dead_share(torch.cat([alive, dead], dim=1))) == 0.25
    assert float(dead_share(alive * torch.tensor([1.0, 1.0, 0.1]))) == 0  # little is not nothing
    assert float(dead_share(torch.ones(40, 3))) == 1


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - LARGE - {"control", "state"}))
def test_every_row_and_column_of_every_frame_reaches_the_features(name):
    encoder = make(name, layer_norm=False)
    obs = pixels(2, 4, 84, 84).float().requires_grad_()
    encoder(obs).sum().backward()
    influence = obs.grad.abs().sum(0)  # (4, 84, 84)
    assert (influence.sum(2) > 0).all(), "a row is never read"
    assert (influence.sum(1) > 0).all(), "a column is never read"


def test_without_padding_the_patch_encoder_would_miss_the_paddle():
    """The check above notices the defect it is there for."""
    trunk = nn.Sequential(nn.Conv2d(4, 8, 5, stride=5), nn.ReLU(), nn.Conv2d(8, 8, 5, stride=5))
    obs = pixels(1, 4, 84, 84).float().requires_grad_()
    Encoder(trunk, nn.Sequential(), (4, 84, 84))(obs).sum().backward()
    assert (obs.grad.abs().sum((0, 1, 3)) == 0).nonzero().flatten().tolist() == list(range(75, 84))


def test_the_control_encoder_can_read_all_but_the_last_row_and_column_and_starts_with_its_centre_taps():
    encoder = make("control", layer_norm=False)
    for layer in (layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)):
        taps = layer.weight.detach().abs().sum((0, 1))
        assert (taps > 0).nonzero().tolist() == [[1, 1]]
        centre = layer.weight.detach()[:, :, 1, 1]  # (32, 12), then (32, 32)
        torch.testing.assert_close(centre.T @ centre, 2 * torch.eye(centre.shape[1]), atol=1e-5, rtol=0)
        nn.init.constant_(layer.weight, 0.01)  # after some training
    obs = pixels(2, 4, 84, 84).float().requires_grad_()
    encoder(obs).sum().backward()
    influence = obs.grad.abs().sum((0, 1))
    assert (influence.sum(1) == 0).nonzero().tolist() == (influence.sum(0) == 0).nonzero().tolist() == [[83]]


@pytest.mark.parametrize("name", ["control", "control_fast", "nature"])
def test_the_feature_width_is_that_of_a_last_orthogonal_layer_before_the_norm(name):
    encoder, obs = make(name, (3, 48, 40), feature_dim=9), pixels(5, 3, 48, 40)
    assert encoder.feature_dim == 9
    projection, norm = encoder.neck[-2:]
    assert norm.normalized_shape == (9,)
    torch.testing.assert_close(projection.weight @ projection.weight.T, torch.eye(9), atol=1e-5, rtol=0)
    assert not projection.bias.any()
    torch.testing.assert_close(encoder(obs), norm(projection(encoder.maps(obs).flatten(1))))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("nature", (4, 20, 84), r"4, 20, 84.* too small for encoder=nature: encoder=small fits, of small, nips"),
        ("study", (4, 35, 35), r"4, 35, 35.* too small for encoder=study: encoder=small fits"),
        ("nature", (1, 28, 28), r"1, 28, 28.* too small for encoder=nature: encoder=small fits"),
        (
            "der",
            (4, 8, 8),
            r"4, 8, 8.* too small .*: encoder=small fits, of small, impala, impala_small, control_fast",
        ),
        ("natur", (4, 84, 84), "unknown encoder 'natur': did you mean 'nature'"),
        ("zzz", (4, 84, 84), "unknown encoder 'zzz': .*nature, nips, der, study, impala, impala_small, control"),
        ("der", (4, 36, 40), r"expected \(B, \(4, 36, 40\)\), got \(2, 4, 36, 36\)"),
    ],
)
def test_what_does_not_fit_is_named(name, shape, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        make(name, shape)(pixels(2, 4, 36, 36))


@pytest.mark.parametrize(("key", "value"), [("feature_dim", 5), ("unit_norm", True), ("standardize", True)])
def test_keys_that_do_not_apply_to_states_are_refused(key, value):
    with pytest.raises(ValueError, match=f"encoder.{key} does not apply to encoder=state"):
        build_encoder(EncoderConfig("state", **{key: value}), (3, 1, 1))


def test_states_are_never_proposed_for_pixels():
    with pytest.raises(ValueError, match="too small") as raised:
        build_encoder(EncoderConfig("nature"), (4, 8, 8))
    assert "state" not in str(raised.value)


@pytest.mark.parametrize("name", ["state", "control_fast"])
def test_the_shape_of_maps_is_that_of_maps(name):
    shape = (3, 1, 1) if name == "state" else (3, 24, 24)
    encoder = build_encoder(EncoderConfig(name), shape)
    assert encoder.map_shape == encoder.maps(torch.zeros(1, *shape, dtype=torch.uint8)).shape[1:]


def test_unit_features_have_length_1():
    encoder = build_encoder(EncoderConfig("control_fast", feature_dim=5, unit_norm=True), (3, 24, 24))
    obs = torch.randint(256, (4, 3, 24, 24), dtype=torch.uint8)
    torch.testing.assert_close(encoder(obs).norm(dim=1), torch.ones(4))


def test_a_number_that_begins_to_move_is_clipped_until_its_moments_have_followed():
    encoder, draw = build_encoder(EncoderConfig("state"), (3, 1, 1)), torch.Generator().manual_seed(0)

    def states(deviation: float) -> torch.Tensor:
        scale = torch.tensor([1.0, deviation, 0.0])  # the last one never moves
        return (torch.randn(200, 3, generator=draw) * scale + 4)[:, :, None, None]

    fit_moments(encoder, states(1e-6))
    assert encoder(states(1e-6)).abs().max() < 5
    assert float(encoder(states(1.0))[:, 1].abs().max()) == 10
    for _ in range(8000):
        track(encoder.state_moments, states(2.0))
    seen = encoder(states(2.0))
    torch.testing.assert_close(seen.std(0)[:2], torch.ones(2), atol=0.2, rtol=0)
    assert seen[:, 2].abs().max() < 0.1
