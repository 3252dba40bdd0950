"""RL agents: losses and policies on a shared encoder, and the configs of Stable-Baselines3's agents.

None knows an auxiliary task by name.
"""

from typing import TYPE_CHECKING

from agents.config import AGENTS, AgentConfig, AuxSchedule, Capture, DQNConfig, Precision, SACConfig
from harness.lazy import lazily

if TYPE_CHECKING:
    from agents.base import Agent, Streams, Suite, Update
    from agents.capture import Captured
    from agents.dqn import DQN
    from agents.sac import SAC
else:
    __getattr__ = lazily(
        {
            "agents.base": ("Agent", "Streams", "Suite", "Update"),
            "agents.capture": ("Captured",),
            "agents.dqn": ("DQN",),
            "agents.sac": ("SAC",),
        }
    )

__all__ = [
    "AGENTS",
    "DQN",
    "SAC",
    "Agent",
    "AgentConfig",
    "AuxSchedule",
    "Capture",
    "Captured",
    "DQNConfig",
    "Precision",
    "SACConfig",
    "Streams",
    "Suite",
    "Update",
]
