"""Grasping: a tray of objects, of which one grasp takes one; what is held is seen by a camera of its own."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from envs.base import Actions, EnvConfig, Goals, VectorEnv, VectorStep, copy_rngs
from envs.grasping_objects import NUM_OBJECTS, SPLITS, STAGE, build_model, ids_of
from envs.rendering import HIDDEN_GROUP, Screen, load_module
from harness.checks import check_choice, check_within

REACH = 0.78  # the largest coordinate of an object's centre in the tray, which is [-1, 1] x [-1, 1]
APART = 0.4  # between the centres of two objects, at least
DISTURBED = (0.08, 0.35)  # standard deviation of how far the others move in a grasp, and turn, rad
TRIES = 200  # to find a position; then objects may touch
LAMP = ((0.3, 0.6), 0.35)  # brightness, and the largest slope of the light of a picture
TILT = 0.3  # rad, the largest of a held object
GRIP = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]) * 0.05  # where the gripper closes, around its middle


@dataclass(frozen=True)
class GraspingConfig(EnvConfig):
    """A tray of objects of which the one in the goal picture is to be grasped, in one attempt."""

    simulator: ClassVar[tuple[str, ...]] = ("dm-control", "mujoco")

    name: str = "grasping"
    num_envs: int = 16
    size: int = 64  # pixels, height and width
    objects: int = 5  # objects in the tray
    split: str = "seen"  # which objects: the 60 seen or the 20 unseen ones
    grid: int = 0  # grasp at one of grid x grid positions in the picture, row by row; 0: anywhere

    def __post_init__(self) -> None:
        check_choice("env.split", self.split, SPLITS)
        check_within("[1, 4096]", "env", num_envs=self.num_envs)
        check_within("[16, 1024]", "env", size=self.size)
        check_within("[1, 8]", "env", objects=self.objects)
        check_within("[0, 64]", "env", grid=self.grid)

    @classmethod
    def members(cls) -> dict[str, dict[str, str]]:
        """See `EnvConfig.members`: the two sets of objects."""
        return {split: {"split": split} for split in SPLITS}

    def build(self, labels: bool = False) -> "GraspingVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return GraspingVector(self)

    @property
    def label(self) -> str:
        """The family and the set of objects."""
        return f"{self.name}_{self.split}"

    @property
    def fps(self) -> float:
        """An episode has two pictures."""
        return 1.0

    def display(self, size: int) -> "GraspingConfig":
        """See `EnvConfig.display`."""
        return replace(self, size=size)


class GraspingVector(VectorEnv):
    """N trays, and one grasp an episode. Frames are RGB, from above.

    An action (x to the right, y downwards) in [-1, 1] is where in the picture the gripper goes; of a grid, the number
    of a position, whose middle that is. It takes the object below its middle, or else one that a point of its footprint
    hits; nothing is simulated of fingers and forces. Every grasp moves and turns the other objects by a few pixels, and
    the light is another one in each picture.

    Goals are one-hot numbers of objects (G = 80), all 0 for an empty gripper. The reward is 1 where the held object is
    the desired one, which lies in the tray. Every grasp terminates the episode.
    """

    def __init__(self, config: GraspingConfig) -> None:
        """Raises RuntimeError where MuJoCo cannot render."""
        self.num_envs, self.goal_dim = config.num_envs, NUM_OBJECTS
        self.action_space = Discrete(config.grid**2) if config.grid else Box(-1, 1, (2,), np.float32)
        self._grid = config.grid
        self.frame_shape = (3, config.size, config.size)
        self._world, self._ids, self._count = World(config.size), ids_of(config.split), config.objects
        self._trays: list[Tray] = []

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._rngs = copy_rngs(seed, self.num_envs)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._trays = [Tray(self._ids, self._count, rng) for rng in self._rngs]
        return self._draw()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first, positions = self._over, self.point(action)
        for i, rng in enumerate(self._rngs):  # one generator a copy: its episodes do not depend on the others
            if first[i]:
                self._trays[i] = Tray(self._ids, self._count, rng)
            else:
                self._trays[i].grasp(self._world.hit(self._trays[i], to_tray(positions[i])), rng)
        self._over = ~first
        reward = np.where(first, 0, self.compute_reward(*self.goals())).astype(np.float32)
        return VectorStep(self._draw(), reward, self._over, np.zeros_like(first), self._over, first)

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`: the numbers of the desired and the held object, -1 for none, and where the desired
        one lies or lay before it was grasped, in pixels from the left and upper edge of the picture.
        """
        position = to_tray(np.array([tray.poses.get(tray.desired, tray.held_before)[:2] for tray in self._trays]))
        x, y = ((position + 1) / 2 * self.frame_shape[1]).astype(np.float32).T
        desired, held = (np.array([getattr(t, name) for t in self._trays]) for name in ("desired", "held"))
        return {"desired": desired, "held": held, "x": x.copy(), "y": y.copy()}

    # --- goals ---

    def goals(self) -> Goals:
        """See `VectorEnv.goals`."""
        hot = np.vstack([np.eye(NUM_OBJECTS, dtype=np.float32), np.zeros(NUM_OBJECTS, np.float32)])
        return Goals(*(hot[[getattr(tray, name) for tray in self._trays]] for name in ("held", "desired")))

    def goal_frame(self) -> NDArray[np.uint8]:
        """Pictures (N, 3, H, W) of the desired object in the gripper, the same for a whole episode."""
        return self._frames([self._world.draw_outcome(tray.desired, tray.goal_pose) for tray in self._trays])

    def outcome_frame(self) -> NDArray[np.uint8]:
        """See `VectorEnv.outcome_frame`: what the gripper holds, the empty stage for nothing."""
        return self._frames([self._world.draw_outcome(tray.held, tray.held_pose) for tray in self._trays])

    def compute_reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorEnv.compute_reward`."""
        return self.is_success(achieved, desired).astype(np.float32)

    def compute_terminated(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:  # noqa: ARG002
        """See `VectorEnv.compute_terminated`: everywhere."""
        return np.ones(len(achieved), np.bool_)

    def goal_distance(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorEnv.goal_distance`: 0 for the same object, 1 for another one or none."""
        return 1 - self.compute_reward(achieved, desired)

    def is_success(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.is_success`."""
        same: NDArray[np.bool_] = (achieved * desired).sum(1) > 0.5
        return same

    # --- for scripted policies and measurements, not for agents ---

    def point(self, action: Actions) -> NDArray[Any]:
        """Where (N, 2) actions go in the picture."""
        if not self._grid:
            return action
        return (np.stack([action % self._grid, action // self._grid], axis=1) + 0.5) / self._grid * 2 - 1

    def positions(self) -> list[dict[int, NDArray[np.float64]]]:
        """Of each tray, the numbers of the objects that lie in it, and the actions (2,) that grasp them."""
        return [{n: to_tray(pose[:2]) for n, pose in tray.poses.items()} for tray in self._trays]

    def object_at(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """The numbers (N,) of the objects at points (N, 2) of the pictures, in [-1, 1] as actions; -1 for none."""
        pairs = zip(self._trays, points, strict=True)
        return np.array([self._world.hit(tray, to_tray(point), GRIP[:1]) for tray, point in pairs])

    def _draw(self) -> NDArray[np.uint8]:
        return self._frames([self._world.draw_tray(tray) for tray in self._trays])

    def _frames(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(pictures).transpose(0, 3, 1, 2).copy()

    def close(self) -> None:
        """See `VectorEnv.close`: frees the renderer."""
        self._world.close()


def to_tray(point: NDArray[np.floating]) -> NDArray[np.float64]:
    """Coordinates (..., 2) in the tray of points in the picture, where y points downwards, and the other way round."""
    flipped: NDArray[np.float64] = point * np.array([1.0, -1.0])
    return flipped


class Tray:
    """What lies in one tray and what the gripper holds. A pose is (x, y, turn), a lamp (brightness, slope x, slope y).

    Args:
        ids: the objects to choose from.
        count: how many lie in it; no two are the same.
        rng: the only source of chance.
    """

    held = -1
    held_before: NDArray[np.float64] = np.zeros(3)  # pose of the held object before it was grasped

    def __init__(self, ids: NDArray[np.int64], count: int, rng: np.random.Generator) -> None:
        self.poses: dict[int, NDArray[np.float64]] = {}
        for number in rng.choice(ids, count, replace=False).tolist():
            position = rng.uniform(-REACH, REACH, (TRIES, 2))
            self.poses[number] = np.append(self._free(position), rng.uniform(0, 2 * np.pi))
        self.desired = int(rng.choice(list(self.poses)))
        self.lamp, self.goal_pose, self.held_pose = _lamp(rng), *(rng.uniform(-1, 1, (2, 6)))

    def grasp(self, number: int, rng: np.random.Generator) -> None:
        """Take an object, or none for -1, and disturb the others."""
        self.held, self.held_before = number, self.poses.pop(number, self.held_before)
        for other, pose in list(self.poses.items()):
            del self.poses[other]
            moved = np.clip(pose[:2] + rng.normal(0, DISTURBED[0], (TRIES, 2)), -REACH, REACH)
            self.poses[other] = np.append(self._free(moved), pose[2] + rng.normal(0, DISTURBED[1]))
        self.lamp = _lamp(rng)

    def _free(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first of (M, 2) positions that is apart from all objects, or else the one that is farthest from them."""
        there = np.array([pose[:2] for pose in self.poses.values()]).reshape(-1, 2)
        distance = np.linalg.norm(positions[:, None] - there, axis=2).min(1, initial=np.inf)
        best: NDArray[np.float64] = positions[np.argmax(np.minimum(distance, APART))]
        return best


def _lamp(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array([rng.uniform(*LAMP[0]), *rng.uniform(-LAMP[1], LAMP[1], 2)])


class World:
    """The MuJoCo model that draws one tray or one held object at a time, and finds what lies at a position."""

    def __init__(self, size: int) -> None:
        dm = load_module("dm_control.mujoco")
        import mujoco

        self._mujoco, self._physics = mujoco, dm.Physics.from_xml_string(build_model())
        self._screens = {
            camera: Screen(self._physics, size, camera, "fast", hide_background=False)
            for camera in ("scene", "outcome")
        }
        model = self._physics.model
        bodies = [model.name2id(str(n), "body") for n in range(NUM_OBJECTS)]
        number = np.full(model.nbody, -1)  # of each body; -1: tray and stage
        number[bodies] = np.arange(NUM_OBJECTS)
        self._geom_object = number[model.geom_bodyid]

    def draw_tray(self, tray: Tray) -> NDArray[np.uint8]:
        """The scene camera's picture (H, W, 3)."""
        self._put(tray)
        self._light(tray.lamp)
        return self._show("scene")

    def draw_outcome(self, number: int, pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The outcome camera's picture (H, W, 3) of an object, or of none for -1.

        Args:
            number: the object.
            pose: (6,) in [-1, 1]: turn, tilts, and the lamp.
        """
        self._hide_but([number])
        if number >= 0:
            turn, *tilt = pose[:3] * (np.pi, TILT, TILT)
            self._physics.data.mocap_pos[number] = (STAGE, 0, 0)
            self._turn(number, *tilt, turn)
        low, high = LAMP[0]
        self._light(np.array([low + (high - low) * (pose[3] + 1) / 2, *(pose[4:] * LAMP[1])]))
        return self._show("outcome")

    def hit(self, tray: Tray, position: NDArray[np.float64], footprint: NDArray[np.float64] = GRIP) -> int:
        """The object of a tray at the first point of a footprint (M, 2) around `position` (2,) that has one, or -1."""
        self._put(tray)
        self._physics.forward()
        for point in position + footprint:
            if (number := self._below(point)) >= 0:
                return number
        return -1

    def close(self) -> None:
        """Free the renderer."""
        self._physics.free()

    def _below(self, point: NDArray[np.float64]) -> int:
        geom, groups = np.array([-1], np.int32), np.ones(6, np.uint8)
        groups[HIDDEN_GROUP] = 0
        start, down = np.array([*point, 1.0]), np.array([0.0, 0.0, -1.0])
        model, data = self._physics.model.ptr, self._physics.data.ptr
        self._mujoco.mj_ray(model, data, start, down, groups, 1, -1, geom)
        return int(self._geom_object[geom[0]]) if geom[0] >= 0 else -1

    def _put(self, tray: Tray) -> None:
        self._hide_but(list(tray.poses))
        for number, (x, y, turn) in tray.poses.items():
            self._physics.data.mocap_pos[number] = (x, y, 0)
            self._turn(number, 0, 0, turn)

    def _turn(self, number: int, *angles: float) -> None:
        """Turn an object about the x, y and z axes of its own, rad."""
        self._mujoco.mju_euler2Quat(self._physics.data.mocap_quat[number], np.array(angles, np.float64), "xyz")

    def _hide_but(self, numbers: list[int]) -> None:
        shown = np.isin(self._geom_object, [-1, *numbers])
        self._physics.model.geom_group[:] = np.where(shown, 0, HIDDEN_GROUP)

    def _light(self, lamp: NDArray[np.float64]) -> None:
        self._physics.model.light_diffuse[:] = lamp[0]
        direction = np.array([*lamp[1:], -1.0])
        self._physics.model.light_dir[:] = direction / np.linalg.norm(direction)

    def _show(self, camera: str) -> NDArray[np.uint8]:
        self._physics.forward()
        return self._screens[camera].draw().copy()
