"""Agents of Stable-Baselines3, by the name that `agent=` uses. They bring networks, replay and updates of their own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from gymnasium.spaces import Box, Discrete

from harness.checks import check_above, check_least

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class PeerConfig(ABC):
    """Hyperparameters of every Stable-Baselines3 agent. Defaults follow its zoo for Atari. Steps are agent steps."""

    spaces: ClassVar[tuple[type, ...]] = (Discrete, Box)  # of actions that it can choose

    name: str = field(kw_only=True)
    learning_rate: float = 3e-4  # of Adam
    batch_size: int = 32  # transitions in an update

    def __post_init__(self) -> None:
        numbers = {key: value for key, value in vars(self).items() if key != "name"}
        check_least(0, "agent", **{key: value for key, value in numbers.items() if key in AT_LEAST_0})
        check_above(0, "agent", **{key: value for key, value in numbers.items() if key not in AT_LEAST_0})

    def build(self, env: "VecEnv", **shared: Any) -> "BaseAlgorithm":
        """The untrained agent.

        Args:
            env: its training environment, of pixels.
            shared: `gamma`, `seed` and `device`.

        Raises:
            ValueError: the agent is for other actions, or the keys do not fit the number of copies.
        """
        if not isinstance(env.action_space, self.spaces):
            raise ValueError(f"agent={self.name} does not support {env.action_space} actions: use agent=sb3_ppo")
        return self._build(env, **shared)

    @abstractmethod
    def _build(self, env: "VecEnv", **shared: Any) -> "BaseAlgorithm": ...


@dataclass(frozen=True)
class OffPolicyConfig(PeerConfig):
    """Hyperparameters of agents with a replay."""

    buffer_size: int = 100_000  # transitions in the replay, each with both stacks of frames: 5.6 GB of Atari's
    learning_starts: int = 100_000  # agent steps with random actions before the first update
    train_every: int = 4  # agent steps for each update, over all copies

    def replay_arguments(self, copies: int) -> dict[str, Any]:
        """What every agent with a replay takes."""
        return {
            "learning_rate": self.learning_rate,
            "buffer_size": self.buffer_size,
            "learning_starts": self.learning_starts,
            "batch_size": self.batch_size,
            **self.cadence(copies),
        }

    def cadence(self, copies: int) -> dict[str, Any]:
        """Steps of all copies between updates, and updates then.

        Raises:
            ValueError: neither number of steps divides the other.
        """
        if copies % self.train_every and self.train_every % copies:
            raise ValueError(
                f"agent.train_every={self.train_every} and env.num_envs={copies}: one must be a multiple of the other"
            )
        return {
            "train_freq": max(1, self.train_every // copies),
            "gradient_steps": max(1, copies // self.train_every),
        }


@dataclass(frozen=True)
class SB3DQNConfig(OffPolicyConfig):
    """DQN of Stable-Baselines3 with its Nature network."""

    spaces = (Discrete,)

    name: str = field(default="sb3_dqn", kw_only=True)
    learning_rate: float = 1e-4
    target_every: int = 1_000  # agent steps between copies of the network into the target network
    exploration_fraction: float = 0.1  # share of the run over which the share of random actions falls
    epsilon_end: float = 0.01  # share of random actions after that

    def _build(self, env: "VecEnv", **shared: Any) -> "BaseAlgorithm":
        from stable_baselines3 import DQN

        return DQN(
            "CnnPolicy",
            env,
            target_update_interval=self.target_every,
            exploration_fraction=self.exploration_fraction,
            exploration_final_eps=self.epsilon_end,
            **self.replay_arguments(env.num_envs),
            **shared,
        )


@dataclass(frozen=True)
class SB3SACConfig(OffPolicyConfig):
    """SAC of Stable-Baselines3 with its Nature network and the defaults of `SAC`: its zoo has none for pixels."""

    spaces = (Box,)

    name: str = field(default="sb3_sac", kw_only=True)
    batch_size: int = 256
    learning_starts: int = 100
    train_every: int = 1
    target_tau: float = 0.005  # share of the critics blended into their target at each update

    def _build(self, env: "VecEnv", **shared: Any) -> "BaseAlgorithm":
        from stable_baselines3 import SAC

        return SAC("CnnPolicy", env, tau=self.target_tau, **self.replay_arguments(env.num_envs), **shared)


@dataclass(frozen=True)
class SB3PPOConfig(PeerConfig):
    """PPO of Stable-Baselines3 with its Nature network. Learning rate and clipping fall linearly to 0."""

    name: str = field(default="sb3_ppo", kw_only=True)
    learning_rate: float = 2.5e-4  # at the start
    batch_size: int = 256
    rollout_steps: int = 128  # agent steps of each copy between updates
    epochs: int = 4  # passes over each of these rollouts
    clip_range: float = 0.1  # at the start
    gae_lambda: float = 0.95  # lambda of the generalised advantage estimates
    entropy_weight: float = 0.01  # factor of the entropy in the loss
    value_weight: float = 0.5  # factor of the value's loss

    def _build(self, env: "VecEnv", **shared: Any) -> "BaseAlgorithm":
        from stable_baselines3 import PPO
        from stable_baselines3.common.utils import LinearSchedule

        return PPO(
            "CnnPolicy",
            env,
            learning_rate=LinearSchedule(self.learning_rate, 0, 1),
            n_steps=self.rollout_steps,
            batch_size=self.batch_size,
            n_epochs=self.epochs,
            gae_lambda=self.gae_lambda,
            clip_range=LinearSchedule(self.clip_range, 0, 1),
            ent_coef=self.entropy_weight,
            vf_coef=self.value_weight,
            **shared,
        )


AT_LEAST_0 = {"learning_starts", "exploration_fraction", "epsilon_end", "gae_lambda", "entropy_weight", "value_weight"}
PEERS: dict[str, type[PeerConfig]] = {"sb3_dqn": SB3DQNConfig, "sb3_ppo": SB3PPOConfig, "sb3_sac": SB3SACConfig}
