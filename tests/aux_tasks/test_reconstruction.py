"""Reconstruction against a loop over pixels, for every encoder."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, make_setting, make_task, noise, tiny_encoder
from control_help import SHAPE, B, Z, array

from encoders import ENCODERS, EncoderConfig, build_encoder


def test_the_loss_against_a_loop():
    encoder, obs = tiny_encoder(SHAPE, Z), noise(B, *SHAPE)
    task = make_task("reconstruction", encoder, bits=3, channels=2, latent_weight=0.01)
    dither = torch.rand(obs.shape, generator=task.generator.clone_state())
    output = task.loss(batch_of(obs), encoder(obs), encoder)
    latent, decoded = array(encoder(obs)), array(task.decoder(encoder(obs)))
    target = np.empty(obs.shape)
    for index in np.ndindex(*obs.shape):
        target[index] = (int(obs[index]) // 32 + float(dither[index])) / 8 - 0.5
    for i in range(B):
        expected = ((decoded[i] - target[i]) ** 2).mean() + 0.01 * 0.5 * (latent[i] ** 2).sum()
        assert float(output.loss[i]) == pytest.approx(expected, rel=1e-4)
    ratio = ((decoded - target) ** 2).mean() / target.var(0).mean()
    assert float(output.metrics["error_ratio"]) == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_targets_keep_the_leading_bits_and_lie_around_zero(bits):
    obs = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    target = make_task("reconstruction", tiny_encoder(SHAPE, Z), bits=bits).target(obs)
    assert -0.5 <= float(target.min()) <= float(target.max()) < 0.5
    assert len(((target + 0.5) * 2**bits).floor().unique()) == 2**bits
    assert ((target + 0.5 - obs / 256).abs() <= 2.0**-bits).all()


@pytest.mark.parametrize("size", [(84, 84), (36, 48)])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_decoder_fits_every_encoder(name, size):
    encoder = build_encoder(EncoderConfig(name, feature_dim=Z), (6, *size))
    task = make_task("reconstruction", encoder, make_setting(encoder), channels=2)
    assert task.decoder(torch.zeros(2, Z)).shape == (2, 6, *size)


def test_examples_stand_above_their_reconstructions():
    encoder, obs = tiny_encoder(SHAPE, Z), noise(B, *SHAPE)
    task = make_task("reconstruction", encoder, channels=2)
    with torch.no_grad():
        task.decoder[-1].weight.zero_()
        task.decoder[-1].bias.copy_(torch.tensor([-0.7, -0.25, 0.125, 0.6]))
    shown = task.examples(batch_of(obs), encoder)
    assert shown.inputs.dtype == torch.uint8
    assert torch.equal(shown.inputs[::2], obs[:4])
    assert shown.inputs[1::2, :, 0, 0].tolist() == [[0, 64, 160, 255]] * 4
    assert shown.predicted == ["input", "decoded"] * 4


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits must be 1 to 8, got {bits}"):
        make_task("reconstruction", tiny_encoder(SHAPE, Z), bits=bits)
