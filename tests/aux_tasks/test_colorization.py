"""Colorization against numpy, what the encoder sees, and what the pictures show."""

import numpy as np
import pytest
import torch
from aux_help import generator, noise
from pretext_help import colours_of, loss_of
from view_help import array, tiny

from aux_tasks.parts.colour import from_lab, in_gamut, rgb_to_lab, to_lab

B, SIZE, BIN, UNIFORM = 5, 8, 40.0, 0.3


def slow_lab(rgb) -> np.ndarray:
    """CIE Lab (..., 3) of colours (..., 3) in 0 to 255, by the standard's formulas."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = linear @ np.array(matrix).T / (0.95047, 1, 1.08883)
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def task_of(shape=(3, SIZE, SIZE), frame_stack=1):
    return tiny("colorization", shape, frame_stack, bin_size=BIN, uniform=UNIFORM, output_stride=3, channels=2)


def test_bins_are_the_squares_that_hold_a_colour_261_of_size_10():
    level, sizes = torch.arange(256) / 255, (10.0, BIN)
    held = torch.zeros(2, 40, 40, dtype=torch.bool)
    for red in level:
        rgb = torch.cat([red.expand(256**2, 1), torch.cartesian_prod(level, level)], dim=1)
        ab = rgb_to_lab(rgb.T[:, None])[1:, 0]
        for k, size in enumerate(sizes):
            a, b = (ab / size).round().long() + 20
            held[k, a, b] = True
    assert int(held[0].sum()) == 261
    for size, squares in zip(sizes, held, strict=True):
        assert torch.equal(squares.nonzero(), (in_gamut(size) / size).long() + 20)


def test_lab_is_that_of_the_standard_and_comes_back():
    obs = noise(3, 6, 2, 2)
    lab = to_lab(obs)
    expected = slow_lab(obs.view(3, 2, 3, 2, 2).movedim(2, -1))
    np.testing.assert_allclose(lab.movedim(2, -1).numpy(), expected, atol=0.02)
    torch.testing.assert_close(from_lab(*lab.split([1, 2], dim=2)), obs.float(), atol=0.01, rtol=0)


def test_the_loss_the_metrics_and_the_counts_against_numpy():
    task, encoder = task_of()
    rgb = noise(B, 3, SIZE, SIZE)
    counts = torch.rand(task.counts.shape, generator=generator(3)) * 5
    task.counts.copy_(counts)
    output = loss_of(task, rgb, encoder)
    task.after_step(colours_of(rgb), encoder)
    bins, counts, after = array(task.bins), array(counts), array(counts) * 0.99
    logits = array(task.decoder(encoder(task.colourless(rgb)))).reshape(B, len(bins), 9).swapaxes(1, 2)
    lab = slow_lab(rgb[:, :, ::3, ::3].flatten(2).swapaxes(1, 2))  # (B, 9, 3)
    level = lab[..., 0].round().astype(int)

    def soft(ab):
        near = np.exp(-((ab[..., None, :] - bins) ** 2).sum(-1) / (2 * (BIN / 2) ** 2))
        return near / near.sum(-1, keepdims=True)

    label = ((lab[..., None, 1:] - bins) ** 2).sum(-1).argmin(-1)
    np.add.at(after, (level, label), 1)
    np.testing.assert_allclose(task.counts.numpy(), after, rtol=1e-4)
    prior = counts.sum(0) @ soft(bins) / counts.sum()
    weight = 1 / ((1 - UNIFORM) * prior + UNIFORM / len(bins))
    weight /= (prior * weight).sum()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -(weight[label] * (soft(lab[..., 1:]) * log_p).sum(-1)).mean(1)
    assert output.loss.tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    classes = np.unique(label)
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(classes))
    lookup = (counts / counts.sum(0)).argmax(1)[level]
    for name, answer in (("accuracy", logits.argmax(-1)), ("lookup_accuracy", lookup)):
        balanced = np.mean([(answer == label)[label == c].mean() for c in classes])
        assert float(output.metrics[name]) == pytest.approx(balanced, abs=1e-6)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_encoder_sees_lightness_and_no_colour(frames):
    task, _ = task_of((3 * frames, SIZE, SIZE), frames)
    obs = noise(B, 3 * frames, SIZE, SIZE)
    seen = task.colourless(obs).unflatten(1, (frames, 3))
    torch.testing.assert_close(seen, seen[:, :, :1].expand_as(seen), atol=0.01, rtol=0)  # one number a pixel
    lab = to_lab(seen.flatten(1, 2))
    torch.testing.assert_close(lab[:, :, 0], to_lab(obs)[:, :, 0], atol=0.01, rtol=0)  # and that is L
    gray = noise(B, 2, SIZE, SIZE)
    assert task_of((2, SIZE, SIZE), 2)[0].colourless(gray) is gray


def test_grayish_images_are_left_out():
    rgb, grays = noise(B, 3, SIZE, SIZE), noise(2, 1, SIZE, SIZE, seed=9).expand(-1, 3, -1, -1)
    rgb[3:] = grays
    (mixed, encoder), (alone, _) = task_of(), task_of()
    with_grays, without = loss_of(mixed, rgb, encoder), loss_of(alone, rgb[:3], encoder)
    assert with_grays.loss[3:].tolist() == [0, 0]
    torch.testing.assert_close(with_grays.loss[:3] * 3 / 5, without.loss)
    torch.testing.assert_close(with_grays.metrics, without.metrics)
    mixed.after_step(colours_of(rgb), encoder)
    alone.after_step(colours_of(rgb[:3]), encoder)
    assert mixed.counts.any()
    assert torch.equal(mixed.counts, alone.counts)
    nothing = loss_of(mixed, grays, encoder).loss
    nothing.sum().backward()
    assert nothing.tolist() == [0, 0]
    assert not any(p.grad.any() for p in encoder.parameters())
