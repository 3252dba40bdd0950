"""SPR on synthetic clips: the loss step by step, masks, targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aux_help import make_setting, make_task, tiny_encoder
from control_help import SHAPE, STEPS, A, B, Z, array, clips


def spr(encoder, *, continuous: bool = False, **options):
    setting = make_setting(encoder, num_actions=None if continuous else A, action_dim=A)
    return make_task("spr", encoder, setting, **{"projection": 5, "pad": 0, "horizon": 3, **options})


def stretched(maps):
    return (maps - maps.min()) / (maps.max() - maps.min() + 1e-5)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_loss_against_a_loop(continuous):
    encoder, batch = tiny_encoder(SHAPE, Z), clips(continuous=continuous)
    task = spr(encoder, continuous=continuous)
    with torch.no_grad():
        for parameter in encoder.parameters():  # so that the targets' encoder is another one
            parameter += 0.1 * torch.rand_like(parameter)
    output = task.loss(batch, torch.empty(0), encoder)
    predicted, target = np.empty((3, B, 5)), np.empty((3, B, 5))
    for i in range(B):
        maps = stretched(encoder.maps(batch.clip[i : i + 1, 0]))
        for k in range(3):
            vector = batch.clip_action[i, k] if continuous else torch.eye(A)[batch.clip_action[i, k]]
            planes = vector[None, :, None, None].expand(1, A, *maps.shape[2:])
            maps = stretched(task.transition(torch.cat([maps, planes], 1)))
            future = stretched(task.target_encoder.maps(batch.clip[i : i + 1, k + 1]))
            predicted[k, i] = array(task.predictor(task.projection(maps)))[0]
            target[k, i] = array(task.target_projection(future))[0]
    predicted /= np.linalg.norm(predicted, axis=2, keepdims=True)
    target /= np.linalg.norm(target, axis=2, keepdims=True)
    hits = 0
    for i in range(B):
        terms = [float(batch.clip_mask[i, k]) * ((predicted[k, i] - target[k, i]) ** 2).sum() for k in range(3)]
        assert float(output.loss[i]) == pytest.approx(sum(terms) / 3, rel=1e-3, abs=1e-5)
        hits += sum(bool(batch.clip_mask[i, k]) and (target[k] @ predicted[k, i]).argmax() == i for k in range(3))
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / float(batch.clip_mask[:, :3].sum()))


def test_steps_after_the_end_of_an_episode_do_not_count():
    encoder, batch = tiny_encoder(SHAPE, Z), clips()
    task, other = spr(encoder), batch.clip.clone()
    other[1, 3:] = 0
    other[3, 1:] = 0
    loss = task.loss(batch, torch.empty(0), encoder).loss
    torch.testing.assert_close(task.loss(replace(batch, clip=other), torch.empty(0), encoder).loss, loss)
    assert loss[3] == 0
    assert (loss[[0, 1, 2, 4, 5, 6]] > 0).all()


def test_the_trunk_learns_from_the_first_observation_alone():
    encoder, batch = tiny_encoder(SHAPE, Z), clips()
    task = spr(encoder)
    task.loss(batch, torch.empty(0), encoder).loss.sum().backward()
    heads = [*task.transition.parameters(), *task.projection.parameters(), *task.predictor.parameters()]
    assert all(p.grad is not None and p.grad.any() for p in [*encoder.trunk.parameters(), *heads])
    copies = [*task.target_encoder.parameters(), *task.target_projection.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in copies)
    assert {id(p) for p in task.parameters() if p.requires_grad} == {id(p) for p in heads}


def test_each_observation_is_shifted_by_itself():
    encoder, batch = tiny_encoder(SHAPE, Z), clips()
    still = replace(batch, clip=batch.clip[:, :1].expand(-1, STEPS + 1, -1, -1, -1).contiguous())
    seen = []
    task = spr(encoder, pad=4)
    task.target_encoder.maps = lambda pixels: seen.append(pixels) or encoder.maps(pixels)
    task.loss(still, torch.empty(0), encoder)
    frames = seen[0].reshape(B, 3, *SHAPE)
    assert sum(torch.equal(frames[i, 0], frames[i, 1]) for i in range(B)) < B


def test_short_clips_and_horizons_are_refused():
    encoder = tiny_encoder(SHAPE, Z)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        spr(encoder, horizon=0)
    with pytest.raises(AssertionError, match="clips of at least 6 observations, got 5"):
        spr(encoder, horizon=5).loss(clips(), torch.empty(0), encoder)
