"""Small parts of an agent, and what moved."""

import torch
from torch import Tensor, nn

from agents import Agent, Update
from aux_tasks import AuxSuite, TaskConfig, TaskSetting
from encoders import Encoder
from replay import Batch

SHAPE = (4, 8, 8)


def make_encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(nn.Sequential(nn.Conv2d(4, 3, 3, stride=2), nn.ReLU()), nn.Sequential(), SHAPE)


def make_suite(tasks: dict[str, TaskConfig], encoder: Encoder, num_actions: int | None, action_dim: int) -> AuxSuite:
    """Auxiliary tasks whose making changes no weight of the agent."""
    with torch.random.fork_rng():
        setting = TaskSetting(encoder, 4, num_actions, action_dim, 0.99, torch.Generator().manual_seed(1))
        return AuxSuite(tasks, setting, learning_rate=0.01, adam_eps=1e-8, max_grad_norm=9)


def snapshot(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def equal(before: list[Tensor], *modules: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(snapshot(*modules), before, strict=True))


def learn(agent: Agent, batch: Batch, step: int = 0) -> Update:
    """An update at an agent step."""
    agent.schedule.advance(step)
    return agent.update(batch)
