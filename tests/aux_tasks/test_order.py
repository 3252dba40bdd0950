"""The tasks on the order of frames: losses against loops, what they show, and what keeps them honest."""

from collections import Counter
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
import torch
from aux_help import generator, tiny_encoder
from clip_help import broken, noise_clip, panned, quick_encoder, stacked, still
from control_help import array, cross_entropy, slow_mlp
from pretext_help import balls, build_task, clips_of, measure, train_on
from scipy.stats import chisquare

from aux_tasks.parts.clips import camera_path, change, draw_times
from aux_tasks.video.arrow_of_time import reverse
from aux_tasks.video.odd_one_out import MOST_FRAMES, odd_orders, weighted_sum

B, N, T = 5, 3, 9
OPTIONS = {
    "shuffle_learn": {"clip_length": T, "gap": 1, "positives": 0.3},
    "odd_one_out": {"clip_length": T, "sub_clips": N},
    "arrow_of_time": {"groups": 3, "stride": 2, "border": 1},
}


def made(name: str, shape: tuple[int, int, int] = (1, 12, 12), frame_stack: int = 1, **options):
    encoder = tiny_encoder(shape, 7)
    return encoder, build_task(name, encoder, frame_stack, **{"hidden": 6, **OPTIONS[name], **options})


def again(task, draw, *args):
    """What the task draws next, without moving its stream."""
    state = task.generator.get_state()
    drawn = draw(*args)
    task.generator.set_state(state)
    return drawn


# --- the loss of the clips in `known`, and the share of answers that are right ---


def slow_shuffle_learn(task, encoder, clip, known):
    times, backwards = task._draw(B)
    assert 0 < backwards.sum() < B
    seen = encoder(torch.cat([clip[i, times[i]] for i in known])).detach()
    mean, std = seen.mean(0), seen.var(0, correction=0).add(1e-5).sqrt()
    for i in known:
        a, b, c, d, e = (array((encoder(clip[i : i + 1, t]) - mean) / std)[0] for t in times[i].tolist())
        first, last = (d, b) if backwards[i] else (b, d)
        asked = [
            (slow_mlp(task.head, np.array([*first, *middle, *last])), label, weight)
            for middle, label, weight in ((c, 1, 0.3), (a, 0, 0.35), (e, 0, 0.35))
        ]
        right = [int(answer.argmax() == label) for answer, label, _ in asked]
        loss = sum(weight * cross_entropy(answer, label) for answer, label, weight in asked)
        yield loss, right[0] / 2 + (right[1] + right[2]) / 4


def slow_odd_one_out(task, encoder, clip, known):
    inputs, label, _ = task.draw(clip[:, :T])
    for i in known:
        v = [array(encoder(inputs[i, j : j + 1]))[0] for j in range(N)]
        others = [sum(v[k] for k in range(N) if k != j) / (N - 1) for j in range(N)]
        scores = np.array([slow_mlp(task.head, np.array([*v[j], *others[j]]))[0] for j in range(N)])
        yield cross_entropy(scores, label[i]), scores.argmax() == label[i]


def slow_arrow_of_time(task, encoder, clip, known):
    forwards = [task.prepare(clip[i : i + 1, :5:2])[0] for i in known]
    backwards = [torch.cat([seen[:, 2:], seen[:, :2]], dim=1).flip(0) for seen in forwards]
    maps = encoder.maps(torch.cat(forwards + backwards)).detach()
    mean, std = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True).add(1e-5).sqrt()
    for films in zip(forwards, backwards, strict=True):
        logits = [array(task.head(((encoder.maps(film) - mean) / std).flatten(0, 1)[None]))[0] for film in films]
        right = [answer.argmax() == label for label, answer in enumerate(logits)]
        yield sum(cross_entropy(answer, label) for label, answer in enumerate(logits)) / 2, np.mean(right)


