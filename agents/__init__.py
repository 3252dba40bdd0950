"""RL agents: losses and policies on a shared encoder. None knows an auxiliary task by name."""

from agents.base import Agent, AgentConfig, AuxSchedule, Precision, Streams, Suite, Update
from agents.dqn import DQN, DQNConfig
from agents.sac import SAC, SACConfig

AGENTS: dict[str, type[AgentConfig]] = {"dqn": DQNConfig, "sac": SACConfig}

__all__ = [
    "AGENTS",
    "DQN",
    "SAC",
    "Agent",
    "AgentConfig",
    "AuxSchedule",
    "DQNConfig",
    "Precision",
    "SACConfig",
    "Streams",
    "Suite",
    "Update",
]
