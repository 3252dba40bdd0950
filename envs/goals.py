"""An environment seen through a goal space: goals, rewards and perhaps observations are its embeddings of pictures."""

from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.base import Actions, Goals, VectorEnv, VectorStep

Pixels: TypeAlias = NDArray[np.uint8]
Embeddings: TypeAlias = NDArray[np.float32]


class GoalSpace(Protocol):
    """A fixed map of pictures to goals."""

    @property
    def goal_dim(self) -> int:
        """G, numbers in a goal."""

    @property
    def feature_dim(self) -> int:
        """Z, numbers in a feature vector."""

    def features(self, frames: Pixels) -> Embeddings:
        """Features (N, Z) of pictures (N, C, H, W), before they become goals."""

    def embed(self, frames: Pixels, context: Pixels) -> Embeddings:
        """Goals (N, G) of pictures (N, C, H, W), beside the first pictures of their episodes."""

    def reward(self, achieved: Embeddings, desired: Embeddings) -> Embeddings:
        """Rewards (M,) of goals (M, G)."""

    def imagine(self, achieved: Embeddings, rng: np.random.Generator) -> Embeddings:
        """Goals (M, G) that could be reached in the scenes of (M, G) achieved ones.

        Raises:
            ValueError: the space cannot imagine.
        """

    def decode(self, goals: Embeddings) -> Pixels | None:
        """Pictures (M, C, H, W) of goals (M, G); None where the space has no decoder."""


class GoalSpaceVector(VectorEnv):
    """The copies of an environment with goals, through a goal space.

    Args:
        env: gives pixels; it is closed with this one.
        space: of its pictures.
        observe: what frames are, "latent" for the embeddings as states (G, 1, 1), "features" for those of the space's
            encoder (Z, 1, 1), which tell more, or "pixels" for those of `env`.
        source: where goals come from: "imagined" by the space, or "env", pictures of that environment's own.
        goal: (C, H, W) a picture to reach in every episode, in place of either.

    Raises:
        ValueError: the environment has no pixels, or no pictures of goals where they are asked for; the space cannot
            imagine.
    """

    def __init__(
        self, env: VectorEnv, space: GoalSpace, *, observe: str, source: str, goal: Pixels | None = None
    ) -> None:
        if env.frame_dtype != np.uint8:
            raise ValueError("a goal space embeds pictures, but this environment gives states: env.observe=pixels")
        self._env, self._space, self._imagined = env, space, source == "imagined" and goal is None
        self._picture, self._observe = goal, observe
        self._ended = False  # whether any episode has
        self.num_envs, self.action_space, self.goal_dim = env.num_envs, env.action_space, space.goal_dim
        self.num_views = env.num_views
        if observe == "pixels":
            self.frame_shape = env.frame_shape
        else:
            self.frame_shape = (space.goal_dim if observe == "latent" else space.feature_dim, 1, 1)
            self.frame_dtype = np.float32

    def reset(self, seed: int) -> NDArray[Any]:
        """See `VectorEnv.reset`."""
        frame = self._env.reset(seed)
        streams = np.random.SeedSequence([seed, self.num_envs]).spawn(self.num_envs)
        self._rngs = [np.random.default_rng(stream) for stream in streams]
        self._context = frame.copy()
        self._desired = np.zeros((self.num_envs, self.goal_dim), np.float32)
        self._achieved = self._space.embed(self._reached(frame), self._context)
        self._pursue(np.ones(self.num_envs, np.bool_))
        self._last_frame, self._last_goals = frame.copy(), self.goals()
        return self._frame(frame)

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`: the reward is that of the goal space."""
        step = self._env.step(action)
        self._context[step.first] = step.frame[step.first]
        self._achieved = self._space.embed(self._reached(step.frame), self._context)
        self._pursue(step.first)
        self._ended |= bool(step.game_over.any())
        self._last_frame[step.game_over] = step.frame[step.game_over]
        for last, now in zip(self._last_goals, self.goals(), strict=True):
            last[step.game_over] = now[step.game_over]
        reward = np.where(step.first, 0, self.compute_reward(self._achieved, self._desired)).astype(np.float32)
        return replace(step, frame=self._frame(step.frame), reward=reward)

    def goals(self) -> Goals:
        """See `VectorEnv.goals`."""
        return Goals(self._achieved.copy(), self._desired.copy())

    def goal_frame(self) -> Pixels | None:
        """See `VectorEnv.goal_frame`: None of goals that are imagined."""
        if self._picture is not None:
            return np.broadcast_to(self._picture, (self.num_envs, *self._picture.shape)).copy()
        return None if self._imagined else self._env.goal_frame()

    def goal_examples(self) -> dict[str, Pixels]:
        """See `VectorEnv.goal_examples`: the newest episode of each copy, with its goal where that can be drawn."""
        if not self._ended:
            return {}
        achieved, desired = map(self._space.decode, self._last_goals)
        if achieved is None or desired is None:
            return {}
        return {"goal": desired, "reached": self._last_frame.copy(), "reached, decoded": achieved}

    def compute_reward(self, achieved: Embeddings, desired: Embeddings) -> Embeddings:
        """See `VectorEnv.compute_reward`."""
        return self._space.reward(achieved, desired)

    def imagine(self, achieved: Embeddings, rng: np.random.Generator) -> Embeddings:
        """See `VectorEnv.imagine`."""
        return self._space.imagine(achieved, rng)

    def outcomes(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
        """See `VectorEnv.outcomes`: those of the environment itself; None where the goals are not its own."""
        return None if self._imagined or self._picture is not None else self._env.outcomes()

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`."""
        return self._env.labels()

    def views(self) -> Pixels:
        """See `VectorEnv.views`: those of the environment."""
        return self._env.views()

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._env.close()

    def _pursue(self, copies: NDArray[np.bool_]) -> None:
        """Give these copies new goals."""
        if self._imagined:
            for i in np.flatnonzero(copies):  # a generator each: their episodes do not depend on the others
                self._desired[i] = self._space.imagine(self._achieved[i : i + 1], self._rngs[i])[0]
        elif copies.any():
            pictures = self.goal_frame()
            if pictures is None:
                raise ValueError("this environment has no pictures of its goals: goal.source=imagined")
            self._desired[copies] = self._space.embed(pictures[copies], self._context[copies])

    def _reached(self, frame: Pixels) -> Pixels:
        """What shows the achieved goals, at newest frames (N, C, H, W)."""
        outcome = self._env.outcome_frame()
        return frame if outcome is None else outcome

    def _frame(self, frame: Pixels) -> NDArray[Any]:
        if self._observe == "pixels":
            return frame
        seen = self._achieved if self._observe == "latent" else self._space.features(frame)
        return seen.reshape(-1, *self.frame_shape).copy()