@pytest.mark.parametrize("slow", [slow_shuffle_learn, slow_odd_one_out, slow_arrow_of_time])
def test_the_loss_against_a_loop(slow):
    clip = stacked(noise_clip(B, T + 3, channels=2), 2)
    clip[3] = clip[3, :1]
    encoder, task = made(slow.__name__.removeprefix("slow_"), (4, 12, 12), 2)
    expected = again(task, lambda: list(slow(task, encoder, clip, (0, 2, 4))))
    output = task.loss(broken(clip, sample=1, at=task.clip_length - 1), torch.empty(0), encoder)
    losses = torch.zeros(B)
    losses[[0, 2, 4]] = torch.tensor([float(loss) * B / 3 for loss, _ in expected])
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=0)
    assert float(output.metrics["accuracy"]) == pytest.approx(np.mean([right for _, right in expected]))
    assert float(output.metrics["valid"]) == pytest.approx(0.6)


# --- shuffle and learn ---


def test_examples_show_the_frames_that_were_asked_about():
    (encoder, task), clip = made("shuffle_learn", clip_length=5), noise_clip(11, 5)
    shown = task.examples(clips_of(clip), encoder)
    assert len(shown.correct) == len(shown.predicted) == 8
    for i, name in enumerate(shown.correct):
        parts = [pixels[i] for pixels in shown.pictures.values()]
        place = [next(t for t in range(5) if torch.equal(part, clip[i, t])) for part in parts]
        assert {place[0], place[2]} == {1, 3}
        assert name == ("in order" if place[1] == 2 else "shuffled")


def test_no_two_observations_of_a_sample_share_a_frame():
    _, task = made("shuffle_learn", (4, 12, 12), 4, clip_length=20, gap=None)
    times, _ = task._draw(B)
    assert (times.diff(dim=1) >= 4).all()


@pytest.mark.parametrize(
    ("floor", "frames"),
    [
        ("motion_floor", (0, 100, 100, 100, 200)),
        ("motion_floor", (0, 100, 104, 108, 200)),
        ("swap_floor", (100, 50, 100, 150, 200)),
        ("swap_floor", (0, 50, 100, 50, 100)),
        ("swap_floor", (0, 50, 100, 150, 110)),
    ],
)
def test_what_hardly_moves_or_a_swap_that_hardly_shows_is_refused(floor, frames):
    clip = torch.zeros(2, 5, 1, 12, 12, dtype=torch.uint8)
    clip[:, :, 0, 0, 0] = torch.tensor([(0, 50, 100, 150, 200), frames])  # grey levels in a corner
    strict, lax = (made("shuffle_learn", **options)[1] for options in ({}, {floor: 0.0}))
    assert strict.answerable(clip).tolist() == [True, False]
    assert lax.answerable(clip).all()


# --- odd one out ---


@pytest.mark.parametrize(("stride", "colours"), [(1, 1), (2, 3)])
def test_stacks_are_sub_clips_of_which_one_is_out_of_order(stride, colours):
    """Decoded to the times of the frames."""
    frames = noise_clip(40, T + 2, colours, size=4)
    _, task = made("odd_one_out", (3 * colours, 4, 4), 3, stride=stride)
    inputs, label, _ = task.draw(stacked(frames, 3)[:, :T])
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
    inputs, label, _ = made("odd_one_out", frames=4)[1].draw(clip)
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


@pytest.mark.parametrize("moving", [0, 5, 9])
@pytest.mark.parametrize("options", [{}, {"motion_floor": 0.0}])
def test_a_clip_with_a_sub_clip_that_stands_still_is_refused(moving, options):
    (encoder, task), clip = made("odd_one_out", sub_clips=6, **options), noise_clip(1, T)
    clip[:, moving:] = clip[:, -1:]  # every choice of three begins among the last four moments
    assert task.loss(clips_of(clip), torch.empty(0), encoder).metrics["valid"] == (moving == T or bool(options))


