"""Split-brain: halves that make up the whole, never meet, and tell of each other."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import balls, build_task, measure, photos, small_encoder, train_on

from aux_tasks.decoder import to_pixels
from aux_tasks.image.colour import from_lab, to_lab

B = 5
GRAY, COLOUR = (4, 12, 14), (6, 12, 14)


def task_of(shape, frame_stack, **options):
    encoder = tiny_encoder(shape, 4)
    return build_task("split_brain", encoder, frame_stack, **{"channels": 2} | options), encoder


def predictions(task, encoder, obs) -> list[torch.Tensor]:
    """Of the second half from the first, and of the first from the second."""
    inputs, _ = task.split(obs)
    with torch.no_grad():
        return [decode(encoder(half)) for decode, half in zip(task.decoders, inputs, strict=True)]


@pytest.mark.parametrize(("shape", "frames", "cut"), [(GRAY, 4, 2), ((3, 12, 14), 3, 1), ((9, 12, 14), 3, 3)])
def test_halves_of_a_stack_are_frames_seen_beside_black_ones(shape, frames, cut):
    task, _ = task_of(shape, frames, halves="time")
    obs = noise(B, *shape)
    (older, newer), (first, second) = task.split(obs)
    assert torch.equal(older[:, :cut], obs[:, :cut])
    assert torch.equal(newer[:, cut:], obs[:, cut:])
    assert not older[:, cut:].any()
    assert not newer[:, :cut].any()
    assert torch.equal(to_pixels(torch.cat([first, second], dim=1)), obs)


def test_halves_in_colour_are_a_gray_picture_and_one_of_even_lightness():
    task, _ = task_of(COLOUR, 2)
    obs = 118 + noise(B, *COLOUR) // 12  # soft colours, which a screen can show at any lightness
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


def test_no_prediction_in_time_depends_on_what_it_must_predict():
    task, encoder = task_of(GRAY, 4)
    obs, other = noise(B, *GRAY), noise(B, *GRAY, seed=1)
    newer, older = predictions(task, encoder, obs)
    new_future, new_past = (
        predictions(task, encoder, torch.cat(p, 1)) for p in ((obs[:, :2], other[:, 2:]), (other[:, :2], obs[:, 2:]))
    )
    assert torch.equal(new_future[0], newer)
    assert torch.equal(new_past[1], older)
    assert not torch.equal(new_future[1], older)
    assert not torch.equal(new_past[0], newer)


def test_no_prediction_in_colour_depends_on_what_it_must_predict():
    task, encoder = task_of((3, 12, 14), 1)
    lightness, colour = torch.rand(2, B, 1, 1, 12, 14) * 10 + 55, torch.rand(2, B, 1, 2, 12, 14) * 20 - 10

    def predicted(light, ab):
        return predictions(task, encoder, from_lab(light, ab))

    ab, light = predicted(lightness[0], colour[0])
    torch.testing.assert_close(predicted(lightness[0], colour[1])[0], ab, atol=1e-4, rtol=0)
    torch.testing.assert_close(predicted(lightness[1], colour[0])[1], light, atol=1e-4, rtol=0)
    assert (predicted(lightness[1], colour[0])[0] - ab).abs().max() > 1e-3
    assert (predicted(lightness[0], colour[1])[1] - light).abs().max() > 1e-3


@pytest.mark.parametrize(("shape", "frames"), [(GRAY, 4), (COLOUR, 2)])
def test_the_loss_against_a_loop(shape, frames):
    task, encoder = task_of(shape, frames)
    obs = noise(B, *shape)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    guessed = [p.double().numpy() for p in predictions(task, encoder, obs)]
    _, (first, second) = task.split(obs)
    pairs = list(zip(guessed, (second.double().numpy(), first.double().numpy()), strict=True))
    for i in range(B):
        expected = np.mean([((guess[i] - target[i]) ** 2).mean() for guess, target in pairs])
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
    ratios = [((g - t) ** 2).mean() / t.var(0).mean() for g, t in pairs]
    names = ("colour", "lightness") if shape == COLOUR else ("newer", "older")
    for name, ratio in zip(names, ratios, strict=True):
        assert float(output.metrics[f"{name}_error_ratio"]) == pytest.approx(ratio, rel=1e-4)
    assert float(output.metrics["error_ratio"]) == pytest.approx(np.mean(ratios), rel=1e-4)


def stacks(batch: int, seed: int = 0, *, torn: bool = False) -> torch.Tensor:
    """Four frames of a bouncing ball; or, torn, the older ones of one and the newer ones of another."""
    obs = balls(64, 4, 12)[:, :, 0][torch.randint(64, (batch,), generator=generator(seed))]
    if torn:
        return torch.cat([obs[:, :2], obs[torch.randperm(batch, generator=generator(seed)), 2:]], dim=1)
    return obs


def tones(batch: int, seed: int = 0, *, torn: bool = False) -> torch.Tensor:
    """Tiles that are warm where they are light; or, torn, where another image's are."""
    light = torch.rand(batch, 1, 1, 3, 3, generator=generator(seed)).round()
    light = light.repeat_interleave(4, 3).repeat_interleave(4, 4)
    warm = light.roll(1, 0) if torn else light
    return from_lab(40 + 20 * light, (40 * warm - 20).expand(-1, -1, 2, -1, -1)).round().to(torch.uint8)


