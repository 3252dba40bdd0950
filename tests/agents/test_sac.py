"""SAC against loops in float64, and who receives which gradient."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from agent_help import SHAPE, equal, learn, make_encoder, make_suite, snapshot
from torch import Tensor, nn

from agents import SAC, SACConfig, Streams
from agents.config import Svea
from agents.learning import check_ownership
from agents.sac import LOG_STD, squash
from aux_tasks import TaskConfig
from encoders import Encoder, FrozenEncoder
from envs import Observation
from replay import Batch

B, A = 7, 3
CONFIG = SACConfig(learning_rate=0.01, hidden=6, init_temperature=0.3, target_tau=0.25, policy_delay=1)
TASKS = {"rotation": TaskConfig(weight=0.5), "deepmdp": TaskConfig(weight=2.0, options={"hidden": 8})}


def make_agent(tasks=None, seed: int = 0, **config) -> SAC:
    encoder = make_encoder(seed)
    return SAC(
        replace(CONFIG, **config),
        encoder,
        A,
        make_suite(tasks or {}, encoder, None, A),
        Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)),
    )


def make_batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    obs, nstep_obs, next_obs = torch.randint(256, (3, B, *SHAPE), dtype=torch.uint8, generator=g)
    return Batch(
        obs=obs,
        action=torch.rand(B, A, generator=g) * 2 - 1,
        reward=torch.randn(B, generator=g),
        nstep_reward=torch.randn(B, generator=g),
        nstep_obs=nstep_obs,
        discount=torch.tensor([0.99, 0.0, 0.99, 0.99, 0.0, 0.99**2, 0.99]),  # 0: terminated
        weight=torch.rand(B, generator=g) + 0.1,
        index=torch.arange(B),
        next_obs=next_obs,
    )


def stir(agent: SAC) -> SAC:
    """Move the target away from the online network and give the actor opinions, as training does."""
    other = make_agent(seed=99)
    agent.target_encoder.load_state_dict(other.encoder.state_dict())
    agent.target_critic.load_state_dict(other.critic.state_dict())
    with torch.no_grad():
        for p in agent.actor.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5))
    return agent


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 0}, "agent.hidden must be at least 1, got 0"),
        ({"policy_delay": 0}, "agent.policy_delay must be at least 1, got 0"),
        ({"num_shifts": 0}, "agent.num_shifts must be at least 1, got 0"),
        ({"num_shifts": 2}, "agent.num_shifts=2: all equal without agent.random_shift, 4 for example"),
        ({"init_temperature": 0.0}, "agent.init_temperature must be above 0, got 0.0"),
        ({"target_tau": 0.0}, r"agent.target_tau must be in \(0, 1\], got 0.0"),
        ({"target_tau": 1.1}, r"agent.target_tau must be in \(0, 1\], got 1.1"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SACConfig(**wrong)
    SACConfig(hidden=1, policy_delay=1, num_shifts=2, random_shift=1, init_temperature=1e-9, target_tau=1.0)


# --- slow versions: one sample at a time, from the formulas ---


def forward(layers: torch.nn.Sequential, inputs: list[float]) -> list[float]:
    """The network's outputs for one input, in float64."""
    x = np.array(inputs)
    for i in (0, 2, 4):
        x = layers[i].weight.detach().double().numpy() @ x + layers[i].bias.detach().double().numpy()
        x = x.clip(0) if i < 4 else x
    return x.tolist()


