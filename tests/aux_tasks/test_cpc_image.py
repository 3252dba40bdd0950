"""CPC on images: the loss against a loop, what a context has seen, and what the rows below share with it."""

import math

import pytest
import torch
from aux_help import batch_of, noise
from patches_help import SIZE, draw_from, patch_encoder
from pretext_help import build_task, digits, measure, small_encoder, train_on
from torch import nn

from aux_tasks.image.patches import normalize, resize

B, SMALL = 3, {"cells": 5, "steps": 2, "width": 8, "layers": 3}
PLACES = [(b, i, j) for b in range(B) for i in range(5) for j in range(5)]


def patches_again(task, obs, seed=3):
    """The patches of the loss that comes next."""
    task.generator.manual_seed(seed)
    patches = normalize(task.grid.cut(obs, task.generator))
    task.generator.manual_seed(seed)
    return patches


@torch.no_grad()
def test_the_loss_against_a_loop():
    encoder, obs = patch_encoder(2), noise(B, 2, SIZE, SIZE)
    task = build_task("cpc_image", encoder, frame_stack=2, **SMALL)
    patches = patches_again(task, obs)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    latent = {}
    for b, i, j in PLACES:
        patch = resize(patches[b : b + 1, 5 * i + j : 5 * i + j + 1], (SIZE, SIZE))
        latent[b, i, j] = task.latent(encoder(patch))[0]
    hits = {2: 0, 3: 0}
    for b in range(B):
        context = task.context(torch.stack([latent[b, i, j] for i in range(5) for j in range(5)]).view(1, 5, 5, 8))[0]
        means = []
        for k, count in ((2, 15), (3, 10)):
            losses = []
            for i in range(5 - k):
                for j in range(5):
                    predicted = task.predictors[k - 2](context[i, j])
                    logits = torch.stack([predicted @ task.target(latent[place]) / math.sqrt(8) for place in PLACES])
                    own = PLACES.index((b, i + k, j))
                    losses.append(float(logits.logsumexp(0) - logits[own]))
                    hits[k] += int(logits.argmax()) == own
            assert len(losses) == count
            means.append(sum(losses) / count)
        assert float(output.loss[b]) == pytest.approx(sum(means) / 2, rel=1e-4)
    accuracy = (hits[2] / (B * 15) + hits[3] / (B * 10)) / 2
    assert float(output.metrics["accuracy"]) == pytest.approx(accuracy)
    assert float(output.metrics["chance"]) == pytest.approx(1 / (B * 25))


@pytest.mark.parametrize(("row", "column"), [(0, 2), (2, 0), (3, 4)])
def test_a_prediction_has_seen_its_row_and_the_rows_above_of_its_own_image_alone(row, column):
    task = build_task("cpc_image", patch_encoder(), **SMALL)
    latents = torch.randn(B, 5, 5, 8, requires_grad=True)
    task.predictors[0](task.context(latents)[1, row, column]).square().sum().backward()
    seen = latents.grad.abs().sum(3)
    assert not seen[[0, 2]].any()
    assert not seen[1, row + 1 :].any()
    assert (seen[1, : row + 1].sum(1) > 0).all()


@pytest.mark.parametrize("size", [24, 28, 36])
def test_a_prediction_shares_no_pixel_with_what_it_predicts(size):
    encoder = patch_encoder(1, size)
    task = build_task("cpc_image", encoder, patch=1.0, **SMALL)
    pixels = noise(B, 1, size, size).float().requires_grad_()
    latents = task.latents(normalize(task.grid.cut(pixels, task.generator)), encoder)
    context = task.context(latents)
    for row in range(3):
        reads, shown, overlapping = (
            torch.autograd.grad(tensor.square().sum() + tensor.sum(), pixels, retain_graph=True)[0].abs().sum(3) > 0
            for tensor in (context[0, row, 2], latents[0, row + 2, 2], latents[0, row + 1, 2])
        )
        assert reads.any()
        assert shown.any()
        assert not (reads & shown).any()
        assert (reads & overlapping).any()  # which is why the first row below is left out


