"""Recordings of play: frames, actions, rewards and labels of the state, as plain .npy files.

    folder/frames.npy         (N, C, H, W) uint8, one environment copy after the other
           begin.npy end.npy  (E,) rows of the episodes; those still running at the end were cut there
           action.npy         (N,) integers or (N, A) floats
           reward.npy         (N,) float32
           views.npy          (N, V, C, H, W) uint8 in place of frames.npy, for an environment with several views
           labels/<name>.npy  (N,) each, of `VectorEnv.labels`
           source.json        the settings that decide the recording

A folder with its final name is complete: it is written under a temporary name, then renamed. What a killed process left
under a temporary name is removed when the same recording is made again.
"""

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs import Padding, Policy, Rollout, VectorEnv, action_sizes
from harness.provenance import versions, write_json
from harness.seeding import derive
from replay.frames import allocate, check_room

log = logging.getLogger(__name__)

CheckLabels: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], object]

GRACE = 60  # seconds in which a new temporary folder may not be locked yet


def record(
    env: VectorEnv,
    policy: Policy,
    folder: Path,
    content: Mapping[str, Any],
    *,
    frame_stack: int,
    padding: Padding,
    frames: int,
    seed: int,
    check_labels: CheckLabels | None = None,
) -> None:
    """Play until each copy has given its share of `frames`, and write the recording to `folder`.

    Args:
        policy: acts on stacks of `frame_stack` frames.
        padding: of those stacks.
        folder: must be missing or empty.
        content: the settings that decide the recording, for `source.json`.
        frames: of all copies together, rounded up to a whole number of steps.
        seed: of the environment.
        check_labels: called with the labels of the first frames; an error that it raises ends the recording.

    Raises:
        MemoryError: the frames do not fit on the disk.
        OSError: the disk does not take them.
    """
    steps = -(-frames // env.num_envs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    count, what, advice = steps * env.num_envs, "recording {} frames", "set source.frames to {} or less"
    channels, height, width = env.frame_shape
    shown = (channels * (1 + env.num_views), height, width)
    check_room(count, shown, free, "disk", who="source", what=what, advice=advice)
    with new_recording(folder, content, action_sizes(env.action_space)[0]) as temporary:
        moments = _play(Rollout(env, frame_stack, padding), policy, steps, derive(seed, "record/env"), check_labels)
        views = (1 + env.num_views,) if env.num_views else ()
        write_moments(temporary, moments, (env.num_envs, steps, *views, *env.frame_shape))


@contextmanager
def new_recording(folder: Path, content: Mapping[str, Any], num_actions: int | None) -> Iterator[Path]:
    """A temporary folder for the files of a recording, renamed to `folder` when the block ends.

    Args:
        folder: the final name.
        content: the settings that decide the recording, for `source.json`.
        num_actions: number of different actions; None if actions are not integers.

    Raises:
        OSError: the disk does not take it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _temporary_folder(folder) as temporary:
            yield temporary
            made_by = versions("ale-py", "dm-control", "mujoco")
            write_json({**content, "num_actions": num_actions, "versions": made_by}, temporary / "source.json")
            temporary.chmod(0o755)  # mkdtemp made it private
            temporary.rename(folder)
    except OSError:
        if not (folder / "source.json").is_file():
            raise
        log.info("source: another run recorded the same at the same time")


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, locked by this process and removed when the block ends."""
    for path in folder.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(folder.name)}\.\w{{8}}", path.name) and _is_abandoned(path):
            log.info("source: removing %s, which a killed process left", path)
            shutil.rmtree(path, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield temporary
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder holds nothing but parts of a recording that no process is making any more."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # a file, a link, or somebody else's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parts = all(re.fullmatch(r"\w+\.npy|labels|\.?source\.json.*", name) for name in os.listdir(descriptor))
        return parts and time.time() - os.fstat(descriptor).st_mtime > GRACE
    except OSError:
        return False
    finally:
        os.close(descriptor)


def write_moments(folder: Path, moments: Iterable[dict[str, NDArray[Any]]], shape: tuple[int, ...]) -> None:
    """Write the arrays of a recording into `folder`.

    Args:
        folder: from `new_recording`.
        moments: T dictionaries of columns (N, ...): `pictures`, `first` (whether an episode begins), and what else is
            known, by file name.
        shape: (N, T, [V,] C, H, W) of all pictures.
    """
    total, path = shape[0] * shape[1], folder / ("views.npy" if len(shape) == 6 else "frames.npy")
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (total, *shape[2:]))
    with path.open("r+b") as room:
        allocate(room, os.fstat(room.fileno()).st_size)
    pictures = file.reshape(shape)
    rows = []
    for t, moment in enumerate(moments):
        pictures[:, t] = moment.pop("pictures")
        rows.append(moment)
        if (t + 1) % max(1, shape[1] // 5) == 0:
            log.info("source: %d of %d recorded", (t + 1) * shape[0], total)
    file.flush()
    columns = {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}
    columns = {name: values.reshape(total, *values.shape[2:]) for name, values in columns.items()}
    begin = np.flatnonzero(columns.pop("first"))
    (folder / "labels").mkdir()
    for name, values in (columns | {"begin": begin, "end": np.append(begin[1:], total)}).items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _play(
    rollout: Rollout, policy: Policy, steps: int, seed: int, check_labels: CheckLabels | None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns (N, ...) of each of `steps` moments: pictures, labels, actions and rewards."""
    rollout.reset(seed)
    if check_labels:
        check_labels(rollout.env.labels())
    for _ in range(steps):
        labels = {f"labels/{name}": values for name, values in rollout.env.labels().items()}
        further = rollout.env.views() if rollout.env.num_views else None
        row = rollout.step(policy)
        pictures = row.frame if further is None else np.concatenate([row.frame[:, None], further], axis=1)
        yield {"pictures": pictures, "first": row.first, "action": row.action, "reward": row.reward, **labels}
