"""Denoising: what the noise touches, the weights of the pixels, and that digits come back clean."""

import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import build_task, digits, measure, scrambled, small_encoder, train_on

from aux_tasks.decoder import centred
from aux_tasks.image.denoising import NOISES

B, SHAPE = 5, (6, 12, 14)


def test_masking_hides_whole_pixels_of_the_share_asked_for():
    obs = noise(200, *SHAPE).clamp_min(1)
    task = build_task("denoising", tiny_encoder(SHAPE, 4), level=0.3)
    corrupted = task.corrupt(obs)
    hidden = corrupted == 0
    assert torch.equal(corrupted, obs * ~hidden)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert hidden[:, 0].flatten(1).float().mean(1).std() > 0.01  # each sample its own draw


def test_salt_and_pepper_come_in_equal_parts():
    obs = noise(200, *SHAPE).clamp(1, 254)
    corrupted = build_task("denoising", tiny_encoder(SHAPE, 4), noise="salt_and_pepper", level=0.4).corrupt(obs)
    salt, pepper = corrupted == 255, corrupted == 0
    assert torch.equal(corrupted[~salt & ~pepper], obs[~salt & ~pepper])
    for grains in (salt, pepper):
        assert torch.equal(grains, grains[:, :1].expand_as(grains))
        assert float(grains.float().mean()) == pytest.approx(0.2, abs=0.01)


def test_gaussian_noise_has_its_deviation_and_is_the_same_in_every_frame():
    obs = torch.full((200, *SHAPE), 128, dtype=torch.uint8)
    obs[:, 1] = 130
    offset = build_task("denoising", tiny_encoder(SHAPE, 4), noise="gaussian", level=0.1).corrupt(obs).int() - obs
    assert torch.equal(offset, offset[:, :1].expand_as(offset))
    assert float(offset.float().std()) == pytest.approx(25.5, rel=0.02)
    assert float(offset.float().mean()) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("emphasis", [0.0, 0.75])
def test_the_loss_against_a_loop(emphasis):
    obs, encoder = noise(B, *SHAPE), tiny_encoder(SHAPE, 4)
    task = build_task("denoising", encoder, emphasis=emphasis, channels=2)
    state = task.generator.get_state()
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    task.generator.set_state(state)
    corrupted = task.corrupt(obs)
    decoded = task.decoder(encoder(corrupted)).detach().double().numpy()
    clean = (obs.double().numpy() + 0.5) / 256 - 0.5
    variance = ((clean - clean.mean(0)) ** 2).mean(0)
    weight = 1 - emphasis + emphasis * variance / variance.mean()
    for i in range(B):
        expected = (weight * (decoded[i] - clean[i]) ** 2).sum() / weight.sum()
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
    loss = float(output.loss.mean().detach())
    copied = (weight * ((corrupted.double() - obs.double()).numpy() / 256) ** 2).mean()
    assert float(output.metrics["copy_ratio"]) == pytest.approx(loss / copied, rel=1e-4)
    assert float(output.metrics["error_ratio"]) == pytest.approx(loss / (weight * variance).mean(), rel=1e-4)


def test_full_emphasis_looks_only_at_pixels_that_vary():
    encoder, obs = tiny_encoder(SHAPE, 4), noise(1, *SHAPE).repeat(B, 1, 1, 1)
    obs[:, :, 3, 4] = noise(B, SHAPE[0], seed=1)
    task = build_task("denoising", encoder, emphasis=1.0)
    clean = centred(obs)
    wrong = clean.clone()
    wrong[:, :, :3] += 1
    for decoded, expected in ((wrong, 0.0), (clean.mean(0).expand_as(clean), 1.0)):
        task.decoder.forward = lambda _, decoded=decoded: decoded
        output = task.loss(batch_of(obs), torch.empty(0), encoder)
        assert float(output.metrics["error_ratio"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", NOISES)
def test_examples_show_what_was_done(kind):
    encoder, obs = tiny_encoder(SHAPE, 4), noise(B, *SHAPE)
    task = build_task("denoising", encoder, noise=kind)
    state = task.generator.get_state()
    shown = task.examples(batch_of(obs), encoder)
    task.generator.set_state(state)
    assert torch.equal(shown.inputs[0::3], obs[:4])
    assert torch.equal(shown.inputs[1::3], task.corrupt(obs[:4]))
    assert shown.predicted == ["clean", "corrupted", "decoded"] * 4


@pytest.mark.parametrize(("destroyed", "steps"), [(False, 120), (True, 120), (False, 0)])
def test_digits_are_cleaned_unless_their_pixels_were_scrambled(destroyed, steps):
    def draw(step):
        obs = digits(0, 64, size=12)
        return batch_of(scrambled(obs, seed=step) if destroyed else obs)

    encoder = tiny_encoder((1, 12, 12), 32)
    task = build_task("denoising", encoder, channels=16)
    train_on(task, encoder, draw, steps=steps, lr=3e-3)
    ratio = measure(task, encoder, draw(999))["error_ratio"]
    assert ratio > 0.9 if destroyed or not steps else ratio < 0.5


@pytest.mark.slow
def test_unseen_digits_come_back_cleaner_than_they_went_in():
    encoder, seen = small_encoder((1, 28, 28)), digits(0, 1400)
    task = build_task("denoising", encoder)
    order = torch.randint(1400, (200, 32), generator=generator(4))
    train_on(task, encoder, lambda step: batch_of(seen[order[step]]), steps=200)
    found = measure(task, encoder, batch_of(digits(1400, 1797)))
    assert found["error_ratio"] < 0.5
    assert found["copy_ratio"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "gausian"}, "noise must be one of .* did you mean 'gaussian'"),
        ({"level": 0.0}, "level must be between 0 and 1, got 0.0"),
        ({"level": 1.0}, "level must be between 0 and 1, got 1.0"),
        ({"emphasis": 1.5}, "emphasis must be 0 to 1, got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task("denoising", tiny_encoder(SHAPE, 4), **options)
