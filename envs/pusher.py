"""A pointer pushes a puck to where it shall lie: goals from pixels, after the pusher of RIG (Nair et al. 2018)."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from envs.base import Actions, Goals, VectorEnv, VectorStep
from envs.distractors import check_files
from envs.rendering import Screen, check_packages, choose_backend, load_module, log_renderer
from envs.scenes import SceneConfig
from harness.checks import check_choice, check_least

OBSERVE, REWARDS, OBJECTS = ("pixels", "state"), ("sparse", "dense"), ("one", "many")
# Lengths in units of half the table's width, which the top camera sees.
PUCK_RADIUS, POINTER_RADIUS = 0.13, 0.07
PUCK_RANGE = 0.7  # of its middle in both coordinates; the rim stops the puck and lets the pointer over
POINTER_RANGE = 0.93  # there is room behind a puck at the rim: 0.93 - 0.7 > 0.13 + 0.07
THRESHOLD = 0.13  # of success: the puck's radius
TOUCH, NEAR = PUCK_RADIUS + POINTER_RADIUS, 0.5  # distances of puck and pointer: least, and most at the start
SPEED, SUBSTEPS, SECONDS = 1.5, 10, 0.01  # a full action moves the pointer by 0.15 along an axis

COLORS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.75, 0.1), "blue": (0.15, 0.25, 0.95)}
SHAPES = {"disc": ("disc",), "square": ("square",), "cross": ("cross", "cross_too")}  # geoms; all of them move as discs

# The puck slides without turning, and stops within a third of a step. The pointer has no friction: it only pushes.
XML = f"""
<mujoco model="pusher">
  <option timestep="{SECONDS}" gravity="0 0 0" integrator="implicitfast"/>
  <statistic center="0 0 0" extent="2"/>
  <visual><headlight ambient=".5 .5 .5" diffuse=".5 .5 .5" specular="0 0 0"/></visual>
  <default>
    <geom type="box" contype="0" conaffinity="0" condim="1" rgba=".6 .6 .6 1"/>
    <joint type="slide" limited="true"/>
    <velocity kv="10" forcerange="-4 4"/>
  </default>
  <worldbody>
    <camera name="top" pos="0 0 5" fovy="22.62"/>
    <camera name="oblique" pos="0 -3 3" xyaxes="1 0 0 0 1 1" fovy="29"/>
    <geom name="table" type="plane" size="20 20 1" rgba=".3 .3 .33 1"/>
    <geom size=".86 .015 .02" pos="0 .845 .02"/>
    <geom size=".86 .015 .02" pos="0 -.845 .02"/>
    <geom size=".015 .86 .02" pos=".845 0 .02"/>
    <geom size=".015 .86 .02" pos="-.845 0 .02"/>
    <body name="puck" pos="0 0 .05">
      <joint axis="1 0 0" range="-{PUCK_RANGE} {PUCK_RANGE}" damping="1.5"/>
      <joint axis="0 1 0" range="-{PUCK_RANGE} {PUCK_RANGE}" damping="1.5"/>
      <geom name="disc" type="cylinder" size="{PUCK_RADIUS} .05" mass=".05" contype="1" conaffinity="1"/>
      <geom name="square" size=".12 .12 .05" mass="0"/>
      <geom name="cross" size=".14 .045 .05" mass="0"/>
      <geom name="cross_too" size=".045 .14 .05" mass="0"/>
    </body>
    <body name="pointer" pos="0 0 .1">
      <joint name="x" axis="1 0 0" range="-{POINTER_RANGE} {POINTER_RANGE}"/>
      <joint name="y" axis="0 1 0" range="-{POINTER_RANGE} {POINTER_RANGE}"/>
      <geom type="cylinder" size="{POINTER_RADIUS} .1" mass=".1" contype="1" conaffinity="1" rgba=".95 .95 .9 1"/>
    </body>
  </worldbody>
  <actuator><velocity joint="x"/><velocity joint="y"/></actuator>
