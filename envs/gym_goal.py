"""Any environment of Gymnasium with goals, by its id: those of gymnasium-robotics, of OGBench, or a module's own."""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray
from PIL import Image

from envs.base import Actions, EnvConfig, Goals, VectorEnv, VectorStep, copy_rngs
from envs.ogbench import OGBenchGoals
from envs.rendering import choose_backend
from harness.checks import check_choice, check_least
from harness.suggest import nearest

# Of those that were tried; any other id may be given.
IDS = (
    *(f"Fetch{task}-v4" for task in ("Reach", "Push", "Slide", "PickAndPlace")),
    *(f"PointMaze_{maze}-v3" for maze in ("UMaze", "Medium", "Large")),
    "AntMaze_UMaze-v5",
)
EXTRAS = {"gymnasium_robotics": "robotics", "ogbench": "ogbench"}  # by the module that registers the ids
VIEWERS = "gymnasium.envs.mujoco.mujoco_rendering"  # an environment that uses it has imported it
KEYS = ("observation", "achieved_goal", "desired_goal")


@dataclass(frozen=True)
class GymGoalConfig(EnvConfig):
    """An environment of Gymnasium with goals."""

    name: str = "gym_goal"
    num_envs: int = 1
    # of gymnasium-robotics; `ogbench:cube-single-v0`: of OGBench; any other that a module of `import=` registers
    id: str = "FetchReach-v4"
    observe: str = "state"  # state: its observation; pixels: its picture
    size: int = 84  # pixels, height and width
    time_limit: int = 0  # steps until truncation; 0: as registered

    def __post_init__(self) -> None:
        check_choice("env.observe", self.observe, ("state", "pixels"))
        check_least(1, "env", num_envs=self.num_envs, size=self.size)
        check_least(0, "env", time_limit=self.time_limit)

    @classmethod
    def members(cls) -> dict[str, dict[str, str]]:
        """See `EnvConfig.members`: ids."""
        return {name: {"id": name} for name in IDS}

    def build(self, labels: bool = False) -> "GymGoalVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return GymGoalVector(self)

    @property
    def label(self) -> str:
        """The id, in lower case."""
        return self.id.rpartition(":")[2].lower()

    @property
    def fps(self) -> float:
        """That of Fetch."""
        return 25.0

    def display(self, size: int) -> "GymGoalConfig":
        """See `EnvConfig.display`."""
        return replace(self, observe="pixels", size=size)


