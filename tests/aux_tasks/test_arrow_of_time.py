"""The arrow of time: its reversal, its loss, and what keeps it honest."""

import math

import pytest
import torch
from aux_help import tiny_encoder
from order_help import broken, learned, noise_clip, out_of_order, panned, quick_encoder, stacked, still
from pretext_help import build_task, clips_of, measure, train_on

from aux_tasks.video.arrow_of_time import reverse

B = 5
OPTIONS = {"groups": 3, "stride": 2, "border": 1, "hidden": 6}


def arrow_of_time(encoder, frame_stack: int = 1, **options):
    return build_task("arrow_of_time", encoder, frame_stack, **{**OPTIONS, **options})


def test_the_loss_against_a_loop():
    encoder, clip = tiny_encoder((4, 12, 12)), stacked(noise_clip(B, 8, channels=2), 2)
    clip[3] = clip[3, :1]
    task = arrow_of_time(encoder, 2)
    output = task.loss(broken(clip, sample=1, at=3), torch.empty(0), encoder)
    hits, seen = [], [task.prepare(clip[i : i + 1, :5:2])[0] for i in (0, 2, 4)]
    backwards = [torch.cat([shown[:, 2:], shown[:, :2]], dim=1) for shown in seen]
    maps = encoder.maps(torch.cat([*seen, *backwards])).detach()
    mean, std = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True).add(1e-5).sqrt()
    for i in range(B):
        if i in (1, 3):
            assert output.loss[i] == 0
            continue
        shown = task.prepare(clip[i : i + 1, :5:2])[0]
        total = 0.0
        for label, order in ((0, (0, 1, 2)), (1, (2, 1, 0))):
            seen = [shown[t] if label == 0 else torch.cat([shown[t, 2:], shown[t, :2]]) for t in order]
            logits = task.head(torch.cat([(encoder.maps(obs[None]) - mean) / std for obs in seen], dim=1))[0].tolist()
            total += math.log(sum(map(math.exp, logits))) - logits[label]
            hits.append(logits[label] == max(logits))
        assert float(output.loss[i].detach()) == pytest.approx(total / 2 * B / 3, rel=1e-4)
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(hits) / 6)
    assert float(output.metrics["valid"]) == pytest.approx(0.6)


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
@pytest.mark.parametrize("colours", [1, 3])
def test_backwards_is_the_film_played_backwards(frame_stack, colours):
    film = noise_clip(2, 9, colours)
    assert torch.equal(reverse(stacked(film, frame_stack), frame_stack), stacked(film.flip(1), frame_stack))


def filmed(top: int, left: int, background: int = 0) -> torch.Tensor:
    """A square of noise, six pixels a side, whose place does not change."""
    clip = torch.full((1, 5, 1, 20, 20), background, dtype=torch.uint8)
    clip[:, :, :, top : top + 6, left : left + 6] = noise_clip(1, 5, size=6)
    return clip


def test_where_something_moves_makes_no_difference():
    encoder = tiny_encoder((1, 20, 20))
    centred, fixed = (arrow_of_time(encoder, centre=centre) for centre in (True, False))
    expected = centred.prepare(filmed(7, 7))
    for place in ((2, 3), (12, 5), (7, 12)):
        assert torch.equal(centred.prepare(filmed(*place)), expected)
        assert not torch.equal(fixed.prepare(filmed(*place)), expected)
    assert torch.equal(expected, filmed(7, 7))


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("centre", [False, True])
def test_pixels_of_the_border_are_replaced_by_those_beside_it(border, centre):
    clip = noise_clip(3, 3, size=20)
    changed = clip.clone()
    for strip in (changed[..., :3, :], changed[..., 17:, :], changed[..., :3], changed[..., 17:]):
        strip[:] = noise_clip(1, 1, 1, size=1)
    task = arrow_of_time(tiny_encoder((1, 20, 20)), border=border, centre=centre)
    assert torch.equal(task.prepare(clip), task.prepare(changed)) == (border == 3)
    if border and not centre:
        by_hand = torch.nn.functional.pad(clip[..., 3:17, 3:17].float().flatten(0, 1), (3, 3, 3, 3), mode="replicate")
        assert torch.equal(task.prepare(clip).flatten(0, 1), by_hand.to(torch.uint8))


def with_clock(batch: int, seed: int) -> torch.Tensor:
    """Frames of noise, which no order tells apart, under a bar that brightens."""
    clip = noise_clip(batch, 3, size=20, seed=seed)
    clip[..., :3, :] = torch.tensor([40, 120, 200], dtype=torch.uint8).view(3, 1, 1, 1)
    return clip


