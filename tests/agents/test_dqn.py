"""DQN against per-sample loops, and who receives which gradient."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from agent_help import SHAPE, equal, learn, make_encoder, make_suite, snapshot
from torch import Tensor, nn

from agents import DQN, AuxSchedule, DQNConfig, Precision, Streams
from agents.config import Head, Target
from agents.heads import DuelingHead, huber
from agents.learning import check_ownership
from analysis.representation import diagnose
from aux_tasks import TaskConfig
from envs import Observation
from replay import Batch

B, A = 7, 5
CONFIG = DQNConfig(learning_rate=0.01, hidden=6, target_tau=0.25, target_every=3, epsilon_steps=200)
HEADS = [head for head in Head if head is not Head.spatial]  # of any actions
TASKS = {"rotation": TaskConfig(weight=0.5), "permutation": TaskConfig(weight=2.0)}


def make_agent(tasks=None, seed: int = 0, **config) -> DQN:
    encoder = make_encoder(seed)
    return DQN(
        replace(CONFIG, **config),
        encoder,
        A,
        make_suite(tasks or {}, encoder, A, A),
        Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)),
    )


def make_batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    obs, nstep_obs = (torch.randint(256, (B, *SHAPE), dtype=torch.uint8, generator=g) for _ in range(2))
    discount = torch.tensor([0.99**3, 0.0, 0.99**3, 0.99, 0.0, 0.99**2, 0.99**3])  # 0: terminated; 0.99: cut after one
    return Batch(
        obs=obs,
        action=torch.randint(A, (B,), generator=g),
        reward=torch.full((B,), 100.0),  # one step: not what DQN learns from
        nstep_reward=torch.randn(B, generator=g),
        nstep_obs=nstep_obs,
        discount=discount,
        weight=torch.rand(B, generator=g) + 0.1,
        index=torch.arange(B),
    )


def held(optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """An optimiser's parameters and the state of each."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return parameters, [optimizer.state[p] for p in parameters]


def stir(agent: DQN) -> DQN:
    """Move the target away from the online network, as training does."""
    other = make_agent(seed=99)
    agent.target_encoder.load_state_dict(other.encoder.state_dict())
    agent.target_head.load_state_dict(other.head.state_dict())
    return agent


@torch.no_grad()
def slow_td_errors(agent: DQN, batch: Batch) -> list[float]:
    errors = []
    for i in range(B):
        q = agent.head(agent.encoder(batch.obs[i : i + 1]))[0]
        online = agent.head(agent.encoder(batch.nstep_obs[i : i + 1]))[0].tolist()
        target = agent.target_head(agent.target_encoder(batch.nstep_obs[i : i + 1]))[0].tolist()
        best = max(range(A), key=(online if agent.config.double else target).__getitem__)
        random = agent.config.target_epsilon
        bootstrap = float(batch.discount[i]) * ((1 - random) * target[best] + random * sum(target) / A)
        errors.append(float(q[int(batch.action[i])]) - (float(batch.nstep_reward[i]) + bootstrap))
    return errors


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("target_epsilon", [0.0, 0.3])
def test_td_error_against_a_loop_over_samples(target_epsilon, double):
    agent, batch = stir(make_agent(target_epsilon=target_epsilon, double=double)), make_batch()
    loss, td_error, metrics = agent.td_loss(agent.encoder(batch.obs), batch, batch.nstep_obs)
    slow = torch.tensor(slow_td_errors(agent, batch))
    torch.testing.assert_close(td_error, slow.abs())
    torch.testing.assert_close(loss.detach(), huber(slow))
    assert not any(m.requires_grad for m in metrics.values())
    with torch.no_grad():  # the batch tells double targets from plain ones
        online, target = (
            f(batch.nstep_obs) for f in (agent.q_values, lambda o: agent.target_head(agent.target_encoder(o)))
        )
    assert (online.argmax(1) != target.argmax(1)).any()


