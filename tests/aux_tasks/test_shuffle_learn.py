"""Shuffle and learn: its triples, its loss, and what keeps it honest."""

import math

import pytest
import torch
from aux_help import tiny_encoder
from control_help import array, slow_mlp
from order_help import broken, learned, noise_clip, out_of_order, still
from pretext_help import build_task, clips_of, measure

from aux_tasks.video.shuffle_learn import triples

B, T = 5, 9
OPTIONS = {"clip_length": T, "hidden": 6}


def shuffle_learn(encoder, frame_stack: int = 1, **options):
    return build_task("shuffle_learn", encoder, frame_stack, **{**OPTIONS, **options})


def again(task):
    """What the task draws next, without moving its stream."""
    state = task.generator.get_state()
    drawn = task._draw(B)
    task.generator.set_state(state)
    return drawn


def test_the_loss_against_a_loop():
    encoder, clip = tiny_encoder((2, 12, 12), 7), noise_clip(B, T + 2, channels=2)
    clip[3] = clip[3, :1]
    task, batch = shuffle_learn(encoder, positives=0.3), broken(clip, sample=1, at=2)
    times, backwards = again(task)
    assert 0 < backwards.sum() < B
    output = task.loss(batch, torch.empty(0), encoder)
    hits, known = [], encoder(torch.cat([clip[i, times[i]] for i in (0, 2, 4)])).detach()
    mean, std = known.mean(0), known.var(0, correction=0).add(1e-5).sqrt()
    for i in range(B):
        if i in (1, 3):
            assert output.loss[i] == 0
            continue
        a, b, c, d, e = (array((encoder(clip[i : i + 1, t]) - mean) / std)[0] for t in times[i].tolist())
        first, last = (d, b) if backwards[i] else (b, d)
        total, right = 0.0, []
        for middle, label, weight in ((c, 1, 0.3), (a, 0, 0.35), (e, 0, 0.35)):
            logits = slow_mlp(task.head, torch.tensor([*first, *middle, *last]).numpy())
            total += weight * (math.log(sum(math.exp(x) for x in logits)) - logits[label])
            right.append(int(logits.argmax() == label))
        assert float(output.loss[i].detach()) == pytest.approx(total * B / 3, rel=1e-4)
        hits.append(right[0] / 2 + (right[1] + right[2]) / 4)
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(hits) / 3)
    assert float(output.metrics["valid"]) == pytest.approx(0.6)


def test_the_ends_of_a_sample_are_the_same_and_its_middle_decides():
    five = torch.tensor([[0, 1, 4, 6, 8], [1, 2, 3, 5, 7]])
    expected = [[[1, 4, 6], [1, 0, 6], [1, 8, 6]], [[5, 3, 2], [5, 1, 2], [5, 7, 2]]]
    assert triples(five, torch.tensor([False, True])).tolist() == expected


def test_examples_show_the_frames_that_were_asked_about():
    encoder, clip = tiny_encoder((1, 12, 12), 7), noise_clip(11, 5)
    shown = shuffle_learn(encoder, clip_length=5).examples(clips_of(clip), encoder)
    assert len(shown.inputs) == len(shown.predicted) == 8
    for i, (picture, name) in enumerate(zip(shown.inputs, shown.correct, strict=True)):
        place = [next(t for t in range(5) if torch.equal(part, clip[i, t])) for part in picture.split(12, dim=2)]
        assert {place[0], place[2]} == {1, 3}
        assert name == ("in order" if place[1] == 2 else "shuffled")


def test_no_two_observations_of_a_sample_share_a_frame():
    task = shuffle_learn(tiny_encoder((4, 12, 12), 7), 4, clip_length=20)
    times, _ = again(task)
    assert (times.diff(dim=1) >= 4).all()


def accepted(task, *frames: int) -> bool:
    """Whether five observations of these grey levels in a corner are asked about."""
    clip = torch.zeros(1, 5, 1, 12, 12, dtype=torch.uint8)
    clip[0, :, 0, 0, 0] = torch.tensor(frames)
    return bool(task.answerable(clip))


def test_what_hardly_moves_is_refused():
    encoder = tiny_encoder((1, 12, 12), 7)
    strict, lax = shuffle_learn(encoder), shuffle_learn(encoder, motion_floor=0.0)
    assert accepted(strict, 0, 50, 100, 150, 200)
    for frames in ((0, 100, 100, 100, 200), (0, 100, 104, 108, 200)):
        assert not accepted(strict, *frames)
        assert accepted(lax, *frames)


def test_a_swapped_frame_that_is_nearly_the_middle_one_is_refused():
    encoder = tiny_encoder((1, 12, 12), 7)
    strict, lax = shuffle_learn(encoder), shuffle_learn(encoder, swap_floor=0.0)
    for frames in ((100, 50, 100, 150, 200), (0, 50, 100, 50, 100), (0, 50, 100, 150, 110)):
        assert not accepted(strict, *frames)
        assert accepted(lax, *frames)


def test_encoder_and_head_learn_from_valid_samples_alone():
    encoder, clip = tiny_encoder((1, 12, 12), 7), noise_clip(B, 5)
    task = shuffle_learn(encoder, clip_length=5)
    task.loss(broken(clip, 2, at=4), torch.empty(0), encoder).loss.sum().backward()
    grads = [p.grad.clone() for p in [*encoder.parameters(), *task.parameters()]]
    assert all(grad.any() for grad in grads)
    assert {id(p) for p in task.parameters()} == {id(p) for p in task.head.parameters()}
    clip[2] = 255 - clip[2]
    task.zero_grad(), encoder.zero_grad(), task.generator.manual_seed(2)
    task.loss(broken(clip, 2, at=4), torch.empty(0), encoder).loss.sum().backward()
    for parameter, grad in zip([*encoder.parameters(), *task.parameters()], grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_a_head_that_says_nothing_has_the_loss_of_a_coin():
    encoder = tiny_encoder((1, 12, 12), 7)
    task = shuffle_learn(encoder)
    for parameter in task.head[-1].parameters():
        torch.nn.init.zeros_(parameter)
    found = measure(task, encoder, clips_of(noise_clip(B, T)))
    assert found["loss"] == pytest.approx(math.log(2))
    assert found["accuracy"] == found["chance"] == 0.5


def test_it_is_learned_by_the_encoder_and_only_from_order():
    settings = {"steps": 80, "clip_length": T, "hidden": 32}
    assert learned("shuffle_learn", **settings) > 0.8
    assert learned("shuffle_learn", frozen=True, **settings) < 0.75
    assert abs(learned("shuffle_learn", out_of_order, **settings) - 0.5) < 0.06


def test_still_clips_are_no_question():
    assert learned("shuffle_learn", still, steps=2) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": 0}, "gap must be at least 1, got 0"),
        ({"gap": 3}, "five observations 3 apart need clip_length=13, got 9"),
        ({"positives": 1.0}, r"positives must lie between 0 and 1, got 1\.0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shuffle_learn(tiny_encoder((1, 12, 12), 7), **options)
