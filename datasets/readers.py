"""Files that become episodes: recordings, images, videos, IDX. None of them can execute anything when read."""

import gzip
import logging
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datasets.episodes import Episodes
from datasets.faces import SIDE, crop_face
from harness.files import open_regular
from harness.media import IMAGES, VIDEOS, count_pictures, find_files, read_image, read_video
from harness.provenance import read_json
from replay.frames import check_room, free_memory
from replay.storage import VALID

log = logging.getLogger(__name__)

CONTENT_BYTES = 1 << 20  # of a source.json at most
MAX_ACTIONS = 1 << 16  # that a recording may name: heads are as wide
IDX_BYTES, PART = 1 << 36, 1 << 24  # the largest IDX file that is opened, and what is read of it at once


def read_recording(folder: Path) -> Episodes:
    """What `experiment.sources.recording` left; the frames stay on the disk and are mapped.

    Raises:
        ValueError: a file is missing, torn or holds something else.
    """

    def read(name: str) -> NDArray[Any]:
        path = folder / f"{name}.npy"
        try:
            open_regular(path).close()
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
            raise ValueError(f"{path} cannot be read ({error}): remove {folder} to record again") from error

    labels = {path.stem: read(f"labels/{path.stem}") for path in sorted(folder.glob("labels/*.npy"))}
    num_actions = read_content(folder).get("num_actions")
    views = read("views") if (folder / "views.npy").is_file() else None
    try:
        frames = read("frames") if views is None else views[:, 0]
        begin, end, action, reward = map(read, ("begin", "end", "action", "reward"))
        return Episodes(frames, begin, end, labels, action, reward, num_actions, views=views)
    except (ValueError, IndexError) as error:  # views of no view
        raise ValueError(f"{folder} holds no recording ({error}): remove it to record again") from error


def read_content(folder: Path) -> dict[str, Any]:
    """What `source.json` says of a recording.

    Raises:
        ValueError: it is missing, or says something else.
    """
    try:
        content = read_json(folder / "source.json", CONTENT_BYTES)
        choices = content["num_actions"]
        if choices is not None and (type(choices) is not int or not 1 <= choices <= MAX_ACTIONS):
            raise ValueError(f"num_actions is {choices!r}")
    except (OSError, ValueError, LookupError) as error:
        advice = "give source.path=... or remove that folder"
        raise ValueError(f"{folder} holds no recording (source.json: {error}): {advice}") from error
    return content


def read_storage(state: Mapping[str, Any], num_actions: int | None) -> Episodes:
    """The episodes in `FrameStorage.state_dict`, ordered by environment copy.

    Only valid rows and the last frame of each episode are kept. The oldest episode of a copy may lack its beginning.

    Raises:
        ValueError: there are none, or they are states.
        MemoryError: the frames do not fit.
    """
    if state["segments"][0].array.dtype != np.uint8:
        raise ValueError("source=replay reads pixels, and this replay holds states: give a run that observes pixels")
    valid = (state["flags"].T & VALID) != 0  # (N, R), and so are all that follow
    after = np.zeros_like(valid)
    after[:, 1:] = valid[:, :-1]
    kept = valid | after
    cell = np.cumsum(kept).reshape(kept.shape) - 1
    begin = cell[valid & ~after]
    count, row = int(kept.sum()), 0
    shape = state["segments"][0].array.shape[2:]
    advice = "free some memory, or use source=frames"
    check_room(count, shape, free_memory(), "memory", who="source", what="{} frames", advice=advice)
    frames = np.empty((count, *shape), np.uint8)
    for segment in state["segments"]:
        span = slice(row, row := row + len(segment.array))
        frames[cell[:, span][kept[:, span]]] = segment.array.swapaxes(0, 1)[kept[:, span]]
    action, reward = (state[name].swapaxes(0, 1)[kept] for name in ("action", "reward"))
    return Episodes(frames, begin, np.append(begin[1:], count), {}, action, reward, num_actions)