def test_examples_show_the_sub_clips():
    (encoder, task), clip = made("odd_one_out", (3, 12, 12), 3), stacked(noise_clip(11, T + 2), 3)
    inputs, label, _ = again(task, task.draw, clip[:8])
    shown = task.examples(clips_of(clip), encoder)
    assert list(shown.pictures) == [str(i) for i in range(inputs.shape[1])]
    assert torch.equal(shown.pictures["1"], inputs[:, 1])
    assert shown.correct == [str(i) for i in label.tolist()]
    assert shown.predicted == [str(i) for i in task._scores(inputs, encoder).argmax(1).tolist()]


# --- the arrow of time ---


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
@pytest.mark.parametrize("colours", [1, 3])
def test_backwards_is_the_film_played_backwards(frame_stack, colours):
    film = noise_clip(2, 9, colours)
    assert torch.equal(reverse(stacked(film, frame_stack), frame_stack), stacked(film.flip(1), frame_stack))


def filmed(top: int, left: int) -> torch.Tensor:
    """A square of noise, six pixels a side, whose place does not change."""
    clip = torch.zeros(1, 5, 1, 20, 20, dtype=torch.uint8)
    clip[:, :, :, top : top + 6, left : left + 6] = noise_clip(1, 5, size=6)
    return clip


def test_where_something_moves_makes_no_difference():
    centred, fixed = (made("arrow_of_time", (1, 20, 20), centre=centre)[1] for centre in (True, False))
    assert torch.equal(centred.prepare(filmed(7, 7)), filmed(7, 7))
    for place in ((2, 3), (12, 5), (7, 12)):
        assert torch.equal(centred.prepare(filmed(*place)), filmed(7, 7))
        assert not torch.equal(fixed.prepare(filmed(*place)), filmed(7, 7))


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("centre", [False, True])
def test_pixels_of_the_border_are_replaced_by_those_beside_it(border, centre):
    clip = noise_clip(3, 3, size=20)
    changed = clip.clone()
    for strip in (changed[..., :3, :], changed[..., 17:, :], changed[..., :3], changed[..., 17:]):
        strip[:] = noise_clip(1, 1, 1, size=1)
    _, task = made("arrow_of_time", (1, 20, 20), border=border, centre=centre)
    assert torch.equal(task.prepare(clip), task.prepare(changed)) == (border == 3)
    if border and not centre:
        by_hand = torch.nn.functional.pad(clip[..., 3:17, 3:17].float().flatten(0, 1), (3, 3, 3, 3), mode="replicate")
        assert torch.equal(task.prepare(clip).flatten(0, 1), by_hand.to(torch.uint8))


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_a_moving_camera_is_held_still(frame_stack):
    clip = stacked(panned(6), frame_stack)
    held = made("arrow_of_time", (frame_stack, 20, 20), frame_stack)[1].prepare(clip)
    assert torch.equal(held, held[:, :1, :1].expand_as(held))
    assert torch.equal(held[:, 0, 0, 1:-1, 3:17], clip[:, 0, 0, 1:-1, 5:19])  # what all frames show, in the middle


def learned_from(source, *, steps: int, **options) -> dict[str, float]:
    """The arrow of time of the clips that source(number, seed) gives."""
    encoder = quick_encoder()
    task = build_task("arrow_of_time", encoder, groups=3, stride=1, hidden=8, **options)
    train_on(task, encoder, lambda step: clips_of(source(32, step)), steps=steps, lr=3e-3)
    return measure(task, encoder, clips_of(source(400, 99)))


def with_clock(batch: int, seed: int) -> torch.Tensor:
    """Frames of noise, which no order tells apart, under a bar that brightens."""
    clip = noise_clip(batch, 3, size=20, seed=seed)
    clip[..., :3, :] = torch.tensor([40, 120, 200], dtype=torch.uint8).view(3, 1, 1, 1)
    return clip


