"""The encoders: what they read, what they give, and that their weights alone are enough."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from encoders import ENCODERS, Encoder, EncoderConfig, build_encoder, dead_share, standardize

# features of 84x84 pixels
FLAT = {
    "nature": 64 * 7 * 7,
    "nips": 32 * 9 * 9,
    "der": 64 * 4 * 4,
    "study": 512,
    "impala": 256,
    "control": 32 * 35 * 35,
    "control_fast": 32 * 11 * 11,
    "small": 128,
    "study_digits": 128,
    "vit": 96,
}


def make(name: str, shape: tuple[int, int, int] = (4, 84, 84), seed: int = 0, **config: object) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(EncoderConfig(name=name, **config), shape)


def pixels(batch: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 60, 48)])
def test_the_feature_dimension_is_what_forward_gives(name, shape):
    encoder = make(name, shape)
    features = encoder(pixels(2, *shape))
    assert features.shape == (2, encoder.feature_dim)
    assert features.dtype == torch.float32
    if shape[1] == 84:
        assert encoder.feature_dim == FLAT[name]


def test_the_encoder_is_where_pixels_become_floats_in_0_1():
    seen = []
    trunk = nn.Conv2d(2, 3, 1)
    trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder, obs = Encoder(trunk, nn.Sequential(), (2, 5, 6)), pixels(4, 2, 5, 6)
    out = encoder(obs)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[-1], obs.double().div(255).float())
    torch.testing.assert_close(out, encoder(obs.float()))


def test_standardized_pixels_are_measured_once_by_every_encoder_that_wants_them():
    seen = []
    trunk = nn.Conv2d(4, 3, 1)
    trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder, plain = Encoder(trunk, nn.Sequential(), (4, 5, 6), standardize=True), make("der")
    both, obs = (
        nn.ModuleDict({"encoder": encoder, "target": copy.deepcopy(encoder), "plain": plain}),
        pixels(7, 4, 5, 6),
    )
    before = plain(pixels(1, 4, 84, 84))
    encoder(obs)
    torch.testing.assert_close(seen[-1], obs / 255)
    standardize(both, obs)
    encoder(obs)
    values = obs.double() / 255
    torch.testing.assert_close(seen[-1], ((values - values.mean()) / values.std()).float(), rtol=1e-4, atol=1e-5)
    measured = {name: buffer.clone() for name, buffer in both.named_buffers()}
    assert measured.keys() == {"encoder.pixel_moments", "target.pixel_moments"}
    standardize(both, obs // 2)
    assert all(torch.equal(buffer, measured[name]) for name, buffer in both.named_buffers())
    assert torch.equal(plain(pixels(1, 4, 84, 84)), before)


def test_the_share_of_dead_dimensions_where_their_mean_hides_them():
    alive, dead = torch.randn(40, 3), 5 + 1e-3 * torch.randn(40, 1)
    assert float(dead_share(torch.cat([alive, dead], dim=1))) == 0.25
    assert float(dead_share(alive * torch.tensor([1.0, 1.0, 0.1]))) == 0  # little is not nothing
    assert float(dead_share(torch.ones(40, 3))) == 1


@pytest.mark.parametrize("name", ENCODERS)
def test_layer_norm_is_the_last_thing_and_only_where_asked(name):
    obs = pixels(3, 4, 84, 84)
    plain, normed = make(name, layer_norm=False), make(name, layer_norm=True)
    assert not any(isinstance(m, nn.LayerNorm) for m in plain.neck.modules())
    raw = plain(obs)
    expected = (raw - raw.mean(1, keepdim=True)) / (raw.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(normed(obs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_and_pixels_are_channels_last(name):
    encoder = make(name)
    wide = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in wide)
    assert encoder.maps(pixels(2, 4, 84, 84)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"control"}))
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


@pytest.mark.parametrize(("name", "shape"), [("nature", (4, 20, 84)), ("study", (4, 35, 35)), ("der", (4, 8, 8))])
def test_too_small_observations_are_named(name, shape):
    with pytest.raises(ValueError, match=rf"{shape[0]}, {shape[1]}, {shape[2]}.* too small"):
        make(name, shape)


def test_an_observation_of_another_shape_is_refused():
    with pytest.raises(AssertionError, match=r"expected \(B, \(4, 36, 36\)\), got \(2, 4, 36, 40\)"):
        make("der", (4, 36, 36))(pixels(2, 4, 36, 40))


@pytest.mark.parametrize(
    ("name", "hint"), [("natur", "did you mean 'nature'"), ("zzz", "nature, nips, der, study, impala, control")]
)
def test_an_unknown_encoder_is_answered_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"unknown encoder '{name}': .*{hint}"):
        build_encoder(EncoderConfig(name=name), (4, 84, 84))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_weights_alone_carry_the_features(name, tmp_path):
    encoder, other = make(name, (4, 48, 48)), make(name, (4, 48, 48), seed=1)
    obs = pixels(3, 4, 48, 48)
    assert not torch.equal(encoder(obs), other(obs))
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(encoder(obs), other(obs))
