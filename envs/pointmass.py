"""Point mass: a world with continuous actions that an agent learns in a minute or two of CPU, for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from envs.base import Actions, EnvConfig, VectorEnv, VectorStep, copy_rngs
from harness.checks import check_choice, check_least

SPEED = 0.2  # of a full velocity action, per step; the room is [-1, 1] x [-1, 1]
DRAG, FORCE = 0.2, 0.05  # a full force action ends at FORCE / DRAG per step
MASS_COLOR, GOAL_COLOR = np.array([255, 64, 64]), np.array([128, 255, 64])  # the first channel is the gray
VIEWS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # what further cameras make of (N, C, H, W)
    "turned": lambda frame: 255 - np.rot90(frame, axes=(2, 3)),
    "mirrored": lambda frame: np.roll(frame[..., ::-1], 1, axis=1),
}


@dataclass(frozen=True)
class PointMassConfig(EnvConfig):
    """A disc to be steered to the middle of a square room, from a random position."""

    name: str = "pointmass"
    num_envs: int = 4
    observe: str = "pixels"  # pixels, or state: position and velocity
    size: int = 36  # pixels, height and width; the Nature CNN needs 36
    control: str = "velocity"  # what an action sets; force also needs reading the motion
    grayscale: bool = True  # gray frames instead of colour
    noise: bool = False  # new dim noise behind the discs at every step
    time_limit: int = 50  # steps until truncation
    views: list[str] = field(default_factory=list)  # further cameras, of other colours: turned, mirrored

    def __post_init__(self) -> None:
        check_choice("env.control", self.control, ("velocity", "force"))
        check_choice("env.observe", self.observe, ("pixels", "state"))
        for view in self.views:
            check_choice("env.views", view, VIEWS)
        if self.views and self.observe == "state":
            raise ValueError("env.views are pictures: leave them out, or give env.observe=pixels")
        check_least(1, "env", num_envs=self.num_envs, time_limit=self.time_limit)
        check_least(12, "env", size=self.size)

    def build(self, labels: bool = False) -> "PointMassVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return PointMassVector(self)

    def display(self, size: int) -> "PointMassConfig":  # noqa: ARG002
        """See `EnvConfig.display`."""
        return replace(self, observe="pixels")


class PointMassVector(VectorEnv):
    """N copies. Actions: (x to the right, y downwards). Reward: exp(-2 d) at distance d from the middle, in (0, 1].

    No episode terminates; each is truncated at the time limit.
    """

    def __init__(self, config: PointMassConfig) -> None:
        self._config = config
        self.num_envs = config.num_envs
        self.action_space = Box(-1, 1, (2,), np.float32)
        self._picture_shape = (1 if config.grayscale else 3, config.size, config.size)
        self._pixels = config.observe == "pixels"
        self.frame_shape = self._picture_shape if self._pixels else (4, 1, 1)
        self.frame_dtype = np.uint8 if self._pixels else np.float32
        self.num_views = len(config.views)
        self._position, self._velocity = np.zeros((2, config.num_envs, 2))
        self._age = np.zeros(config.num_envs, dtype=np.int64)

    def reset(self, seed: int) -> NDArray[Any]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._rngs = copy_rngs(seed, self.num_envs)
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        self._start(~self._over)
        return self._frame()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first = self._over
        if self._config.control == "velocity":
            self._velocity = SPEED * action.astype(np.float64)
        else:
            self._velocity = (1 - DRAG) * self._velocity + FORCE * action
        moved = self._position + self._velocity
        self._position = np.clip(moved, -1, 1)
        self._velocity[moved != self._position] = 0  # the walls take it
        self._age += 1
        self._start(first)
        reward = np.exp(-2 * np.linalg.norm(self._position, axis=1))
        self._over = self._age == self._config.time_limit
        return VectorStep(
            frame=self._frame(),
            reward=np.where(first, 0, reward).astype(np.float32),
            terminated=np.zeros(self.num_envs, dtype=np.bool_),
            truncated=self._over,
            game_over=self._over,
            first=first,
        )

    def views(self) -> NDArray[np.uint8]:
        """See `VectorEnv.views`."""
        return np.stack([VIEWS[view](self._shown) for view in self._config.views], axis=1)

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`."""
        names = ("x", "y", "velocity_x", "velocity_y")
        return dict(zip(names, self._state().T.copy(), strict=True))

    def _start(self, copies: NDArray[np.bool_]) -> None:
        self._age[copies] = 0
        self._velocity[copies] = 0
        for i in np.flatnonzero(copies):  # one generator a copy: its episodes do not depend on the others
            self._position[i] = self._rngs[i].uniform(-1, 1, size=2)

    def _frame(self) -> NDArray[Any]:
        return self._render() if self._pixels else self._state()[:, :, None, None]

    def _state(self) -> NDArray[np.float32]:
        """(N, 4) position and velocity."""
        return np.concatenate([self._position, self._velocity], axis=1, dtype=np.float32)

    def _render(self) -> NDArray[np.uint8]:
        shape = self._picture_shape
        canvas = np.zeros((self.num_envs, *shape))
        if self._config.noise:
            canvas[:] = [rng.integers(128, size=shape) for rng in self._rngs]
        for center, color in ((np.zeros_like(self._position), GOAL_COLOR), (self._position, MASS_COLOR)):
            cover = self._disc(center)[:, None]
            canvas += cover * (color[: shape[0], None, None] - canvas)
        self._shown: NDArray[np.uint8] = canvas.round().astype(np.uint8)
        return self._shown.copy()

    def _disc(self, center: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of each pixel a disc covers, (N, H, W) in [0, 1]: smooth edges show less than a pixel of motion."""
        size = self._config.size
        radius = size / 12
        x, y = (radius + (center.T + 1) / 2 * (size - 1 - 2 * radius))[:, :, None]
        pixel = np.arange(size)
        distance = np.hypot((pixel - y)[:, :, None], (pixel - x)[:, None, :])
        covered: NDArray[np.float64] = np.clip(radius + 0.5 - distance, 0, 1)
        return covered
