"""Acting in a vector of environments: the only rollout loop. Training, evaluation, recording and videos step it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.base import Actions, EnvError, Goals, Padding, VectorEnv, VectorStep
from envs.stack import FrameStack


class Observation(NamedTuple):
    """What a policy sees."""

    pixels: NDArray[Any]  # (N, frame_stack * C, H, W), oldest frame first; uint8, or the float32 numbers of states
    goal: NDArray[np.float32] | None = None  # (N, G) what is to be reached, where there are goals


Policy: TypeAlias = Callable[[Observation], Actions]


class Transition(NamedTuple):
    """One row of every copy: the columns of `replay.Replay.add`, in its order."""

    frame: NDArray[Any]  # (N, C, H, W) newest single frame before the action; all others are (N,) or (N, A)
    first: NDArray[np.bool_]  # `frame` opens an episode
    action: Actions
    reward: NDArray[np.float32]  # raw
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]  # False where the episode was over and the environment ignored the action
    achieved: NDArray[np.float32] | None = None  # (N, G) goals at `frame`, where there are goals
    desired: NDArray[np.float32] | None = None


class Episode(NamedTuple):
    """A finished episode. A lost life does not end one."""

    copy: int  # index of the environment copy
    score: float  # undiscounted sum of raw rewards
    length: int  # agent steps
    env_steps: int  # fewer than the length times the action repeat where the last action was cut short
    success: bool | None = None  # whether the goal was reached at the end, where there are goals
    goal_distance: float | None = None  # to the goal, at the end


class Rollout:
    """Copies of an environment, their frame stacks, and the returns of the running episodes. Call `reset` first.

    Args:
        env: is stepped; who built it closes it.
        frame_stack: frames in an observation.
        padding: what stands before an episode's first frame.
    """

    observation: Observation  # what the policy sees next; the next step overwrites the buffer
    frame: NDArray[Any]  # (N, C, H, W) newest single frames
    goals: Goals | None  # at `frame`, where there are goals
    first: NDArray[np.bool_]  # (N,) where `frame` opens an episode
    episodes: list[Episode]  # those that ended at the last step, by copy

    def __init__(self, env: VectorEnv, frame_stack: int, padding: Padding) -> None:
        self.env = env
        self._stack = FrameStack(env.num_envs, env.frame_shape, frame_stack, padding, env.frame_dtype)

    def reset(self, seed: int) -> None:
        """Start an episode in every copy; see `VectorEnv.reset`."""
        copies = self.env.num_envs
        self.frame = self.env.reset(seed)
        self._observe(self._stack.reset(self.frame))
        self.first, self._over = np.ones(copies, np.bool_), np.zeros(copies, np.bool_)
        self._score, self._length, self._env_steps = np.zeros(copies), *np.zeros((2, copies), np.int64)
        self.episodes = []

    def step(self, policy: Policy) -> Transition:
        """Act once in every copy.

        Raises:
            EnvError: the environment failed, or gave a reward that is not finite; the rollout is as it was before
                the step.
        """
        action = policy(self.observation)
        return self._take(action, self.env.step(action))

    def _take(self, action: Actions, step: VectorStep) -> Transition:
        """The step of every copy that an action has led to."""
        if not np.isfinite(step.reward).all():
            copy = int(np.isfinite(step.reward).argmin())
            raise EnvError(f"copy {copy} of the environment gave a reward of {step.reward[copy]}: it must be finite")
        before = (self.frame, self.first, action, step.reward, step.terminated, step.truncated)
        row = Transition(*before, ~self._over, *(self.goals or ()))
        self.frame, self.first, self._over = step.frame, step.first, step.game_over
        self._observe(self._stack.push(step))
        self._score += step.reward
        self._length += ~step.first
        self._env_steps += ~step.first if step.env_steps is None else step.env_steps
        outcomes = self.env.outcomes() if self.goals and step.game_over.any() else None
        self.episodes = [self._episode(int(i), outcomes) for i in np.flatnonzero(step.game_over)]
        for count in (self._score, self._length, self._env_steps):
            count[step.game_over] = 0
        return row

    def _observe(self, pixels: NDArray[Any]) -> None:
        self.goals = self.env.goals() if self.env.goal_dim else None
        self.observation = Observation(pixels, self.goals and self.goals.desired)

    def _episode(self, copy: int, outcomes: tuple[NDArray[np.bool_], NDArray[np.float32]] | None) -> Episode:
        """The episode that has just ended in a copy."""
        counts = (copy, float(self._score[copy]), int(self._length[copy]), int(self._env_steps[copy]))
        if outcomes is None:
            return Episode(*counts)
        return Episode(*counts, bool(outcomes[0][copy]), float(outcomes[1][copy]))
