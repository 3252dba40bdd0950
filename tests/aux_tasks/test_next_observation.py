"""Temporal CPC and ST-DIM: losses against loops, which weights learn from what, and what they show."""

import pytest
import torch
from aux_help import noise, tiny_encoder
from control_help import array, cross_entropy
from pretext_help import build_task, clips_of

B, T, K, Z = 5, 4, 2, 7


def cpc():
    """Encoder, task, and five clips of four observations."""
    encoder = tiny_encoder((2, 10, 10), Z)
    clip = noise(B, T, 2, 10, 10)
    return encoder, build_task("temporal_cpc", encoder, length=T, horizon=K, hidden=6), clips_of(clip)


def st_dim():
    """Encoder with maps of 3 x 4 x 6, task, and five pairs of observations."""
    encoder = tiny_encoder((2, 8, 12), Z)
    return encoder, build_task("st_dim", encoder), clips_of(noise(B, 2, 2, 8, 12))


@pytest.mark.parametrize("ends", [{}, {1: 2, 3: 0, 4: 1}])
def test_cpc_against_a_loop(ends):
    encoder, task, batch = cpc()
    for clip, last in ends.items():
        batch.clip_mask[clip, last:] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    latent = array(encoder(batch.clip.flatten(0, 1))).reshape(B, T, Z)
    context = array(task.context(torch.as_tensor(latent).float())[0])
    candidates = [(i, t) for i in range(B) for t in range(T) if t <= ends.get(i, T)]
    asked = [(i, t, k) for i in range(B) for k in range(1, K + 1) for t in range(T - k) if (i, t + k) in candidates]
    losses, hits = torch.zeros(B), 0
    for i, t, k in asked:
        query = array(task.predictors[k - 1].weight) @ context[i, t]
        logits, own = [latent[at] @ query for at in candidates], candidates.index((i, t + k))
        losses[i] += cross_entropy(logits, own) * B / len(asked)
        hits += logits[own] == max(logits)
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=1e-5)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / len(asked))
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(candidates))


@pytest.mark.parametrize("broken", [[], [0, 3]])
def test_st_dim_against_a_loop(broken):
    encoder, task, batch = st_dim()
    batch.clip_mask[broken] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    now, later = array(encoder.maps(batch.clip[:, 0])), array(encoder.maps(batch.clip[:, 1]))
    z, w_global, w_local = array(encoder(batch.clip[:, 0])), array(task.whole.weight), array(task.local.weight)
    inside = [i for i in range(B) if i not in broken]
    losses, hits = torch.zeros(B), torch.zeros(2)
    for own, i in enumerate(inside):
        for y in range(4):
            for x in range(6):
                for term, query in enumerate((w_global @ z[i], w_local @ now[i, :, y, x])):
                    logits = [query @ later[j, :, y, x] for j in inside]
                    losses[i] += cross_entropy(logits, own) / 24 * B / len(inside)
                    hits[term] += float(logits[own] == max(logits)) / 24 / len(inside)
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=1e-4)
    found = torch.stack([output.metrics["accuracy_global"], output.metrics["accuracy_local"]])
    torch.testing.assert_close(found, hits)
    torch.testing.assert_close(output.metrics["accuracy"], hits.mean())
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(inside))


def test_no_prediction_sees_what_it_predicts():
    _, task, _ = cpc()
    latent = torch.randn(1, T, Z, requires_grad=True)
    times = [t for k in range(1, K + 1) for t in range(T - k)]
    for row, now in zip(task.predictions(latent)[0], times, strict=True):
        (grad,) = torch.autograd.grad(row.sum(), latent, retain_graph=True)
        assert [bool(g.any()) for g in grad[0]] == [t <= now for t in range(T)]


def test_the_neck_learns_from_the_global_term_alone():
    encoder, task, batch = st_dim()
    task.whole.weight.data.zero_()
    task.loss(batch, torch.empty(0), encoder).loss.sum().backward()
    assert all(not p.grad.any() for p in encoder.neck.parameters())
    assert all(p.grad.any() for p in [*encoder.trunk.parameters(), *task.parameters()])


@torch.no_grad()
def test_examples_show_the_context_what_was_chosen_and_what_came():
    encoder, task, batch = cpc()
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


@torch.no_grad()
def test_examples_are_put_together_from_what_each_place_chose():
    encoder, task, batch = st_dim()
    batch.clip_mask[4] = 0
    shown = task.examples(batch, encoder)
    now, later, z = encoder.maps(batch.clip[:, 0]), encoder.maps(batch.clip[:, 1]), encoder(batch.clip[:, 0])
    for i in range(3):
        expected = torch.zeros(2, 2, 8, 12, dtype=torch.uint8)
        for y in range(4):
            for x in range(6):
                for term, query in enumerate((task.whole(z[i]), task.local(now[i, :, y, x]))):
                    pixels = (slice(None), slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
                    expected[term][pixels] = batch.clip[(later[:4, :, y, x] @ query).argmax(), 1][pixels]
        expected = torch.stack([batch.clip[i, 0], *expected, batch.clip[i, 1]])
        assert torch.equal(shown.inputs[4 * i : 4 * i + 4], expected)
    assert shown.predicted == ["now", "whole", "local", "next"] * 3
