"""Contrastive prediction along time against a loop, what it may see, and what it learns."""

from dataclasses import replace

import pytest
import torch
from aux_help import make_setting, noise, tiny_encoder
from clip_help import flat, frames_shuffled, learned
from control_help import array
from pretext_help import balls, build_task, clips_of, scrambled

from aux_tasks import TASKS

B, T, K, Z, HIDDEN = 5, 4, 2, 7, 6
SHAPE = (2, 10, 10)
SMALL = {"length": T, "horizon": K, "hidden": HIDDEN}
STEPS = 60


def made():
    encoder = tiny_encoder(SHAPE, Z)
    return encoder, build_task("temporal_cpc", encoder, **SMALL)


def clips(batch: int = B, seed: int = 0):
    return clips_of(noise(batch, T, *SHAPE, seed=seed))


def reference(encoder, task, batch, valid):
    """Loss of each clip and share of hits, by a loop over the frames that belong to their episodes."""
    latent = array(encoder(batch.clip.flatten(0, 1))).reshape(B, T, Z)
    context = array(task.context(torch.as_tensor(latent).float())[0])
    candidates = [(j, s) for j in range(B) for s in range(T) if valid[j][s]]
    losses, hits, count = [0.0] * B, 0, 0
    for i in range(B):
        for k in range(1, K + 1):
            w = array(task.predictors[k - 1].weight)
            for t in range(T - k):
                if not valid[i][t + k]:
                    continue
                logits = torch.tensor([float(latent[j, s] @ w @ context[i, t]) for j, s in candidates])
                own = candidates.index((i, t + k))
                losses[i] += float(logits.logsumexp(0) - logits[own])
                hits += int(logits.argmax()) == own
                count += 1
    return [loss * B / count for loss in losses], hits / count, 1 / len(candidates)


@pytest.mark.parametrize("ends", [{}, {1: 2, 3: 0, 4: 1}])
def test_the_loss_against_a_loop(ends):
    encoder, task = made()
    batch, valid = clips(), torch.ones(B, T)
    for clip, last in ends.items():
        batch.clip_mask[clip, last:] = 0
        valid[clip, last + 1 :] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    losses, accuracy, chance = reference(encoder, task, batch, valid)
    torch.testing.assert_close(output.loss.detach(), torch.tensor(losses), rtol=1e-4, atol=1e-5)
    assert float(output.metrics["accuracy"]) == pytest.approx(accuracy)
    assert float(output.metrics["chance"]) == pytest.approx(chance)


def test_observations_behind_the_end_of_an_episode_change_nothing():
    encoder, task = made()
    batch = clips()
    batch.clip_mask[2, 1:] = 0
    before = task.loss(batch, torch.empty(0), encoder)
    batch.clip[2, 2:] = noise(2, *SHAPE, seed=9)
    after = task.loss(batch, torch.empty(0), encoder)
    assert torch.equal(before.loss, after.loss)
    assert before.metrics == after.metrics
    batch.clip[2, 1] = noise(1, *SHAPE, seed=9)[0]
    assert not torch.equal(before.loss, task.loss(batch, torch.empty(0), encoder).loss)


def test_without_a_whole_step_in_the_batch_the_loss_is_0():
    encoder, task = made()
    batch = clips()
    output = task.loss(replace(batch, clip_mask=batch.clip_mask * 0), torch.empty(0), encoder)
    output.loss.sum().backward()
    assert torch.equal(output.loss.detach(), torch.zeros(B))
    assert all(p.grad is None or not p.grad.any() for p in [*encoder.parameters(), *task.parameters()])


def test_no_prediction_sees_what_it_predicts():
    _, task = made()
    latent = torch.randn(1, T, Z, requires_grad=True)
    predicted = task.predictions(latent)[0]
    times = [(t, t + k) for k in range(1, K + 1) for t in range(T - k)]
    assert len(predicted) == len(times)
    for row, (now, _) in zip(predicted, times, strict=True):
        (grad,) = torch.autograd.grad(row.sum(), latent, retain_graph=True)
        assert [bool(g.any()) for g in grad[0]] == [t <= now for t in range(T)]


def test_a_stack_is_seen_once():
    encoder = tiny_encoder((4, 10, 10), Z)
    task = TASKS["temporal_cpc"](make_setting(encoder, frame_stack=4), **SMALL)
    assert task.clip_length == 13
    clip = noise(B, 15, 4, 10, 10)
    expected = build_task("temporal_cpc", encoder, **SMALL)
    expected.load_state_dict(task.state_dict())
    strided = expected.loss(clips_of(clip[:, [0, 4, 8, 12]]), torch.empty(0), encoder)
    assert torch.equal(task.loss(clips_of(clip), torch.empty(0), encoder).loss, strided.loss)


def test_a_constant_encoder_is_left_at_chance():
    encoder, task = made()
    for parameter in encoder.parameters():
        parameter.data.zero_()
    loss = task.loss(clips(), torch.empty(0), encoder).loss
    torch.testing.assert_close(loss.mean().detach(), torch.tensor(float(B * T)).log())


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"horizon": 4, "length": 4}, {"stride": 0}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1"):
        build_task("temporal_cpc", tiny_encoder(SHAPE, Z), **wrong)


def test_short_clips_are_named():
    encoder, task = made()
    with pytest.raises(AssertionError, match="expected clips of at least 4 observations, got 3"):
        task.loss(clips_of(noise(B, 3, *SHAPE)), torch.empty(0), encoder)


@torch.no_grad()
def test_examples_show_the_context_what_was_chosen_and_what_came():
    encoder, task = made()
    batch = clips()
    batch.clip_mask[0, 1:] = 0
    shown = task.examples(batch, encoder)
    latent = encoder(batch.clip.flatten(0, 1)).view(B, T, Z)
    inside = [(j, s) for j in range(B) for s in range(T) if j or s < 2]
    assert shown.correct == [f"{i}:{T - 1}" for i in range(4)]
    assert shown.frames == 4 == len(shown.inputs)
    for i, (pixels, said) in enumerate(zip(shown.inputs, shown.predicted, strict=True)):
        predicted = task.predictors[1].weight @ task.context(latent[i : i + 1])[0][0, T - 1 - K]
        clip, time = max(inside, key=lambda own: float(predicted @ latent[own]))
        assert said == f"{clip}:{time}"
        expected = torch.cat([*batch.clip[i, : T - K], batch.clip[clip, time], batch.clip[i, T - 1]])
        assert torch.equal(pixels, expected)


def outcome(destroy=lambda clip: clip, **options):
    sizes = {"length": 5, "horizon": K, "hidden": 32}
    return learned("temporal_cpc", lambda n, seed: balls(n, 5, 16, seed), destroy, steps=STEPS, **sizes, **options)


def test_it_learns_where_balls_fly_next():
    found = outcome()
    assert found["accuracy"] > 8 * found["chance"]


def test_nothing_is_learned_without_gradient():
    found = outcome(frozen=True)
    assert found["accuracy"] < 4 * found["chance"]


@pytest.mark.parametrize("destroy", [scrambled, frames_shuffled, flat])
def test_without_content_accuracy_stays_at_chance(destroy):
    found = outcome(destroy)
    assert found["accuracy"] < 4 * found["chance"]