@pytest.mark.parametrize(("border", "found"), [(0, True), (3, False)])
def test_a_cue_in_the_border_gives_nothing(border, found):
    accuracy = learned_from(with_clock, steps=25, border=border)["accuracy"]
    assert accuracy > 0.95 if found else abs(accuracy - 0.5) < 0.07


@pytest.mark.parametrize("held", [True, False])
def test_where_the_camera_goes_gives_nothing(held, monkeypatch):
    if not held:
        monkeypatch.setattr("aux_tasks.video.arrow_of_time.camera_path", lambda frames: frames[..., :2, 0].long() * 0)
    found = learned_from(lambda batch, seed: panned(batch, 6.0, seed), steps=60, border=1, centre=False)
    assert abs(found["accuracy"] - 0.5) < 0.07 if held else found["accuracy"] > 0.9
    assert found["valid"] == 1


@pytest.mark.parametrize(("options", "valid"), [({}, 0.5), ({"border": 0}, 1.0), ({"motion_floor": 0.0}, 1.0)])
def test_what_hardly_moves_inside_the_border_is_refused(options, valid):
    clip = still(noise_clip(2, 5, size=20))
    clip[0, :, :, :1] = noise_clip(1, 5, size=20)[0, :, :, :1]
    clip[1, 0, :, 9] += 100
    encoder, task = made("arrow_of_time", (1, 20, 20), **options)
    assert task.loss(clips_of(clip), torch.empty(0), encoder).metrics["valid"] == valid


def test_examples_run_in_both_directions():
    clip, (encoder, task) = stacked(noise_clip(11, 6), 2), made("arrow_of_time", (2, 12, 12), 2, border=0, centre=False)
    shown = task.examples(clips_of(clip), encoder)
    assert shown.correct == ["forwards", "backwards"] * 4
    forwards, backwards = ([pixels[i] for pixels in shown.pictures.values()] for i in (2, 3))
    assert all(map(torch.equal, forwards, [clip[2, t] for t in (0, 2, 4)]))
    assert all(map(torch.equal, backwards, [clip[3, t].flip(0) for t in (4, 2, 0)]))


# --- times drawn from clips, and what changes between them ---


@pytest.mark.parametrize(("count", "length", "gap"), [(3, 7, 1), (3, 8, 2), (2, 6, 3), (5, 17, 4), (1, 4, 5)])
def test_times_are_any_choice_with_the_gap_and_all_are_equally_likely(count, length, gap):
    possible = [t for t in combinations(range(length), count) if all(b - a >= gap for a, b in pairwise(t))]
    drawn = draw_times(200 * len(possible), count, length, gap, generator())
    found = torch.tensor([possible.index(tuple(times)) for times in drawn.tolist()]).bincount(minlength=len(possible))
    assert ((found - 200.0).abs() < 5 * 200**0.5).all()


@pytest.mark.parametrize("stride", [1, 3])
def test_change_against_a_loop(stride):
    clip = noise_clip(2, 5, channels=3)
    found = change(clip, stride)
    assert found.shape == (2, 5 - stride)
    for i in range(2):
        for t in range(5 - stride):
            expected = (clip[i, t].int() - clip[i, t + stride].int()).abs().double().mean()
            assert float(found[i, t]) == pytest.approx(float(expected))


@pytest.mark.parametrize("speed", [(0, 0), (0, 2), (3, 1), (1, 4)])
def test_the_way_of_a_camera_is_found(speed):
    clip = panned(5, noise_level=5.0, speed=speed)
    way = -torch.tensor(speed) * torch.arange(3)[:, None]  # the picture goes where the camera comes from
    assert torch.equal(camera_path(clip[:, :, 0]), way.expand(5, -1, -1))
    assert torch.equal(camera_path(clip.flip(1)[:, :, 0]), (way.flip(0) - way[-1]).expand(5, -1, -1))


def test_things_that_move_are_no_camera():
    assert not camera_path(balls(40, 6, 32)[:, :, 0]).any()
    assert not camera_path(noise_clip(40, 6, size=20)[:, :, 0]).any()
