"""Counting: the views against the images, the loss against a loop, its trivial values and its guards."""

import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, noise
from patches_help import SIZE, draw_from, patch_encoder
from pretext_help import build_task, digits, measure, small_encoder, train_on
from torch import nn

from aux_tasks.image.counting import SAMPLERS
from encoders import Encoder

B, K = 5, 7


def views_again(task, obs, seed=3):
    """The views of the loss that comes next."""
    task.generator.manual_seed(seed)
    views = task._views(obs)
    task.generator.manual_seed(seed)
    return views


def resized(images, shape, mode="bilinear"):
    smooth = {} if mode == "area" else {"antialias": True}
    return F.interpolate(images, shape, mode=mode, **smooth)


def test_the_views_are_the_image_by_a_random_sampler_and_its_quarters():
    obs = noise(40, 2, 28, 36)
    encoder = Encoder(nn.Conv2d(2, 3, 5, stride=5), nn.Sequential(), (2, 28, 36))
    task = build_task("counting", encoder, frame_stack=2, window=1.0)
    views, used = views_again(task, obs), []
    for b, image in enumerate(obs.float()):
        smaller = [resized(image[None], (14, 18), mode) for mode in SAMPLERS]
        whole = [resized(small, (28, 36), mode).clamp(0, 255)[0] for small, mode in zip(smaller, SAMPLERS, strict=True)]
        used.append([i for i, w in enumerate(whole) if torch.allclose(w, views[b, 0], rtol=0, atol=0.01)])
        for j, (y, x) in enumerate([(0, 0), (0, 18), (14, 0), (14, 18)]):
            tile = resized(image[None, :, y : y + 14, x : x + 18], (28, 36))[0]
            torch.testing.assert_close(views[b, 1 + j], tile, rtol=0, atol=0.01)
    assert all(len(found) == 1 for found in used)
    assert min(used.count([i]) for i in range(len(SAMPLERS))) > 4
    assert (views >= 0).all()
    assert (views <= 255).all()


def test_the_window_moves_and_is_the_same_for_the_image_and_its_tiles():
    lines = torch.arange(SIZE, dtype=torch.uint8) * 10
    obs = torch.stack([lines.view(-1, 1).expand(SIZE, SIZE), lines.expand(SIZE, SIZE)]).expand(60, -1, -1, -1)
    views = views_again(build_task("counting", patch_encoder(2), frame_stack=2, window=0.8), obs)  # 19, of which 18
    middle = views[:, 0].mean((2, 3))
    assert set(((middle - 85) / 10).round().flatten().tolist()) == set(range(6))
    torch.testing.assert_close(views[:, 1:].mean((1, 3, 4)), middle, rtol=0, atol=2.5)


def test_the_loss_against_a_loop():
    encoder, obs = patch_encoder(2), noise(B, 2, SIZE, SIZE) // torch.arange(1, B + 1).view(B, 1, 1, 1).byte()
    task = build_task("counting", encoder, frame_stack=2, counts=K)
    task.count[0].weight.data *= 20  # distances of the order of 1
    views = views_again(task, obs)
    with torch.no_grad():
        counts = [[task.count(encoder(view[None]))[0] for view in image] for image in views]
    parts = [sum(image[1:]) for image in counts]
    distance = [[float((counts[j][0] - parts[i]).square().sum()) for j in range(B)] for i in range(B)]
    other = [distance[i][(i + 1) % B] for i in range(B)]
    task.margin = sorted(other)[2]  # so that the hinge is open for two and shut for three
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    for i in range(B):
        expected = distance[i][i] + max(0.0, task.margin - other[i])
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    hits = sum(distance[i][i] == min(distance[i]) for i in range(B))
    every = torch.stack([image[0] > 0 for image in counts]).any(0)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / B)
    assert float(output.metrics["chance"]) == pytest.approx(1 / B)
    assert float(output.metrics["error_ratio"]) == pytest.approx(float(output.loss.detach().mean()) / task.margin)
    assert float(output.metrics["active_counts"]) == pytest.approx(float(every.float().mean()))