def slow_policy(agent: SAC, maps: Tensor, noise: list[float]) -> tuple[list[float], float]:
    """One action and its log-density, by the change of variables a = tanh(u)."""
    outputs = forward(agent.actor.layers, agent.actor.neck(maps.flatten()[None])[0].tolist())
    action, log_prob = [], 0.0
    for mean, raw, e in zip(outputs[:A], outputs[A:], noise, strict=True):
        std = math.exp(-10 + 12 * (math.tanh(raw) + 1) / 2)
        u = mean + std * e
        log_prob += math.log(math.exp(-((u - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)))
        log_prob -= math.log(1 - math.tanh(u) ** 2)
        action.append(math.tanh(u))
    return action, log_prob


def slow_q(critic: torch.nn.Module, features: list[float], action: list[float]) -> list[float]:
    return [forward(twin, [*features, *action])[0] for twin in critic.twins]


def coming_noise(agent: SAC, count: int = B) -> list[list[float]]:
    """What the policy's stream gives next."""
    generator = torch.Generator()
    generator.set_state(agent.streams.policy.get_state())
    return torch.randn(count, A, generator=generator).tolist()


@torch.no_grad()
def slow_errors(agent: SAC, batch: Batch, obs: Tensor, next_obs: Tensor) -> Tensor:
    """Errors (2, K, B) of both critics, where `obs` and `next_obs` are K copies (K * B, ...) of the batch's."""
    alpha, begins = math.exp(float(agent.log_temperature)), range(0, len(obs), B)
    features, next_maps = agent.encoder(obs).tolist(), agent.encoder.maps(next_obs)
    target_features, noise = agent.target_encoder(next_obs).tolist(), coming_noise(agent, len(obs))
    errors = torch.zeros(2, len(begins), B)
    for i in range(B):
        values = []
        for row in (begin + i for begin in begins):
            action, log_prob = slow_policy(agent, next_maps[row], noise[row])
            values.append(min(slow_q(agent.target_critic, target_features[row], action)) - alpha * log_prob)
        target = float(batch.nstep_reward[i]) + float(batch.discount[i]) * sum(values) / len(values)
        for k, begin in enumerate(begins):
            q = slow_q(agent.critic, features[begin + i], batch.action[i].tolist())
            errors[:, k, i] = torch.tensor(q) - target
    return errors


# --- the mathematics ---


@pytest.mark.parametrize("copies", [1, 2])
def test_critic_loss_against_a_loop_over_samples(copies):
    agent, batch = stir(make_agent()), make_batch()
    obs, next_obs = (torch.cat([x, x.flip(-1)])[: copies * B] for x in (batch.obs, batch.nstep_obs))
    slow = slow_errors(agent, batch, obs, next_obs)
    loss, td_error, metrics = agent.td_loss(agent.encoder(obs), batch, next_obs)
    torch.testing.assert_close(loss.detach(), slow.square().mean(1).sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(td_error, slow.abs().mean((0, 1)), rtol=1e-4, atol=1e-5)
    assert not td_error.requires_grad
    assert not any(m.requires_grad for m in metrics.values())
    assert float(metrics["train/loss"]) == pytest.approx(loss.mean().item())


def test_a_terminal_state_is_worth_its_reward_and_others_bootstrap():
    agent, batch = stir(make_agent()), make_batch()
    features, state = agent.encoder(batch.obs), agent.streams.policy.get_state()
    losses = []
    for next_obs in (batch.nstep_obs, batch.nstep_obs.flip(0)):
        agent.streams.policy.set_state(state)
        losses.append(agent.td_loss(features, batch, next_obs)[0])
    assert (losses[0] == losses[1]).tolist() == [False, True, False, True, True, False, False]  # the middle stays


def test_actor_and_temperature_losses_against_a_loop_over_samples():
    agent, batch = stir(make_agent()), make_batch()
    maps, noise, alpha = agent.encoder.maps(batch.obs).detach(), coming_noise(agent), 0.3
    features = agent.encoder.features(maps).detach()
    terms = {name: term.detach() for name, term in agent.policy_terms(maps, features).items()}
    for i in range(B):
        action, log_prob = slow_policy(agent, maps[i], noise[i])
        q = min(slow_q(agent.critic, features[i].tolist(), action))
        assert float(terms["actor"][i]) == pytest.approx(alpha * log_prob - q, rel=1e-4)
        assert float(terms["temperature"][i]) == pytest.approx(-alpha * (log_prob + -A), rel=1e-4)


def test_the_temperature_rises_where_the_policy_is_too_sure():
    for log_prob, sign in ((A + 1.0, -1), (A - 1.0, 1)):  # the loss's slope; entropy is below or above -A
        agent = make_agent()
        action = torch.zeros(B, A)
        agent.sample = lambda maps, goal, p=log_prob, a=action: (a, torch.full((B,), p))
        batch = make_batch()
        agent.policy_terms(agent.encoder.maps(batch.obs), agent.encoder(batch.obs))["temperature"].mean().backward()
        assert float(agent.log_temperature.grad) == pytest.approx(0.3 * sign)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_log_density_of_the_squashed_gaussian_in_float64(scale):
    g = torch.Generator().manual_seed(0)
    mean, log_std, noise = torch.randn(3, B, A, generator=g, dtype=torch.float64) * scale
    base = torch.distributions.Normal(mean, log_std.exp())
    law = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform(cache_size=1))
    u = mean + log_std.exp() * noise
    action, log_prob = squash(mean, log_std, noise)
    torch.testing.assert_close(action, u.tanh())
    law.transforms[0]._cached_x_y = (u, action)  # u is lost where tanh rounds
    torch.testing.assert_close(log_prob, law.log_prob(action).sum(1))


def test_the_density_integrates_to_one_and_stays_finite_at_the_edge():
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1, None]
    mean, log_std = torch.full_like(action, 0.4), torch.full_like(action, -0.5)
    _, log_prob = squash(mean, log_std, (action.atanh() - mean) / log_std.exp())
    assert float(log_prob.exp().sum()) * 1e-5 == pytest.approx(1, abs=1e-3)
    action, log_prob = squash(torch.tensor([[20.0]]), torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    assert float(action) == 1.0
    assert float(log_prob) == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 20), rel=1e-5)