@pytest.mark.parametrize(("border", "found"), [(0, True), (3, False)])
def test_a_cue_in_the_border_gives_nothing(border, found):
    encoder = quick_encoder()
    task = arrow_of_time(encoder, border=border, stride=1, hidden=8)
    train_on(task, encoder, lambda step: clips_of(with_clock(32, step)), steps=25, lr=3e-3)
    accuracy = measure(task, encoder, clips_of(with_clock(400, 99)))["accuracy"]
    assert accuracy > 0.95 if found else abs(accuracy - 0.5) < 0.07


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_a_moving_camera_is_held_still(frame_stack):
    clip = stacked(panned(6), frame_stack)
    held = arrow_of_time(tiny_encoder((frame_stack, 20, 20)), frame_stack, stride=1).prepare(clip)
    for obs in held.unbind(1):
        for frame in obs.unbind(1):
            assert torch.equal(frame, held[:, 0, 0])
    assert torch.equal(held[:, 0, 0, 1:-1, 3:17], clip[:, 0, 0, 1:-1, 5:19])  # what all frames show, in the middle


@pytest.mark.parametrize("held", [True, False])
def test_where_the_camera_goes_gives_nothing(held, monkeypatch):
    if not held:
        monkeypatch.setattr("aux_tasks.video.arrow_of_time.camera_path", lambda frames: frames[..., :2, 0].long() * 0)
    encoder = quick_encoder()
    task = arrow_of_time(encoder, stride=1, centre=False, hidden=8)
    train_on(task, encoder, lambda step: clips_of(panned(32, 6.0, step)), steps=60, lr=3e-3)
    found = measure(task, encoder, clips_of(panned(400, 6.0, 99)))
    assert abs(found["accuracy"] - 0.5) < 0.07 if held else found["accuracy"] > 0.9
    assert found["valid"] == 1


def test_what_hardly_moves_inside_the_border_is_refused():
    encoder, clip = tiny_encoder((1, 20, 20)), still(noise_clip(2, 5, size=20))
    clip[0, :, :, :1] = noise_clip(1, 5, size=20)[0, :, :, :1]
    clip[1, 0, :, 9] += 100
    for options, valid in (({}, 0.5), ({"border": 0}, 1.0), ({"motion_floor": 0.0}, 1.0)):
        task = arrow_of_time(encoder, **options)
        assert task.loss(clips_of(clip), torch.empty(0), encoder).metrics["valid"] == valid


def test_a_head_that_says_nothing_has_the_loss_of_a_coin():
    encoder = tiny_encoder((1, 12, 12))
    task = arrow_of_time(encoder)
    for parameter in task.head[-1].parameters():
        torch.nn.init.zeros_(parameter)
    found = measure(task, encoder, clips_of(noise_clip(B, 5)))
    assert found["loss"] == pytest.approx(math.log(2))
    assert found["accuracy"] == found["chance"] == 0.5


def test_examples_run_in_both_directions():
    encoder, clip = tiny_encoder((2, 12, 12)), stacked(noise_clip(11, 6), 2)
    shown = arrow_of_time(encoder, 2, border=0, centre=False).examples(clips_of(clip), encoder)
    assert shown.correct == ["forwards", "backwards"] * 4
    assert torch.equal(shown.inputs[2], torch.cat([clip[2, t] for t in (0, 2, 4)], dim=2))
    assert torch.equal(shown.inputs[3], torch.cat([clip[3, t].flip(0) for t in (4, 2, 0)], dim=2))


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_it_is_learned_from_order_alone(frame_stack):
    """The head finds the arrow in random maps too: without any step nothing is known."""
    settings = {"frame_stack": frame_stack, "maps": 3, "hidden": 8}
    assert learned("arrow_of_time", steps=40, **settings) > 0.9
    assert learned("arrow_of_time", steps=0, **settings) < 0.65
    assert abs(learned("arrow_of_time", out_of_order, steps=40, **settings) - 0.5) < 0.08


def test_still_clips_are_no_question():
    assert learned("arrow_of_time", still, steps=2) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 1}, "groups must be at least 2, got 1"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"border": -1}, "border must be at least 0, got -1"),
        ({"border": 6}, r"border=6 leaves nothing of observations of shape \(1, 12, 12\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        arrow_of_time(tiny_encoder((1, 12, 12)), **options)