def test_counts_of_zero_cost_the_margin():
    encoder = patch_encoder()
    task = build_task("counting", encoder, margin=3.0)
    for parameter in task.count.parameters():
        parameter.data.zero_()
    output = task.loss(batch_of(noise(B, 1, SIZE, SIZE)), torch.empty(0), encoder)
    assert torch.equal(output.loss, torch.full((B,), 3.0))
    assert (output.metrics["error_ratio"], output.metrics["active_counts"]) == (1, 0)


def test_counts_are_not_negative_and_start_small():
    encoder = small_encoder((1, SIZE, SIZE))
    task, images = build_task("counting", encoder), digits(0, B, SIZE)
    assert 0.9 < task.loss(batch_of(images), torch.empty(0), encoder).metrics["error_ratio"] < 1.1
    whole, parts = task._counts(task._views(noise(B, 1, SIZE, SIZE)), encoder)
    assert (torch.cat([whole, parts]) >= 0).all()
    assert (whole > 0).any()


def test_most_colour_images_turn_gray_in_all_their_views():
    views = views_again(build_task("counting", patch_encoder(3)), noise(90, 3, SIZE, SIZE))
    gray = (views - views[:, :, :1]).abs().flatten(2).amax(2) < 1e-2  # (B, 5)
    assert torch.equal(gray.all(1), gray.any(1))
    assert 45 < int(gray.all(1).sum()) < 76


def test_examples_are_half_size_images_with_the_closest_counts():
    encoder, obs = patch_encoder(), noise(11, 1, SIZE, SIZE)
    task = build_task("counting", encoder)
    views = views_again(task, obs)
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs, views[:8, 0].to(torch.uint8))
    whole, parts = task._counts(views, encoder)
    assert shown.predicted == [str(int((part - whole).square().sum(1).argmin())) for part in parts[:8]]
    assert shown.correct == [str(i) for i in range(8)]


def trained(draw, held_out, *, steps=80, lr=3e-3, window=0.9):
    encoder = patch_encoder()
    task = build_task("counting", encoder, window=window)
    train_on(task, encoder, draw, steps=steps, lr=lr)
    return measure(task, encoder, batch_of(held_out))


def test_it_is_learned_and_not_without_steps():
    images = digits(0, 64, SIZE)
    found = trained(draw_from(images), images)
    assert found["error_ratio"] < 0.6
    assert found["accuracy"] > 5 / 64
    still = trained(draw_from(images), images, steps=1, lr=0.0)
    assert still["error_ratio"] > 0.9
    assert still["accuracy"] < 4 / 64


def test_images_that_are_all_the_same_cannot_be_counted():
    same = digits(0, 1, SIZE).expand(32, -1, -1, -1)
    found = trained(lambda step: batch_of(same), same, steps=40, window=1.0)
    assert found["error_ratio"] > 0.9  # but for the random sampler never below 1
    assert found["accuracy"] < 4 / 32


@pytest.mark.slow
def test_the_small_encoder_learns_it_on_digits():
    encoder, images = small_encoder((1, 28, 28)), digits(0, 1500)
    task = build_task("counting", encoder)
    train_on(task, encoder, draw_from(images, 24), steps=75)
    found = measure(task, encoder, batch_of(digits(1500, 1564)))
    assert found["error_ratio"] < 0.7
    assert found["active_counts"] > 0.5
    assert found["accuracy"] > 5 / 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": 0}, "counts must be at least 1, got 0"),
        ({"margin": 0.0}, "margin must be positive, got 0.0"),
        ({"window": 1.2}, r"share in \(0, 1\] of its cell's side, got 1.2"),
        ({"gray": -1.0}, r"gray must be in \[0, 1\], got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task("counting", patch_encoder(), **options)
