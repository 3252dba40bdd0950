"""Recordings of triplets: the tray before a grasp, the tray after it, and the object in the gripper.

    folder/views.npy        (N, 3, C, H, W) uint8: before, after, outcome
    folder/labels/          object: its number; x, y: where it was grasped, pixels from the left and upper edge

The other files are those of a recording (`experiment.sources.recording`), whose episodes have one frame.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import GraspingConfig, GraspingVector
from experiment.sources.recording import new_recording, write_moments
from harness.seeding import derive, numpy_stream
from replay.frames import check_room


def record_triplets(config: GraspingConfig, folder: Path, content: Mapping[str, Any], grasps: int, seed: int) -> None:
    """Grasp at the middle of objects drawn at random, and record the successful grasps in `folder`.

    Args:
        config: of the environment.
        folder: must be missing or empty.
        content: the settings that decide the recording, for `source.json`.
        grasps: number of successful grasps.
        seed: of the environment and the choice of objects.

    Raises:
        MemoryError: the pictures do not fit on the disk.
        OSError: the disk does not take them.
    """
    what, advice = f"{grasps} grasps, {{}} pictures", "lower source.grasps"
    with closing(config.build()) as env, new_recording(folder, content, None) as temporary:
        free = shutil.disk_usage(temporary).free
        check_room(3 * grasps, env.frame_shape, free, "disk", who="source", what=what, advice=advice)
        write_moments(temporary, islice(_grasps(env, seed), grasps), (1, grasps, 3, *env.frame_shape))


def _grasps(env: GraspingVector, seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns (1, ...) of each grasp of all copies that held an object, for ever."""
    rng = numpy_stream(seed, "record/actions")
    before = env.reset(derive(seed, "record/env"))
    while True:
        action = aim_at_any(env, rng)
        step, outcome = env.step(action), env.outcome_frame()
        views, held = np.stack([before, step.frame, outcome], axis=1), env.labels()["held"]
        x, y = ((action + 1) / 2 * env.frame_shape[1]).T
        columns = {"pictures": views, "first": np.ones(len(held), np.bool_), "action": action, "reward": step.reward}
        columns |= {"labels/object": held, "labels/x": x, "labels/y": y}
        for i in np.flatnonzero(held >= 0):
            yield {name: values[i : i + 1] for name, values in columns.items()}
        before = env.step(action).frame  # the next episode


def aim_at_any(env: GraspingVector, rng: np.random.Generator) -> NDArray[np.float32]:
    """Actions (N, 2) that grasp a random object of each tray: a scripted policy that reads the state."""
    return np.array([rng.choice(list(tray.values())) for tray in env.positions()], np.float32)