def test_no_patch_changes_with_the_others():
    encoder = patch_encoder()
    task, patches = build_task("cpc_image", encoder, **SMALL), normalize(noise(B, 25, 1, 8, 8))
    latents, alone = task.latents(patches, encoder), task.latents(patches[1:2], encoder)
    torch.testing.assert_close(alone[0], latents[1])
    changed = patches.clone()
    changed[1, 7] = 255 - changed[1, 7]
    differs = (task.latents(changed, encoder) - latents).abs().sum(3) > 1e-4
    assert differs.nonzero().tolist() == [[1, 1, 2]]
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm) for m in task.modules())


def test_brightness_contrast_and_colour_do_not_reach_the_loss():
    encoder, obs = patch_encoder(3), noise(B, 1, SIZE, SIZE) // 4
    task, losses = build_task("cpc_image", encoder, **SMALL), []
    for pixels in (obs.expand(-1, 3, -1, -1), obs.expand(-1, 3, -1, -1) * 3 + 40):
        task.generator.manual_seed(3)
        losses.append(task.loss(batch_of(pixels), torch.empty(0), encoder).loss)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    seen = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task.loss(batch_of(noise(B, 3, SIZE, SIZE)), torch.empty(0), encoder)
    torch.testing.assert_close(seen[0], seen[0][:, :1].expand_as(seen[0]))


def test_a_blind_predictor_has_the_loss_of_a_guess():
    encoder = patch_encoder()
    task = build_task("cpc_image", encoder, **SMALL)
    for parameter in task.predictors.parameters():
        parameter.data.zero_()
    loss = task.loss(batch_of(noise(B, 1, SIZE, SIZE)), torch.empty(0), encoder).loss
    torch.testing.assert_close(loss, torch.full((B,), math.log(B * 25)))


@torch.no_grad()
def test_examples_show_the_patch_that_each_place_chose():
    encoder, obs = patch_encoder(2), noise(5, 2, SIZE, SIZE)
    task = build_task("cpc_image", encoder, frame_stack=2, patch=1.0, **SMALL)
    patches = patches_again(task, obs)
    shown = task.examples(batch_of(obs), encoder)
    latents = task.latents(patches, encoder)
    context, target = task.context(latents), task.target(latents).flatten(0, 2)
    for b in range(4):
        seen, predicted = torch.zeros(2, 40, 40), torch.full((2, 40, 40), 127.5)
        for i in range(5):
            for j in range(5):
                seen[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = patches[b, 5 * i + j]
                if i >= 2:
                    own = (target @ task.predictors[0](context[b, i - 2, j])).argmax()
                    predicted[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = patches.flatten(0, 1)[own]
        index = torch.arange(SIZE) * 40 // SIZE
        for picture, k in ((seen, 2 * b), (predicted, 2 * b + 1)):
            assert torch.equal(shown.inputs[k], picture[:, index][:, :, index].to(torch.uint8))
    assert shown.predicted == ["seen", "predicted"] * 4


def trained(draw, held_out, *, steps=40, lr=3e-3):
    encoder = patch_encoder()
    task = build_task("cpc_image", encoder, cells=4, steps=2, width=32)
    train_on(task, encoder, draw, steps=steps, lr=lr)
    return measure(task, encoder, batch_of(held_out))["accuracy"]


def test_it_is_learned_and_not_without_steps():
    images, chance = digits(0, 64, SIZE), 1 / (64 * 16)
    assert trained(draw_from(images), images) > 10 * chance
    assert trained(draw_from(images), images, steps=1, lr=0.0) < 4 * chance


def test_noise_stays_at_chance():
    accuracy = trained(lambda step: batch_of(noise(16, 1, SIZE, SIZE, seed=step)), noise(64, 1, SIZE, SIZE, seed=999))
    assert accuracy < 4 / (64 * 16)


@pytest.mark.slow
def test_the_small_encoder_learns_it_on_digits():
    encoder, images = small_encoder((1, 28, 28)), digits(0, 1500)
    task = build_task("cpc_image", encoder, cells=4, steps=2)
    train_on(task, encoder, draw_from(images, 16), steps=60)
    assert measure(task, encoder, batch_of(digits(1500, 1564)))["accuracy"] > 5 / (64 * 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 2}, "steps must be at least 1 and at most cells - 2, got 3 of 2 cells"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"gray": 1.5}, r"gray must be in \[0, 1\], got 1.5"),
        ({"cells": 20}, "20x20 patches of 24x24 pixels are smaller than 3x3"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task("cpc_image", patch_encoder(), **options)
