"""Relative patch position: directions, the loss against a loop, and what must not give the answer away."""

import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, generator, noise
from patches_help import SIZE, draw_from, patch_encoder
from pretext_help import build_task, digits, measure, scrambled, small_encoder, train_on
from torch import nn

from aux_tasks.image.patches import normalize
from aux_tasks.image.relative_position import DIRECTIONS

B = 5


def cut_again(task, obs, seed=3):
    """The patches and inputs of the loss that comes next."""
    task.generator.manual_seed(seed)
    patches = task.grid.cut(obs, task.generator)
    inputs = task._inputs(patches)
    task.generator.manual_seed(seed)
    return patches, inputs


class Compass(nn.Module):
    """A head that knows the coordinates (row, column) of both patches."""

    def forward(self, pair):
        (row, column), threshold = (pair[..., 2:] - pair[..., :2]).unbind(-1), 4
        words = [("top", row < -threshold), ("bottom", row > threshold), ("left", column < -threshold)]
        words.append(("right", column > threshold))
        logits = []
        for direction in DIRECTIONS:
            logits.append(torch.stack([yes == (word in direction) for word, yes in words]).all(0))
        return torch.stack(logits, dim=-1).float() * 50


def test_the_labels_are_the_directions_from_the_first_patch_to_the_second():
    task = build_task("relative_position", patch_encoder(2, 36), frame_stack=2)
    task._inputs = lambda patches: patches.float()
    task.head = Compass()
    lines = torch.arange(36, dtype=torch.uint8)
    obs = torch.stack([lines.view(-1, 1).expand(36, 36), lines.expand(36, 36)]).expand(B, -1, -1, -1)
    output = task.loss(batch_of(obs), torch.empty(0), lambda patches: patches.mean((2, 3)))
    assert output.metrics["accuracy"] == 1
    assert output.loss.max() < 1e-6


def test_the_loss_against_a_loop():
    encoder = patch_encoder(2)
    task, obs = build_task("relative_position", encoder, frame_stack=2, hidden=7), noise(B, 2, SIZE, SIZE)
    _, inputs = cut_again(task, obs)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    hits = 0
    for b in range(B):
        losses, z = [], [encoder(patch[None])[0] for patch in inputs[b]]
        for k, cell in enumerate([0, 1, 2, 3, 5, 6, 7, 8]):
            for first, second, label in ((4, cell, k), (cell, 4, 7 - k)):
                logits = task.head(torch.cat([z[first], z[second]])[None])[0]
                losses.append(logits.exp().sum().log() - logits[label])
                hits += int(logits.argmax()) == label
        torch.testing.assert_close(output.loss[b], torch.stack(losses).mean())
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / (B * 16))
    assert float(output.metrics["chance"]) == 1 / 8


def test_fine_patches_are_resized_and_coarse_ones_lose_detail():
    obs = noise(40, 1, SIZE, SIZE)
    task = build_task("relative_position", patch_encoder(), coarse=0.0)
    patches, inputs = cut_again(task, obs)
    fine = F.interpolate(normalize(patches).flatten(0, 1), (SIZE, SIZE), mode="bilinear").view_as(inputs)
    torch.testing.assert_close(inputs, fine, rtol=0, atol=1e-3)
    task = build_task("relative_position", patch_encoder())
    patches, inputs = cut_again(task, obs)
    fine = F.interpolate(normalize(patches).flatten(0, 1), (SIZE, SIZE), mode="bilinear").view_as(inputs)
    same = ((inputs - fine).abs() < 1e-3).flatten(2).all(2)
    assert 0.57 < float(same.float().mean()) < 0.77
    assert inputs[~same].std() < 0.8 * inputs[same].std()
    assert (inputs >= 0).all()
    assert (inputs <= 255).all()


def test_brightness_and_contrast_do_not_reach_the_loss():
    encoder = patch_encoder()
    task, obs = build_task("relative_position", encoder), noise(B, 1, SIZE, SIZE) // 4
    losses = []
    for pixels in (obs, obs * 3 + 40):
        task.generator.manual_seed(3)
        losses.append(task.loss(batch_of(pixels), torch.empty(0), encoder).loss)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_images_without_content_are_left_out():
    encoder = patch_encoder()
    task, obs = build_task("relative_position", encoder, patch=1.0), noise(B, 1, SIZE, SIZE)
    obs[1, :, 8:16, 8:16] = 77  # nothing in the centre
    kept = obs[2, :, 8:16, 8:16].clone()
    obs[2] = 77  # nothing around it
    obs[2, :, 8:16, 8:16] = kept
    loss = task.loss(batch_of(obs), torch.empty(0), encoder).loss
    assert (loss != 0).tolist() == [True, False, False, True, True]
    assert not task.loss(batch_of(torch.full_like(obs, 9)), torch.empty(0), encoder).loss.any()