def test_log_std_stays_in_its_range():
    agent = make_agent()
    with torch.no_grad():
        agent.actor.layers[-1].weight.zero_()
        agent.actor.layers[-1].bias[A:] = torch.tensor([-1e4, 0.0, 1e4])
        _, log_std = agent.policy_at(agent.encoder.maps(make_batch().obs[:1]), None)
    assert log_std.tolist() == [[LOG_STD[0], pytest.approx(-4.0), LOG_STD[1]]]


# --- acting ---


def test_actions_are_uniform_before_the_first_update_then_sampled_or_the_squashed_mean():
    agent = stir(make_agent())
    obs = np.random.default_rng(0).integers(0, 256, (1, *SHAPE), dtype=np.uint8).repeat(4000, axis=0)
    uniform = agent.act(Observation(obs), explore=True)
    assert (uniform.shape, uniform.dtype) == ((4000, A), np.float32)
    assert abs(uniform.mean(0)).max() < 0.05
    assert uniform.std(0) == pytest.approx(np.full(A, 3**-0.5), abs=0.02)
    learn(agent, make_batch())
    with torch.no_grad():
        mean, log_std = (
            x[0].double().numpy() for x in agent.policy_at(agent.encoder.maps(torch.from_numpy(obs[:1])), None)
        )
    state = copy.deepcopy(agent.streams.explore.bit_generator.state)
    evaluated = agent.act(Observation(obs), explore=False)
    assert agent.streams.explore.bit_generator.state == state
    np.testing.assert_allclose(evaluated, np.tanh(mean)[None].repeat(4000, 0), rtol=1e-5)
    sampled = np.arctanh(agent.act(Observation(obs), explore=True).astype(np.float64).clip(-1 + 1e-7, 1 - 1e-7))
    inside = abs(mean) + 3 * np.exp(log_std) < 7  # elsewhere tanh rounds to 1
    assert inside.any()
    assert sampled.mean(0)[inside] == pytest.approx(mean[inside], abs=4 * np.exp(log_std).max() / 4000**0.5)
    assert sampled.std(0)[inside] == pytest.approx(np.exp(log_std)[inside], rel=0.06)


def test_the_explained_value_is_that_of_the_evaluated_action():
    agent, obs = stir(make_agent()), make_batch().obs
    action = torch.from_numpy(agent.act(Observation(obs.numpy()), explore=False))
    with torch.no_grad():
        expected = agent.critic(agent.encoder(obs), action).amin(0)
        torch.testing.assert_close(agent.q_values(obs), expected[:, None])


