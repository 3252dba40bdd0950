"""Gradients that conflict, against slow versions on lists of numbers."""

from dataclasses import replace

import pytest
import torch
from agent_help import equal, learn, snapshot
from test_dqn import TASKS
from test_update import family  # noqa: F401 - a fixture
from torch import nn

from agents import AuxSchedule, DQNConfig
from agents.config import Conflict, Precision
from agents.conflict import backward, factors

RULES = [rule for rule in Conflict if rule is not Conflict.none]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow(rule: Conflict, gradients: list[list[float]], turn: int) -> list[float]:
    """The sum that moves the encoder, as the papers write it."""
    first, *others = gradients
    if rule is Conflict.pcgrad:
        changed = []
        order = [(turn + k) % len(gradients) for k in range(len(gradients))]
        for i, gradient in enumerate(gradients):
            own = list(gradient)
            for j in order:
                if j != i and (product := dot(own, gradients[j])) < 0:
                    share = product / dot(gradients[j], gradients[j])
                    own = [x - share * y for x, y in zip(own, gradients[j], strict=True)]
            changed.append(own)
        return [sum(column) for column in zip(*changed, strict=True)]
    total = list(first)
    for gradient in others:
        cosine = dot(gradient, first) / (dot(gradient, gradient) * dot(first, first)) ** 0.5
        factor = max(0.0, cosine) if rule is Conflict.gate_weighted else float(cosine >= 0)
        total = [x + factor * y for x, y in zip(total, gradient, strict=True)]
    return total


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_sum_against_the_papers(rule, count):
    generator = torch.Generator().manual_seed(count)
    signs = set()
    for turn in range(20):
        gradients = torch.randn(count, 4, generator=generator)
        gram = gradients @ gradients.T
        signs |= set((gram[0] < 0).tolist())
        expected = torch.tensor(slow(rule, gradients.tolist(), turn))
        torch.testing.assert_close(factors(gram, rule, turn) @ gradients, expected, atol=1e-5, rtol=1e-4)
    assert signs == {True, False}


@pytest.mark.parametrize("rule", RULES)
def test_the_agents_own_gradient_passes_its_negative_never_does_and_zero_changes_nothing(rule):
    gradient = torch.tensor([3.0, -4.0, 12.0])

    def total(task: torch.Tensor) -> torch.Tensor:
        both = torch.stack([gradient, task])
        return factors(both @ both.T, rule, 0) @ both

    torch.testing.assert_close(total(gradient), 2 * gradient)
    against = torch.zeros(3) if rule is Conflict.pcgrad else gradient  # pcgrad takes from both
    torch.testing.assert_close(total(-gradient), against)
    torch.testing.assert_close(total(torch.zeros(3)), gradient)


class Net(nn.Module):
    """A shared layer in channels-last memory, one that no task reads, and a head for each loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shared, self.unread = nn.Conv2d(3, 4, 3), nn.Linear(2, 2)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.to(memory_format=torch.channels_last)

    def losses(self):
        features = self.shared(torch.linspace(-1, 1, 600).view(2, 3, 10, 10)).relu().mean((2, 3))
        return [sign * head(features).square().mean() for sign, head in zip([1, -1, 1], self.heads, strict=True)]


@pytest.mark.parametrize("rule", RULES)
def test_heads_get_the_gradients_of_the_plain_sum_and_shared_layers_those_of_the_rule(rule):
    apart, plain = Net(), Net()
    shared = [*apart.shared.parameters(), *apart.unread.parameters()]
    cosines = backward(apart.losses(), shared, rule, turn=1)
    sum(plain.losses()).backward()
    for mine, theirs in zip(apart.heads.parameters(), plain.heads.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    rows = []
    for i in range(3):
        net = Net()
        net.losses()[i].backward()
        rows.append(torch.cat([p.grad.flatten() for p in net.shared.parameters()]))
    expected = torch.tensor(slow(rule, [row.tolist() for row in rows], 1))
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in apart.shared.parameters()]), expected)
    torch.testing.assert_close(cosines, torch.stack([torch.cosine_similarity(rows[0], row, 0) for row in rows[1:]]))
    assert all(p.grad.stride() == p.stride() for p in shared)  # a fused optimiser pairs raw memory
    assert not any(p.grad.any() for p in apart.unread.parameters())


def moved(family, weight, head_of, **config):  # noqa: F811
    """An agent after an update with one rotation task."""
    make, batch = family
    agent = make({"rotation": replace(TASKS["rotation"], weight=weight)}, **config)
    done = learn(agent, batch())
    return agent, done.metrics, snapshot(getattr(agent, head_of(agent)), agent.suite)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_changes_the_encoders_step_alone(family, rule, precision):  # noqa: F811
    def head_of(agent):
        return "head" if hasattr(agent, "head") else "critic"

    plain, _, heads = moved(family, 5.0, head_of, precision=precision)
    ruled, metrics, ruled_heads = moved(family, 5.0, head_of, precision=precision, conflict=rule)
    for a, b in zip(heads, ruled_heads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    cosine, share = metrics["aux/rotation/update_cosine"], metrics["aux/rotation/conflict_share"]
    assert -1 <= cosine <= 1
    assert share == (cosine < 0)
    passed = cosine >= 0 and rule is not Conflict.gate_weighted
    same = all(
        torch.allclose(p, q, atol=1e-5) for p, q in zip(snapshot(plain.encoder), snapshot(ruled.encoder), strict=True)
    )
    assert same == bool(passed)


@pytest.mark.parametrize("rule", RULES)
def test_a_weight_of_zero_is_the_run_without_the_task(family, rule):  # noqa: F811
    make, batch = family
    alone, ruled = make(), make({"rotation": replace(TASKS["rotation"], weight=0.0)}, conflict=rule)
    for agent in (alone, ruled):
        learn(agent, batch())
    for a, b in zip(snapshot(alone.encoder), snapshot(ruled.encoder), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_tasks_a_rule_changes_no_bit(family, rule):  # noqa: F811
    make, batch = family
    plain, ruled = make(), make(conflict=rule)
    for agent in (plain, ruled):
        learn(agent, batch())
    assert equal(snapshot(plain), ruled)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"aux_schedule": AuxSchedule.alternating}, "aux_schedule must be joint"),
        ({"encoder_scale": 0.0}, "encoder_scale=0"),
    ],
)
def test_a_rule_without_two_gradients_of_one_step_is_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        DQNConfig(conflict=Conflict.gate, **keys)
