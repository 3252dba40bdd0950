"""Times drawn from clips, what changes between them, and scores over the clips that count."""

from itertools import combinations, pairwise

import pytest
import torch
from aux_help import generator
from order_help import noise_clip, panned
from pretext_help import balls

from aux_tasks.video.clips import at_times, camera_path, change, contrast, draw_times, score, side_by_side


@pytest.mark.parametrize(("count", "length", "gap"), [(3, 7, 1), (3, 8, 2), (2, 6, 3), (5, 17, 4), (1, 4, 5)])
def test_times_are_any_choice_with_the_gap_and_all_are_equally_likely(count, length, gap):
    possible = [t for t in combinations(range(length), count) if all(b - a >= gap for a, b in pairwise(t))]
    drawn = draw_times(200 * len(possible), count, length, gap, generator())
    found = torch.tensor([possible.index(tuple(times)) for times in drawn.tolist()]).bincount(minlength=len(possible))
    assert ((found - 200.0).abs() < 5 * 200**0.5).all()


def test_observations_are_those_at_the_times():
    clip = noise_clip(3, 5)
    times = torch.tensor([[[0, 4], [2, 2]], [[1, 0], [3, 4]], [[4, 4], [0, 1]]])
    found = at_times(clip, times)
    for i in range(3):
        assert torch.equal(at_times(clip, times[:, 0, 1])[i], clip[i, times[i, 0, 1]])
        for j in range(2):
            for k in range(2):
                assert torch.equal(found[i, j, k], clip[i, times[i, j, k]])


@pytest.mark.parametrize("stride", [1, 3])
def test_change_against_a_loop(stride):
    clip = noise_clip(2, 5, channels=3)
    found = change(clip, stride)
    assert found.shape == (2, 5 - stride)
    for i in range(2):
        for t in range(5 - stride):
            expected = (clip[i, t].int() - clip[i, t + stride].int()).abs().double().mean()
            assert float(found[i, t]) == pytest.approx(float(expected))


def test_only_valid_clips_are_scored():
    loss, hits = torch.tensor([1.0, 2.0, 7.0, 9.0]), torch.tensor([1.0, 0.5, 0.0, 0.0])
    output = score(loss, hits, torch.tensor([True, True, False, False]), 0.2)
    assert output.loss.tolist() == [2, 4, 0, 0]
    assert {key: pytest.approx(float(value)) for key, value in output.metrics.items()} == {
        "accuracy": 0.75,
        "chance": 0.2,
        "valid": 0.5,
    }
    nothing = score(loss, hits, torch.zeros(4, dtype=torch.bool), 0.2)
    assert not nothing.loss.any()
    assert float(nothing.metrics["accuracy"]) == pytest.approx(0.2)


def test_frames_stand_side_by_side():
    clip = noise_clip(2, 3, channels=2, size=4)
    assert torch.equal(side_by_side(clip)[1], torch.cat(list(clip[1]), dim=2))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_contrast_standardises_over_the_valid_clips_and_lets_no_other_in(shape):
    features, valid = torch.randn(6, 3, *shape, generator=generator()) * 4 + 9, torch.tensor([1, 0, 1, 1, 0, 1])
    seen = contrast(features, valid)[valid > 0].movedim(2, 0).flatten(1)  # (F or C, ...)
    torch.testing.assert_close(seen.mean(1), torch.zeros(shape[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.var(1, correction=0), torch.ones(shape[0]), atol=1e-4, rtol=0)
    features[1], features[4] = 1e6, -1e6
    again = contrast(features, valid)[valid > 0].movedim(2, 0).flatten(1)
    torch.testing.assert_close(again, seen)
    assert contrast(features, valid * 0).isfinite().all()


@pytest.mark.parametrize("speed", [(0, 0), (0, 2), (3, 1), (1, 4)])
def test_the_way_of_a_camera_is_found(speed):
    clip = panned(5, noise_level=5.0, speed=speed)
    way = -torch.tensor(speed) * torch.arange(3)[:, None]  # the picture goes where the camera comes from
    assert torch.equal(camera_path(clip[:, :, 0]), way.expand(5, -1, -1))
    assert torch.equal(camera_path(clip.flip(1)[:, :, 0]), (way.flip(0) - way[-1]).expand(5, -1, -1))


def test_things_that_move_are_no_camera():
    assert not camera_path(balls(40, 6, 32)[:, :, 0]).any()
    assert not camera_path(noise_clip(40, 6, size=20)[:, :, 0]).any()
