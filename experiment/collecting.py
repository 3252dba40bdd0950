"""Who collects the transitions of a training: the loop sees one interface."""

from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from agents import Agent
from envs import Episode, Goals, Padding, Rollout, Transition, VectorEnv


class Collector(Protocol):
    """A rollout with a policy that explores; `reset` comes first, `close` last."""

    env: VectorEnv  # whose copies are stepped
    frame: NDArray[Any]  # (N, C, H, W) newest single frames, after the last step
    goals: Goals | None  # at `frame`, where there are goals
    episodes: list[Episode]  # those that ended at the last step, by copy

    @property
    def num_envs(self) -> int:
        """N, environment copies."""

    def reset(self, seed: int) -> None:
        """Start an episode in every copy."""

    def collect(self) -> Transition:
        """The next step of every copy.

        Raises:
            EnvError: there is none. What was collected before is whole.
        """

    def drain(self) -> dict[str, float]:
        """Metrics of the steps since the last call, by TensorBoard tag."""

    def close(self) -> None:
        """Free everything."""


class LocalCollector(Rollout):
    """Collects in this process. The arguments are those of `Rollout`; `agent` acts."""

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
