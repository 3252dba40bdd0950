"""Colouring by pointing against a loop, its palette, what the encoder may see, and labels carried along."""

from functools import partial

import numpy as np
import pytest
import torch
from aux_help import noise, tiny_encoder
from clip_help import HUES, learned, squares, still, trained
from control_help import array
from pretext_help import build_task, clips_of
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from aux_tasks.parts.palette import kmeans
from aux_tasks.video.video_colorization import colourless

B, R, K, D = 5, 2, 4, 6
SHAPE = (3, 8, 12)  # maps of 3 x 4 x 6
SMALL = {"references": R, "colours": K, "embedding_dim": D}
STEPS = 60


def made():
    """Encoder, task and a batch of noise."""
    encoder = tiny_encoder(SHAPE)
    return encoder, build_task("video_colorization", encoder, **SMALL), clips_of(noise(B, R + 1, *SHAPE))


def pointers(encoder, task, clip):
    """softmax_i(f_i^T f_j), (B, cells of the target, cells of the references), by a loop."""
    gray = torch.stack([0.299 * clip[:, :, 0] + 0.587 * clip[:, :, 1] + 0.114 * clip[:, :, 2]] * 3, dim=2)
    weight, bias = array(task.embed.weight)[:, :, 0, 0], array(task.embed.bias)
    turns = 2 * np.pi * np.mgrid[:4, :6][:, None] / np.array([4, 8])[:, None, None]  # (axis, period, 4, 6)
    position = np.stack([np.sin(turns), np.cos(turns)], axis=1).reshape(8, 4, 6)
    embedded = []
    for t in range(R + 1):
        cells = np.concatenate(
            [array(encoder.maps(gray[:, t])), np.broadcast_to(position, (B, *position.shape))], axis=1
        )
        embedded.append(np.einsum("dc,bcn->bdn", weight, cells.reshape(B, -1, 24)) + bias[:, None])
    found = np.zeros((B, 24, R * 24))
    for i, j, t, c in np.ndindex(B, 24, R, 24):
        found[i, j, t * 24 + c] = np.exp(embedded[t][i, :, c] @ embedded[R][i, :, j])
    return found / found.sum(2, keepdims=True)


def reference(encoder, task, batch, valid):
    """Loss of each clip, and the metrics, cell by cell."""
    label = array(task._colours(batch.clip, batch.clip_mask[:, -1])[0]).astype(int).reshape(B, R + 1, 24)
    pointer = pointers(encoder, task, batch.clip)
    cells = [(i, j) for i in range(B) if valid[i] for j in range(24) if label[i, R, j] in label[i, :R]]
    frequency = {k: sum(label[i, R, j] == k for i, j in cells) for k in range(K)}
    share = {
        (i, j): [sum(p for p, c in zip(pointer[i, j], label[i, :R].ravel(), strict=True) if c == k) for k in range(K)]
        for i, j in cells
    }
    weight = {(i, j): 1 / frequency[label[i, R, j]] for i, j in cells}
    total, losses = sum(weight.values()), np.zeros(B)
    for i, j in cells:
        losses[i] -= np.log(share[i, j][label[i, R, j]]) * weight[i, j] * B / total
    pixels = array(batch.clip.float()).reshape(B, R + 1, 3, 4, 2, 6, 2)
    moved = np.abs(pixels[:, R] - pixels[:, R - 1]).mean((1, 3, 5)).reshape(B, 24)
    changed = [(i, j) for i, j in cells if moved[i, j] > 8]
    right = {
        "accuracy": [int(np.argmax(share[i, j])) == label[i, R, j] for i, j in changed],
        "copied": [label[i, R - 1, j] == label[i, R, j] for i, j in changed],
        "chance": [np.bincount(label[i, :R].ravel()).argmax() == label[i, R, j] for i, j in changed],
    }
    metrics = {name: np.mean(hits) for name, hits in right.items()}
    metrics["error_ratio"] = (1 - metrics["accuracy"]) / (1 - metrics["copied"])
    return torch.from_numpy(losses).float(), metrics | {"changed": len(changed) / len(cells)}


@pytest.mark.parametrize("broken", [[], [0, 3]])
def test_the_loss_against_a_loop(broken):
    encoder, task, batch = made()
    batch.clip[1, :R] = batch.clip[1, :1, :, :1, :1]  # references of one colour: other colours have no answer
    batch.clip[2, R, :, :, :6] = batch.clip[2, R - 1, :, :, :6]
    batch.clip[2, R, :, 4:, :6] ^= 7  # hardly a change
    batch.clip_mask[broken, 1] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    losses, metrics = reference(encoder, task, batch, batch.clip_mask[:, 1])
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-3, atol=1e-4)
    assert {key: float(value) for key, value in output.metrics.items()} == pytest.approx(metrics, abs=1e-5)


def test_the_palette_finds_separate_colours_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    middle = np.array([(-60, -50), (70, 0), (0, 80), (40, -70)])
    points = (middle[rng.integers(4, size=300)] + rng.normal(0, 4, (300, 2))).astype(np.float32)
    label, centre = kmeans(torch.from_numpy(points), torch.ones(300), 4)
    expected = KMeans(4, n_init=5, random_state=0).fit(points)
    assert adjusted_rand_score(label.numpy(), expected.labels_) == 1
    for c in array(centre):
        assert np.abs(expected.cluster_centers_ - c).sum(1).min() < 1e-2


def test_points_without_weight_have_no_say_and_few_colours_leave_none_empty():
    points = torch.tensor([[0.0, 0], [0, 0], [9, 9], [99, 0]])
    label, centre = kmeans(points, torch.tensor([1.0, 1, 1, 0]), 3)
    assert label[0] == label[1] != label[2]
    assert centre.max() == 9
    assert centre.isfinite().all()


