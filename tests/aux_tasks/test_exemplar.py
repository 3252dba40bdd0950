"""Exemplar: what the bank takes and refuses, its loss against a loop, and that it survives a checkpoint."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import build_task, measure, train_on
from view_help import SHAPE, B, array, loss_of, moved_by_backward, sixteen, tiny


def show(task, encoder, obs: torch.Tensor) -> None:
    """One step of training on a batch."""
    task.after_step(batch_of(obs), encoder)


def held(task) -> list[bytes]:
    return [image.numpy().tobytes() for image in task.bank[: int(task.filled)]]


def test_the_bank_takes_each_image_once_in_order_until_it_is_full():
    task, encoder = tiny("exemplar", classes=9)
    images, expected = noise(14, *SHAPE), []
    for picked in ([0, 1, 1, 0], [1, 2, 3, 3], [4, 0, 5, 6], [7, 8, 9, 10], [11, 12, 13, 2]):
        obs = images[picked].contiguous(memory_format=torch.channels_last)
        show(task, encoder, obs)
        for k in picked:
            image = images[k].numpy().tobytes()
            if image not in expected and len(expected) < 9:
                expected.append(image)
        assert held(task) == expected
    assert len(expected) == 9


def test_images_without_gradients_are_refused():
    task, encoder = tiny("exemplar", flat=3.0)
    obs = torch.full((4, *SHAPE), 60, dtype=torch.uint8)
    obs[1] += noise(1, *SHAPE)[0] % 4  # root mean square difference of neighbours about 1.6
    obs[2] += noise(1, *SHAPE)[0] % 40
    obs[3, :, 4:] = 200
    show(task, encoder, obs)
    assert held(task) == [obs[2].numpy().tobytes(), obs[3].numpy().tobytes()]


def test_patches_are_cut_where_an_image_has_gradients_and_stretched_to_the_input():
    task, encoder = tiny("exemplar", classes=400, patch=4)
    obs = noise(400, *SHAPE) % 3 + 60
    obs[..., 5:, 6:] = noise(400, *SHAPE)[..., 5:, 6:]
    draw = task.generator.clone_state()
    show(task, encoder, obs)
    down, across = (obs.double().diff(dim=axis).square().mean(1).numpy() for axis in (2, 3))
    chances = np.zeros((400, 6, 8))
    for y, x in np.ndindex(6, 8):
        chances[:, y, x] = (down[:, y : y + 3, x : x + 3] + across[:, y : y + 3, x : x + 3]).mean((1, 2)) / 2
    waits = -torch.rand(400, 48, generator=draw).log() / torch.from_numpy(chances + 1e-6).flatten(1)
    drawn = waits.argmin(1).tolist()  # the first of exponential waiting times is a choice by their rates
    patches = [obs[i, :, k // 8 : k // 8 + 4, k % 8 : k % 8 + 4].float() for i, k in enumerate(drawn)]
    expected = F.interpolate(torch.stack(patches), SHAPE[1:], mode="bilinear").round().to(torch.uint8)
    kept = [image.numpy().tobytes() for i, image in enumerate(expected) if chances[i].flat[drawn[i]] > 4]
    assert held(task) == kept
    assert len(kept) > 390


def test_a_patch_of_a_flat_image_is_refused():
    task, encoder = tiny("exemplar", patch=4)
    show(task, encoder, torch.full((4, *SHAPE), 60, dtype=torch.uint8))
    assert not task.filled


@pytest.mark.parametrize("patch", [1, 10])
def test_a_patch_that_cannot_be_is_refused(patch):
    with pytest.raises(ValueError, match="patch must be 2 to 9"):
        tiny("exemplar", patch=patch)


def test_loss_and_chance_are_those_of_a_choice_among_the_images_remembered():
    task, encoder = tiny("exemplar", classes=12)
    first = loss_of(task, noise(B, *SHAPE), encoder)
    assert first.loss.tolist() == [0] * B
    assert float(first.metrics["accuracy"]) == float(first.metrics["chance"]) == 1
    first.loss.sum().backward()  # no gradient is not a NaN
    assert task.head.weight.grad.isfinite().all()
    show(task, encoder, noise(5, *SHAPE))
    draw = task.generator.clone_state()
    label = torch.randint(2**62, (B,), generator=draw) % 5
    logits = array(task.head(encoder(task.views(task.bank[label], draw, 2))))[:, :5]
    output = loss_of(task, noise(B, *SHAPE, seed=4), encoder)
    for i in range(B):
        expected = math.log(sum(map(math.exp, logits[i]))) - logits[i, label[i]]
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
    assert float(output.metrics["accuracy"]) == pytest.approx((logits.argmax(1) == label.numpy()).mean())
    assert float(output.metrics["chance"]) == pytest.approx(1 / 5)
    assert float(output.metrics["filled"]) == 5


def test_every_image_is_asked_for_alike_and_the_picture_names_it():
    task, encoder = tiny("exemplar", classes=12)
    images = noise(5, *SHAPE)
    show(task, encoder, images)
    counts = Counter(k for _ in range(150) for k in task.examples(batch_of(noise(8, *SHAPE)), encoder).correct)
    assert counts.keys() == set("01234")
    assert sum((n - 240) ** 2 / 240 for n in counts.values()) < 23.5  # chi-square, 4 degrees, p = 1e-4
    draw = task.generator.clone_state()
    label = torch.randint(2**62, (8,), generator=draw) % 5
    shown = task.examples(batch_of(noise(8, *SHAPE)), encoder)
    assert torch.equal(shown.inputs, task.views(images[label], draw, 2).to(torch.uint8))
    assert shown.correct == [str(int(k)) for k in label]


def test_encoder_and_the_classes_in_use_learn():
    task, encoder = tiny("exemplar", classes=12)
    show(task, encoder, noise(5, *SHAPE))
    learned = moved_by_backward(task, encoder, noise(B, *SHAPE))
    assert {"encoder.trunk.weight", "encoder.neck.weight", "head.weight"} <= learned
    assert task.head.weight.grad[:5].any()
    assert not task.head.weight.grad[5:].any()


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        tiny("exemplar", classes=1)


def found_after_training(images: torch.Tensor, *, frozen: bool = False) -> dict[str, float]:
    encoder = tiny_encoder((1, 16, 16), 32)
    task = build_task("exemplar", encoder, classes=32)
    if frozen:
        show(task, encoder, images)
    else:
        train_on(task, encoder, lambda step: batch_of(images), steps=120, lr=5e-3)
    task.generator = generator(8)
    return measure(task, encoder, batch_of(images))


def test_views_of_remembered_digits_are_told_apart_by_training_alone():
    images = sixteen(0, 40)
    found = found_after_training(images)
    assert found["filled"] == 32
    assert found["accuracy"] > 0.3
    assert found_after_training(images, frozen=True)["accuracy"] < 0.15


def test_images_that_views_cannot_tell_apart_stay_at_chance():
    """The guard against equal images taken away."""
    encoder = tiny_encoder((1, 16, 16), 32)
    task = build_task("exemplar", encoder, classes=32)
    task.bank[:], task.filled[()] = sixteen(3, 4), 32
    train_on(task, encoder, lambda step: batch_of(sixteen(3, 35)), steps=60, lr=5e-3)
    assert measure(task, encoder, batch_of(sixteen(3, 35)), draws=16)["accuracy"] < 0.1
