"""Recording triplets: the tray before a grasp, the tray after it, and what the gripper holds.

    folder/views.npy        (N, 3, C, H, W) uint8: before, after, outcome
    folder/labels/          object, its number; x and y, where it was grasped, pixels from the left and upper edge
and the other files of a recording (`experiment.recording`), of episodes of one frame.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import GraspingConfig, GraspingVector
from experiment.recording import new_recording
from harness.seeding import derive, numpy_stream
from replay.frames import allocate, check_room

Columns = dict[str, Any]  # by name: what one grasp is


def record_triplets(config: GraspingConfig, folder: Path, content: Mapping[str, Any], grasps: int, seed: int) -> None:
    """Grasp at objects drawn at random, each in its middle, and leave those that were held in `folder`.

    Args:
        config: of the environment.
        folder: does not exist yet.
        content: what decides the recording, for `source.json`.
        grasps: how many.
        seed: of the environment and the choice of objects.

    Raises:
        MemoryError: the pictures do not fit.
        OSError: the disk does not take them.
    """
    env, what, advice = config.build(), f"{grasps} grasps, {{}} pictures", "lower source.grasps"
    shape = (grasps, 3, *env.frame_shape)
    try:
        with new_recording(folder, content, None) as temporary:
            free = shutil.disk_usage(temporary).free
            check_room(3 * grasps, env.frame_shape, free, "disk", who="source", what=what, advice=advice)
            views = np.lib.format.open_memmap(temporary / "views.npy", "w+", np.uint8, shape)
            with (temporary / "views.npy").open("r+b") as room:
                allocate(room, os.fstat(room.fileno()).st_size)
            rows = []
            for k, row in enumerate(islice(chain.from_iterable(_grasps(env, seed)), grasps)):
                views[k] = row.pop("views")
                rows.append(row)
            views.flush()
            columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            (temporary / "labels").mkdir()
            for name, values in (columns | {"begin": np.arange(grasps), "end": np.arange(grasps) + 1}).items():
                np.save(temporary / f"{name}.npy", values, allow_pickle=False)
    finally:
        env.close()


def _grasps(env: GraspingVector, seed: int) -> Iterator[list[Columns]]:
    """What was held at each grasp of all copies, for ever."""
    rng = numpy_stream(seed, "record/actions")
    before = env.reset(derive(seed, "record/env"))
    while True:
        action = aim_at_any(env, rng)
        step, outcome = env.step(action), env.outcome_frame()
        views, held = np.stack([before, step.frame, outcome], axis=1), env.labels()["held"]
        place = (action + 1) / 2 * env.frame_shape[1]
        yield [
            {
                "views": views[i],
                "action": action[i],
                "reward": step.reward[i],
                "labels/object": held[i],
                "labels/x": place[i, 0],
                "labels/y": place[i, 1],
            }
            for i in np.flatnonzero(held >= 0)
        ]
        before = env.step(action).frame  # the next episode


def aim_at_any(env: GraspingVector, rng: np.random.Generator) -> NDArray[np.float32]:
    """Actions (N, 2) that grasp one object of each tray, drawn at random: a scripted policy, which sees the state."""
    return np.array([rng.choice(list(tray.values())) for tray in env.places()], np.float32)
