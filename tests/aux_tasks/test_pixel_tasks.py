"""Tasks that make pixels: noise, missing regions, halves that make up the whole, decoders and the discriminator."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, noise
from pretext_help import ahead
from torch.nn.utils.parametrize import is_parametrized
from view_help import array, tiny

from aux_tasks.parts.adversary import Discriminator
from aux_tasks.parts.colour import from_lab, to_lab
from aux_tasks.parts.decoder import centred, decoder, to_pixels

B, SHAPE, Z = 5, (6, 12, 16), 3


@pytest.mark.parametrize(
    ("kind", "level", "values"), [("masking", 0.3, {0: 0.3}), ("salt_and_pepper", 0.4, {0: 0.2, 255: 0.2})]
)
def test_noise_takes_its_share_of_whole_pixels(kind, level, values):
    obs = noise(200, *SHAPE).clamp(1, 254)
    task, _ = tiny("denoising", SHAPE, noise=kind, level=level)
    corrupted = task.corrupt(obs)
    grains = {value: corrupted == value for value in values}
    hidden = torch.stack(list(grains.values())).any(0)
    assert torch.equal(corrupted[~hidden], obs[~hidden])
    for value, share in values.items():
        assert torch.equal(grains[value], grains[value][:, :1].expand_as(obs))
        assert float(grains[value].float().mean()) == pytest.approx(share, abs=0.01)
    assert hidden[:, 0].flatten(1).float().mean(1).std() > 0.01  # each sample its own draw


def test_gaussian_noise_has_its_deviation_and_is_the_same_in_every_frame():
    obs = torch.full((200, *SHAPE), 128, dtype=torch.uint8)
    obs[:, 1] = 130
    offset = tiny("denoising", SHAPE, noise="gaussian", level=0.1)[0].corrupt(obs).int() - obs
    assert torch.equal(offset, offset[:, :1].expand_as(offset))
    assert float(offset.float().std()) == pytest.approx(25.5, rel=0.02)
    assert float(offset.float().mean()) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("mask_ratio", [0.25, 0.6])
def test_random_regions_have_their_share_and_differ(mask_ratio):
    task, _ = tiny("context_encoder", SHAPE, mask_ratio=mask_ratio)
    missing = task.missing(noise(200, *SHAPE))
    assert missing.shape == (200, 1, 12, 16)
    assert (missing.sum((1, 2, 3)) - mask_ratio * 12 * 16).abs().max() <= 1
    assert len(missing.flatten(1).unique(dim=0)) == 200
    often = missing.float().mean(0)[0]
    assert often.min() > mask_ratio / 3  # no position is safe
    edges = (missing[..., 1:] != missing[..., :-1]).float().mean()
    assert edges < 0.6 * 2 * mask_ratio * (1 - mask_ratio)  # regions, not single pixels


def test_the_centre_is_a_rectangle_of_the_share():
    missing = tiny("context_encoder", SHAPE, region="centre", mask_ratio=0.25)[0].missing(noise(B, *SHAPE))
    expected = torch.zeros(B, 1, 12, 16, dtype=torch.bool)
    expected[:, :, 3:9, 4:12] = True
    assert torch.equal(missing, expected)


def test_what_is_missing_is_filled_with_the_mean_colour_in_every_frame():
    obs = noise(B, *SHAPE)
    missing, holed = tiny("context_encoder", SHAPE)[0]._holed(obs)
    mean = obs.double().mean((0, 2, 3), keepdim=True).round().to(torch.uint8)
    assert torch.equal(holed, torch.where(missing, mean, obs))


@pytest.mark.parametrize(("shape", "frames", "cut"), [((4, 12, 14), 4, 2), ((3, 12, 14), 3, 1), ((9, 12, 14), 3, 3)])
def test_halves_of_a_stack_are_frames_seen_beside_black_ones(shape, frames, cut):
    task, _ = tiny("split_brain", shape, frames, halves="time")
    obs = noise(B, *shape)
    (older, newer), (first, second) = task.split(obs)
    assert torch.equal(older[:, :cut], obs[:, :cut])
    assert torch.equal(newer[:, cut:], obs[:, cut:])
    assert not older[:, cut:].any()
    assert not newer[:, :cut].any()
    assert torch.equal(to_pixels(torch.cat([first, second], dim=1)), obs)


def test_halves_in_colour_are_a_gray_picture_and_one_of_even_lightness():
    task, _ = tiny("split_brain", SHAPE)
    obs = 118 + noise(B, *SHAPE) // 12  # soft colours, which a screen can show at any lightness
    inputs, (lightness, colour) = task.split(obs)
    gray, even = (to_lab(half) for half in inputs)
    whole = to_lab(obs)
    torch.testing.assert_close(gray[:, :, 0], whole[:, :, 0], atol=0.02, rtol=0)
    assert gray[:, :, 1:].abs().max() < 0.02
    torch.testing.assert_close(even[:, :, 1:], whole[:, :, 1:], atol=0.02, rtol=0)
    torch.testing.assert_close(even[:, :, 0], torch.full_like(even[:, :, 0], 50), atol=0.02, rtol=0)
    assert (lightness.shape[1], colour.shape[1]) == (2, 4)
    again = from_lab((lightness[:, :, None] + 0.5) * 100, colour.unflatten(1, (2, 2)) * 100)
    torch.testing.assert_close(again, obs.float(), atol=0.02, rtol=0)


def test_each_layer_about_doubles_the_grid():
    grids = [layer.size for layer in decoder(5, (64, 4, 5), (9, 84, 60), 2) if hasattr(layer, "size")]
    assert grids == [(9, 9), (18, 17), (39, 32), (84, 60)]


def test_every_pixel_survives_the_way_there_and_back():
    obs = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(centred(obs)), obs)
    assert float(centred(obs).mean()) == pytest.approx(0, abs=1e-6)
    assert to_pixels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def pairs(task, encoder, obs):
    z = torch.rand(B, Z, generator=task.generator) * 2 - 1
    return ((obs + 0.5) / 256 - 0.5, task.to_latent(encoder(obs))), (task.generate(z), z)


def fillings(task, encoder, obs):
    """Without their context."""
    missing, holed = task._holed(obs)
    contents = (obs + 0.5) / 256 - 0.5, task.decoder(encoder(holed))
    return tuple((torch.where(missing, content, 0),) for content in contents)


@pytest.mark.parametrize(
    ("name", "options", "drawn"),
    [("bigan", {"latent_dim": Z}, pairs), ("context_encoder", {"adversarial": 0.5}, fillings)],
)
def test_the_loss_of_the_discriminator_against_numpy_moves_its_weights_alone(name, options, drawn):
    task, encoder = tiny(name, SHAPE, channels=2, **options)
    obs, rivals = noise(B, *SHAPE), list(task.adversary.parameters())
    real, generated = (array(task.adversary(*sample)) for sample in ahead(task, drawn, task, encoder, obs))
    loss = task.adversary_loss(batch_of(obs), encoder)
    wrong = np.log(1 + np.exp(-real)) + np.log(1 + np.exp(generated))
    assert float(loss.detach()) == pytest.approx(wrong.mean(), rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in rivals)
    apart = {id(p) for p in rivals}
    assert all(p.grad is None for p in [*encoder.parameters(), *task.parameters()] if id(p) not in apart)


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 28, 28), (3, 32, 40), (4, 84, 84)])
def test_the_discriminator_fits_every_image_and_reads_samples_by_themselves(shape):
    torch.manual_seed(0)
    discriminator = Discriminator(shape, Z)
    image, latent = torch.rand(4, *shape) - 0.5, torch.rand(4, Z)
    logits = discriminator(image, latent)
    assert logits.shape == (4,)
    alone = [discriminator(image[i : i + 1], latent[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), logits)
    assert not torch.equal(discriminator(image, latent.flip(0)), logits)
    assert Discriminator(shape)(image).shape == (4,)


def test_spectral_norms_follow_the_weights_in_advance_alone():
    torch.manual_seed(0)
    discriminator = Discriminator((1, 12, 12), Z).train()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter += torch.rand_like(parameter)
    before = [buffer.clone() for buffer in discriminator.buffers()]
    discriminator(torch.rand(4, 1, 12, 12), torch.rand(4, Z)).sum().backward()
    assert all(torch.equal(p, q) for p, q in zip(discriminator.buffers(), before, strict=True))
    for _ in range(50):
        discriminator.advance()
    layers = [layer for layer in discriminator.modules() if is_parametrized(layer)]
    assert len(layers) == 3
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=1e-3)


def test_a_code_moves_the_discriminator_as_much_as_an_image_does():
    torch.manual_seed(0)
    discriminator = Discriminator((1, 28, 28), 16)
    pair = (torch.rand(8, 1, 28, 28) - 0.5).requires_grad_(), (2 * torch.rand(8, 16) - 1).requires_grad_()
    slopes = torch.autograd.grad(discriminator(*pair).sum(), pair)
    image, latent = (float((slope.norm() * x.norm()).detach()) for slope, x in zip(slopes, pair, strict=True))
    assert 0.5 < latent / image < 2  # 0.12 where it is not stretched