</mujoco>
"""


@dataclass(frozen=True)
class PusherConfig(SceneConfig):
    """A puck to be pushed to a random position on a table, by a pointer that begins near it."""

    name: str = "pusher"
    num_envs: int = 4
    size: int = 48  # pixels, height and width
    observe: str = "pixels"  # pixels, or state: positions of puck and pointer, velocity of the puck
    reward: str = "sparse"  # sparse: 0 at the goal, else -1; dense: minus the puck's distance to it
    objects: str = "one"  # one: a red disc; many: an episode's puck has one of three colours and of three shapes
    time_limit: int = 50  # steps until truncation
    scatter: int = 0  # steps after which puck and pointer lie elsewhere, for pretraining; 0: never

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("env.observe", self.observe, OBSERVE)
        check_choice("env.reward", self.reward, REWARDS)
        check_choice("env.objects", self.objects, OBJECTS)
        check_least(1, "env", time_limit=self.time_limit)
        check_least(0, "env", scatter=self.scatter)

    @property
    def distracted(self) -> bool:
        """See `SceneConfig.distracted`: a state shows no background."""
        return self.observe == "pixels" and super().distracted

    def build(self, labels: bool = False) -> "PusherVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return PusherVector(self)

    @property
    def label(self) -> str:
        """The family, its objects and the background."""
        return "_".join([self.name, *(word for word in (self.objects, self.background) if word not in ("one", "none"))])

    @property
    def fps(self) -> float:
        """Real time: a step lasts 0.1 s."""
        return 10.0

    def display(self, size: int) -> "PusherConfig":
        """See `EnvConfig.display`."""
        return replace(super().display(size), observe="pixels")


class PusherVector(VectorEnv):
    """N copies. Actions: velocity of the pointer, x to the right and y up in the picture of the top camera.

    Goals are positions of the puck (x, y) in [-0.7, 0.7]; success is within 0.13. No episode terminates; each is
    truncated at the time limit. A state frame is (6, 1, 1): puck, pointer, velocity of the puck per step.
    """

    goal_dim = 2

    def __init__(self, config: PusherConfig) -> None:
        """Raises RuntimeError where MuJoCo is missing, or pixels are asked for and it cannot render."""
        self._config, self.num_envs = config, config.num_envs
        self._pixels = config.observe == "pixels"
        if self._pixels:
            choose_backend()  # before MuJoCo is imported
        check_packages()
        check_files(config.background, config.background_folder)
        self.action_space = Box(-1, 1, (2,), np.float32)
        self.frame_shape = (3, config.size, config.size) if self._pixels else (6, 1, 1)
        self.num_views = len(config.views)
        self.frame_dtype = np.uint8 if self._pixels else np.float32
        self._mujoco = import_module("mujoco")
        self._model = self._mujoco.MjModel.from_xml_string(XML)
        self._copies = [self._mujoco.MjData(self._model) for _ in range(self.num_envs)]
        self._distractors = [config.build_distractors() for _ in self._copies]
        self._scenes = [Scene(data.qpos) for data in self._copies]  # `positions` are those of the running physics
        self._goals = self._scenes.copy()
        self._goal_frame = np.zeros((self.num_envs, 3, config.size, config.size), np.uint8)
        self._stale = np.ones(self.num_envs, np.bool_)  # the goal's picture is that of an earlier episode
        if self._pixels:
            log_renderer(config.name, config.quality, self._painter.renderer)

    @cached_property
    def _painter(self) -> "Painter":
        return Painter(self._config)

    def reset(self, seed: int) -> NDArray[Any]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        seeds = [copy.spawn(2) for copy in np.random.SeedSequence(seed).spawn(self.num_envs)]
        self._rngs = [np.random.default_rng(simulation) for simulation, _ in seeds]
        for distractors, (_, background) in zip(self._distractors, seeds, strict=True):
            distractors.seed(background)
        self._age = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, np.bool_)
        for i in range(self.num_envs):
            self._begin(i)
        return self._frame()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first = self._over
        self._age += 1
        for i, (data, velocity) in enumerate(zip(self._copies, action, strict=True)):
            if first[i]:
                self._begin(i)
                continue
            if self._config.scatter and self._age[i] % self._config.scatter == 0:
                data.qpos[:], data.qvel[:] = _scatter(self._rngs[i]), 0
            data.ctrl[:] = SPEED * velocity
            self._mujoco.mj_step(self._model, data, SUBSTEPS)
            self._pass_background(i)
        self._over = self._age == self._config.time_limit
        return VectorStep(
            frame=self._frame(),
            reward=np.where(first, 0, self.compute_reward(*self.goals())).astype(np.float32),
            terminated=np.zeros(self.num_envs, np.bool_),
            truncated=self._over,
            game_over=self._over,
            first=first,
        )

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`: the middles of puck and pointer, and the indices of `COLORS` and `SHAPES` of many."""
        names = ("puck_x", "puck_y", "pointer_x", "pointer_y")
        labels: dict[str, NDArray[Any]] = dict(zip(names, self._positions().T.copy(), strict=True))
        if self._config.objects == "many":
            labels |= {name: np.array([getattr(scene, name) for scene in self._scenes]) for name in ("color", "shape")}
        return labels

    def views(self) -> NDArray[np.uint8]:
        """See `VectorEnv.views`: the cameras of `env.views`, in their order."""
        return np.stack([self._painter.draw_views(scene) for scene in self._scenes])

    def foreground(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `VectorEnv.foreground`."""
        pictures, empty = zip(*(self._painter.layers(scene) for scene in self._scenes), strict=True)
        return np.stack(pictures), np.stack(empty)

    def goals(self) -> Goals:
        """See `VectorEnv.goals`."""
        return Goals(self._positions()[:, :2], np.array([goal.positions[:2] for goal in self._goals], np.float32))

    def goal_frame(self) -> NDArray[np.uint8]:
        """See `VectorEnv.goal_frame`: the episode's puck and first background, the pointer near."""
        for i in np.flatnonzero(self._stale):
            self._goal_frame[i] = self._painter.draw(self._goals[i])
        self._stale[:] = False
        return self._goal_frame.copy()

    def compute_reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorEnv.compute_reward`."""
        if self._config.reward == "dense":
            return -self.goal_distance(achieved, desired)
        return self.is_success(achieved, desired).astype(np.float32) - 1

    def is_success(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.is_success`."""
        return self.goal_distance(achieved, desired) < THRESHOLD

    def close(self) -> None:
        """See `VectorEnv.close`."""
        if "_painter" in vars(self):
            self._painter.close()
            del self._painter

    def _begin(self, i: int) -> None:
        rng, data = self._rngs[i], self._copies[i]
        self._mujoco.mj_resetData(self._model, data)
        goal = _scatter(rng)
        data.qpos[:] = _scatter(rng)
        while np.hypot(*(data.qpos - goal)[:2]) < THRESHOLD:  # there would be nothing to do
            data.qpos[:] = _scatter(rng)
        color, shape = map(int, rng.integers([len(COLORS), len(SHAPES)]) * (self._config.objects == "many"))
        self._distractors[i].begin()
        self._scenes[i] = Scene(data.qpos, color, shape)
        self._pass_background(i)
        self._goals[i] = self._scenes[i]._replace(positions=goal)
        self._age[i], self._stale[i] = 0, True

    def _pass_background(self, i: int) -> None:
        self._distractors[i].advance()
        self._scenes[i] = self._scenes[i]._replace(background=self._distractors[i].behind)

    def _positions(self) -> NDArray[np.float32]:
        return np.array([data.qpos for data in self._copies], np.float32)

    def _frame(self) -> NDArray[Any]:
        if self._pixels:
            pairs = zip(self._distractors, self._scenes, strict=True)
            return np.stack([distractors.noisy(self._painter.draw(scene)) for distractors, scene in pairs])
        motion = np.array([data.qvel[:2] for data in self._copies], np.float32) * SECONDS * SUBSTEPS
        return np.concatenate([self._positions(), motion], axis=1)[:, :, None, None]


class Scene(NamedTuple):
    """What a picture shows."""

    positions: NDArray[np.float64]  # (4,) middles of puck and pointer
    color: int = 0  # index of `COLORS`
    shape: int = 0  # index of `SHAPES`
    background: NDArray[np.uint8] | None = None  # (H, W, 3)


class Painter:
    """Pictures of scenes, by a physics of its own: drawing moves nothing."""

    def __init__(self, config: PusherConfig) -> None:
        self._physics = load_module("dm_control.mujoco").Physics.from_xml_string(XML)
        self._kinematics = import_module("mujoco").mj_kinematics
        self._geoms = [[self._physics.model.name2id(name, "geom") for name in names] for names in SHAPES.values()]
        self._screen, *self._views = config.build_screens(self._physics)
        self.renderer = self._screen.renderer

    def draw(self, scene: Scene) -> NDArray[np.uint8]:
        """The picture (3, H, W)."""
        picture: NDArray[np.uint8] = self._pictures(scene, [self._screen])[0]
        return picture

    def draw_views(self, scene: Scene) -> NDArray[np.uint8]:
        """The pictures (V, 3, H, W) of the further cameras."""
        return self._pictures(scene, self._views)

    def layers(self, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The picture (3, H, W) without the background, and where (H, W) that stands."""
        self._arrange(scene)
        picture, empty = self._screen.layers()
        return picture.transpose(2, 0, 1).copy(), empty

    def _pictures(self, scene: Scene, screens: list[Screen]) -> NDArray[np.uint8]:
        self._arrange(scene)
        pictures: NDArray[np.uint8] = np.stack([screen.draw(scene.background).transpose(2, 0, 1) for screen in screens])
        return pictures

    def _arrange(self, scene: Scene) -> None:
        model, data = self._physics.model, self._physics.data
        data.qpos[:] = scene.positions
        for shape, geoms in enumerate(self._geoms):
            model.geom_rgba[geoms] = [*COLORS[list(COLORS)[scene.color]], shape == scene.shape]  # else transparent
        self._kinematics(model.ptr, data.ptr)

    def close(self) -> None:
        """Free what draws."""
        self._physics.free()


def scripted_action(positions: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions (N, 2) of a pusher that knows the state: around the puck until it lies towards its goal, then ahead.

    Args:
        positions: (N, 4) middles of puck and pointer.
        desired: (N, 2) goals.
    """
    puck, pointer = positions[:, :2], positions[:, 2:]
    way, arm = desired - puck, pointer - puck
    left, radius = (np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-6) for vector in (way, arm))
    ahead, outward = way / left, arm / radius
    tangent = np.stack([-outward[:, 1], outward[:, 0]], 1)
    side = np.where((tangent * ahead).sum(1, keepdims=True) > 0, -1, 1)
    around = side * tangent + 10 * (TOUCH + 0.03 - radius) * outward
    push = 10 * (puck - (TOUCH - 0.1 * np.minimum(10 * left, 1)) * ahead - pointer)
    behind = -(outward * ahead).sum(1, keepdims=True) > 0.95
    speed = np.where(behind, push, around) * (left > 0.02)
    action: NDArray[np.float32] = (speed / np.maximum(np.abs(speed).max(1, keepdims=True), 1)).astype(np.float32)
    return action


def _scatter(rng: np.random.Generator) -> NDArray[np.float64]:
    """Positions (4,) of a puck and a pointer beside it."""
    bounds = np.repeat([PUCK_RANGE, POINTER_RANGE], 2)
    while True:
        positions: NDArray[np.float64] = rng.uniform(-bounds, bounds)
        if TOUCH < np.hypot(*(positions[:2] - positions[2:])) < NEAR:
            return positions
