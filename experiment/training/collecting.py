"""The interface by which the training loop collects transitions, and its form in one process."""

from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from agents import Agent
from envs import Actions, Episode, Goals, Padding, Rollout, Transition, VectorEnv


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

    def begin(self) -> None:
        """Let the next step run while the caller does something else, where the collector can."""

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
    """Collects with the policy of `agent`. The other arguments are those of `Rollout`."""

    def __init__(self, agent: Agent, env: VectorEnv, frame_stack: int, padding: Padding) -> None:
        super().__init__(env, frame_stack, padding)
        self._explore = partial(agent.act, explore=True)

    @property
    def num_envs(self) -> int:
        """See `Collector`."""
        return self.env.num_envs

    def begin(self) -> None:
        """Do nothing: `collect` makes every step."""

    def collect(self) -> Transition:
        """See `Collector`."""
        return self.step(self._explore)

    def drain(self) -> dict[str, float]:
        """See `Collector`: there are no metrics."""
        return {}

    def close(self) -> None:
        """See `Collector`."""
        self.env.close()


class OverlappedCollector(LocalCollector):
    """Collects while the agent learns: a step that was begun goes on in the threads or processes of the environment.

    Raises:
        ValueError: the environment has none.
    """

    def __init__(self, agent: Agent, env: VectorEnv, frame_stack: int, padding: Padding) -> None:
        if not env.asynchronous:
            raise ValueError(
                "collect=overlap needs an environment that steps in other threads or processes: env=atari, or env=dmc "
                "with env.processes=1 or more"
            )
        super().__init__(agent, env, frame_stack, padding)
        self._begun: Actions | None = None  # the action of a step that runs

    def reset(self, seed: int) -> None:
        """See `Collector`. A step that was begun is lost."""
        if self._begun is not None:
            self.env.step_wait()
            self._begun = None
        super().reset(seed)

    def begin(self) -> None:
        """See `Collector`."""
        self._begun = self._act()

    def collect(self) -> Transition:
        """See `Collector`."""
        action = self._act() if self._begun is None else self._begun
        self._begun = None
        return self._take(action, self.env.step_wait())

    def _act(self) -> Actions:
        action = self._explore(self.observation)
        self.env.step_async(action)
        return action
