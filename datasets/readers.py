"""Files that become episodes: recordings, images, videos, IDX. None of them can execute anything when read."""

import gzip
import json
import math
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from datasets.episodes import Episodes
from replay.frames import check_room, free_memory
from replay.storage import VALID

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
VIDEOS = {".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm"}


def read_recording(folder: Path) -> Episodes:
    """What `experiment.recording` left; the frames stay on the disk and are mapped.

    Raises:
        ValueError: a file is missing or torn.
    """

    def read(name: str) -> NDArray[Any]:
        path = folder / f"{name}.npy"
        try:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read ({error}): remove {folder} to record anew") from error

    labels = {path.stem: read(f"labels/{path.stem}") for path in sorted(folder.glob("labels/*.npy"))}
    num_actions = json.loads((folder / "source.json").read_text())["num_actions"]
    return Episodes(read("frames"), read("begin"), read("end"), labels, read("action"), read("reward"), num_actions)


def read_storage(state: Mapping[str, Any], num_actions: int | None) -> Episodes:
    """The episodes in `FrameStorage.state_dict`, those of one copy after those of the other.

    Rows that stand for nothing are left out, but for the last frame of each episode. The oldest episode of a copy may
    lack its beginning.

    Raises:
        ValueError: there are none.
        MemoryError: the frames do not fit.
    """
    valid = (state["flags"].T & VALID) != 0  # (N, R), and so are all that follow
    after = np.zeros_like(valid)
    after[:, 1:] = valid[:, :-1]
    kept = valid | after
    cell = np.cumsum(kept).reshape(kept.shape) - 1
    begin = cell[valid & ~after]
    count, row = int(kept.sum()), 0
    shape = state["segments"][0][1].shape[2:]
    advice = "free some memory, or use source=frames"
    check_room(count, shape, free_memory(), "memory", who="source", what="{} frames", advice=advice)
    frames = np.empty((count, *shape), np.uint8)
    for _, segment in state["segments"]:
        span = slice(row, row := row + len(segment))
        frames[cell[:, span][kept[:, span]]] = segment.swapaxes(0, 1)[kept[:, span]]
    action, reward = (state[name].swapaxes(0, 1)[kept] for name in ("action", "reward"))
    return Episodes(frames, begin, np.append(begin[1:], count), {}, action, reward, num_actions)


def read_images(folder: Path, size: int) -> Episodes:
    """Every image below `folder`, by path, as an episode of one frame (3, size, size): its middle square, resized.

    `folder/cat/1.png` has the label `class`, "cat"; `folder/cat/anna/1.png` has `group` too, "anna". Images straight in
    `folder` have no labels.

    Raises:
        ValueError: there are none, some lie deeper than others, or one cannot be read.
        MemoryError: they do not fit.
    """
    paths = _files(folder, IMAGES)
    places = [path.relative_to(folder).parts[:-1] for path in paths]
    if len(set(map(len, places))) > 1 or len(places[0]) > 2:
        raise ValueError(f"{folder}: its images must all lie in folder/, in folder/class/ or in folder/class/group/")
    names = dict(zip(("class", "group"), zip(*places, strict=True), strict=False))
    labels = {label: np.array(each) for label, each in names.items()}
    shape = (3, size, size)
    free, advice = free_memory(), "lower source.size"
    check_room(len(paths), shape, free, "memory", who="source", what="{} images", advice=advice)
    frames = np.empty((len(paths), *shape), np.uint8)
    for frame, path in zip(frames, paths, strict=True):
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is not a readable image: {error}") from error
        frame[:] = np.asarray(ImageOps.fit(upright, (size, size))).transpose(2, 0, 1)
    return stills(frames, labels)


def read_videos(folder: Path, size: int, stride: int, cut: float) -> Episodes:
    """Every `stride`-th frame of the videos below `folder`, by path: the middle squares, resized to (3, size, size).

    An episode begins with each file and after each cut: where one frame of the file differs from the one before by
    more than `cut`, of 255, on the mean over the pixels. Several files are the groups of a split, since the shots of
    one file show the same things.

    Raises:
        ValueError: there are none, or ffmpeg finds no picture in one.
    """
    frames: list[NDArray[np.uint8]] = []
    begin: list[int] = []
    file: list[int] = []
    paths = _files(folder, VIDEOS)
    for number, path in enumerate(paths):
        before, new = None, True
        for i, picture in enumerate(_pictures(path, size)):
            new |= before is not None and np.abs(np.subtract(picture, before, dtype=np.int16)).mean() > cut
            before = picture
            if i % stride == 0:
                if new:
                    begin.append(len(frames))
                frames.append(picture)
                file.append(number)
                new = False
    labels = {"group": np.array(file)} if len(paths) > 1 else {}
    return Episodes(np.stack(frames), np.array(begin), np.array([*begin[1:], len(frames)]), labels)


def read_idx(folder: Path) -> Episodes:
    """Images with the label `class` from four IDX files, gzipped or not, as MNIST and Fashion-MNIST come.

    The official test images follow the others; a split keeps them for testing.

    Raises:
        ValueError: a file is missing, torn, or not what its name says.
    """
    images, classes = zip(*(_idx_pair(folder, part) for part in ("train", "t10k")), strict=True)
    episodes = stills(np.concatenate(images), {"class": np.concatenate(classes)})
    return replace(episodes, test=np.repeat([False, True], [len(part) for part in images]))


def stills(frames: NDArray[np.uint8], labels: dict[str, NDArray[Any]]) -> Episodes:
    """Each frame an episode of its own."""
    row = np.arange(len(frames))
    return Episodes(frames, row, row + 1, labels)


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    found = (path for path in folder.rglob("[!.]*") if path.suffix.lower() in suffixes)  # hidden ones are half written
    paths = sorted(found)
    if not paths:
        raise ValueError(f"{folder} has no files with one of the endings {' '.join(sorted(suffixes))}")
    return paths


def _pictures(path: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    """The frames (3, size, size) of a video."""
    fit = f"scale={size}:{size}:force_original_aspect_ratio=increase,crop={size}:{size}"
    raw = ["-vf", fit, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-i", str(path), *raw]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdout is not None
        data = ffmpeg.stdout.read(3 * size**2)
        if not data:
            raise ValueError(f"{path} is not a readable video: ffmpeg finds no picture in it")
        while data:
            yield np.frombuffer(data, np.uint8).reshape(size, size, 3).transpose(2, 0, 1)
            data = ffmpeg.stdout.read(3 * size**2)


def _idx_pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    images, classes = _idx(folder, f"{part}-images", 3), _idx(folder, f"{part}-labels", 1)
    if len(images) != len(classes):
        raise ValueError(f"{folder}: {part} has {len(images)} images, but {len(classes)} labels")
    return images[:, None], classes.astype(str)  # names: their order means nothing


def _idx(folder: Path, name: str, dims: int) -> NDArray[np.uint8]:
    """An array of bytes: two zeros, 8 for bytes, the number of dimensions, each of them as 4 bytes, the data."""
    paths = sorted(folder.glob(f"{name}?idx{dims}-ubyte*"))
    if not paths:
        raise ValueError(f"{folder} has no {name}-idx{dims}-ubyte or ...ubyte.gz: `make mnist` fills data/mnist")
    try:
        data = paths[0].read_bytes()
        data = gzip.decompress(data) if paths[0].suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{paths[0]} cannot be read: {error}") from error
    begin = 4 + 4 * dims
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, begin, 4)]
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) != begin + math.prod(shape):
        raise ValueError(f"{paths[0]} is not an IDX file of {dims} dimensions, or is torn")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)
