"""Which updates can be recorded as graphs: every agent, head and task."""

import copy
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from capture_help import run_without_data, taped
from contract_help import CASES, agent_of, batch_for_all, changes, whole_state
from torch import Tensor

from agents import Agent, AuxSchedule, Capture, Captured
from agents.capture import WARM_UP
from agents.config import Conflict, Head, Svea, Target

NOT_CAPTURED: set[tuple[str, str]] = set()  # none is known: what is added here runs eagerly, and docs/gpu.md says so
SETTINGS: dict[str, dict[str, Any]] = {
    "dqn/plain": {},
    "dqn/quantile": {"head": Head.quantile, "quantiles": 3},
    "dqn/implicit": {"head": Head.implicit, "quantiles": 3},
    "dqn/hard": {"target": Target.hard, "target_every": 2, "average_tau": 0.1},
    "dqn/alternating": {"aux_schedule": AuxSchedule.alternating},
    "dqn/pcgrad": {"conflict": Conflict.pcgrad, "max_grad_norm": 1.0},
    "sac/plain": {},
    "sac/shifts": {"num_shifts": 2},
    "sac/overlay": {"svea": Svea.overlay},
    "sac/conv": {"svea": Svea.random_conv},
}
CONTROL = ("contrastive_ucb/bonus", "curl", "dbc", "dbc/robust", "permutation", "spr")
TABLE = [
    *((kind, case) for kind in SETTINGS for case in ("", "deepmdp")),
    *(("dqn/plain", case) for case in CASES if case != "deepmdp"),
    *(("sac/plain", case) for case in CONTROL),
]
every = pytest.mark.parametrize(("kind", "case"), TABLE)


def make(kind: str, case: str, **more: Any) -> Agent:
    return agent_of(kind.partition("/")[0], case, **SETTINGS[kind], **more)


@every
def test_an_update_reads_nothing_from_the_device(kind, case):
    agent, batch = make(kind, case), batch_for_all(continuous=kind.startswith("sac"))
    agent.update(batch)
    streams = [agent.suite.generator, *agent.streams]
    readable = []
    for _ in range(2):  # the phases
        agent.updates += 1
        try:
            run_without_data(lambda parts: parts[0].learn(parts[1]), (agent, batch), streams)
        except RuntimeError as error:
            readable.append(error)
    assert bool(readable) == ((kind, case) in NOT_CAPTURED), readable


@every
def test_replayed_updates_are_those_of_eager_calls(kind, case):
    """A recording repeats what kernels do to memory; what Python does besides would happen once."""
    batch = batch_for_all(continuous=kind.startswith("sac"))
    turned = {f.name: value.flip(0) for f in fields(batch) if (value := getattr(batch, f.name)) is not None}
    batches = [batch, replace(batch, **turned)]
    eager, other = make(kind, case), make(kind, case)
    plain = [vars(part).values() for part in eager.modules()]
    assert not any(isinstance(value, Tensor) for values in plain for value in values)  # it would stay on the host
    streams = [other.suite.generator, *other.streams[1:]]
    learn = Captured(other.learn, SimpleNamespace(type="cuda"), enabled=True, generators=streams)
    with taped():
        phases = 1 if kind == "dqn/plain" else 3  # at most; each has a recording of its own
        for i in range(phases * (WARM_UP + 3)):
            done = eager.update(batches[i % 3 == 0])
            other.updates += 1
            learn.phase = other.phase()
            again = learn(batches[i % 3 == 0])
            assert torch.equal(done.td_error, again.td_error)
            assert all(torch.equal(again.metrics[name], value) for name, value in done.metrics.items())
    assert all(program.graph.replays > 1 for program in learn._programs.values())
    states = (whole_state(agent, generators=streams, optimizers=[]) for agent in (eager, other))
    assert changes(*states) == []


# --- static memory ---


@pytest.mark.parametrize("kind", ["dqn/plain", "dqn/implicit", "dqn/hard", "sac/plain"])
def test_on_static_memory_200_updates_are_those_of_plain_calls(kind):
    """Learning rate and weight of the task move at update 100, and both ways follow."""
    batches = [batch_for_all(4, continuous=kind.startswith("sac")), batch_for_all(3, continuous=kind.startswith("sac"))]
    plain, static = make(kind, "rotation"), make(kind, "rotation", capture=Capture.on)
    learn = static.captured(static.learn, [static.streams.augment])
    norms = []
    for i in range(200):
        batch = copy.deepcopy(batches[i % 7 == 6])  # a batch of another size has memory of its own
        for agent in (plain, static):
            agent.schedule.tensors["learning_rate"].fill_(1e-3 if i < 100 else 0)
            agent.schedule.tensors["weight/rotation"].fill_(1 if i < 100 else 0)
        before = [p.clone() for p in static.encoder.parameters()]
        expected = plain.update(batch)
        static.updates += 1
        learn.phase = static.phase()
        done = learn(batch)
        assert torch.equal(done.td_error, expected.td_error)
        assert all(torch.equal(done.metrics[name], value) for name, value in expected.metrics.items())
        norms.append(
            sum(float((p - q).detach().norm()) for p, q in zip(static.encoder.parameters(), before, strict=True))
        )
    assert min(norms[:100]) > 0
    assert max(norms[100:]) == 0
    for p, q in zip(plain.parameters(), static.parameters(), strict=True):
        assert torch.equal(p, q)
    phases = 1 if kind in ("dqn/plain", "dqn/implicit") else 2
    assert len(learn._programs) == 2 * phases
    memory = {program.inputs[0].obs.data_ptr() for program in learn._programs.values()}
    assert len(memory) == 2 * phases


@pytest.mark.parametrize("kind", ["dqn/plain", "sac/plain"])
def test_a_task_whose_weight_falls_to_0_moves_the_encoder_no_more(kind):
    moved = []
    for weight in (1.0, 0.0):
        encoders = []
        for seed in (1, 2):  # of the task's labels
            agent, batch = make(kind, "rotation", capture=Capture.on), batch_for_all(continuous=kind.startswith("sac"))
            learn = agent.captured(agent.learn)
            learn(batch)
            agent.schedule.tensors["weight/rotation"].fill_(weight)
            agent.suite.generator.manual_seed(seed)
            learn(batch)
            encoders.append([p.clone() for p in agent.encoder.parameters()])
        moved.append(any(not torch.equal(p, q) for p, q in zip(*encoders, strict=True)))
    assert moved == [True, False]