def aberrated(batch: int) -> torch.Tensor:
    """Gray noise through a bad lens: red lies a pixel farther from the centre than green, blue a pixel nearer."""
    field = torch.randint(2, (batch, SIZE + 2, SIZE + 2), generator=generator()) * 255
    line = torch.arange(SIZE)
    outward = line * 3 // SIZE - 1
    colours = [field[:, 1 + line - s * outward][:, :, 1 + line - s * outward] for s in (1, 0, -1)]
    return torch.stack(colours, dim=1).to(torch.uint8)


@pytest.mark.parametrize(("guarded", "low", "high"), [(False, 0.9, 1.0), (True, 0.08, 0.17)])
def test_chromatic_aberration_tells_the_place_of_a_patch_unless_one_colour_is_kept(guarded, low, high):
    task = build_task("relative_position", patch_encoder(3), keep_one_colour=guarded, coarse=0.0)
    _, inputs = cut_again(task, aberrated(200))
    red, green = inputs[:, :, 0] - 127.5, inputs[:, :, 1] - 127.5
    pixel = SIZE // task.grid.patch[0]
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    match = [(red.roll((-dy * pixel, -dx * pixel), (2, 3)) * green).sum((2, 3)) for dy, dx in shifts]
    guess = torch.stack(match, dim=2).argmax(2)[:, [0, 1, 2, 3, 5, 6, 7, 8]]  # where the red is shifted to
    assert low <= float((guess == torch.arange(8)).float().mean()) <= high


def test_gray_stacks_keep_all_their_frames():
    task = build_task("relative_position", patch_encoder(3), frame_stack=3, coarse=0.0)
    patches, inputs = cut_again(task, noise(B, 3, SIZE, SIZE))
    fine = F.interpolate(normalize(patches).flatten(0, 1), (SIZE, SIZE), mode="bilinear").view_as(inputs)
    torch.testing.assert_close(inputs, fine, rtol=0, atol=1e-3)


def test_examples_are_the_patches_around_the_centre():
    encoder, obs = patch_encoder(), noise(B, 1, SIZE, SIZE)
    task = build_task("relative_position", encoder)
    _, inputs = cut_again(task, obs[:1])
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs, inputs[0].to(torch.uint8))
    assert shown.correct == [*DIRECTIONS[:4], "centre", *DIRECTIONS[4:]]
    assert len(shown.predicted) == 9
    assert set(shown.predicted) <= {"centre", *DIRECTIONS}


def trained(draw, held_out, *, steps=60, lr=3e-3):
    encoder = patch_encoder()
    task = build_task("relative_position", encoder, hidden=64)
    train_on(task, encoder, draw, steps=steps, lr=lr)
    return measure(task, encoder, batch_of(held_out))["accuracy"]


def test_it_is_learned_and_not_without_steps():
    images = digits(0, 64, SIZE)
    assert trained(draw_from(images), digits(1500, 1628, SIZE)) > 0.25
    assert trained(draw_from(images), images, steps=1, lr=0.0) < 0.2


def test_shuffled_pixels_stay_at_chance():
    images = digits(0, 64, SIZE)
    held_out = scrambled(digits(1500, 1628, SIZE), seed=999)
    accuracy = trained(lambda step: batch_of(scrambled(images[step % 2 :: 2], seed=step)), held_out, steps=40)
    assert abs(accuracy - 0.125) < 0.025


@pytest.mark.slow
def test_the_small_encoder_learns_it_on_digits():
    encoder, images = small_encoder((1, 28, 28)), digits(0, 1500)
    task = build_task("relative_position", encoder)
    train_on(task, encoder, draw_from(images, 24), steps=60)
    assert measure(task, encoder, batch_of(digits(1500, 1797)))["accuracy"] > 0.35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coarse": 1.1}, r"coarse must be in \[0, 1\], got 1.1"),
        ({"patch": 0.0}, r"share in \(0, 1\] of its cell's side, got 0.0"),
        ({"patch": 0.2}, "3x3 patches of 24x24 pixels are smaller than 3x3"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task("relative_position", patch_encoder(), **options)
