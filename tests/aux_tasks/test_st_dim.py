"""Spatiotemporal infomax against a loop over places, its two terms, and what it learns."""

from dataclasses import replace

import pytest
import torch
from aux_help import make_setting, noise, tiny_encoder
from clip_help import flat, frames_shuffled, learned, still
from control_help import array
from pretext_help import balls, build_task, clips_of, scrambled

from aux_tasks import TASKS

B, Z = 5, 7
SHAPE = (2, 8, 12)  # maps of 3 x 4 x 6
STEPS = 100


def made():
    encoder = tiny_encoder(SHAPE, Z)
    return encoder, build_task("st_dim", encoder)


def clips(seed: int = 0):
    return clips_of(noise(B, 2, *SHAPE, seed=seed))


def reference(encoder, task, batch, valid):
    """Both losses of each clip and both shares of hits, place by place."""
    now, later = array(encoder.maps(batch.clip[:, 0])), array(encoder.maps(batch.clip[:, 1]))
    z, w_global, w_local = array(encoder(batch.clip[:, 0])), array(task.whole.weight), array(task.local.weight)
    inside = [j for j in range(B) if valid[j]]
    losses, hits = torch.zeros(2, B), torch.zeros(2)
    for i in inside:
        for y in range(4):
            for x in range(6):
                queries = (w_global @ z[i], w_local @ now[i, :, y, x])
                for term, query in enumerate(queries):
                    logits = torch.tensor([float(query @ later[j, :, y, x]) for j in inside])
                    own = inside.index(i)
                    losses[term, i] += float(logits.logsumexp(0) - logits[own]) / 24
                    hits[term] += float(int(logits.argmax()) == own) / 24
    return losses * B / len(inside), hits / len(inside)


@pytest.mark.parametrize("broken", [[], [0, 3]])
def test_the_loss_against_a_loop(broken):
    encoder, task = made()
    batch = clips()
    batch.clip_mask[broken] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    losses, hits = reference(encoder, task, batch, batch.clip_mask[:, 0])
    torch.testing.assert_close(output.loss.detach(), losses.sum(0), rtol=1e-4, atol=1e-4)
    found = torch.stack([output.metrics["accuracy_global"], output.metrics["accuracy_local"]])
    torch.testing.assert_close(found, hits)
    torch.testing.assert_close(output.metrics["accuracy"], hits.mean())
    assert float(output.metrics["chance"]) == pytest.approx(1 / (B - len(broken)))


def test_a_broken_clip_changes_nothing():
    encoder, task = made()
    batch = clips()
    batch.clip_mask[2] = 0
    before = task.loss(batch, torch.empty(0), encoder)
    batch.clip[2] = noise(2, *SHAPE, seed=9)
    after = task.loss(batch, torch.empty(0), encoder)
    assert torch.equal(before.loss, after.loss)
    assert before.metrics == after.metrics


def test_without_a_whole_clip_the_loss_is_0():
    encoder, task = made()
    batch = clips()
    output = task.loss(replace(batch, clip_mask=batch.clip_mask * 0), torch.empty(0), encoder)
    output.loss.sum().backward()
    assert torch.equal(output.loss.detach(), torch.zeros(B))
    assert all(p.grad is None or not p.grad.any() for p in [*encoder.parameters(), *task.parameters()])


def test_the_neck_learns_from_the_global_term_alone():
    encoder, task = made()
    task.whole.weight.data.zero_()
    task.loss(clips(), torch.empty(0), encoder).loss.sum().backward()
    assert all(not p.grad.any() for p in encoder.neck.parameters())
    assert all(p.grad.any() for p in [*encoder.trunk.parameters(), *task.parameters()])


def test_a_stack_is_seen_once():
    encoder = tiny_encoder((4, 8, 12), Z)
    task = TASKS["st_dim"](make_setting(encoder, frame_stack=4))
    assert task.clip_length == 5
    clip = noise(B, 6, 4, 8, 12)
    consecutive = build_task("st_dim", encoder)
    consecutive.load_state_dict(task.state_dict())
    expected = consecutive.loss(clips_of(clip[:, [0, 4]]), torch.empty(0), encoder).loss
    assert torch.equal(task.loss(clips_of(clip), torch.empty(0), encoder).loss, expected)


def test_constant_maps_are_left_at_chance():
    encoder, task = made()
    for parameter in encoder.parameters():
        parameter.data.zero_()
    loss = task.loss(clips(), torch.empty(0), encoder).loss
    torch.testing.assert_close(loss.detach(), torch.full((B,), 2 * torch.tensor(float(B)).log()))


def test_no_stride_is_refused():
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        build_task("st_dim", tiny_encoder(SHAPE, Z), stride=0)


@torch.no_grad()
def test_examples_are_put_together_from_what_each_place_chose():
    encoder, task = made()
    batch = clips()
    batch.clip_mask[4] = 0
    shown = task.examples(batch, encoder)
    now, later, z = encoder.maps(batch.clip[:, 0]), encoder.maps(batch.clip[:, 1]), encoder(batch.clip[:, 0])
    for i in range(3):
        expected = torch.zeros(2, *SHAPE, dtype=torch.uint8)
        for y in range(4):
            for x in range(6):
                for term, query in enumerate((task.whole(z[i]), task.local(now[i, :, y, x]))):
                    pixels = (slice(None), slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
                    expected[term][pixels] = batch.clip[(later[:4, :, y, x] @ query).argmax(), 1][pixels]
        expected = torch.stack([batch.clip[i, 0], *expected, batch.clip[i, 1]])
        assert torch.equal(shown.inputs[4 * i : 4 * i + 4], expected)
    assert shown.predicted == ["now", "whole", "local", "next"] * 3


def outcome(destroy=lambda clip: clip, **options):
    return learned("st_dim", lambda n, seed: balls(n, 2, 16, seed), destroy, steps=STEPS, **options)


def test_both_terms_are_learned():
    found = outcome()
    assert found["accuracy_global"] > 2 * found["chance"]
    assert found["accuracy_local"] > 2 * found["chance"]


def test_nothing_is_learned_without_gradient():
    found = outcome(frozen=True)
    assert found["accuracy"] < 2 * found["chance"]


@pytest.mark.parametrize("destroy", [scrambled, frames_shuffled, flat])
def test_without_content_accuracy_stays_at_chance(destroy):
    found = outcome(destroy)
    assert found["accuracy"] < 2 * found["chance"]


def test_a_still_clip_is_the_known_shortcut():
    assert outcome(still)["accuracy_local"] > 2 * outcome()["accuracy_local"]
