"""Distributional heads against loops over samples, quantiles and actions."""

import math

import pytest
import torch
from test_dqn import A, B, make_agent, make_batch

from agents.config import Head
from agents.heads import ImplicitHead, QuantileHead, SpatialHead, quantile_huber

N = 4
DISTRIBUTIONAL = [Head.quantile, Head.implicit]


def slow_huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5


def slow_loss(predicted: list[float], fractions: list[float], samples: list[tuple[float, float]]) -> float:
    """The loss of one transition; `samples` are (return, probability)."""
    total = 0.0
    for quantile, fraction in zip(predicted, fractions, strict=True):
        for value, probability in samples:
            error = value - quantile
            total += probability * abs(fraction - (error < 0)) * slow_huber(error)
    return total / len(predicted)


@torch.no_grad()
def slow_losses(agent, batch) -> list[float]:
    """The loss of each transition, with the fractions in the order in which the agent draws them."""
    generator = torch.Generator().manual_seed(4)
    middle = torch.tensor([[(i + 0.5) / N for i in range(N)]])
    if agent.config.head is Head.implicit:
        fractions, next_fractions = (torch.rand(B, N, generator=generator) for _ in range(2))
    else:
        fractions = next_fractions = middle.repeat(B, 1)
    losses, random = [], agent.config.target_epsilon
    for i in range(B):
        obs, next_obs = batch.obs[i : i + 1], batch.nstep_obs[i : i + 1]
        q = agent.head.quantiles(agent.encoder(obs), fractions[i : i + 1])[0]
        online = agent.head.quantiles(agent.encoder(next_obs), middle)[0]
        target = agent.target_head.quantiles(agent.target_encoder(next_obs), next_fractions[i : i + 1])[0]
        values = [sum((online if agent.config.double else target)[:, a].tolist()) / N for a in range(A)]
        best = max(range(A), key=values.__getitem__)
        samples = []
        for a in range(A):
            probability = (1 - random) * (a == best) + random / A
            for z in target[:, a].tolist():
                samples.append((float(batch.nstep_reward[i]) + float(batch.discount[i]) * z, probability / N))
        losses.append(slow_loss(q[:, int(batch.action[i])].tolist(), fractions[i].tolist(), samples))
    return losses


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("target_epsilon", [0.0, 0.3])
@pytest.mark.parametrize("head", DISTRIBUTIONAL)
def test_loss_against_a_loop(head, target_epsilon, double):
    agent = make_agent(head=head, quantiles=N, target_epsilon=target_epsilon, double=double)
    batch = make_batch()
    other = make_agent(seed=99, head=head, quantiles=N)  # move the target away, as training does
    agent.target_encoder.load_state_dict(other.encoder.state_dict())
    agent.target_head.load_state_dict(other.head.state_dict())
    loss, td_error, metrics = agent.td_loss(agent.encoder(batch.obs), batch, batch.nstep_obs)
    torch.testing.assert_close(loss.detach(), torch.tensor(slow_losses(agent, batch)))
    assert torch.equal(td_error, loss.detach())
    assert not any(m.requires_grad for m in metrics.values())


@pytest.mark.parametrize("head", DISTRIBUTIONAL)
def test_action_values_are_the_means_of_the_quantiles(head):
    agent, obs = make_agent(head=head, quantiles=N), make_batch().obs
    features = agent.encoder(obs)
    quantiles = agent.head.quantiles(features, torch.full((B, N), 0.5) if head is Head.quantile else middle(B))
    assert quantiles.shape == (B, N, A)
    torch.testing.assert_close(agent.q_values(obs), quantiles.mean(1))


def middle(rows: int) -> torch.Tensor:
    return torch.tensor([(i + 0.5) / N for i in range(N)]).repeat(rows, 1)


def test_quantiles_are_dueling():
    """Over the actions, the mean of a quantile is that of the value stream."""
    torch.manual_seed(0)
    head, features = QuantileHead(11, A, 6, True, N), torch.randn(B, 11)
    dueling = head.dueling
    hidden = torch.relu(dueling.norms[0](dueling.hidden(features)[:, :6]))
    torch.testing.assert_close(head.quantiles(features, middle(B)).mean(2), dueling.value(hidden))


def test_implicit_quantiles_against_equation_4():
    torch.manual_seed(0)
    head, features = ImplicitHead(11, A, 6, True, N), torch.randn(B, 11)
    fractions = torch.rand(B, N)
    quantiles = head.quantiles(features, fractions)
    for b in range(B):
        for n in range(N):
            cosines = torch.tensor([math.cos(math.pi * i * float(fractions[b, n])) for i in range(64)])
            embedded = torch.relu(head.embedding.weight @ cosines + head.embedding.bias)
            torch.testing.assert_close(quantiles[b, n], head.dueling(features[b] * embedded))


def test_regression_finds_the_quantiles_of_a_known_distribution():
    """Of 1 with probability 0.25 and 0 otherwise, the fractions 1/8 to 5/8 are 0 and 7/8 is 1."""
    predicted = torch.full((1, N), 0.3, requires_grad=True)
    target, share = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.75, 0.25]])
    optimizer = torch.optim.SGD([predicted], lr=0.05)
    for _ in range(4_000):
        optimizer.zero_grad()
        quantile_huber(predicted * 100, middle(1), target * 100, share).sum().div(
            100
        ).backward()  # Huber's threshold is 1
        optimizer.step()
    torch.testing.assert_close(predicted.detach(), torch.tensor([[0.0, 0.0, 0.0, 1.0]]), atol=0.05, rtol=0)


@torch.no_grad()
def test_the_value_of_a_position_follows_from_the_goal_and_the_maps_there():
    """Against a loop over positions: 2 x 3 maps, each of 2 x 2 positions, numbered row by row."""
    torch.manual_seed(0)
    channels, height, width, goals = 5, 2, 3, 4
    head, features = SpatialHead((channels, height, width), goals, 24, 6), torch.randn(B, 30 + goals)
    values = head(features).view(B, 2 * height, 2 * width)
    for sample, row in zip(values, features, strict=True):
        maps, goal = row[:30].view(channels, height, width), row[30:]
        scale, shift = head.goal(goal).chunk(2)
        for i in range(2 * height):
            for j in range(2 * width):
                hidden = head.hidden.weight[:, :, 0, 0] @ maps[:, i // 2, j // 2] + head.hidden.bias
                hidden = (hidden * (1 + scale) + shift).relu()
                value = head.value.weight[:, :, 0, 0] @ hidden + head.value.bias
                torch.testing.assert_close(sample[i, j], value[i % 2 * 2 + j % 2])


@pytest.mark.parametrize("actions", [23, 30])
def test_actions_that_are_no_finer_grid_of_the_maps_are_refused(actions):
    with pytest.raises(ValueError, match=rf"{actions} actions are not a grid of positions that divides the 2 x 3 maps"):
        SpatialHead((5, 2, 3), 4, actions, 6)


@pytest.mark.parametrize("kind", [QuantileHead, ImplicitHead])
def test_a_single_quantile_is_an_action_value(kind) -> None:
    head, features = kind(11, A, 6, True, 1), torch.randn(B, 11)
    quantiles = head.quantiles(features, torch.full((B, 1), 0.5))
    assert quantiles.shape == (B, 1, A)
    assert torch.equal(head(features), quantiles[:, 0])