def read_images(folder: Path, size: int, crop: str = "middle") -> Episodes:
    """Every image below `folder`, by path, as an episode of one frame (3, size, size): its middle square, resized, or
    with crop="face" its largest face; images without one are left out.

    `folder/cat/1.png` has the label `class`, "cat"; `folder/cat/anna/1.png` has `group` too, "anna". Images straight in
    `folder` have no labels. A split goes by groups, or by the paths.

    Raises:
        ValueError: there are none, or none with a face; some lie deeper than others, or one cannot be read.
        MemoryError: they do not fit.
    """
    paths = find_files(folder, IMAGES)
    folders = [path.relative_to(folder).parts[:-1] for path in paths]
    if len(set(map(len, folders))) > 1 or len(folders[0]) > 2:
        raise ValueError(f"{folder}: its images must all lie in folder/, in folder/class/ or in folder/class/group/")
    named = dict(zip(("class", "group"), zip(*folders, strict=True), strict=False))
    labels = {label: np.array(each) for label, each in named.items()}
    frames, kept = room(len(paths), size, "images", "lower source.size"), list[int]()
    for i, path in enumerate(paths):
        picture = read_image(path, size) if crop == "middle" else crop_face(read_image(path, SIDE, whole=True), size)
        if picture is not None:
            frames[len(kept)] = picture.transpose(2, 0, 1)
            kept.append(i)
    if crop == "face":
        _check_faces(folder, len(kept), len(paths))
    labels = {label: each[kept] for label, each in labels.items()}
    names = None if "group" in labels else _names(paths, folder)[kept]
    return replace(stills(frames[: len(kept)], labels), names=names)


