"""The interface of an environment family: its config, and the vector of copies that the config builds."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Discrete, flatdim
from numpy.typing import NDArray

NO_EFFECT = frozenset({"threads", "processes"})  # keys that change how the copies are stepped, and no frame
Actions: TypeAlias = NDArray[Any]  # (N,) integers or (N, A) floats, as the action space says
Padding: TypeAlias = Literal["zeros", "repeat"]  # what stands before an episode's first frame: black, or that frame


@dataclass(frozen=True)
class EnvConfig(ABC):
    """Settings of an environment. A family subclasses it and gives `name` its tag in `ENVS` as the default.

    Nothing outside of a family depends on its kind: what differs between families is a member here.
    """

    name: str
    num_envs: int  # environment copies that are stepped together

    simulator: ClassVar[tuple[str, ...]] = ()  # packages whose versions a report names

    @classmethod
    def members(cls) -> dict[str, dict[str, str]]:
        """What `env=<name>/<member>` chooses from: the keys that each member sets."""
        return {}

    @abstractmethod
    def build(self, labels: bool = False) -> "VectorEnv":
        """The copies; they need a `reset(seed)` before the first step.

        Args:
            labels: whether `VectorEnv.labels` will be read. Without it, a family for which labels are costly has none.
        """

    @property
    def padding(self) -> Padding:
        """What stands before an episode's first frame in a stack."""
        return "zeros"

    @property
    def label(self) -> str:
        """A short name for folders."""
        return self.name

    @property
    def fps(self) -> float:
        """Agent steps per second of a video."""
        return 6.0

    @property
    def repeat(self) -> int:
        """Environment steps in an agent step, where papers count the former."""
        return 1

    def protocol(self, name: str | None = None) -> "Protocol":
        """The evaluation protocol of that name, or the family's default.

        Raises:
            ValueError: the family has none of that name, or it does not fit these settings.
        """
        if name not in (None, "env"):
            known = ", ".join(("env", *self.columns))
            raise ValueError(f"unknown protocol {name!r} of env={self.name}: use protocol={known}")
        return Protocol("env", 0.0, self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Further protocols whose scores an evaluation reports beside that of the default one."""
        return ()

    def display(self, size: int) -> "EnvConfig | None":  # noqa: ARG002
        """The same episodes for people, in colour and about `size` pixels large; itself where that is impossible.

        None where there are no pictures at all.
        """
        return self

    def files(self) -> dict[str, Any]:
        """A description of the files that the frames depend on, which changes with them; empty without any."""
        return {}

    def description(self) -> dict[str, Any]:
        """What a report says of the environment: every key, and nothing that depends on where files lie."""
        return asdict(self)

    def check_training(self) -> None:  # noqa: B027
        """Raise ValueError if no agent may be trained with these settings."""


@dataclass(frozen=True)
class Protocol:
    """How a policy is evaluated: full episodes, raw returns."""

    name: str
    epsilon: float  # probability of a random action
    env: EnvConfig  # as evaluated


@dataclass(frozen=True)
class VectorStep:
    """One step of N environments. Frames are single, never stacked: replay and the actor stack them.

    When `game_over`, `frame` is the episode's last one; the next step ignores the action, returns the first frame of
    a new episode, reward 0, and `first` True: that step is no transition. A lost life (where the environment ends
    returns there) is `terminated` alone: the game goes on, and so does its score.
    """

    frame: NDArray[Any]  # (N, C, H, W) the newest frame of each copy
    reward: NDArray[np.float32]  # (N,) raw, never clipped
    terminated: NDArray[np.bool_]  # (N,) the return ends here: do not bootstrap
    truncated: NDArray[np.bool_]  # (N,) cut short: bootstrap from `frame`
    game_over: NDArray[np.bool_]  # (N,) the whole episode ended, its score is complete; the next step is `first`
    first: NDArray[np.bool_]  # (N,) `frame` opens an episode; the action was ignored
    env_steps: NDArray[np.int64] | None = None  # (N,) made in this step, 0 where `first`; None: one each


class Goals(NamedTuple):
    """What was reached and what is to be reached, at one moment of every copy."""

    achieved: NDArray[np.float32]  # (N, G)
    desired: NDArray[np.float32]  # (N, G)


def action_sizes(space: Discrete | Box) -> tuple[int | None, int]:
    """The number of actions, None if they are continuous, and the width of an action vector."""
    return int(space.n) if isinstance(space, Discrete) else None, flatdim(space)


def copy_rngs(seed: int, num_envs: int) -> list[np.random.Generator]:
    """A generator for each copy, so that its episodes do not depend on the others."""
    return [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(num_envs)]


class EnvError(RuntimeError):
    """A simulator died, hangs or contradicts itself: the environment cannot be stepped any more."""


class VectorEnv(ABC):
    """N copies of an environment, stepped together. Frames are pixels, or states as (D, 1, 1) numbers.

    An environment with goals has `goal_dim` above 0 and the methods of its last section, which follow Gymnasium's
    `GoalEnv`. They are functions of goals alone, so that replay can give a transition another goal.
    """

    num_envs: int
    action_space: Discrete | Box  # of one copy: A choices, or A float32 numbers in [-1, 1]
    frame_shape: tuple[int, int, int]  # (C, H, W)
    frame_dtype: type[np.uint8 | np.float32] = np.uint8  # float32: states in place of pixels
    num_views: int = 0  # V, further pictures of each moment
    asynchronous: bool = False  # other threads or processes make the steps: there are `step_async` and `step_wait`
    goal_dim: int = 0  # G, numbers in a goal; 0: there are no goals

    @abstractmethod
    def reset(self, seed: int) -> NDArray[Any]:
        """Start an episode in every copy, whatever it was doing; copy i is seeded from (seed, i).

        Two calls with one seed give the same frames and the same future, which makes exact resuming possible.

        Returns:
            (N, C, H, W) the first frames.
        """

    @abstractmethod
    def step(self, action: Actions) -> VectorStep:
        """Advance every copy.

        Args:
            action: (N,) integers in [0, A), or (N, A) floats in [-1, 1].

        Raises:
            ValueError: an action is out of range or NaN, or the shape or kind is wrong.
        """

    def step_async(self, action: Actions) -> None:
        """Begin a step, which `step_wait` ends; see `step`."""
        raise NotImplementedError(f"{type(self).__name__} is not asynchronous")

    def step_wait(self) -> VectorStep:
        """What the step that `step_async` began has led to; see `step`."""
        raise NotImplementedError(f"{type(self).__name__} is not asynchronous")

    def labels(self) -> dict[str, NDArray[Any]]:
        """What is known of the moment that the newest frames show, (N,) each, integers or floats."""
        return {}

    def views(self) -> NDArray[np.uint8]:
        """Further pictures (N, V, C, H, W) of the moment that the newest frames show; they are drawn now."""
        raise NotImplementedError(f"{type(self).__name__} has no further views")

    def foreground(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The newest frames (N, C, H, W) without their backgrounds, drawn now, and where (N, H, W) those stand."""
        raise NotImplementedError(f"{type(self).__name__} has no backgrounds")

    # --- goals ---

    def goals(self) -> Goals:
        """The goals of the moment that the newest frames show; at an episode's last frame, those of that episode."""
        raise NotImplementedError(f"{type(self).__name__} has no goals")

    def goal_frame(self) -> NDArray[np.uint8] | None:
        """Pictures (N, 3, H, W) of the desired goals, reached; None where they cannot be drawn."""
        return None

    def goal_examples(self) -> dict[str, NDArray[np.uint8]]:
        """Pictures (K, C, H, W) of episodes that ended, by what they show: what was to be reached, and what was."""
        return {}

    def outcome_frame(self) -> NDArray[np.uint8] | None:
        """Pictures (N, 3, H, W) of the achieved goals where the frames do not show them; None where they do."""
        return None

    def compute_reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rewards (M,) of having reached (M, G) where (M, G) was desired; `step` gives the same."""
        raise NotImplementedError(f"{type(self).__name__} has no goals")

    def compute_terminated(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:  # noqa: ARG002
        """Where (M,) the return ends because the goal is reached; nowhere by default."""
        return np.zeros(len(achieved), np.bool_)

    def imagine(self, achieved: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Goals (M, G) that could be reached in the scenes where (M, G) was achieved.

        Raises:
            ValueError: there is no model to imagine them with.
        """
        raise ValueError("goals cannot be imagined here: replay.relabel.imagined needs goal.space, with a decoder")

    def goal_distance(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distances (M,) to the goals, as an evaluation reports them: Euclidean by default."""
        distance: NDArray[np.float32] = np.linalg.norm(achieved - desired, axis=1).astype(np.float32)
        return distance

    def is_success(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where (M,) the goal is reached."""
        raise NotImplementedError(f"{type(self).__name__} has no goals")

    def outcomes(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
        """Where (N,) the goals are reached at this moment, and how far (N,) they are, as an evaluation reports it."""
        goals = self.goals()
        return self.is_success(*goals), self.goal_distance(*goals)

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Free what the copies hold. Closing twice is allowed, stepping afterwards is not."""

    def _check_action(self, action: Actions) -> None:
        space, shape = self.action_space, action.shape
        if isinstance(space, Discrete):
            expected, low, high = f"integers of shape {(self.num_envs,)}", 0, int(space.n) - 1
            fits = shape == (self.num_envs,) and np.issubdtype(action.dtype, np.integer)
        else:
            expected, low, high = f"floats of shape {(self.num_envs, *space.shape)}", -1, 1
            fits = shape == (self.num_envs, *space.shape) and np.issubdtype(action.dtype, np.floating)
        if not fits:
            raise ValueError(f"action must be {expected}; got {action.dtype} of shape {shape}")
        if not ((low <= action) & (action <= high)).all():  # NaN fails too
            raise ValueError(f"action {action.tolist()} is out of range: use {low} to {high}")