# --- who learns from what ---


def test_each_step_leaves_gradients_on_its_own_parameters_alone():
    """Seen when an optimiser steps: the critics' step moves no actor, the actor's neither critics nor encoder."""
    agent, seen = stir(make_agent(TASKS)), []
    names = {"encoder", "critic", "actor", "log_temperature", "suite", "target_encoder", "target_critic"}
    for optimizer in (*agent.optimizers, agent.suite.optimizer):
        optimizer.register_step_pre_hook(
            lambda *_: seen.append({n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None})
        )
    learn(agent, make_batch())
    assert {name.split(".")[0] for name, _ in agent.named_parameters()} == names
    assert seen == [{"encoder", "critic", "suite"}, {"suite"}, {"actor", "log_temperature"}]
    assert all(p.grad is None for p in agent.parameters())


def test_all_of_the_encoder_hears_the_critics_and_none_of_it_the_actor():
    agent, batch = stir(make_agent()), make_batch()
    agent.td_loss(agent.encoder(batch.obs), batch, batch.nstep_obs)[0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in agent.encoder.parameters())
    before = snapshot(agent.encoder, agent.critic)
    agent.zero_grad()
    agent.update_policy(batch.obs, batch)
    assert equal(before, agent.encoder, agent.critic)
    assert all(p.grad is None for module in (agent.encoder, agent.critic) for p in module.parameters())


def test_the_actor_learns_through_its_own_neck_beside_a_frozen_encoder():
    encoder = Encoder(make_encoder(0).trunk, torch.nn.Linear(27, 5), SHAPE)
    streams = Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
    agent = SAC(replace(CONFIG, encoder_scale=0.0), encoder, A, make_suite({}, encoder, None, A), streams)
    neck, frozen = snapshot(agent.actor.neck), snapshot(encoder)
    learn(agent, make_batch())
    assert equal(frozen, encoder)
    assert not equal(neck, agent.actor.neck)


def test_one_optimiser_steps_the_encoder_and_none_the_target():
    agent = make_agent(TASKS)
    check_ownership(agent, [*agent.optimizers, agent.suite.optimizer])
    owned = {id(p) for group in agent.optimizers[0].param_groups for p in group["params"]}
    assert owned == {id(p) for module in (agent.encoder, agent.critic) for p in module.parameters()}
    assert equal(snapshot(agent.encoder, agent.critic), agent.target_encoder, agent.target_critic)


