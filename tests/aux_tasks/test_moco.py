"""MoCo against a loop over a list of keys, from the first batch on."""

import math
from collections import deque

import pytest
import torch
from aux_help import batch_of, noise
from view_help import SHAPE, Z, collapse, loss_of, move, next_views, tiny, unit

from aux_tasks.image.moco import MoCo


def step(task: MoCo, encoder, seed: int, batch: int = 4) -> None:
    task.after_step(batch_of(noise(batch, *SHAPE, seed=seed)), encoder)


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_loss_and_queue_against_a_list(projection):
    task, encoder = tiny("moco", projection=projection, hidden=7, width=3, queue=10, temperature=0.3, momentum=0.8)
    keys: deque = deque(maxlen=10)
    for turn in range(5):  # batches of four: the queue is full within the third, and no multiple of them
        obs = noise(4, *SHAPE, seed=turn)
        query_obs, key_obs = next_views(task, obs)
        query, key = unit(task.head(encoder(query_obs))), unit(task.target_head(task.target_encoder(key_obs)))
        output = loss_of(task, obs, encoder)
        hits = 0
        for i in range(4):
            own, others = query[i] @ key[i] / 0.3, [query[i] @ k / 0.3 for k in keys]
            expected = math.log(sum(math.exp(x) for x in [own, *others])) - own
            assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
            hits += (query[i] @ key.T).argmax() == i
        assert float(output.metrics["accuracy"]) == pytest.approx(hits / 4)
        assert float(output.metrics["chance"]) == 1 / 4
        fresh = task.views(obs, task.generator.clone_state(), 2)  # what enters the queue is a view of its own
        keys.extend(unit(task.target_head(task.target_encoder(fresh))))
        move(encoder, seed=turn)
        task.after_step(batch_of(obs), encoder)
    held = {tuple(row.round(4)) for row in task.queue.double().numpy()}
    assert held == {tuple(row.round(4)) for row in keys}


def test_the_first_batch_has_nothing_to_choose_from():
    task, encoder = tiny("moco")
    output = loss_of(task, noise(5, *SHAPE), encoder)
    assert output.loss.tolist() == [0] * 5


def test_one_point_for_all_views_is_no_solution_and_no_answer():
    task, encoder = tiny("moco", queue=8)
    collapse(task)
    task.target_head.load_state_dict(task.head.state_dict())
    for seed in range(2):
        step(task, encoder, seed)
    output = loss_of(task, noise(5, *SHAPE), encoder)
    torch.testing.assert_close(output.loss, torch.full((5,), math.log(9)))
    assert float(output.metrics["accuracy"]) == pytest.approx(1 / 5)
    assert float(output.metrics["spread"]) < 1e-5


def test_the_linear_projection_has_no_hidden_layer():
    task, _ = tiny("moco", projection="linear", width=3)
    assert [tuple(p.shape) for p in task.head.parameters()] == [(3, Z), (3,)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="projection must be one of linear, mlp, got 'mpl': did you mean 'mlp'"):
        tiny("moco", projection="mpl")
    for options in ({"queue": 0}, {"temperature": 0}):
        with pytest.raises(ValueError, match="queue must be at least 1 and temperature above 0"):
            tiny("moco", **options)
    task, encoder = tiny("moco", queue=3)
    with pytest.raises(AssertionError, match="a queue of 3 keys is too short for batches of 4"):
        loss_of(task, noise(4, *SHAPE), encoder)
