"""The interface by which the training loop collects transitions, and its form in one process."""

from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from agents import Agent
from envs import Episode, Goals, Padding, Rollout, Transition, VectorEnv


class Collector(Protocol):
    """A rollout with an exploring policy. Call `reset` first and `close` last."""

    env: VectorEnv  # the environment that is stepped
    frame: NDArray[Any]  # (N, C, H, W) newest single frames, after the last step
    goals: Goals | None  # at `frame`; None for an environment without goals
    episodes: list[Episode]  # those that ended at the last step, by copy

    @property
    def num_envs(self) -> int:
        """N, environment copies."""

    def reset(self, seed: int) -> None:
        """Start an episode in every copy."""

    def collect(self) -> Transition:
        """The next step of every copy.

        Raises:
            EnvError: the environment failed. The steps before are complete.
        """

    def drain(self) -> dict[str, float]:
        """Metrics of the steps since the last call, by TensorBoard tag."""

    def close(self) -> None:
        """Free everything."""


class LocalCollector(Rollout):
    """Collects in this process, with the policy of `agent`. The other arguments are those of `Rollout`."""

    def __init__(self, agent: Agent, env: VectorEnv, frame_stack: int, padding: Padding) -> None:
        super().__init__(env, frame_stack, padding)
        self._explore = partial(agent.act, explore=True)

    @property
    def num_envs(self) -> int:
        """See `Collector`."""
        return self.env.num_envs

    def collect(self) -> Transition:
        """See `Collector`."""
        return self.step(self._explore)

    def drain(self) -> dict[str, float]:
        """See `Collector`: none."""
        return {}

    def close(self) -> None:
        """See `Collector`."""
        self.env.close()
