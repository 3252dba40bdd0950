"""The update that all agents share: schedules, limits, and what a captured graph needs."""

import pytest
import torch
from agent_help import equal, learn, snapshot
from capture_help import run_without_data
from test_dqn import make_agent as make_dqn
from test_dqn import make_batch as dqn_batch
from test_sac import make_agent as make_sac
from test_sac import make_batch as sac_batch

from agents import AuxSchedule
from agents.config import Conflict
from agents.learning import Schedule
from aux_tasks import TaskConfig

AGENTS = {"dqn": (make_dqn, dqn_batch), "sac": (make_sac, sac_batch)}
ROTATION = {"rotation": TaskConfig(weight=0.5, final_weight=0.1, decay_steps=100)}


@pytest.fixture(params=AGENTS)
def family(request):
    return AGENTS[request.param]


def test_a_schedule_overwrites_its_tensors_in_place():
    schedule = Schedule({"a": lambda step: 2.0 * step, "b": lambda step: 1.0}, torch.device("cpu"))
    a = schedule.tensors["a"]
    assert (schedule.values, float(a)) == ({"a": 0.0, "b": 1.0}, 0.0)
    schedule.advance(3)
    assert (schedule.values, float(a)) == ({"a": 6.0, "b": 1.0}, 6.0)


def test_the_learning_rate_schedule_reaches_every_parameter_of_the_agent_and_no_auxiliary_head(family):
    make, batch = family
    agent = make(ROTATION, learning_rate=0.01, final_learning_rate=0.002, decay_steps=100)
    learn(agent, batch(), 75)
    rates = [float(group["lr"]) for optimizer in agent.optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([0.004] * len(rates))
    assert agent.suite.optimizer.param_groups[0]["lr"] == 0.01


def test_the_limit_of_the_gradient_norm_binds(family):
    make, batch = family
    free, bound = make(max_grad_norm=1e9), make(max_grad_norm=1e-3)
    grads = []
    for agent in (free, bound):
        agent.optimizers[0].step = lambda agent=agent: grads.append(
            torch.cat([p.grad.flatten() for p in agent.optimizers[0].param_groups[0]["params"]])
        )
        norm = learn(agent, batch()).metrics["health/grad_norm"]
        assert norm > 1e-2  # what is logged is the norm before
    assert grads[1].norm() <= 1.001e-3
    torch.testing.assert_close(
        torch.nn.functional.normalize(grads[0], dim=0), torch.nn.functional.normalize(grads[1], dim=0)
    )


def test_alternating_tasks_step_the_encoder_once_more(family):
    make, batch = family
    plain, alternating = make(), make(ROTATION, aux_schedule=AuxSchedule.alternating)
    for agent in (plain, alternating):
        learn(agent, batch())
    assert not equal(snapshot(plain.encoder), alternating.encoder)
    head = "head" if hasattr(plain, "head") else "critic"
    assert equal(snapshot(getattr(plain, head)), getattr(alternating, head))


def test_a_task_whose_weight_has_fallen_to_0_moves_the_encoder_no_more(family):
    make, batch = family
    fading = {"rotation": TaskConfig(final_weight=0.0, decay_steps=10)}
    agent, descents = make(fading, aux_schedule=AuxSchedule.alternating), []
    descend = agent.descend
    agent.descend = lambda terms, *rest: (descents.append(list(terms)), descend(terms, *rest))[1]
    for step in (9, 10, 11):
        learn(agent, batch(), step)
    assert descents == [["td"], ["rotation"], ["td"], ["td"]]


@pytest.mark.parametrize(("tasks", "rule"), [({}, Conflict.none), *((ROTATION, rule) for rule in Conflict)])
def test_an_update_could_be_captured(family, tasks, rule):
    make, batch = family
    agent = make(tasks, random_shift=2, max_grad_norm=1.0, final_learning_rate=1e-4, conflict=rule)
    learn(agent, batch(), 3)
    streams = [agent.suite.generator, *agent.streams]
    for _ in range(2):  # SAC's policy learns at every second one
        run_without_data(lambda parts: parts[0].update(parts[1]), (agent, batch()), streams)
        agent.updates += 1