def test_a_terminal_state_is_worth_its_reward_and_a_truncated_one_bootstraps():
    agent, batch = stir(make_agent()), make_batch()
    features = agent.encoder(batch.obs)
    elsewhere = batch.nstep_obs.flip(0)
    same = agent.td_loss(features, batch, batch.nstep_obs)[0] == agent.td_loss(features, batch, elsewhere)[0]
    assert same.tolist()[:3] == [False, True, False]
    assert (same | (batch.discount > 0)).all()


def test_huber_in_closed_form():
    error = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 10.0], requires_grad=True)
    loss = huber(error)
    torch.testing.assert_close(loss.detach(), torch.tensor([2.5, 0.5, 0.125, 0.0, 0.03125, 0.5, 9.5]))
    loss.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([-1.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.0]))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_dueling_head_against_two_streams(layer_norm):
    torch.manual_seed(0)
    head, features = DuelingHead(11, A, 6, layer_norm), torch.randn(B, 11)
    q = head(features)
    for i in range(B):
        hidden = head.hidden.weight @ features[i] + head.hidden.bias
        value, advantage = (torch.relu(norm(h)) for norm, h in zip(head.norms, (hidden[:6], hidden[6:]), strict=True))
        value = head.value.weight @ value + head.value.bias
        advantage = head.advantage.weight @ advantage + head.advantage.bias
        torch.testing.assert_close(q[i], value + advantage - sum(advantage) / A)
        torch.testing.assert_close(q[i].mean(), value[0])
    assert any(isinstance(m, nn.LayerNorm) for m in head.modules()) == layer_norm


@pytest.mark.parametrize("target", Target)
def test_the_target_follows_as_a_loop_says(target):
    agent = stir(make_agent(target=target))
    for update in range(1, 8):
        before = snapshot(agent.target_encoder, agent.target_head)
        learn(agent, make_batch(update))
        online = snapshot(agent.encoder, agent.head)
        now = snapshot(agent.target_encoder, agent.target_head)
        for old, new, source in zip(before, now, online, strict=True):
            if target is Target.soft:
                torch.testing.assert_close(new, 0.75 * old + 0.25 * source)
            else:
                assert torch.equal(new, source if update % 3 == 0 else old)


def test_the_average_is_of_the_last_weights_however_few_updates_there_were():
    agent = make_agent(average_tau=0.6)
    average = snapshot(agent.average)
    for update in range(1, 12):
        learn(agent, make_batch(update))
        share = max(0.6, 9 / (9 + update))
        online = snapshot(agent.encoder, agent.head)
        average = [(1 - share) * old + share * new for old, new in zip(average, online, strict=True)]
        torch.testing.assert_close(snapshot(agent.average), average)
    assert not equal(average, agent.encoder, agent.head)


def test_the_target_starts_equal_and_belongs_to_no_optimiser():
    agent = make_agent(TASKS)
    assert equal(snapshot(agent.encoder, agent.head), agent.target_encoder, agent.target_head)
    target = {id(p) for m in (agent.target_encoder, agent.target_head) for p in m.parameters()}
    optimizers = (agent.optimizers[0], agent.suite.optimizer)
    owned = [id(p) for optimizer in optimizers for p in held(optimizer)[0]]
    assert not target & set(owned)
    assert len(owned) == len(set(owned))
    check_ownership(agent, optimizers)
    with pytest.raises(ValueError, match=r"parameter suite\.tasks\.rotation\.head\.0\.weight is in 0 optimisers"):
        check_ownership(agent, agent.optimizers)


@pytest.mark.parametrize(("step", "epsilon"), [(0, 1.0), (50, 0.7525), (200, 0.01), (10**6, 0.01)])
def test_epsilon_falls_linearly_and_stays(step, epsilon):
    agent = make_agent()
    agent.schedule.advance(step)
    assert agent.schedule.values["epsilon"] == pytest.approx(epsilon)


