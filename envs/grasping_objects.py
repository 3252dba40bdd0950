"""The objects and the MuJoCo model of the grasping world: primitive geoms, drawn by fixed random numbers."""

import colorsys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_OBJECTS = 80
SPLITS = ("seen", "unseen")
STAGE = 20.0  # x of the position where the outcome camera sees what the gripper holds
STAGE_VIEW = 0.4  # half the side of its picture; that of the tray is 1
HEIGHT = 15.0  # of both cameras: so far away that they see all objects nearly straight from above


class Geom(NamedTuple):
    """A primitive in the frame of its object; the object stands on z = 0."""

    kind: str
    size: tuple[float, ...]
    position: tuple[float, float, float]
    colour: int  # 0: that of the body, 1: that of its pattern


def ids_of(split: str) -> NDArray[np.int64]:
    """The numbers of the seen or the unseen objects: every fourth one is unseen."""
    every = np.arange(NUM_OBJECTS)
    chosen: NDArray[np.int64] = every[(every % 4 == 3) == (split == "unseen")]
    return chosen


def body_of(shape: str, r: float, thin: float, height: float) -> list[Geom]:
    """The geoms of a shape in a circle of radius r; `thin` in (0, 1) is its narrow side over its long one."""
    middle = (0.0, 0.0, height)
    match shape:
        case "box":
            return [Geom("box", (r * 0.8, r * 0.8 * thin, height), middle, 0)]
        case "cylinder":
            return [Geom("cylinder", (r * (0.6 + 0.3 * thin), height), middle, 0)]
        case "ellipsoid":
            return [Geom("ellipsoid", (r, r * thin, height), middle, 0)]
        case "cross":
            arms = [(r * 0.9, r * 0.35 * thin, height), (r * 0.35 * thin, r * 0.9, height)]
            return [Geom("box", arm, middle, 0) for arm in arms]
        case "tee":
            stem, bar = (r * 0.25, r * 0.75, height), (r * 0.8 * thin, r * 0.3, height)
            return [Geom("box", stem, middle, 0), Geom("box", bar, (0.0, r * 0.5, height), 0)]
        case "dumbbell":
            ends = [Geom("sphere", (r * 0.42,), (x, 0.0, height), c) for c, x in enumerate((-r * 0.55, r * 0.55))]
            return [*ends, Geom("box", (r * 0.5, r * 0.2 * thin, height * 0.5), middle, 0)]
    raise ValueError(shape)


def pattern_of(pattern: str, r: float, height: float) -> list[Geom]:
    """What lies on top of a shape, in its second colour."""
    top = height * 2
    bar = (r * 0.13, r * 0.5, height * 0.15)
    match pattern:
        case "stripe":
            return [Geom("box", bar, (0.0, 0.0, top), 1)]
        case "stripes":
            return [Geom("box", bar, (x, 0.0, top), 1) for x in (-r * 0.4, r * 0.4)]
        case "dot":
            return [Geom("cylinder", (r * 0.35, height * 0.15), (0.0, 0.0, top), 1)]
        case "half":
            return [Geom("box", (r * 0.3, r * 0.45, height * 0.15), (r * 0.35, 0.0, top), 1)]
    return []


SHAPES = ("box", "cylinder", "ellipsoid", "cross", "tee", "dumbbell")
PATTERNS = ("plain", "stripe", "stripes", "dot", "half")


def build_object(number: int) -> str:
    """The XML of an object, always the same for its number."""
    rng = np.random.default_rng([2018, number])
    shape, pattern = rng.choice(SHAPES), rng.choice(PATTERNS)
    r, thin, height = rng.uniform((0.16, 0.45, 0.05), (0.22, 0.9, 0.09))
    hue, turn = rng.uniform((0, 0.2), (1, 0.8))
    first = colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 1), rng.uniform(0.6, 1))
    second = colorsys.hsv_to_rgb((hue + turn) % 1, rng.uniform(0, 1), rng.uniform(0.3, 1))
    geoms = "".join(
        f'<geom type="{kind}" size="{_numbers(size)}" pos="{_numbers(at)}" rgba="{_numbers((first, second)[c])} 1"/>'
        for kind, size, at, c in [*body_of(shape, r, thin, height), *pattern_of(pattern, r, height)]
    )
    return f'<body name="{number}" mocap="true">{geoms}</body>'


def build_model() -> str:
    """The XML of the world: the tray, whose inside is [-1, 1] x [-1, 1], the stage, all objects and both cameras."""
    fov, close = (np.degrees(2 * np.arctan(half / HEIGHT)) for half in (1, STAGE_VIEW))
    return f"""
    <mujoco>
      <visual>
        <headlight ambient="0.35 0.35 0.35" diffuse="0 0 0" specular="0 0 0"/>
        <map znear="0.01" zfar="30"/>
      </visual>
      <statistic extent="1" center="0 0 0"/>
      <default><geom contype="0" conaffinity="0"/></default>
      <worldbody>
        <light name="lamp" directional="true" castshadow="false" pos="0 0 3" dir="0 0 -1" specular="0 0 0"/>
        <camera name="scene" pos="0 0 {HEIGHT}" fovy="{fov}"/>
        <camera name="outcome" pos="{STAGE} 0 {HEIGHT}" fovy="{close}"/>
        <geom name="tray" type="box" size="1.1 1.1 0.01" pos="0 0 -0.01" rgba="0.45 0.42 0.4 1"/>
        <geom name="stage" type="box" size="1.1 1.1 0.01" pos="{STAGE} 0 -0.5" rgba="0.2 0.22 0.25 1"/>
        {"".join(map(build_object, range(NUM_OBJECTS)))}
      </worldbody>
    </mujoco>"""


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
