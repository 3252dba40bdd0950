"""Tracked patches: mining and triplets against loops, the guards, and what is learned."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import noise, tiny_encoder
from clip_help import flat, panned, still, trained
from control_help import array
from pretext_help import build_task, clips_of, cut, measure, scrambled

from aux_tasks.parts.moving_patches import centre_patch, follow_patch, most_moving
from encoders.augment import random_shift

B, T, Z, D = 7, 3, 9, 5
SHAPE = (2, 16, 20)
SMALL = {"frames": T, "patch_size": 6, "search": 3, "shift": 0, "embedding_dim": D, "negatives": 2}
STEPS = 100


@cache
def sprites(batch: int, seed: int, length: int = 4, *, alike: bool = False):
    """(B, T, 1, 24, 24) uint8: 8 x 8 patterns that move by up to 3 under changing light."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(4, size=(1 if alike else batch, 2, 2)).repeat(4, 1).repeat(4, 2) * 45 + 75
    pattern = np.broadcast_to(pattern, (batch, 8, 8))
    speed = rng.choice((-3, -2, 2, 3), (batch, 1, 2))
    place = np.where(speed > 0, 2, 14) + speed * np.arange(length)[:, None]
    clip = np.full((batch, length, 1, 24, 24), 50.0)
    for i, t in np.ndindex(batch, length):
        y, x = place[i, t]
        clip[i, t, 0, y : y + 8, x : x + 8] = pattern[i]
    light = rng.uniform(0.85, 1.15, (batch, length, 1, 1, 1))
    return torch.from_numpy((clip * light).astype(np.uint8))


def made(**options):
    encoder = tiny_encoder(SHAPE, Z)
    task = build_task("tracking", encoder, **{**SMALL, **options})
    return encoder, task


def moving():
    """Two-channel clips of noise that moves over a plain ground, so that all are tracks."""
    clip = torch.full((B, T, *SHAPE), 60, dtype=torch.uint8)
    for t in range(T):
        clip[:, t, :, 3 + t : 9 + t, 2 + 2 * t : 8 + 2 * t] = noise(B, 2, 6, 6)
    return clips_of(clip)


def likeness(x, y):
    variance, covariance, _, other = np.cov(x.ravel(), y.ravel()).ravel()
    return float(2 * covariance / (variance + other))


def test_the_patch_that_moves_most_against_a_loop():
    frames = noise(4, 3, 9, 11).float()
    corner, score = most_moving(frames, 4)
    for i, clip in enumerate(array(frames)):
        difference = (np.abs(clip[1] - clip[0]) + np.abs(clip[2] - clip[0])) / 2
        tent = np.convolve([1 / 2] * 2, [1 / 3] * 3)  # two boxes, one after the other
        weight = np.outer(tent, tent)
        scores = np.array([[(difference[y : y + 4, x : x + 4] * weight).sum() for x in range(8)] for y in range(6)])
        assert tuple(corner[i].tolist()) == np.unravel_index(scores.argmax(), scores.shape)
        assert float(score[i]) == pytest.approx(scores.max(), rel=1e-4)


def test_a_patch_is_centred_as_a_loop_would():
    images = noise(6, 9, 11).float()
    corner = torch.tensor([[0, 0], [5, 7], [2, 3], [0, 7], [3, 1], [1, 6]])
    found = centre_patch(images, corner, 4)
    for i, (y, x) in enumerate(corner.tolist()):
        for _ in range(2):
            seen = array(images[i, y : y + 4, x : x + 4])
            weight = np.abs(seen - np.sort(seen.ravel())[7])
            rows, columns = np.mgrid[:4, :4] - 1.5
            y, x = (
                min(max(at + round(float((weight * axis).sum() / weight.sum())), 0), most)
                for at, axis, most in ((y, rows, 5), (x, columns, 7))
            )
        assert found[i].tolist() == [y, x]
    assert torch.equal(centre_patch(torch.full((2, 9, 11), 7.0), corner[:2], 4), corner[:2])


