"""Jigsaw puzzles: put together again, the loss against a loop, the set of permutations, the guards."""

import math

import pytest
import torch
from aux_help import batch_of, noise
from patches_help import SIZE, draw_from, patch_encoder
from pretext_help import build_task, digits, measure, scrambled, small_encoder, train_on

from aux_tasks.image.jigsaw import distant_permutations
from aux_tasks.image.patches import normalize, resize

B, SMALL = 5, {"permutations": 6, "puzzles": 3, "width": 4, "hidden": 7}


def drawn(task, obs, seed=3):
    """Tiles and labels of the loss that comes next."""
    task.generator.manual_seed(seed)
    tiles, label = task._tiles(obs), task._labels(len(obs), task.puzzles)
    task.generator.manual_seed(seed)
    return tiles, label


def test_a_puzzle_put_together_again_is_the_image():
    task = build_task("jigsaw", patch_encoder(), tile=1.0, **SMALL)
    obs = noise(B, 1, SIZE, SIZE)
    tiles, label = drawn(task, obs)
    laid = task.lay_out(tiles, label)
    for b in range(B):
        for p in range(3):
            image = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
            for place, tile in enumerate(task.permutations[label[b, p]].tolist()):
                y, x = tile // 3 * 8, tile % 3 * 8
                image[y : y + 8, x : x + 8] = laid[b, p, place, 0]
            assert torch.equal(image, obs[b, 0])


def test_the_permutations_are_far_apart_belong_to_the_seed_and_are_kept():
    chosen = distant_permutations(30, 9, seed=0)
    assert torch.equal(chosen.sort(1).values, torch.arange(9).expand(30, 9))
    distance = (chosen[:, None] != chosen).sum(2)
    apart = distance[~torch.eye(30, dtype=torch.bool)]
    assert apart.min() >= 7  # of random ones it is about 4
    assert torch.equal(distant_permutations(30, 9, seed=0), chosen)
    assert not torch.equal(distant_permutations(30, 9, seed=1), chosen)
    assert len({tuple(order) for order in distant_permutations(24, 4, seed=0).tolist()}) == 24
    task = build_task("jigsaw", patch_encoder(), **SMALL)
    assert torch.equal(task.state_dict()["permutations"], distant_permutations(6, 9, seed=0))


def test_each_permutation_is_the_farthest_that_there_is():
    chosen = distant_permutations(6, 3, seed=0).tolist()
    for k in range(2, 6):
        nearest = [min(sum(a != b for a, b in zip(p, q, strict=True)) for q in chosen[:k]) for p in chosen[k:]]
        assert nearest[0] == max(nearest)


def test_the_loss_against_a_loop():
    encoder, obs = patch_encoder(2), noise(B, 2, SIZE, SIZE)
    task = build_task("jigsaw", encoder, frame_stack=2, **SMALL)
    tiles, label = drawn(task, obs)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    hits = 0
    for b in range(B):
        losses, inputs = [], resize(normalize(tiles[b : b + 1]), (SIZE, SIZE))
        embedded = [task.tile(encoder(inputs[t : t + 1]))[0] for t in range(9)]
        for number in label[b].tolist():
            order = task.permutations[number].tolist()
            logits = task.head(torch.cat([embedded[t] for t in order])[None])[0]
            losses.append(logits.exp().sum().log() - logits[number])
            hits += int(logits.argmax()) == number
        torch.testing.assert_close(output.loss[b], torch.stack(losses).mean())
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / (B * 3))
    assert float(output.metrics["chance"]) == pytest.approx(1 / 6)


def test_each_tile_is_encoded_once_for_all_its_puzzles():
    encoder = patch_encoder()
    task, seen = build_task("jigsaw", encoder, **SMALL), []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    task.loss(batch_of(noise(B, 1, SIZE, SIZE)), torch.empty(0), encoder)
    assert seen == [(B * 9, 1, SIZE, SIZE)]


def test_labels_are_uniform_and_differ_within_an_image():
    task = build_task("jigsaw", patch_encoder(), **SMALL)
    label = task._labels(3000, 3)
    counts = label.flatten().bincount(minlength=6).double()
    assert ((counts - 1500) ** 2 / 1500).sum() < 25.7  # chi-square, 5 degrees, p = 1e-4
    assert 0.14 < float((label[:, 0] == label[:, 1]).double().mean()) < 0.2


def test_brightness_and_contrast_of_a_tile_do_not_reach_the_loss():
    encoder, obs = patch_encoder(), noise(B, 1, SIZE, SIZE) // 4
    task, tinted = build_task("jigsaw", encoder, **SMALL), obs.clone()
    tinted[:, :, :8, :8] = obs[:, :, :8, :8] * 3 + 40
    losses = []
    for pixels in (obs, tinted):
        task.generator.manual_seed(3)
        losses.append(task.loss(batch_of(pixels), torch.empty(0), encoder).loss)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_some_colour_images_turn_gray():
    task = build_task("jigsaw", patch_encoder(3), gray=0.5, **SMALL)
    tiles, _ = drawn(task, noise(60, 3, SIZE, SIZE))
    gray = (tiles == tiles[:, :, :1]).flatten(1).all(1)
    assert 15 < int(gray.sum()) < 45