def read_videos(folder: Path, size: int, stride: int, cut: float, crop: str = "middle") -> Episodes:
    """Every `stride`-th frame of the videos below `folder`, by path: the middle squares, resized to (3, size, size), or
    with crop="face" the largest faces; frames without one are left out.

    An episode begins with each file, after each cut and after what is left out. A cut is where one frame of the file
    differs from the one before by more than `cut`, of 255, on the mean over the pixels, black margins left out.

    `folder/cat/anna.mp4` and `folder/cat/anna/1.mp4` have the labels `class`, "cat", and `group`, "anna", if all lie
    so and there are several groups. Otherwise several files are the groups of a split, since the shots of one file show
    the same things.

    Raises:
        ValueError: there are none, or none with a face, or ffmpeg finds no picture in one.
        MemoryError: they do not fit.
    """
    paths = find_files(folder, VIDEOS)
    counts = [count_pictures(path) for path in paths]
    most = sum(-(-count // stride) for count in counts)
    frames = room(most, size, "frames", "lower source.size, or raise source.stride")
    begin: list[int] = []
    file: list[int] = []
    faces = crop == "face"
    for number, (path, count) in enumerate(zip(paths, counts, strict=True)):
        before, new = None, True
        for i, picture in enumerate(read_video(path, SIDE if faces else size, count, whole=faces)):
            new |= before is not None and _difference(picture, before) > cut
            before = picture
            if i % stride == 0:
                shown = crop_face(picture, size) if faces else picture
                if shown is None:
                    new = True
                    continue
                if new:
                    begin.append(len(file))
                frames[len(file)] = shown.transpose(2, 0, 1)
                file.append(number)
                new = False
    if faces:
        _check_faces(folder, len(file), most)
    return _of_files(frames[: len(file)], np.array(begin), np.array(file), paths, folder)


def _difference(picture: NDArray[np.uint8], before: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures (S, S, 3), without the black margins of a film that is not square."""
    shown: NDArray[np.bool_] = np.any(picture | before, axis=2)
    rows, columns = np.any(shown, axis=1), np.any(shown, axis=0)
    if not rows.any():
        return 0.0
    apart = np.abs(np.subtract(picture, before, dtype=np.int16))
    return float(apart[rows][:, columns].mean())


def _of_files(
    frames: NDArray[np.uint8], begin: NDArray[np.int64], file: NDArray[np.int64], paths: list[Path], folder: Path
) -> Episodes:
    """Videos that begin at these frames, each frame of one of the files, which name class and group of a frame."""
    ends = np.append(begin[1:], len(file))
    names = [path.relative_to(folder).with_suffix("").parts for path in paths]
    if {*map(len, names)} in ({2}, {3}) and len({parts[1] for parts in names}) > 1:
        labels = {name: np.array([parts[i] for parts in names])[file] for i, name in enumerate(("class", "group"))}
        return Episodes(frames, begin, ends, labels)
    if len(paths) == 1:
        return Episodes(frames, begin, ends)
    return Episodes(frames, begin, ends, {"group": file}, names=_names(paths, folder)[file[begin]])


def _check_faces(folder: Path, kept: int, whole: int) -> None:
    """Say how many pictures without a face are left out; raises ValueError if all are."""
    if not kept:
        raise ValueError(f"{folder}: no face in any of {whole} pictures; source.crop=middle takes them without")
    if kept < whole:
        log.info("%s: %d of %d pictures left out, which show no face", folder, whole - kept, whole)


def read_multiview(folder: Path, size: int, stride: int) -> Episodes:
    """Every `stride`-th frame of `folder/<sequence>/<camera>.mp4`, videos that show one sequence at the same time.

    Each sequence is an episode. The views are in the order of the cameras' names; the first is the frames.

    Raises:
        ValueError: there are none, a sequence has other cameras than the first one or videos of different length, or
            ffmpeg finds no picture in one.
        MemoryError: they do not fit.
    """
    sequences: dict[Path, list[Path]] = {}
    for path in find_files(folder, VIDEOS):
        sequences.setdefault(path.parent, []).append(path)
    counts = []
    cameras = [path.stem for path in next(iter(sequences.values()))]
    for sequence, paths in sequences.items():
        if sequence.parent != folder or len(cameras) < 2:
            raise ValueError(f"{folder}: its videos must be folder/sequence/camera.mp4, of two cameras or more")
        if (names := [path.stem for path in paths]) != cameras:
            raise ValueError(f"{sequence} has the cameras {', '.join(names)}, the first sequence {', '.join(cameras)}")
        lengths = {path.name: count_pictures(path) for path in paths}
        if len(set(lengths.values())) > 1:
            each = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{sequence}: its videos differ in length ({each} frames): cut them to the same moments")
        counts.append(math.ceil(lengths[paths[0].name] / stride))
    pictures = room(sum(counts) * len(cameras), size, "frames", "lower source.size, or raise source.stride")
    pictures = pictures.reshape(len(cameras), sum(counts), *pictures.shape[1:])
    ends = np.cumsum(counts)
    begins = ends - np.array(counts)
    for paths, begin, end in zip(sequences.values(), begins, ends, strict=True):
        for path, view in zip(paths, pictures, strict=True):
            shown = [picture.transpose(2, 0, 1) for picture in islice(read_video(path, size), 0, None, stride)]
            if len(shown) != end - begin:
                raise ValueError(f"{path}: {len(shown)} of its {end - begin} frames can be read")
            view[begin:end] = shown
    titles = _names(list(sequences), folder)
    return Episodes(pictures[0], begins, ends, names=titles, views=pictures.swapaxes(0, 1))


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


def room(count: int, size: int, what: str, advice: str) -> NDArray[np.uint8]:
    """Memory for `count` frames (3, size, size)."""
    shape = (3, size, size)
    check_room(count, shape, free_memory(), "memory", who="source", what=f"{{}} {what}", advice=advice)
    return np.empty((count, *shape), np.uint8)


def _names(paths: list[Path], folder: Path) -> NDArray[np.str_]:
    return np.array([path.relative_to(folder).as_posix() for path in paths])


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
    if len(paths) > 1:
        log.info("%s is used; left out: %s", paths[0], ", ".join(path.name for path in paths[1:]))
    try:
        with open_regular(paths[0], IDX_BYTES) as file:
            return _idx_array(gzip.open(file) if paths[0].suffix == ".gz" else file, dims)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{paths[0]} cannot be read: {error}") from error
    except MemoryError as error:
        raise MemoryError(f"{paths[0]}: {error}") from error


def _idx_array(file: BinaryIO | gzip.GzipFile, dims: int) -> NDArray[np.uint8]:
    """The array of an open file. No more is read, and inflated, than its header announces."""
    header = file.read(4 + 4 * dims)
    shape = [int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4)]
    size = math.prod(shape)
    if header[:4] != bytes([0, 0, 8, dims]) or len(header) < 4 + 4 * dims:
        raise ValueError(f"it is not an IDX file of {dims} dimensions")
    if size > (free := free_memory()):
        raise MemoryError(f"its {size / 1e9:.2f} GB do not fit in the {free / 1e9:.2f} GB of memory that are free")
    data = bytearray()
    while part := file.read(min(size + 1 - len(data), PART)):
        data += part
    if len(data) != size:
        what = "more" if len(data) > size else f"{len(data):,} bytes"
        raise ValueError(f"it is torn: its header announces {size:,} bytes, and there are {what}")
    return np.frombuffer(data, np.uint8).reshape(shape)