@pytest.mark.parametrize("reach", [2, 20])
def test_a_patch_is_followed_as_a_loop_would(reach):
    before, after = noise(5, 12, 14).float(), noise(5, 12, 14, seed=1).float()
    corner = torch.tensor([[0, 0], [7, 9], [3, 4], [7, 0], [2, 8]])
    found, best = follow_patch(before, after, corner, 5, reach)
    for i, (y, x) in enumerate(corner.tolist()):
        patch = array(before[i, y : y + 5, x : x + 5])
        # At the border the window is moved inside, not cut.
        tops, lefts = (
            range(corner, corner + min(5 + 2 * reach, side) - 4)
            for corner, side in ((min(max(c - reach, 0), s - min(5 + 2 * reach, s)), s) for c, s in ((y, 12), (x, 14)))
        )
        scores = {(a, b): likeness(patch, array(after[i, a : a + 5, b : b + 5])) for a in tops for b in lefts}
        assert tuple(found[i].tolist()) == max(scores, key=scores.get)
        assert float(best[i]) == pytest.approx(max(scores.values()), abs=1e-4)


def test_patches_hold_every_channel_and_fill_the_input():
    _, task = made(patch_size=6)
    batch = moving()
    first, last, valid = task.tracks(batch)
    assert first.shape == last.shape == (B, *SHAPE)
    assert valid.all()
    frames = batch.clip.float().mean(2)
    end = begin = centre_patch(frames[:, 0], most_moving(frames, 6)[0], 6)
    for t in range(T - 1):
        end, _ = follow_patch(frames[:, t], frames[:, t + 1], end, 6, 3)
    for i in range(B):
        for patches, t, (y, x) in ((first, 0, begin[i].tolist()), (last, T - 1, end[i].tolist())):
            cut_out = batch.clip[i, t, :, y : y + 6, x : x + 6].float()
            torch.testing.assert_close(patches[i : i + 1], F.interpolate(cut_out[None], SHAPE[1:], mode="bilinear"))