class GymGoalVector(VectorEnv):
    """N copies, in this process. A state frame is the observation, as (D, 1, 1). Rewards are the environment's own.

    Success is what the environment calls so (`_is_success`), or else a reward as good as that of being at the goal.
    Labels are the numbers of the observation and of the achieved goal.
    """

    def __init__(self, config: GymGoalConfig) -> None:
        """Raises ValueError if the id is unknown or has no goals, RuntimeError if its package is missing."""
        self._config, self.num_envs = config, config.num_envs
        self._pixels = config.observe == "pixels"
        with suppress(RuntimeError):  # others than MuJoCo draw without
            choose_backend()  # before MuJoCo is imported
        self._envs = [_make(config) for _ in range(config.num_envs)]
        space = self._envs[0].action_space
        assert isinstance(space, Box | Discrete), "no environment with goals has other actions"
        self._actions = space
        self.action_space = Box(-1, 1, space.shape, np.float32) if isinstance(space, Box) else space
        spaces = self._envs[0].observation_space
        if not isinstance(spaces, Dict) or not set(KEYS) <= set(spaces):
            raise ValueError(f"env.id={config.id}: must have goals, which are observations with {', '.join(KEYS)}")
        dims = [int(np.prod(spaces[key].shape or ())) for key in KEYS]
        self.goal_dim = dims[1]
        self.frame_shape = (3, config.size, config.size) if self._pixels else (dims[0], 1, 1)
        self.frame_dtype = np.uint8 if self._pixels else np.float32
        self._functions: Any = self._envs[0].unwrapped
        self._check_success()

    def reset(self, seed: int) -> NDArray[Any]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._rngs = copy_rngs(seed, self.num_envs)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._observed = [self._begin(i) for i in range(self.num_envs)]
        return self._frame()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first = self._over
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        for i, env in enumerate(self._envs):
            if first[i]:
                self._observed[i] = self._begin(i)
            else:
                self._observed[i], reward[i], terminated[i], truncated[i], _ = env.step(self._scale(action[i]))
        truncated &= ~terminated
        self._over = terminated | truncated
        return VectorStep(self._frame(), reward, terminated, truncated, self._over, first)

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`."""
        columns = {"state": self._stack("observation"), "achieved": self._stack("achieved_goal")}
        return {f"{name}_{k}": column for name, rows in columns.items() for k, column in enumerate(rows.T.copy())}

    def goals(self) -> Goals:
        """See `VectorEnv.goals`."""
        return Goals(self._stack("achieved_goal"), self._stack("desired_goal"))

    def compute_reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorEnv.compute_reward`."""
        reward = self._functions.compute_reward(achieved.astype(np.float64), desired.astype(np.float64), {})
        return np.asarray(reward, np.float32)

    def compute_terminated(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.compute_terminated`."""
        function: Callable[..., Any] = self._functions.compute_terminated
        if not len(achieved) or not function(desired[0], desired[0], {}):  # it never terminates
            return np.zeros(len(achieved), np.bool_)
        return np.array([function(*goals, {}) for goals in zip(achieved, desired, strict=True)], np.bool_)

    def is_success(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.is_success`."""
        if hasattr(self._functions, "_is_success"):
            return np.asarray(self._functions._is_success(achieved, desired), np.bool_)
        return np.asarray(self.compute_reward(achieved, desired) >= self.compute_reward(desired, desired))

    def close(self) -> None:
        """See `VectorEnv.close`."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _begin(self, i: int) -> dict[str, NDArray[Any]]:
        observed, _ = self._envs[i].reset(seed=int(self._rngs[i].integers(2**31)))
        return dict(observed)

    def _scale(self, action: Any) -> Any:
        if isinstance(self._actions, Discrete):
            return int(action)
        low, high = self._actions.low, self._actions.high
        return (low + (action + 1) / 2 * (high - low)).astype(np.float32)

    def _stack(self, key: str) -> NDArray[np.float32]:
        return np.array([np.ravel(observed[key]) for observed in self._observed], np.float32)

    def _frame(self) -> NDArray[Any]:
        if not self._pixels:
            return self._stack("observation")[:, :, None, None]
        return np.stack([self._picture(env.render()).transpose(2, 0, 1) for env in self._envs])

    def _picture(self, rendered: Any) -> NDArray[np.uint8]:
        size = (self._config.size, self._config.size)
        if rendered.shape[:2] == size:
            return np.asarray(rendered)
        return np.asarray(Image.fromarray(rendered).resize(size, Image.Resampling.BOX))

    def _check_success(self) -> None:
        """Raise ValueError where neither the environment nor its rewards say when a goal is reached."""
        here = np.zeros((1, self.goal_dim), np.float32)
        if not hasattr(self._functions, "_is_success") and not self.is_success(here + 1e-4, here).all():
            raise ValueError(f"env.id={self._config.id}: dense rewards do not say when a goal is reached")


def _make(config: GymGoalConfig) -> gymnasium.Env[Any, Any]:
    module, _, name = config.id.rpartition(":")
    if name not in gymnasium.registry:
        _import(module or "gymnasium_robotics", config.id)
    if "gymnasium_robotics" in sys.modules and version("gymnasium-robotics") == "1.4.2":
        _make_joint_types_numbers()
    if name not in gymnasium.registry:
        raise ValueError(f"unknown id {name!r}: {nearest(name, [*gymnasium.registry])}")
    options: dict[str, Any] = {"max_episode_steps": config.time_limit or None, "disable_env_checker": True}
    if config.observe == "pixels":
        options |= {"render_mode": "rgb_array", "width": config.size, "height": config.size}
    try:
        env = gymnasium.make(name, **options)
    except TypeError:  # it takes no width and height: its pictures are scaled
        env = gymnasium.make(name, **{key: options[key] for key in options if key not in ("width", "height")})
    if config.observe == "pixels" and VIEWERS in sys.modules:
        _keep_contexts_apart()
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(f"env.id={config.id}: has no time limit of its own, give env.time_limit")
    return OGBenchGoals(env, name) if module == "ogbench" else env


def _import(module: str, name: str) -> None:
    """Import a package that registers ids. Others are not: the id may come from a file that somebody else wrote.

    Raises:
        ValueError: it is not one of `EXTRAS`.
        RuntimeError: it is missing.
    """
    if sys.modules.get(module):
        return
    if module not in EXTRAS:
        raise ValueError(f"env.id={name}: give import={module}, the module that registers it")
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"pip install 'sidequest[{EXTRAS[module]}]'"
        raise RuntimeError(f"env.id={name} needs {error.name}, which is missing: {remedy}") from error


@cache
def _make_joint_types_numbers() -> None:
    """Let Fetch and Hand compare types of joints: since MuJoCo 3.12, no member of its enumerations equals a NumPy
    integer, and gymnasium-robotics 1.4.2 relies on it (its pull request 330).
    """
    utils: Any = import_module("gymnasium_robotics.utils.mujoco_utils")
    joints = SimpleNamespace(**{name: int(kind) for name, kind in utils.mujoco.mjtJoint.__members__.items()})
    utils.mujoco = SimpleNamespace(**(vars(utils.mujoco) | {"mjtJoint": joints}))


@cache
def _keep_contexts_apart() -> None:
    """Let Gymnasium's viewers draw and free in their own OpenGL contexts: they use the one that happens to be current,
    which a second copy, or the end of an evaluation, changes.
    """
    viewer: Any = import_module(VIEWERS).OffScreenViewer
    render, free = viewer.render, viewer.free

    def render_here(self: Any, *args: Any, **options: Any) -> Any:
        self.make_context_current()
        return render(self, *args, **options)

    def free_here(self: Any) -> None:
        if hasattr(self, "con"):  # the first time
            self.make_context_current()
            self.con.free()
            del self.con
        free(self)

    viewer.render, viewer.free = render_here, free_here
