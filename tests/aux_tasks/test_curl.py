"""CURL against a loop, its momentum encoder, and what its views look like."""

import pytest
import torch
from aux_help import batch_of, make_task, noise, tiny_encoder
from control_help import SHAPE, B, Z, array

from aux_tasks.control.curl import CURL
from encoders.augment import random_shift


def views(task: CURL, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two shifts that the task draws next, without moving its stream."""
    draw = task.generator.clone_state()
    return random_shift(obs, task.pad, draw), random_shift(obs, task.pad, draw)


def moved(encoder, seed: int = 5):
    """The encoder after some training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += torch.rand_like(parameter)
    return encoder


def test_the_loss_against_a_loop():
    encoder, obs = tiny_encoder(SHAPE, Z), noise(B, *SHAPE)
    task = make_task("curl", encoder, pad=2)
    moved(encoder)
    with torch.no_grad():
        task.similarity += torch.rand(Z, Z)
    query, key = views(task, obs)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    q, k, w = array(encoder(query)), array(task.target_encoder(key)), array(task.similarity)
    hits = 0
    for i in range(B):
        logits = [sum(q[i][a] * w[a][b] * k[j][b] for a in range(Z) for b in range(Z)) for j in range(B)]
        expected = torch.tensor(logits).logsumexp(0) - logits[i]
        assert float(output.loss[i].detach()) == pytest.approx(float(expected), rel=1e-3, abs=1e-4)
        hits += logits[i] == max(logits)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / B)


def test_examples_are_queries_with_the_closest_key():
    encoder, obs = tiny_encoder(SHAPE, Z), noise(11, *SHAPE)
    task = make_task("curl", encoder, pad=1)
    query, key = views(task, obs)
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs, query[:8])
    similarity = array(encoder(query)) @ array(task.similarity) @ array(task.target_encoder(key)).T
    assert shown.predicted == [str(j) for j in similarity.argmax(1)[:8]]
    assert shown.correct == [str(i) for i in range(8)]