def test_still_flat_lost_and_broken_clips_are_left_out():
    encoder, task = made()
    batch = moving()
    clip, mask = batch.clip, batch.clip_mask
    clip[0] = clip[0, :1]  # still
    clip[1] = torch.tensor([10, 90, 200], dtype=torch.uint8)[:, None, None, None]  # flat, but flickering
    clip[2, 1] = noise(1, *SHAPE, seed=5) // 8  # lost
    clip[2, 1, :, 8:, 10:] = 0
    mask[3, 1] = 0  # the episode ended
    clip[2] = scrambled(clip[2])
    _, _, valid = task.tracks(batch)
    assert valid.tolist() == [0, 0, 0, 0, 1, 1, 1]
    output = task.loss(batch, torch.empty(0), encoder)
    assert torch.equal(output.loss == 0, torch.arange(B) < 4)
    assert float(output.metrics["tracked"]) == pytest.approx(3 / B)
    assert float(output.metrics["chance"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_track_that_goes_over_to_another_thing_is_left_out(vanishes):
    _, task = made(search=10)
    clip, thing = torch.full((B, T, *SHAPE), 60, dtype=torch.uint8), noise(B, 2, 6, 6)
    clip[..., 5:11, 13:19] = thing[:, None] // 5 * 4  # nearly the same, and always there
    for t in range(1 if vanishes else T):
        clip[:, t, :, 5:11, 2 + t : 8 + t] = thing
    assert torch.equal(task.tracks(clips_of(clip))[2] == 0, torch.full((B,), vanishes))


def reference(encoder, task, batch, hard):
    """Loss of each track with the `hard` nearest negatives before those that are drawn next, and the accuracy."""
    draw = task.generator.clone_state()
    x, y = (array(task.embed(encoder(random_shift(end, task.shift, draw)))) for end in task.tracks(batch)[:2])
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    alike, drawn, losses = x @ y.T, torch.rand(B, B, generator=draw), []
    for i in range(B):
        others = [j for j in np.argsort(-alike[i]) if j != i]
        chosen = others[:hard] + sorted(others[hard:], key=(-drawn[i]).tolist().__getitem__)
        losses.append(np.mean([max(0.0, alike[i, j] - alike[i, i] + task.margin) for j in chosen[: task.negatives]]))
    return torch.tensor(np.array(losses)).float(), np.mean(alike.argmax(1) == np.arange(B))


@pytest.mark.parametrize(
    ("hard_after", "hard_share", "negatives", "hard"), [(0, 1, 2, 2), (0, 0.5, 4, 2), (1, 0.5, 4, 0)]
)
def test_triplets_of_shifted_patches_against_a_loop(hard_after, hard_share, negatives, hard):
    encoder, task = made(hard_after=hard_after, hard_share=hard_share, negatives=negatives, shift=3, margin=0.3)
    losses, accuracy = reference(encoder, task, moving(), hard)
    output = task.loss(moving(), torch.empty(0), encoder)
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=1e-5)
    assert float(output.metrics["accuracy"]) == pytest.approx(accuracy)


def test_hard_negatives_begin_after_that_many_updates():
    encoder, task = made(hard_after=3, hard_share=1)
    batch, hard = moving(), []
    expected, _ = reference(encoder, task, batch, hard=2)
    for _ in range(5):
        loss = task.loss(batch, torch.empty(0), encoder).loss.detach()
        hard.append(torch.allclose(loss, expected, rtol=1e-4, atol=1e-5))
        task.after_step(batch, encoder)
    assert hard == [False, False, False, True, True]


def test_a_batch_smaller_than_the_negatives():
    encoder, task = made(negatives=50)
    assert task.loss(moving(), torch.empty(0), encoder).loss.isfinite().all()
    one = moving()
    one = replace(one, obs=one.obs[:1], clip=one.clip[:1], clip_mask=one.clip_mask[:1])
    assert task.loss(one, torch.empty(0), encoder).loss.tolist() == [0]


def test_examples_are_pairs_of_a_track():
    encoder, task = made()
    batch = moving()
    shown = task.examples(batch, encoder)
    first, last, _ = task.tracks(batch)
    assert shown.correct == [str(i) for i in range(min(8, len(first)))]
    chosen = [int(j) for j in shown.predicted]
    expected = first[:8], last[:8], last[chosen]
    for pixels, patches in zip(shown.pictures.values(), expected, strict=True):
        assert pixels.dtype == torch.uint8
        torch.testing.assert_close(pixels.float(), patches, atol=0.5, rtol=0)


def outcome(destroy=lambda clip: clip, *, alike=False, steps=STEPS):
    """Metrics on 512 held-out clips, 64 at a time; without steps the untrained encoder's."""
    sizes = {"frames": 4, "patch_size": 12, "search": 4}
    task, encoder = trained("tracking", destroy(sprites(256, 1, alike=alike)), steps=steps, **sizes)
    held_out = [clips_of(destroy(sprites(64, seed, alike=alike))) for seed in range(2, 10)]
    found = [measure(task, cut(encoder), batch, draws=2) for batch in held_out]
    return {key: np.mean([metrics[key] for metrics in found]) for key in found[0]}


def test_it_learns_to_know_a_sprite_again():
    found, untrained = outcome(), outcome(steps=0)
    assert found["tracked"] > 0.8
    assert found["accuracy"] > 25 * found["chance"]
    assert found["accuracy"] > 2 * untrained["accuracy"]  # random features know much of it again
    assert found["loss"] < untrained["loss"] / 3


def test_sprites_that_look_alike_stay_at_chance_wherever_they_are():
    found = outcome(alike=True)
    assert found["accuracy"] < 2 * found["chance"]


@pytest.mark.parametrize("destroy", [still, flat, scrambled])
def test_without_motion_there_is_no_track(destroy):
    assert outcome(destroy, steps=0)["tracked"] < 0.05


def test_where_the_camera_moves_there_is_no_track():
    task = build_task("tracking", tiny_encoder((1, 20, 20), Z), **SMALL)
    assert not task.tracks(clips_of(panned(20)))[2].any()