def test_an_update_descends_one_weighted_sum_then_the_policy_terms():
    agent, batch = stir(make_agent(TASKS)), make_batch()
    slow, loss = copy.deepcopy(agent), 0
    slow.streams.policy.set_state(agent.streams.policy.get_state())
    slow.suite.generator.set_state(agent.suite.generator.get_state())
    maps = slow.encoder.maps(batch.obs)
    features = slow.encoder.features(maps)
    terms = {"td": slow.td_loss(features, batch, batch.nstep_obs)[0]}
    terms |= slow.suite.losses(batch, features, slow.encoder)[0]
    for i in range(B):
        loss = loss + batch.weight[i] * (terms["td"][i] + 0.5 * terms["rotation"][i] + 2 * terms["deepmdp"][i]) / B
    loss.backward()
    online = [*slow.encoder.parameters(), *slow.critic.parameters()]
    torch.optim.Adam(online, lr=0.01, foreach=False, fused=False).step()
    slow.actor.zero_grad()
    maps = slow.encoder.maps(batch.obs).detach()  # the encoder has moved, and the actor reads what it gives now
    policy_terms = slow.policy_terms(maps, slow.encoder.features(maps).detach())
    (batch.weight * (policy_terms["actor"] + policy_terms["temperature"])).mean().backward()
    policy = [*slow.actor.parameters(), slow.log_temperature]
    torch.optim.Adam(policy, lr=0.01, foreach=False, fused=False).step()
    update = learn(agent, batch)
    for mine, theirs in zip([*agent.online, *agent.policy_parameters], [*online, *policy], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    assert update.metrics.keys() >= {"train/loss", "train/actor_loss", "train/ent_coef", "aux/deepmdp/loss"}
    assert float(update.metrics["train/loss"]) == pytest.approx(terms["td"].mean().item(), rel=1e-5)


def test_importance_weights_reach_every_branch():
    """What a sample of weight 0 holds changes no weight of any network; at weight 1 it changes all of them."""
    results = []
    for weight, seed in ((0.0, 0), (0.0, 50), (1.0, 0), (1.0, 50)):
        agent, batch, other = stir(make_agent(TASKS)), make_batch(), make_batch(seed)
        mixed = {
            name: torch.cat([getattr(batch, name)[:-1], getattr(other, name)[-1:]])
            for name in ("obs", "nstep_obs", "next_obs", "action", "reward", "nstep_reward")
        }
        weights = torch.cat([batch.weight[:-1], torch.tensor([weight])])
        for _ in range(4):  # Adam's first step knows the gradient's sign alone
            learn(agent, replace(batch, **mixed, weight=weights))
        results.append({n: p.detach().clone() for n, p in agent.named_parameters()})
    ignored_a, ignored_b, seen_a, seen_b = results
    for name in ignored_a:
        torch.testing.assert_close(ignored_a[name], ignored_b[name], atol=1e-6, rtol=0)
        if name.endswith("weight") or name == "log_temperature":
            assert (seen_a[name] - seen_b[name]).abs().max() > 1e-5, name


def test_actor_temperature_and_target_follow_every_third_update():
    agent = stir(make_agent(policy_delay=3))
    for update in range(1, 7):
        target, policy = snapshot(agent.target_encoder, agent.target_critic), snapshot(agent.actor)
        temperature, critics = agent.log_temperature.item(), snapshot(agent.encoder, agent.critic)
        metrics = learn(agent, make_batch(update)).metrics
        due = update % 3 == 0
        assert agent.updates == update
        assert equal(policy, agent.actor) != due
        assert (float(agent.log_temperature) != temperature) == due
        assert ("train/actor_loss" in metrics) == due
        assert not equal(critics, agent.encoder, agent.critic)
        online = snapshot(agent.encoder, agent.critic)
        now = snapshot(agent.target_encoder, agent.target_critic)
        for old, new, source in zip(target, now, online, strict=True):
            torch.testing.assert_close(new, 0.75 * old + 0.25 * source if due else old)


@pytest.mark.parametrize("shift", [0, 2])
def test_weight_0_reproduces_the_baseline_bit_for_bit(shift):
    idle = {name: replace(task, weight=0.0) for name, task in TASKS.items()}
    baseline, agent = (make_agent(tasks, random_shift=shift, policy_delay=2) for tasks in ({}, idle))
    for i in range(5):
        a, b = learn(baseline, make_batch(i), step=i), learn(agent, make_batch(i), i)
        assert torch.equal(a.td_error, b.td_error)
    weights = agent.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in baseline.state_dict().items())


def test_a_task_with_an_encoder_of_its_own_leaves_the_agent_as_it_would_be_without_it():
    alone = {name: replace(task, encoder="separate") for name, task in TASKS.items()}
    baseline, agent = (make_agent(tasks, policy_delay=2) for tasks in ({}, alone))
    for i in range(3):
        learn(baseline, make_batch(i), step=i)
        learn(agent, make_batch(i), step=i)
    weights = agent.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in baseline.state_dict().items())
    own = agent.suite.encoders["deepmdp"].state_dict()
    assert not any(torch.equal(tensor, own[name]) for name, tensor in agent.encoder.state_dict().items())


def test_the_shift_moves_what_is_learned_from_and_nothing_else():
    batch = make_batch()
    still, shifted = (make_agent(random_shift=shift) for shift in (0, 2))
    assert not torch.equal(learn(still, batch, step=0).td_error, shifted.update(batch).td_error)
    assert torch.equal(still.streams.policy.get_state(), shifted.streams.policy.get_state())


