"""Odd one out: its sub-clips, its loss, and what keeps it honest."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from aux_help import generator, tiny_encoder
from control_help import array, slow_mlp
from order_help import broken, learned, noise_clip, out_of_order, stacked, still
from pretext_help import build_task, clips_of, measure
from scipy.stats import chisquare

from aux_tasks.video.odd_one_out import MOST_FRAMES, odd_orders, weighted_sum

B, N, T = 5, 3, 9
OPTIONS = {"clip_length": T, "sub_clips": N, "hidden": 6}


def odd_one_out(encoder, frame_stack: int = 1, **options):
    return build_task("odd_one_out", encoder, frame_stack, **{**OPTIONS, **options})


def again(task, clip):
    """What the task draws next, without moving its stream."""
    state = task.generator.get_state()
    drawn = task.draw(clip[:, :T])
    task.generator.set_state(state)
    return drawn


def test_the_loss_against_a_loop():
    encoder, clip = tiny_encoder((2, 12, 12), 7), noise_clip(B, T + 2, channels=2)
    clip[3] = clip[3, :1]
    task = odd_one_out(encoder)
    inputs, label, _ = again(task, clip)
    output = task.loss(broken(clip, sample=1, at=T - 1), torch.empty(0), encoder)
    hits = []
    for i in range(B):
        if i in (1, 3):
            assert output.loss[i] == 0
            continue
        v = [array(encoder(inputs[i, j : j + 1]))[0] for j in range(N)]
        scores = []
        for j in range(N):
            others = sum(v[k] for k in range(N) if k != j) / (N - 1)
            scores.append(float(slow_mlp(task.head, torch.tensor([*v[j], *others]).numpy())[0]))
        expected = math.log(sum(map(math.exp, scores))) - scores[label[i]]
        assert float(output.loss[i].detach()) == pytest.approx(expected * B / 3, rel=1e-4)
        hits.append(scores.index(max(scores)) == label[i])
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(hits) / 3)
    assert float(output.metrics["valid"]) == pytest.approx(0.6)


@pytest.mark.parametrize(("stride", "colours"), [(1, 1), (2, 3)])
def test_stacks_are_sub_clips_of_which_one_is_out_of_order(stride, colours):
    """Decoded to the times of the frames."""
    frames = noise_clip(40, T + 2, colours, size=4)
    task = odd_one_out(tiny_encoder((3 * colours, 4, 4), 7), 3, stride=stride)
    inputs, label, _ = again(task, stacked(frames, 3))
    for i in range(40):
        begins = []
        for j in range(N):
            parts = inputs[i, j].reshape(3, colours, 4, 4)
            times = [next(t for t in range(T + 2) if torch.equal(part, frames[i, t])) for part in parts]
            begins.append(min(times))
            straight = [min(times) + stride * k for k in range(3)]
            assert sorted(times) == straight
            assert (times not in (straight, straight[::-1])) if j == label[i] else (times == straight)
        assert len(set(begins)) == N
    assert set(label.tolist()) == set(range(N))


def test_single_frames_become_weighted_sums():
    clip = noise_clip(20, T)
    inputs, label, _ = again(odd_one_out(tiny_encoder((1, 12, 12), 7), frames=4), clip)
    in_order = [weighted_sum(clip[:, t : t + 4]) for t in range(T - 3)]
    for i in range(20):
        for j in range(N):
            assert any(torch.equal(inputs[i, j], at[i]) for at in in_order) == (j != label[i])


@pytest.mark.parametrize("count", [3, 4, 5])
def test_the_weighted_sum_is_of_all_differences(count):
    frames = noise_clip(2, count)
    later = [(i, j) for i in range(count) for j in range(i)]
    total = sum(frames[:, i].double() - frames[:, j].double() for i, j in later)
    assert torch.equal(weighted_sum(frames), (127.5 + total / (2 * (count**2 // 4))).round().to(torch.uint8))
    extremes = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(2)[:, None, None, None]
    assert weighted_sum(extremes).item() == 255
    assert weighted_sum(extremes.flip(0)).item() == 0


@pytest.mark.parametrize("frames", [3, 4, 5])
def test_all_orders_but_the_straight_ones_are_equally_likely(frames):
    straight = tuple(range(frames))
    possible = set(permutations(straight)) - {straight, straight[::-1]}
    drawn = Counter(map(tuple, odd_orders(300 * len(possible), frames, generator()).tolist()))
    assert drawn.keys() == possible
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_as_many_frames_as_can_be_numbered():
    orders = odd_orders(500, MOST_FRAMES, generator())
    assert torch.equal(orders.sort(1).values, torch.arange(MOST_FRAMES).expand(500, -1))
    assert len(orders.unique(dim=0)) == 500


def test_the_place_of_a_sub_clip_does_not_matter():
    encoder = tiny_encoder((1, 12, 12), 7)
    task, inputs = odd_one_out(encoder), noise_clip(B, N)
    scores, order = task._scores(inputs, encoder), torch.tensor([2, 0, 1])
    torch.testing.assert_close(task._scores(inputs[:, order], encoder), scores[:, order])


@pytest.mark.parametrize("moving", [0, 5, 9])
def test_a_clip_with_a_sub_clip_that_stands_still_is_refused(moving):
    encoder, clip = tiny_encoder((1, 12, 12), 7), noise_clip(1, T)
    clip[:, moving:] = clip[:, -1:]  # every choice of three begins among the last four moments
    found = [
        float(task.loss(clips_of(clip), torch.empty(0), encoder).metrics["valid"])
        for task in (odd_one_out(encoder, sub_clips=6), odd_one_out(encoder, sub_clips=6, motion_floor=0.0))
    ]
    assert found == [moving == T, 1]


def test_a_head_that_says_nothing_has_the_loss_of_a_die():
    encoder = tiny_encoder((1, 12, 12), 7)
    task = odd_one_out(encoder)
    for parameter in task.head[-1].parameters():
        torch.nn.init.zeros_(parameter)
    found = measure(task, encoder, clips_of(noise_clip(B, T)))
    assert found["loss"] == pytest.approx(math.log(N))
    assert found["chance"] == pytest.approx(1 / N)


def test_examples_show_the_sub_clips():
    encoder, clip = tiny_encoder((3, 12, 12), 7), stacked(noise_clip(11, T + 2), 3)
    task = odd_one_out(encoder, 3)
    inputs, label, _ = again(task, clip[:8])
    shown = task.examples(clips_of(clip), encoder)
    assert shown.inputs.shape == (8, 3, 12, 3 * 12)
    assert torch.equal(shown.inputs[2, :, :, 12:24], inputs[2, 1])
    assert shown.correct == [str(i) for i in label.tolist()]
    assert shown.predicted == [str(i) for i in task._scores(inputs, encoder).argmax(1).tolist()]


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_it_is_learned_by_the_encoder_and_only_from_order(frame_stack):
    settings = {"steps": 60, "frame_stack": frame_stack, "hidden": 32}
    assert learned("odd_one_out", **settings) > 0.65
    assert learned("odd_one_out", frozen=True, **settings) < 0.55
    assert abs(learned("odd_one_out", out_of_order, **settings) - 0.25) < 0.06


def test_still_clips_are_no_question():
    assert learned("odd_one_out", still, steps=2) == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_clips": 2}, "sub_clips must be at least 3, got 2"),
        ({"frames": 2}, "frames must be at least 3, got 2"),
        ({"frames": 21}, "a sub-clip must have at most 20 frames, got 21"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"stride": 3}, "3 sub-clips of 4 frames need clip_length=12, got 9"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        odd_one_out(tiny_encoder((1, 12, 12), 7), **options)
