"""SimCLR against a loop over all pairs of views."""

import math

import pytest
import torch
from aux_help import noise
from view_help import SHAPE, B, collapse, loss_of, move, next_views, tiny, unit


def test_the_loss_against_a_loop():
    task, encoder = tiny("simclr", hidden=7, width=4, temperature=0.3)
    move(task)
    obs = noise(B, *SHAPE)
    z = unit(task.embed(torch.cat(next_views(task, obs)), encoder))
    output = loss_of(task, obs, encoder)
    hits, expected = 0, [0.0] * B
    for i in range(2 * B):
        other = (i + B) % (2 * B)
        logits = {j: float(z[i] @ z[j]) / 0.3 for j in range(2 * B) if j != i}
        expected[i % B] += (math.log(sum(map(math.exp, logits.values()))) - logits[other]) / 2
        hits += max(logits, key=logits.get) == other
    assert output.loss.tolist() == pytest.approx(expected, rel=1e-4)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / (2 * B))
    assert float(output.metrics["chance"]) == pytest.approx(1 / (2 * B - 1))


def test_one_point_for_all_views_is_no_solution():
    task, encoder = tiny("simclr")
    collapse(task)
    output = loss_of(task, noise(B, *SHAPE), encoder)
    torch.testing.assert_close(output.loss, torch.full((B,), math.log(2 * B - 1)))
    assert float(output.metrics["accuracy"]) < 0.2
    assert float(output.metrics["spread"]) < 1e-5


@pytest.mark.parametrize("temperature", [0, -1.0])
def test_a_temperature_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, got"):
        tiny("simclr", temperature=temperature)
