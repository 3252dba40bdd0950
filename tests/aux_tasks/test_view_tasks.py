"""Tasks on views: presets and shared parts, MoCo's queue, what keeps BYOL from a collapse, and Exemplar's bank."""

import math
from collections import Counter, deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import ahead, build_task, digits, draw_from, loss_of, measure, train_on
from view_help import SHAPE, B, array, move, tiny, two_views, unit

from aux_tasks.views import perceptron, spread
from encoders.views import VIEWS


def test_the_views_of_a_task_are_those_of_its_preset():
    task, _ = tiny("simclr", views="digits")
    obs = noise(B, *SHAPE)
    draw = task.generator.clone_state()
    expected = [VIEWS["digits"](obs, draw, 2) for _ in range(2)]
    assert torch.equal(task.two_views(obs), torch.cat(expected))


def test_a_perceptron_normalises_over_the_batch_and_remembers_nothing():
    layers = perceptron(4, 3, 7, 2)
    inputs = torch.rand(9, 4, generator=generator())
    hidden = array(inputs)
    for linear in (layers[0], layers[3]):
        hidden = hidden @ array(linear.weight).T + array(linear.bias)
        hidden = ((hidden - hidden.mean(0)) / (hidden.var(0) + 1e-5) ** 0.5).clip(0)
    expected = hidden @ array(layers[6].weight).T + array(layers[6].bias)
    torch.testing.assert_close(layers(inputs).double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-3)
    assert not list(layers.buffers())


def test_spread_is_one_on_the_sphere():
    sphere = torch.randn(4000, 32, generator=generator())
    assert float(spread(sphere)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
def test_agreement_of_features_that_vary_and_tell_different_things_costs_nothing(name):
    task, encoder = tiny(name, projection_dim=4)
    best = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, 4, generator=generator())], 1))[0][:, 1:]
    task.embed = lambda *_: torch.cat([best, best]) * (100 if name == "barlow_twins" else 15**0.5)
    output = loss_of(task, noise(16, *SHAPE), encoder)
    torch.testing.assert_close(output.loss, torch.zeros(16), atol=1e-5, rtol=0)
    assert float(output.metrics["accuracy"]) == 1


@pytest.mark.parametrize(("projection", "layers"), [("linear", 1), ("mlp", 2)])
def test_loss_and_queue_of_moco_against_a_list(projection, layers):
    task, encoder = tiny(
        "moco", projection=projection, hidden=7, projection_dim=3, queue=10, temperature=0.3, momentum=0.8
    )
    assert len([p for p in task.head.parameters() if p.ndim > 1]) == layers
    keys: deque = deque(maxlen=10)
    for turn in range(5):  # batches of four: the queue is full within the third, and no multiple of them
        obs = noise(4, *SHAPE, seed=turn)
        query_obs, key_obs = ahead(task, two_views, task, obs)
        query, key = unit(task.head(encoder(query_obs))), unit(task.target_head(task.target_encoder(key_obs)))
        output = loss_of(task, obs, encoder)
        for i in range(4):
            own, others = query[i] @ key[i] / 0.3, [query[i] @ k / 0.3 for k in keys]
            expected = math.log(sum(math.exp(x) for x in [own, *others])) - own
            assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        hits = (query @ key.T).argmax(1) == range(4)
        assert float(output.metrics["accuracy"]) == pytest.approx(hits.mean())
        assert float(output.metrics["chance"]) == 1 / 4
        fresh = ahead(task, task.view, obs)  # what enters the queue is a view of its own
        keys.extend(unit(task.target_head(task.target_encoder(fresh))))
        move(encoder, seed=turn)
        task.after_step(batch_of(obs), encoder)
    held = {tuple(row.round(4)) for row in array(task.queue)}
    assert held == {tuple(row.round(4)) for row in keys}


def test_no_gradient_reaches_the_momentum_copies_of_byol():
    pixels = noise(8, *SHAPE).float().requires_grad_()
    assert not tiny("byol")[0].target(pixels).requires_grad


@pytest.mark.parametrize("guarded", [True, False])
def test_without_predictor_and_stopped_gradient_byol_collapses_and_the_spread_tells(guarded):
    encoder = tiny_encoder((1, 16, 16), 32)
    task = build_task("byol", encoder, views="digits", hidden=64)
    if not guarded:
        task.predictor = torch.nn.Identity()
        task.target = lambda pixels: task.embed(pixels, encoder)
    train_on(task, encoder, draw_from(digits(0, 500, 16), 64), steps=60, lr=3e-3)
    found = measure(task, encoder, batch_of(digits(1000, 1064, 16)))
    assert found["spread"] > 0.5 if guarded else found["spread"] < 0.1
    assert guarded or found["loss"] < 0.05  # the loss looks solved


def held(task) -> list[bytes]:
    return [image.numpy().tobytes() for image in task.bank[: int(task.filled)]]


def test_the_bank_takes_each_image_once_in_order_until_it_is_full():
    task, encoder = tiny("exemplar", classes=9)
    images, expected = noise(14, *SHAPE), []
    for picked in ([0, 1, 1, 0], [1, 2, 3, 3], [4, 0, 5, 6], [7, 8, 9, 10], [11, 12, 13, 2]):
        obs = images[picked].contiguous(memory_format=torch.channels_last)
        task.after_step(batch_of(obs), encoder)
        for k in picked:
            image = images[k].numpy().tobytes()
            if image not in expected and len(expected) < 9:
                expected.append(image)
        assert held(task) == expected
    assert len(expected) == 9


def test_images_and_patches_without_gradients_are_refused():
    task, encoder = tiny("exemplar", flat=3.0)
    obs = torch.full((4, *SHAPE), 60, dtype=torch.uint8)
    patches, _ = tiny("exemplar", patch_size=4)
    patches.after_step(batch_of(obs), encoder)
    assert not patches.filled
    obs[1] += noise(1, *SHAPE)[0] % 4  # root mean square difference of neighbours about 1.6
    obs[2] += noise(1, *SHAPE)[0] % 40
    obs[3, :, 4:] = 200
    task.after_step(batch_of(obs), encoder)
    assert held(task) == [obs[2].numpy().tobytes(), obs[3].numpy().tobytes()]


def test_patches_are_cut_where_an_image_has_gradients_and_stretched_to_the_input():
    task, encoder = tiny("exemplar", classes=400, patch_size=4)
    obs = noise(400, *SHAPE) % 3 + 60
    obs[..., 5:, 6:] = noise(400, *SHAPE)[..., 5:, 6:]
    draw = task.generator.clone_state()
    task.after_step(batch_of(obs), encoder)
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


def test_every_image_is_asked_for_alike():
    task, encoder = tiny("exemplar", classes=12)
    task.after_step(batch_of(noise(5, *SHAPE)), encoder)
    counts = Counter(k for _ in range(150) for k in task.examples(batch_of(noise(8, *SHAPE)), encoder).correct)
    assert counts.keys() == set("01234")
    assert sum((n - 240) ** 2 / 240 for n in counts.values()) < 23.5  # chi-square, 4 degrees, p = 1e-4
