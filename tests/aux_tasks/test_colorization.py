"""Colorization against a loop in numpy, what the encoder sees, and that colours are told by context."""

import numpy as np
import pytest
import torch
from aux_help import generator, noise, tiny_encoder
from pretext_help import build_task, colours_of, measure, photos, small_encoder, train_on

from aux_tasks.image.colorization import MEMORY
from aux_tasks.image.colour import from_lab, in_gamut, rgb_to_lab, to_lab
from replay import Batch

B, SIZE, BIN = 5, 8, 40.0


def slow_lab(rgb) -> np.ndarray:
    """CIE Lab of one colour in 0 to 255, by the standard's formulas."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = np.array(matrix) @ linear / (0.95047, 1, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def task_of(shape=(3, SIZE, SIZE), frame_stack=1, features=4, **options):
    encoder = tiny_encoder(shape, features)
    task = build_task("colorization", encoder, frame_stack, **{"bin_size": BIN, "stride": 3, "channels": 2} | options)
    return task, encoder


def colourful(batch: int, seed: int = 0) -> torch.Tensor:
    return noise(batch, 3, SIZE, SIZE, seed=seed)


def grays(batch: int) -> torch.Tensor:
    return noise(batch, 1, SIZE, SIZE, seed=9).repeat(1, 3, 1, 1)


@pytest.mark.parametrize("size", [10.0, 40.0])
def test_every_colour_has_its_bin_and_every_bin_a_colour(size):
    bins = in_gamut(size).numpy()
    assert len(np.unique(bins, axis=0)) == len(bins)
    rng = np.random.default_rng(0)
    near = []
    for rgb in rng.integers(256, size=(300, 3)):
        near.append(np.abs(bins - slow_lab(rgb)[1:]).max(1).min())
    assert max(near) < size / 2 + 1.5  # a corner of the gamut may fall between the colours that were tried


def test_261_squares_of_size_10_hold_a_colour():
    level, held = torch.arange(256) / 255, torch.zeros(40, 40, dtype=torch.bool)
    for red in level:
        rgb = torch.cat([red.expand(256**2, 1), torch.cartesian_prod(level, level)], dim=1)
        a, b = (rgb_to_lab(rgb.T[:, None])[1:, 0] / 10).round().long() + 20
        held[a, b] = True
    assert int(held.sum()) == 261
    assert torch.equal(held.nonzero(), (in_gamut(10.0) / 10).long() + 20)


def test_lab_is_that_of_the_standard_and_comes_back():
    obs = noise(3, 6, 2, 2)
    lab = to_lab(obs)
    assert lab.shape == (3, 2, 3, 2, 2)
    for i, frame, y, x in np.ndindex(3, 2, 2, 2):
        expected = slow_lab(obs[i, 3 * frame : 3 * frame + 3, y, x].numpy())
        np.testing.assert_allclose(lab[i, frame, :, y, x].numpy(), expected, atol=0.02)
    torch.testing.assert_close(from_lab(*lab.split([1, 2], dim=2)), obs.float(), atol=0.01, rtol=0)


def test_the_loss_and_the_metrics_against_a_loop():
    task, encoder = task_of()
    rgb = colourful(B)
    table = torch.rand(task.counts.shape, generator=generator(3)) * 5
    task.counts.copy_(table)
    output = task.loss(colours_of(rgb), torch.empty(0), encoder)
    bins, counts, after = task.bins.numpy().astype(np.float64), table.double().numpy(), table.numpy() * MEMORY
    q = len(bins)
    logits = task.decoder(encoder(task.colourless(rgb))).detach().double().numpy()
    lookup = (table / table.sum(0)).argmax(1).tolist()
    labels, guesses, looked, softs = {}, {}, {}, {}
    for i, y, x in np.ndindex(B, 3, 3):
        lightness, *ab = slow_lab(rgb[i, :, 3 * y, 3 * x].numpy())
        softs[i, y, x] = soft = np.exp(-((bins - ab) ** 2).sum(1) / (2 * (BIN / 2) ** 2))
        softs[i, y, x] = soft / soft.sum()
        labels[i, y, x] = label = int(((bins - ab) ** 2).sum(1).argmin())
        guesses[i, y, x], looked[i, y, x] = int(logits[i, :, y, x].argmax()), lookup[round(lightness)]
        after[round(lightness), label] += 1
    task.after_step(colours_of(rgb), encoder)
    np.testing.assert_allclose(task.counts.numpy(), after, rtol=1e-4)
    prior = np.zeros(q)
    for c in range(q):
        soft = np.exp(-((bins - bins[c]) ** 2).sum(1) / (2 * (BIN / 2) ** 2))
        prior += counts[:, c].sum() / counts.sum() * soft / soft.sum()
    weight = 1 / (0.5 * prior + 0.5 / q)
    weight /= (prior * weight).sum()
    for i in range(B):
        total = 0.0
        for y, x in np.ndindex(3, 3):
            log_p = logits[i, :, y, x] - np.log(np.exp(logits[i, :, y, x]).sum())
            total -= weight[labels[i, y, x]] * (softs[i, y, x] * log_p).sum() / 9
        assert float(output.loss[i].detach()) == pytest.approx(total, rel=1e-3)
    classes = set(labels.values())
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(classes))
    for name, answers in (("accuracy", guesses), ("lookup_accuracy", looked)):
        of_class = [[answers[p] == c for p in labels if labels[p] == c] for c in classes]
        assert float(output.metrics[name]) == pytest.approx(np.mean([np.mean(hits) for hits in of_class]), abs=1e-6)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_encoder_sees_lightness_and_no_colour(frames):
    task, _ = task_of((3 * frames, SIZE, SIZE), frames)
    obs = noise(B, 3 * frames, SIZE, SIZE)
    seen = task.colourless(obs).unflatten(1, (frames, 3))
    torch.testing.assert_close(seen, seen[:, :, :1].expand_as(seen), atol=0.01, rtol=0)  # one number a pixel
    lab = to_lab(seen.flatten(1, 2))
    torch.testing.assert_close(lab[:, :, 0], to_lab(obs)[:, :, 0], atol=0.01, rtol=0)  # and that is L


def test_an_encoder_of_gray_frames_sees_the_observation_itself():
    task, encoder = task_of((2, SIZE, SIZE), 2)
    obs, rgb = noise(B, 2, SIZE, SIZE), colourful(B)
    assert task.colourless(obs) is obs
    changed = task.loss(colours_of(rgb, obs), torch.empty(0), encoder).loss
    assert changed.shape == (B,)


def test_grayish_images_are_left_out():
    rgb = torch.cat([colourful(3), grays(2)])
    mixed, encoder = task_of()
    alone, _ = task_of()
    with_grays = mixed.loss(colours_of(rgb), torch.empty(0), encoder)
    without = alone.loss(colours_of(rgb[:3]), torch.empty(0), encoder)
    assert with_grays.loss[3:].tolist() == [0, 0]
    torch.testing.assert_close(with_grays.loss[:3] * 3 / 5, without.loss)
    torch.testing.assert_close(with_grays.metrics, without.metrics)
    mixed.after_step(colours_of(rgb), encoder)
    alone.after_step(colours_of(rgb[:3]), encoder)
    assert mixed.counts.any()
    assert torch.equal(mixed.counts, alone.counts)
    nothing = mixed.loss(colours_of(grays(2)), torch.empty(0), encoder)
    nothing.loss.sum().backward()
    assert nothing.loss.tolist() == [0, 0]
    assert not any(p.grad.any() for p in encoder.parameters())


def test_rare_colours_weigh_more_and_the_mean_weight_is_one():
    task, _ = task_of()
    task.counts[50, 0], task.counts[50, 1] = 90, 10
    weight = task.class_weights()
    prior = torch.tensor([90.0, 10.0]) @ task.soften(task.bins[:2]) / 100
    assert float((prior * weight).sum()) == pytest.approx(1, rel=1e-4)
    assert weight.argmin() == 0
    assert weight[1] > weight[0]
    flat, _ = task_of(uniform=1.0)
    flat.counts.copy_(task.counts)
    torch.testing.assert_close(flat.class_weights(), torch.ones(len(weight)))


def test_a_blind_answer_has_chance():
    task, encoder = task_of()
    with torch.no_grad():
        for parameter in task.decoder[-1].parameters():
            parameter.zero_()
        task.decoder[-1].bias[task.soften(to_lab(colourful(B))[0, 0, 1:, 0, 0]).argmax()] = 1
        output = task.loss(colours_of(colourful(B)), torch.empty(0), encoder)
    assert float(output.metrics["accuracy"]) == pytest.approx(float(output.metrics["chance"]))


def two_worlds(batch: int, seed: int, *, told: bool = True) -> Batch:
    """A bright stripe left or right; where it is, or else chance, tells the hue of the whole image."""
    right = torch.rand(batch, generator=generator(seed)) < 0.5
    purple = right if told else torch.rand(batch, generator=generator(seed + 1)) < 0.5
    lightness = torch.full((batch, 1, 1, SIZE, SIZE), 50.0)
    lightness[~right, ..., :2], lightness[right, ..., -2:] = 75, 75
    colour = torch.tensor([[30.0, 25.0], [30.0, -25.0]])[purple.long()][:, None, :, None, None]
    return colours_of(from_lab(lightness, colour.expand(-1, -1, -1, SIZE, SIZE)).round().to(torch.uint8))


@pytest.mark.parametrize(("told", "steps"), [(True, 100), (False, 100), (True, 0)])
def test_colours_are_learned_from_context_which_no_table_of_lightness_knows(told, steps):
    task, encoder = task_of(features=16, stride=7, channels=16)  # the places predicted are the corners
    train_on(task, encoder, lambda step: two_worlds(32, 100 * step, told=told), steps=steps, lr=1e-2)
    found = measure(task, encoder, two_worlds(200, 99, told=told), draws=1)
    assert found["chance"] == pytest.approx(0.5)
    assert (found["accuracy"] > 0.95) == (told and steps > 0)
    assert found["accuracy"] > 0.95 or found["accuracy"] < 0.6
    assert found["lookup_accuracy"] < 0.6


def test_a_table_of_lightness_is_found_where_there_is_one():
    task, encoder = task_of()
    draw = generator(1)

    def palette(batch: int) -> Batch:
        index = torch.randint(3, (batch, SIZE, SIZE), generator=draw)
        colours = torch.tensor([[200, 30, 30], [40, 60, 220], [120, 240, 90]], dtype=torch.uint8)
        return colours_of(colours[index].permute(0, 3, 1, 2))

    train_on(task, encoder, lambda _: palette(8), steps=2)
    assert measure(task, encoder, palette(8), draws=1)["lookup_accuracy"] == 1


def test_examples_are_painted_in_lightness_and_in_both_colours():
    task, encoder = task_of()
    rgb = colourful(B)
    shown = task.examples(colours_of(rgb), encoder)
    assert torch.equal(shown.inputs[2::3], rgb[:4, :, ::3, ::3])
    lab, truth = to_lab(shown.inputs), to_lab(shown.inputs[2::3])
    assert lab[0::3, :, 1:].abs().max() < 1
    torch.testing.assert_close(lab[0::3, :, 0], truth[:, :, 0], atol=0.5, rtol=0)
    assert shown.predicted == ["lightness", "predicted", "true"] * 4
    share = (task.decoder(encoder(task.colourless(rgb[:4]))).detach().double() / 0.38).exp()
    mean = (share[:, :, None] * task.bins[..., None, None]).sum(1) / share.sum(1, keepdim=True)
    painted = from_lab(truth[:, :, :1], mean.float()[:, None]).clamp(0, 255)
    torch.testing.assert_close(shown.inputs[1::3].float(), painted, atol=1.0, rtol=0)


@pytest.mark.slow
def test_other_crops_of_a_photograph_are_coloured_far_better_than_by_chance():
    seen, encoder = photos(1024, seed=0), small_encoder((3, 32, 32))
    task = build_task("colorization", encoder, bin_size=20.0)
    order = torch.randint(1024, (300, 32), generator=generator(4))
    train_on(task, encoder, lambda step: colours_of(seen[order[step]]), steps=300)
    found = measure(task, encoder, colours_of(photos(256, seed=2)), draws=1)
    assert found["accuracy"] > 2.5 * found["chance"]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 8, 8), {}, r"frames must be gray \(1 channel\) or colour \(3\), got 2 channels a frame"),
        ((3, 8, 8), {"bin_size": 0.0}, "bin_size must be positive, got 0.0"),
        ((3, 8, 8), {"uniform": 0.0}, "uniform must be above 0 and at most 1, got 0.0"),
        ((3, 8, 8), {"uniform": 1.5}, "uniform must be above 0 and at most 1, got 1.5"),
        ((3, 8, 8), {"stride": 9}, "stride must be 1 to 8, got 9"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        task_of(shape, **options)