def test_every_frame_of_a_stack_is_gray_and_the_newest_one_is_coloured():
    encoder = tiny_encoder((6, 8, 12))
    task = build_task("video_colorization", encoder, frame_stack=2, **SMALL)
    clip = noise(B, R + 1, 6, 8, 12)
    torch.testing.assert_close(colourless(clip[:, 0])[:, 3:], colourless(clip[:, 0, 3:]))
    torch.testing.assert_close(colourless(clip[:, 0])[:, :3], colourless(clip[:, 0, :3]))
    before = task._colours(clip, torch.ones(B))[0]
    clip[:, :, :3] = 0
    assert torch.equal(task._colours(clip, torch.ones(B))[0], before)


def test_labels_of_any_size_are_carried_as_a_loop_would():
    (encoder, task, batch), masks = made(), torch.rand(B, R, 3, 8, 12)
    carried = array(task.propagate(masks, batch.clip[:, :-1], batch.clip[:, -1], encoder)).reshape(B, 3, 24)
    cells = array(masks).reshape(B, R, 3, 4, 2, 6, 2).mean((4, 6)).transpose(0, 2, 1, 3, 4).reshape(B, 3, R * 24)
    pointer = pointers(encoder, task, batch.clip)
    for i in range(B):
        np.testing.assert_allclose(carried[i], np.stack([pointer[i] @ cells[i, k] for k in range(3)]), rtol=1e-3)


def test_a_mask_is_followed_from_frame_to_frame():
    encoder, task, _ = made()
    clip, mask = noise(B, 5, *SHAPE), torch.rand(B, 1, 8, 12)
    found = task.track(mask, clip, encoder)
    expected = [torch.nn.functional.avg_pool2d(mask, 2)]
    for t in range(1, 5):
        before = range(max(0, t - R), t)
        known, seen = (torch.stack([source[k] for k in before], 1) for source in (expected, clip.unbind(1)))
        expected.append(task.propagate(known, seen, clip[:, t], encoder))
    torch.testing.assert_close(found, torch.stack(expected, 1))
    assert not found.requires_grad


@torch.no_grad()
def test_examples_show_gray_coloured_true_and_what_moves():
    encoder, task, _ = made()
    clip = noise(4, 1, *SHAPE).repeat(1, R + 1, 1, 1, 1)
    mask = torch.zeros(3, 1, 1, 8, 12)
    for i, (y, x) in enumerate([(0, 3), (6, 10), (4, 0)]):
        clip[i, 0, :, y : y + 2, x : x + 2] = 255 - clip[i, 0, :, y : y + 2, x : x + 2] // 128 * 255
        mask[i, :, :, y : y + 2, x : x + 2] = 1
    shown = task.examples(clips_of(clip), encoder)
    assert list(shown.pictures) == ["gray", "predicted", "true", "marked", "tracked"]
    seen, coloured, true, marked, tracked = shown.pictures.values()
    assert torch.equal(true, clip[:3, R])
    assert torch.equal(seen, colourless(true).to(torch.uint8))
    assert coloured.dtype == torch.uint8
    carried = task.propagate(mask, clip[:3, :1], true, encoder).repeat_interleave(2, 2).repeat_interleave(2, 3)
    for pixels, frame, share in ((marked, clip[:3, 0], mask[:, 0]), (tracked, true, carried)):
        assert torch.equal(pixels, (frame * (0.3 + 0.7 * share)).to(torch.uint8))


def two_squares(number, seed, **options):
    return squares(number, R + 1, seed, 2, **options)


def test_it_learns_to_colour_and_carries_masks_of_what_moved():
    learn = partial(learned, "video_colorization", two_squares, steps=STEPS, **SMALL)
    found, untrained = learn(), learn(frozen=True)
    assert found["accuracy"] > found["chance"] + 0.2
    assert found["error_ratio"] < 0.3
    assert untrained["accuracy"] < untrained["chance"] + 0.05
    assert untrained["error_ratio"] > 0.5


def on_tiles(number, seed):
    """A bright square before tiles of random hues and one luma: what it uncovers was seen in the first frame alone."""
    hues = HUES[np.random.default_rng(seed).integers(len(HUES), size=(number, 1, 6, 6))]
    ground = torch.from_numpy(120 + hues).movedim(-1, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    bare = (squares(number, 4, seed) == 40).all(2, keepdim=True)
    return torch.where(bare, ground, 200).to(torch.uint8)


def test_a_ground_that_was_uncovered_is_found_by_its_place():
    found = learned("video_colorization", on_tiles, steps=100, references=3, colours=5, embedding_dim=32)
    assert found["accuracy"] > 0.85  # 0.67, those of the square, where no position is known


def test_masks_are_carried_to_where_things_moved():
    task, encoder = trained("video_colorization", two_squares(256, 1), steps=STEPS, **SMALL)
    clip = squares(64, R + 1, 2)
    mask = (clip != 40).any(2, keepdim=True).float()
    with torch.no_grad():
        carried = task.propagate(mask[:, :-1], clip[:, :-1], clip[:, -1], encoder)[:, 0] > 0.5
    true, copied = (mask[:, t, 0, ::4, ::4] > 0 for t in (R, R - 1))

    def overlap(answer):
        return float((answer & true).sum() / (answer | true).sum())

    assert overlap(carried) > overlap(copied) + 0.3


def test_what_gray_frames_do_not_show_cannot_be_coloured():
    found = learned("video_colorization", partial(two_squares, isoluminant=True), steps=STEPS, **SMALL)
    assert found["accuracy"] < found["chance"] + 0.05


def test_a_still_clip_has_nothing_to_tell():
    found = learned("video_colorization", two_squares, still, steps=5, **SMALL)
    assert found["changed"] == found["accuracy"] == found["copied"] == 0
