"""What holds for every task on views: shapes, streams, no waiting for the device, learning, and what bounds it."""

import math

import pytest
import torch
from aux_help import batch_of, generator, noise
from view_help import SHAPE, SMALL, B, accuracy_on_digits, array, next_views, sixteen, tiny, unit

from aux_tasks.views import off_diagonal, perceptron, retrieval, spread
from encoders.views import VIEWS

every = pytest.mark.parametrize("name", SMALL)
choosing = pytest.mark.parametrize("name", sorted(SMALL.keys() - {"exemplar"}))


@choosing
def test_examples_are_views_with_the_closest_of_the_other_half(name):
    task, encoder = tiny(name, **SMALL[name])
    obs = noise(11, *SHAPE)
    first, second = next_views(task, obs)
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs, first[:8].to(torch.uint8))
    embedding = unit(task.embed(torch.cat([first, second]), encoder))
    closest = (embedding[:11] @ embedding[11:].T).argmax(1)
    assert shown.predicted == [str(j) for j in closest[:8]]
    assert shown.correct == [str(i) for i in range(8)]


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"views must be one of shift, digits, photo, got 'shfit': did you mean 'shift'"
    ):
        tiny("simclr", views="shfit")


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


def test_retrieval_counts_own_keys_and_is_chance_after_a_collapse():
    key = torch.eye(5, 8) * torch.arange(1.0, 6)[:, None]  # lengths do not matter
    query = key[[0, 1, 3, 2, 4]] + 0.1
    assert float(retrieval(query, key)["accuracy"]) == pytest.approx(0.6)
    assert float(retrieval(query, key)["chance"]) == pytest.approx(0.2)
    assert float(retrieval(torch.ones(5, 8), torch.ones(5, 8))["accuracy"]) == pytest.approx(0.2)


def test_spread_is_one_on_the_sphere_and_zero_in_a_point():
    sphere = torch.randn(4000, 32, generator=generator())
    assert float(spread(sphere)) == pytest.approx(1, abs=0.02)
    assert float(spread(torch.ones(7, 32))) == pytest.approx(0, abs=1e-6)
    assert float(off_diagonal(torch.tensor([[5.0, 2.0], [3.0, 7.0]]))) == 13


@choosing
def test_it_learns_and_an_encoder_that_cannot_move_learns_less(name):
    train, held_out = sixteen(0, 1000), sixteen(1000, 1064)
    full = accuracy_on_digits(name, train, held_out, steps=80)
    frozen = accuracy_on_digits(name, train, held_out, steps=80, frozen=True)
    assert full["accuracy"] > 3 * full["chance"]
    assert full["loss"] < frozen["loss"]


@choosing
def test_views_of_one_image_stay_at_chance(name):
    """Whatever tells samples apart now would be no content."""
    same = sixteen(3, 4).expand(64, -1, -1, -1).contiguous()
    found = accuracy_on_digits(name, same, same, steps=30)
    assert abs(found["accuracy"] - found["chance"]) < 5 * math.sqrt(found["chance"] / (64 * 8))
