"""TOV-VICReg: which moments it reads, in which order, against a loop, and what broken clips may not change."""

from collections import Counter

import pytest
import torch
from aux_help import generator, noise, tiny_encoder
from control_help import cross_entropy
from pretext_help import balls, build_task, clips_of, cut, measure, small_encoder, train_on
from view_help import SHAPE, B, Z, array, tiny

from aux_tasks.video.tov_vicreg import ORDERS
from encoders.views import Views

LENGTH = 7  # of clips, with a stride of 3


def clip(batch: int = B) -> torch.Tensor:
    return noise(batch * LENGTH, *SHAPE).unflatten(0, (batch, LENGTH))


def loss_on(task, batch, encoder):
    return task.loss(batch, torch.empty(0), encoder)


def test_half_are_in_order_and_the_others_alike():
    task, _ = tiny("tov_vicreg")
    counts = Counter(task.draw(6000).tolist())
    assert ORDERS[0] == (0, 1, 2)
    assert len(set(ORDERS)) == 6
    assert abs(counts[0] - 3000) < 4 * 1500**0.5
    assert sum((counts[k] - 600) ** 2 / 600 for k in range(1, 6)) < 25


def slow_answers(task, latent, order):
    contrasted = (latent - latent.mean((0, 1))) / latent.var((0, 1), correction=0).add(1e-5).sqrt()
    return [array(task.verifier(torch.cat([x[k] for k in ORDERS[i]]))) for x, i in zip(contrasted, order, strict=True)]


def test_the_loss_against_a_loop():
    task, encoder = tiny("tov_vicreg", stride=3, order=2.0)
    assert task.clip_length == LENGTH
    batch = clips_of(clip())
    draw = task.generator.clone_state()
    moments = torch.cat([batch.clip[:, 0], batch.clip[:, 3], batch.clip[:, 6]], dim=1)
    seen = task.views(moments, draw, 6)
    other = task.views(batch.obs, draw, 2)
    order = torch.randint(10, (B,), generator=draw).sub(4).clamp_min(0).tolist()
    latent = [encoder(seen[:, 2 * k : 2 * k + 2]) for k in range(3)]
    views = task.compare(task.head(latent[0]), task.head(encoder(other)))
    output = loss_on(task, batch, encoder)
    hits = 0
    for i, logits in enumerate(slow_answers(task, torch.stack(latent, dim=1), order)):
        right = int(order[i] == 0)
        expected = float(views.loss[i].detach()) + 2 * cross_entropy(logits, right)
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-3)
        hits += logits.argmax() == right
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / B)
    assert float(output.metrics["chance"]) == 0.5
    torch.testing.assert_close(output.metrics["view_accuracy"], views.metrics["accuracy"])


def test_the_order_alone_trains_the_encoder():
    _, encoder = tiny("tov_vicreg")
    only = build_task("tov_vicreg", encoder, 2, invariance=0.0, variance=0.0, covariance=0.0)
    loss_on(only, clips_of(noise(B * 9, *SHAPE).unflatten(0, (B, 9))), encoder).loss.mean().backward()
    assert encoder.trunk.weight.grad.any()


@torch.no_grad()
def test_examples_show_the_moments_as_they_were_arranged():
    task, encoder = tiny("tov_vicreg", stride=3)
    pixels = clip(11)
    draw = task.generator.clone_state()
    seen = task.views(pixels[:, ::3].flatten(1, 2), draw, 6).unflatten(1, (3, 2))
    order = torch.randint(10, (11,), generator=draw).sub(4).clamp_min(0).tolist()
    assert 0 in order[:8]
    assert any(order[:8])
    shown = task.examples(clips_of(pixels), encoder)
    answers = slow_answers(task, encoder(seen.flatten(0, 1)).view(11, 3, Z), order)
    assert list(shown.pictures) == ["first", "second", "third"]
    for i in range(8):
        for pixels, k in zip(shown.pictures.values(), ORDERS[order[i]], strict=True):
            assert torch.equal(pixels[i], seen[i, k].to(torch.uint8))
    assert shown.predicted == [("shuffled", "in order")[answer.argmax()] for answer in answers[:8]]
    assert shown.correct == ["shuffled" if k else "in order" for k in order[:8]]


@pytest.mark.parametrize(("still", "frozen"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["cnn", pytest.param("vit", marks=pytest.mark.slow)])
def test_the_order_of_a_falling_ball_is_learned_by_weights_that_move_from_clips_that_do(name, still, frozen):
    size, lr = (16, 3e-3) if name == "cnn" else (24, 1e-3)
    encoder = tiny_encoder((1, size, size), 24) if name == "cnn" else small_encoder((1, size, size), "vit")
    task = build_task("tov_vicreg", encoder, order=25.0, stride=3, hidden=32)
    task.views = Views()
    train, held_out = balls(256, LENGTH, size), balls(128, LENGTH, size, seed=9)
    if still:
        train, held_out = (pixels[:, :1].expand_as(pixels).contiguous() for pixels in (train, held_out))
    if frozen:
        cut(encoder)
        task.verifier.requires_grad_(False)

    def draw(step):
        return clips_of(train[torch.randint(256, (64,), generator=generator(step))])

    train_on(task, encoder, draw, steps=20 if frozen else 50, lr=lr)
    accuracy = measure(task, encoder, clips_of(held_out), draws=8)["accuracy"]
    assert abs(accuracy - 0.5) < 0.1 if still or frozen else accuracy > 0.8