@pytest.mark.parametrize("name", ["epsilon_start", "epsilon_end", "target_epsilon"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_epsilon_is_a_probability(name, value):
    with pytest.raises(ValueError, match=rf"agent\.{name} must be in \[0, 1\], got {value}"):
        DQNConfig(**{name: value})
    DQNConfig(target_tau=1.0, average_tau=1.0, **{name: 1.0})


@pytest.mark.parametrize("head", HEADS)
def test_actions_are_greedy_or_random_as_often_as_epsilon_says(head):
    agent = make_agent(epsilon_start=0.2, epsilon_end=0.2, head=head, quantiles=4)
    obs = np.random.default_rng(0).integers(0, 256, (1, *SHAPE), dtype=np.uint8).repeat(4000, axis=0)
    best = int(agent.q_values(torch.from_numpy(obs[:1])).argmax())
    state = copy.deepcopy(agent.streams.explore.bit_generator.state)
    assert (agent.act(Observation(obs), explore=False) == best).all()
    assert agent.streams.explore.bit_generator.state == state
    counts = np.bincount(agent.act(Observation(obs), explore=True), minlength=A)
    expected = np.where(np.arange(A) == best, 4000 * (0.8 + 0.2 / A), 4000 * 0.2 / A)
    assert (abs(counts - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize("head", HEADS)
def test_every_loss_reaches_its_own_parameters_and_no_others(head):
    agent, batch = make_agent(TASKS, head=head), make_batch()
    parts = {"encoder": agent.encoder, "head": agent.head, "target_encoder": agent.target_encoder}
    parts |= {"target_head": agent.target_head} | dict(agent.suite)

    def reached(loss: Tensor) -> set[str]:
        agent.zero_grad()
        loss.sum().backward()
        return {name for name, part in parts.items() if any(p.grad is not None for p in part.parameters())}

    features = agent.encoder(batch.obs)
    assert reached(agent.td_loss(features, batch, batch.nstep_obs)[0]) == {"encoder", "head"}
    for name, term in agent.suite.losses(batch, features.detach(), agent.encoder)[0].items():
        assert reached(term) == {"encoder", name}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("schedule", AuxSchedule)
def test_importance_weights_reach_every_branch(schedule, head):
    """What a sample of weight 0 holds changes no weight of any network; at weight 1 it changes all of them."""
    results = []
    for weight, seed in ((0.0, 0), (0.0, 50), (1.0, 0), (1.0, 50)):
        agent, batch, other = make_agent(TASKS, aux_schedule=schedule, head=head), make_batch(), make_batch(seed)
        mixed = {
            name: torch.cat([getattr(batch, name)[:-1], getattr(other, name)[-1:]])
            for name in ("obs", "nstep_obs", "action", "nstep_reward")
        }
        weights = torch.cat([batch.weight[:-1], torch.tensor([weight])])
        learn(agent, replace(batch, **mixed, weight=weights))
        results.append({n: p.detach().clone() for n, p in agent.named_parameters()})
    ignored_a, ignored_b, seen_a, seen_b = results
    for name in ignored_a:
        assert torch.equal(ignored_a[name], ignored_b[name]), name
        if name.endswith("weight") and "norms" not in name:
            assert not torch.equal(seen_a[name], seen_b[name]), name


def test_joint_update_descends_the_weighted_sum():
    agent, batch = stir(make_agent(TASKS)), make_batch()
    slow, loss = copy.deepcopy(agent), 0
    features = slow.encoder(batch.obs)
    terms = {"td": slow.td_loss(features, batch, batch.nstep_obs)[0]}
    terms |= slow.suite.losses(batch, features, slow.encoder)[0]
    for i in range(B):
        loss = loss + batch.weight[i] * (terms["td"][i] + 0.5 * terms["rotation"][i] + 2 * terms["permutation"][i]) / B
    loss.backward()
    update = learn(agent, batch)
    tags = {"train/loss": "td", "aux/rotation/loss": "rotation", "aux/permutation/loss": "permutation"}
    assert {tag: update.metrics[tag].item() for tag in tags} == pytest.approx(
        {tag: terms[name].mean().item() for tag, name in tags.items()}
    )
    for optimizer, reference, limit in (
        (agent.optimizers[0], [*slow.encoder.parameters(), *slow.head.parameters()], CONFIG.max_grad_norm),
        (agent.suite.optimizer, list(slow.suite.parameters()), 9),
    ):
        nn.utils.clip_grad_norm_(reference, limit)
        plain = torch.optim.Adam(reference, lr=0.01, eps=optimizer.defaults["eps"], foreach=False, fused=False)
        plain.step()
        for fast, moments, parameter in zip(*held(optimizer), reference, strict=True):
            torch.testing.assert_close(moments["exp_avg"], 0.1 * parameter.grad, atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(fast, parameter, atol=1e-4, rtol=0)


@pytest.mark.parametrize("schedule", AuxSchedule)
def test_the_weight_of_a_auxiliary_task_is_that_of_the_step(schedule):
    falling = TaskConfig(weight=2.0, final_weight=0.5, decay_steps=30)  # 1 at step 20
    agents = [make_agent({"rotation": task}, aux_schedule=schedule) for task in (falling, TaskConfig(), falling)]
    for agent, step in zip(agents, (20, 0, 0), strict=True):
        learn(agent, make_batch(), step)
    scheduled, constant, begun = agents
    assert equal(snapshot(constant), scheduled)
    assert not equal(snapshot(constant.encoder), begun.encoder)


@pytest.mark.parametrize("schedule", AuxSchedule)
def test_priorities_hold_the_td_error_alone(schedule):
    agent, batch = stir(make_agent(TASKS, aux_schedule=schedule)), make_batch()
    expected = torch.tensor(slow_td_errors(agent, batch)).abs()
    update = learn(agent, batch)
    torch.testing.assert_close(update.td_error, expected)
    assert not update.td_error.requires_grad
    assert update.metrics.keys() >= {"train/loss", "aux/rotation/loss", "aux/permutation/loss"}


@pytest.mark.parametrize("schedule", AuxSchedule)
@pytest.mark.parametrize(("shift", "head"), [(0, Head.plain), (2, Head.plain), (0, Head.quantile), (2, Head.implicit)])
def test_weight_0_reproduces_the_baseline_bit_for_bit(schedule, shift, head):
    idle = {name: TaskConfig(weight=0.0) for name in TASKS}
    baseline, agent = (make_agent(tasks, aux_schedule=schedule, random_shift=shift, head=head) for tasks in ({}, idle))
    for i in range(6):
        a, b = learn(baseline, make_batch(i), step=i), learn(agent, make_batch(i), i)
        assert torch.equal(a.td_error, b.td_error)
    weights = agent.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in baseline.state_dict().items())


def test_alternating_is_a_q_step_and_then_a_step_of_the_auxiliary_tasks():
    agent, batch = make_agent({"rotation": TaskConfig()}, aux_schedule=AuxSchedule.alternating), make_batch()
    seen = []

    def watched(method):
        def call(*args):
            parts = {"encoder": agent.encoder, "head": agent.head, "suite": agent.suite}
            before = {name: snapshot(part) for name, part in parts.items()}
            result = method(*args)
            seen.append({name for name, part in parts.items() if not equal(before[name], part)})
            return result

        return call

    agent.descend, agent.suite.after_step = watched(agent.descend), watched(agent.suite.after_step)
    for _ in range(3):  # from the second update on, Adam has momentum
        learn(agent, batch)
        assert all(p.grad is None for p in agent.parameters())
    assert seen == [{"encoder", "head"}, {"encoder"}, {"suite"}] * 3


def test_the_q_step_of_an_alternating_update_is_the_one_of_the_baseline():
    baseline, agent = make_agent(), make_agent(TASKS, aux_schedule=AuxSchedule.alternating)
    for one in (baseline, agent):
        learn(one, make_batch())
    assert equal(snapshot(baseline.head), agent.head)
    assert not equal(snapshot(baseline.encoder), agent.encoder)


def test_diagnose_measures_and_touches_nothing():
    agent, batch = stir(make_agent(TASKS, random_shift=2)), make_batch()
    learn(agent, batch)
    for p in agent.parameters():
        p.grad = torch.full_like(p, 3.0)
    generators = (agent.suite.generator, agent.streams.augment, torch.default_generator)
    states = [g.get_state() for g in generators]
    explore, weights = copy.deepcopy(agent.streams.explore.bit_generator.state), snapshot(agent)
    metrics = diagnose(agent, batch)
    cosines = {f"aux/{name}/grad_cosine" for name in TASKS}
    representation = {"repr/effective_rank", "repr/feature_stds", "repr/feature_std", "repr/dead_share"}
    assert metrics.keys() == cosines | representation
    assert all(-1 <= metrics[f"aux/{name}/grad_cosine"] <= 1 for name in TASKS)
    assert 1 <= metrics["repr/effective_rank"] <= B - 1
    stds = np.std(agent.encoder(batch.obs).detach().numpy(), axis=0, ddof=1)
    assert metrics["repr/feature_stds"].numpy() == pytest.approx(stds, rel=1e-4)
    assert float(metrics["repr/feature_std"]) == pytest.approx(stds.mean(), rel=1e-4)
    assert equal(weights, agent)
    assert all((p.grad == 3.0).all() for p in agent.parameters())
    assert all(torch.equal(g.get_state(), state) for g, state in zip(generators, states, strict=True))
    assert agent.streams.explore.bit_generator.state == explore
    torch.testing.assert_close(diagnose(agent, batch), metrics, rtol=0, atol=0)


@pytest.mark.parametrize(
    "setting", [{"precision": Precision.bfloat16}, pytest.param({"compile": True}, marks=pytest.mark.slow)]
)
def test_a_faster_update_is_nearly_the_plain_one(setting):
    plain, faster = (make_agent(TASKS, **changes) for changes in ({}, setting))
    before = snapshot(plain.encoder, plain.head, plain.suite)
    for agent in (plain, faster):
        learn(stir(agent), make_batch())
    moved, aimed = (
        torch.cat([(p - q).flatten() for p, q in zip(snapshot(a.encoder, a.head, a.suite), before, strict=True)])
        for a in (faster, plain)
    )
    assert torch.cosine_similarity(moved, aimed, dim=0) > 0.9
    assert all(p.dtype is torch.float32 for p in faster.parameters())


def test_the_learning_rate_falls_linearly_and_moves_the_weights_less():
    fixed, falling = make_agent(), make_agent(final_learning_rate=0.002, decay_steps=100)
    for agent, expected in ((falling, [0.01, 0.008, 0.002, 0.002]), (fixed, [0.01] * 4)):
        rate = agent.schedules()["learning_rate"]
        assert [rate(step) for step in (0, 25, 100, 900)] == pytest.approx(expected)
    moved = []
    for agent in (fixed, falling):
        before = agent.head.value.weight.detach().clone()
        learn(agent, make_batch(), 100)
        moved.append(agent.head.value.weight.detach() - before)
    torch.testing.assert_close(moved[1], moved[0] / 5)


def test_a_scale_of_the_encoder_slows_it_and_0_keeps_it_and_its_auxiliary_tasks_head_learn_alone():
    moved = {}
    for scale in (0.0, 0.25, 1.0):
        agent = make_agent({"rotation": TaskConfig()}, encoder_scale=scale)
        heads = [agent.head, *agent.suite.children()]
        encoder, others = snapshot(agent.encoder), snapshot(*heads)
        learn(agent, make_batch(), 7)
        moved[scale] = max(float((p - q).abs().max()) for p, q in zip(snapshot(agent.encoder), encoder, strict=True))
        assert not equal(others, *heads)
        check_ownership(agent, [*agent.optimizers, *agent.suite.optimizers])
        assert diagnose(agent, make_batch()).keys() >= {"repr/effective_rank"}
    assert moved[0.0] == 0
    assert moved[0.25] == pytest.approx(0.25 * moved[1.0], rel=1e-3)  # Adam's first step is as long as its rate
    with pytest.raises(ValueError, match=r"agent.encoder_scale must be at least 0, got -1"):
        DQNConfig(encoder_scale=-1)
