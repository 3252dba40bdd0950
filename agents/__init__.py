"""RL agents: losses and policies on a shared encoder. None knows an auxiliary task by name."""

from agents.base import Agent, Auxiliary, Update
from agents.dqn import DQN, DQNConfig

__all__ = ["DQN", "Agent", "Auxiliary", "DQNConfig", "Update"]