@pytest.mark.parametrize(("torn", "steps"), [(False, 120), (True, 120), (False, 0)])
@pytest.mark.parametrize(("images", "frames"), [(stacks, 4), (tones, 1)])
def test_halves_tell_of_each_other_unless_they_were_torn_apart(images, frames, torn, steps):
    encoder = tiny_encoder(tuple(images(1).shape[1:]), 32)
    task = build_task("split_brain", encoder, frames, channels=16)
    train_on(task, encoder, lambda step: batch_of(images(64, step, torn=torn)), steps=steps, lr=3e-3)
    found = measure(task, encoder, batch_of(images(64, 999, torn=torn)), draws=1)
    halves = [ratio for name, ratio in found.items() if name.endswith("_error_ratio")]
    assert len(halves) == 2
    assert min(halves) > 0.9 if torn or not steps else max(halves) < 0.7


@pytest.mark.slow
def test_lightness_and_colour_of_other_crops_of_a_photograph_tell_of_each_other():
    seen, encoder = photos(1024, seed=0), small_encoder((3, 32, 32))
    task = build_task("split_brain", encoder)
    order = torch.randint(1024, (200, 32), generator=generator(4))
    train_on(task, encoder, lambda step: batch_of(seen[order[step]]), steps=200)
    found = measure(task, encoder, batch_of(photos(256, seed=2)), draws=1)
    assert found["colour_error_ratio"] < 0.8
    assert found["lightness_error_ratio"] < 0.5


@pytest.mark.parametrize(("shape", "frames"), [(GRAY, 4), (COLOUR, 2)])
def test_examples_stand_above_what_their_halves_make_of_each_other(shape, frames):
    task, encoder = task_of(shape, frames)
    obs = noise(B, *shape)
    _, halves = task.split(obs[:4])
    for decode, target in zip(task.decoders, reversed(halves), strict=True):
        decode.forward = lambda _, target=target: target  # a perfect one
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs[0::2], obs[:4])
    torch.testing.assert_close(shown.inputs[1::2].int(), obs[:4].int(), atol=1, rtol=0)
    assert shown.predicted == ["observed", "predicted"] * 4


@pytest.mark.parametrize(
    ("shape", "frames", "options", "message"),
    [
        ((1, 8, 8), 1, {}, "split_brain needs colour observations or a frame_stack of at least 2"),
        ((3, 8, 8), 1, {"halves": "time"}, "split_brain needs colour observations or a frame_stack of at least 2"),
        ((4, 8, 8), 4, {"halves": "colour"}, "halves=colour needs colour observations"),
        ((4, 8, 8), 4, {"halves": "color"}, "halves must be one of .* did you mean 'colour'"),
        ((4, 8, 8), 2, {}, r"frames must be gray \(1 channel\) or colour \(3\), got 2 channels a frame"),
    ],
)
def test_what_does_not_fit_is_refused(shape, frames, options, message):
    with pytest.raises(ValueError, match=message):
        task_of(shape, frames, **options)