def test_colours_move_against_each_other_in_each_tile_and_gray_images_stay_gray():
    task = build_task("jigsaw", patch_encoder(3), tile=1.0, gray=0.5, **SMALL)
    flat = noise(60, 1, SIZE, SIZE).expand(-1, 3, -1, -1)
    tiles, _ = drawn(task, flat)
    same = (tiles[:, :, :1] == tiles[:, :, 1:]).flatten(2).all(2)
    gray = same.all(1)
    assert 15 < int(gray.sum()) < 45
    assert float(same[~gray].double().mean()) < 0.02  # all three moved alike: 1 / 25 ** 2
    still = build_task("jigsaw", patch_encoder(3), tile=1.0, gray=0.0, colour_jitter=0, **SMALL)
    assert torch.equal(drawn(still, flat)[0][:, 0], flat[:, :, :8, :8])


def test_images_with_fewer_than_two_tiles_of_content_are_left_out():
    encoder = patch_encoder()
    task, obs = build_task("jigsaw", encoder, **SMALL), torch.full((B, 1, SIZE, SIZE), 50, dtype=torch.uint8)
    obs[1, :, :8, :8] = noise(1, 1, 8, 8)[0]
    obs[2:, :, :8, :16] = noise(3, 1, 8, 16)
    loss = task.loss(batch_of(obs), torch.empty(0), encoder).loss
    assert (loss != 0).tolist() == [False, False, True, True, True]


def test_a_blind_head_has_the_loss_of_a_guess():
    encoder = patch_encoder()
    task = build_task("jigsaw", encoder, **SMALL)
    for parameter in task.head[-1].parameters():
        parameter.data.zero_()
    loss = task.loss(batch_of(noise(B, 1, SIZE, SIZE)), torch.empty(0), encoder).loss
    torch.testing.assert_close(loss, torch.full((B,), math.log(6)))


def test_examples_are_puzzles_with_their_numbers():
    encoder, obs = patch_encoder(2), noise(11, 2, SIZE, SIZE)
    task = build_task("jigsaw", encoder, frame_stack=2, tile=1.0, **SMALL)
    task.generator.manual_seed(3)
    shown = task.examples(batch_of(obs), encoder)
    task.generator.manual_seed(3)
    tiles, label = task._tiles(obs[:8]), task._labels(8, 1)
    assert shown.correct == [str(i) for i in label[:, 0].tolist()]
    assert len(shown.predicted) == 8
    for k in range(8):
        for place, tile in enumerate(task.permutations[label[k, 0]].tolist()):
            y, x = place // 3 * 8, place % 3 * 8
            assert torch.equal(shown.inputs[k, :, y : y + 8, x : x + 8], normalize(tiles[k, tile]).to(torch.uint8))


def trained(draw, held_out, *, steps=40, lr=3e-3):
    encoder = patch_encoder()
    task = build_task("jigsaw", encoder, hidden=64, permutations=10)
    train_on(task, encoder, draw, steps=steps, lr=lr)
    return measure(task, encoder, batch_of(held_out))["accuracy"]


def test_it_is_learned_and_not_without_steps():
    images, held_out = digits(0, 64, SIZE), digits(1500, 1628, SIZE)
    assert trained(draw_from(images), held_out) > 0.8
    assert trained(draw_from(images), images, steps=1, lr=0.0) < 0.2


def test_shuffled_pixels_stay_at_chance():
    images, held_out = digits(0, 64, SIZE), scrambled(digits(1500, 1628, SIZE), seed=999)
    accuracy = trained(lambda step: batch_of(scrambled(images[step % 2 :: 2], seed=step)), held_out)
    assert abs(accuracy - 0.1) < 0.03


@pytest.mark.slow
def test_the_small_encoder_learns_it_on_digits():
    encoder, images = small_encoder((1, 28, 28)), digits(0, 1500)
    task = build_task("jigsaw", encoder)
    train_on(task, encoder, draw_from(images, 24), steps=60)
    assert measure(task, encoder, batch_of(digits(1500, 1797)))["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 1}, "cells must be at least 2, got 1"),
        ({"cells": 2, "permutations": 25}, "permutations of 2x2 tiles must be 2 to 24, got 25"),
        ({"permutations": 1}, "permutations of 3x3 tiles must be 2 to 1000, got 1"),
        ({"puzzles": 0}, "puzzles must be at least 1, got 0"),
        ({"colour_jitter": -1}, "colour_jitter must be at least 0, got -1"),
        ({"gray": 2.0}, r"gray must be in \[0, 1\], got 2.0"),
        ({"cells": 8}, "8x8 patches of 24x24 pixels are smaller than 3x3"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task("jigsaw", patch_encoder(), **options)