def test_copies_that_do_not_differ_change_nothing():
    batch = replace(make_batch(), discount=torch.zeros(B))  # whose targets are the rewards, whatever the policy draws
    one, two = (make_agent(TASKS, random_shift=1, num_shifts=copies, policy_delay=2) for copies in (1, 2))
    for agent in (one, two):
        agent.augment = lambda obs, agent=agent: torch.cat([obs] * agent.num_shifts)
        learn(agent, batch)
    weights = two.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


# --- SVEA ---

COLOUR = (6, 8, 8)


def make_svea(svea: str, **config) -> SAC:
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Conv2d(6, 3, 3, stride=2), nn.ReLU()), nn.Sequential(), COLOUR)
    streams = Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
    torch.manual_seed(0)
    return SAC(replace(CONFIG, svea=Svea(svea), **config), encoder, A, make_suite({}, encoder, None, A), streams)


def colour_batch() -> Batch:
    obs, nstep_obs = torch.randint(256, (2, B, *COLOUR), dtype=torch.uint8, generator=torch.Generator().manual_seed(8))
    return replace(make_batch(), obs=obs, nstep_obs=nstep_obs)


@pytest.mark.parametrize("svea", ["overlay", "random_conv"])
def test_svea_is_half_the_clean_loss_and_half_that_of_augmented_copies_towards_the_same_targets(svea):
    agent, batch = make_svea(svea), colour_batch()
    hard = agent.with_hard_copies(batch.obs)
    assert torch.equal(hard[:B], batch.obs)
    assert not torch.equal(hard[B:], batch.obs)
    state = agent.streams.policy.get_state()
    both, td_error, metrics = agent.td_loss(agent.encoder(hard), batch, batch.nstep_obs)
    found = []
    for half in (hard[:B], hard[B:]):
        agent.streams.policy.set_state(state)
        loss, error, alone = agent.td_loss(agent.encoder(half), batch, batch.nstep_obs)
        found.append((loss, error))
        torch.testing.assert_close(metrics["train/target_q_mean"], alone["train/target_q_mean"])
    torch.testing.assert_close(both, (found[0][0] + found[1][0]) / 2)
    torch.testing.assert_close(td_error, (found[0][1] + found[1][1]) / 2)


def test_policy_and_targets_of_svea_see_clean_observations_alone():
    agent, batch, seen = make_svea("overlay", random_shift=1, num_shifts=2), colour_batch(), []
    update_policy, td_loss = agent.update_policy, agent.td_loss
    agent.update_policy = lambda obs, batch: seen.append(obs.clone()) or update_policy(obs, batch)
    agent.td_loss = lambda f, b, n: seen.append((len(f), len(n))) or td_loss(f, b, n)
    agent.augment = lambda obs: torch.cat([obs, obs])
    learn(agent, batch)
    assert seen[0] == (4 * B, 2 * B)
    assert torch.equal(seen[1], batch.obs)


def test_a_folder_of_overlays_needs_them():
    with pytest.raises(ValueError, match=r"agent.overlay_folder=pictures is only used with agent.svea=overlay"):
        SACConfig(overlay_folder="pictures")


def test_an_update_on_features_of_a_frozen_encoder_is_that_on_its_pixels() -> None:
    batch, agents = make_batch(), []
    for featured in (False, True):
        encoder = FrozenEncoder(make_encoder(0))
        torch.manual_seed(1)
        streams = Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
        config = replace(CONFIG, encoder_scale=0.0)
        agent = SAC(config, encoder, A, make_suite({}, encoder, None, A), streams)
        frozen, moved = snapshot(agent.encoder), snapshot(agent.actor, agent.critic)
        with torch.no_grad():
            features = {name: encoder(getattr(batch, name))[:, :, None, None] for name in ("obs", "nstep_obs")}
        learn(agent, replace(batch, **features) if featured else batch)
        assert equal(frozen, agent.encoder)
        assert not equal(moved, agent.actor, agent.critic)
        agents.append(agent)
    for pixels, features in zip(agents[0].parameters(), agents[1].parameters(), strict=True):
        assert torch.equal(pixels, features)
