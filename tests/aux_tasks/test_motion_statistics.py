"""What motion statistics ask, against a slow version, and that the encoder learns to answer."""

from itertools import pairwise
from math import atan2, pi

import numpy as np
import pytest
import torch
from aux_help import noise, tiny_encoder
from clip_help import flat, learned, panned, squares, still
from pretext_help import build_task, clips_of

STEPS = {"right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1)}
STEPS |= {"left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1)}


def task_of(channels: int = 1, size: int = 32, **options):
    encoder = tiny_encoder((channels, size, size), 7)
    return encoder, build_task("motion_statistics", encoder, **options)


@pytest.mark.parametrize("direction", range(8))
def test_a_square_moves_where_it_goes(direction):
    clip = torch.zeros(1, 3, 3, 32, 32, dtype=torch.uint8)
    down, right = list(STEPS.values())[direction]
    for t in range(3):
        y, x = 17 + down * t, 3 + right * t
        clip[0, t, 1:, y : y + 13, x : x + 13] = 200
    found, moving = task_of(3, cells=2, frames=3)[1].statistics(clip)
    assert moving
    assert {name: int(label) for name, label in found.items()} == {"region": 2, "direction": direction, "colour": 3}


def test_the_statistics_against_loops():
    smooth = torch.nn.functional.avg_pool2d(noise(6 * 3, 1, 24, 24).float(), 5, 1, 2)
    clip = smooth.view(6, 3, 1, 24, 24).to(torch.uint8)
    found, _ = task_of(1, 24, cells=3, frames=3, motion_floor=0.0)[1].statistics(clip)
    frames = clip[:, :, 0].numpy().astype(float)
    for i, film in enumerate(frames):
        cells = [(slice(8 * r, 8 * r + 8), slice(8 * c, 8 * c + 8)) for r in range(3) for c in range(3)]
        motion = [np.abs(np.diff(film, axis=0))[:, rows, columns].mean() for rows, columns in cells]
        assert int(found["region"][i]) == np.argmax(motion)
        rows, columns = cells[np.argmax(motion)]
        matrix, vector = np.eye(2), np.zeros(2)
        for before, after in pairwise(film):
            down, right = np.gradient((before + after) / 2)
            slopes = np.stack([right[rows, columns].ravel(), down[rows, columns].ravel()])
            matrix += slopes @ slopes.T / 64 / 2
            vector += slopes @ (after - before)[rows, columns].ravel() / 64 / 2
        x, y = np.linalg.solve(matrix, -vector)
        assert int(found["direction"][i]) == round(atan2(y, x) / (pi / 4)) % 8
        levels = np.bincount((film[-1][rows, columns] // 32).astype(int).ravel(), minlength=8)
        assert int(found["colour"][i]) == np.argmax(levels)


@pytest.mark.parametrize("clip", [panned(4), still(panned(4)), flat(panned(4))], ids=["camera", "still", "flat"])
def test_a_moving_camera_and_what_is_still_are_left_out(clip):
    encoder, task = task_of(1, 20, frames=3)
    output = task.loss(clips_of(clip), torch.empty(0), encoder)
    assert (float(output.metrics["valid"]), float(output.loss.detach().sum())) == (0, 0)


def test_the_frequent_answers_are_chance():
    encoder, task = task_of(3, 24, cells=2)
    clip = squares(2, 4, 0)[[0, 0, 0, 1]]
    labels, moving = task.statistics(clip)
    assert moving.all()
    shares = [0.75 if label[0] != label[3] else 1.0 for label in labels.values()]
    metrics = task.loss(clips_of(clip), torch.empty(0), encoder).metrics
    assert float(metrics["chance"]) == pytest.approx(np.mean(shares))


def white(clip: torch.Tensor) -> torch.Tensor:
    """Destroyed content: everything changes everywhere."""
    return noise(*clip.shape, seed=len(clip))


def gain(destroy=lambda clip: clip, *, frozen: bool = False) -> float:
    """Accuracy above chance, as a share of what is left of it."""
    found = learned(
        "motion_statistics", lambda n, seed: squares(n, 4, seed), destroy, steps=80, frozen=frozen, hidden=32, cells=2
    )
    return (found["accuracy"] - found["chance"]) / (1 - found["chance"])


def test_it_is_learned_unless_the_gradient_is_cut_or_the_content_destroyed():
    assert gain() > 0.4
    assert gain(frozen=True) < 0.1
    assert gain(white) < 0.1
