"""What moves behind the robot and means nothing (Zhang et al. 2021): bouncing balls, noise, images, videos.

Training and evaluation never share a background: files are dealt to one of the two by their names, random numbers are
drawn from streams of their own.
"""

import colorsys
import hashlib
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.derive import held_out
from harness.files import open_regular
from harness.media import IMAGES, VIDEOS, find_files, read_image, read_video

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]  # (H, W, 3)

SPLITS = ("train", "eval")
SUFFIXES = {"images": IMAGES, "video": VIDEOS}
HELD_OUT = 0.2  # of the files, for evaluation
BEGINNING = 1 << 20  # bytes of a file by which it is recognised
BACKGROUNDS = ("none", "gas", "noise", *SUFFIXES)
MAX_FRAMES, MAX_CLIPS = 500, 16  # kept in memory: at 84 x 84 pixels 170 MB
BALL_RADIUS, TIME_STEP = 0.05, 0.01  # of a box of side 1; a velocity component is below 1
FILM = 1000  # pictures
LUMA = np.array([0.299, 0.587, 0.114])


class Background(ABC):
    """Pictures of one size, one after the other."""

    @abstractmethod
    def start(self, rng: np.random.Generator) -> None:
        """Begin an episode somewhere else; `rng` may be kept until the next one."""

    @abstractmethod
    def frame(self, skip: int = 0) -> Frame:
        """The next picture after so many that are skipped."""


def build_background(
    kind: str, size: int, *, balls: int, films: int, folder: str, split: str, gray: bool = False
) -> Background | None:
    """The background of that name, None for "none"; `gray` takes its colours.

    Raises:
        ValueError: `folder` has fewer than two files of that kind.
    """
    match kind:
        case "none":
            return None
        case "gas":
            background: Background = Gas(balls, size, films, split)
        case "noise":
            background = Noise(size)
        case _:
            background = Clips(split_files(Path(folder), kind)[split], size)
    return Gray(background) if gray else background


def background_rng(seed: np.random.SeedSequence, split: str) -> np.random.Generator:
    """A stream that depends on the seed and the split."""
    return np.random.default_rng([*seed.generate_state(4), SPLITS.index(split)])


class Distractors:
    """What moves behind one copy of an environment, and the noise on its pictures.

    Args:
        background: None where there is none.
        split: of the backgrounds.
        speed: pictures of the background that pass in an agent step; 0: one a control step.
        fixed: an episode continues the background of the one before, instead of starting it at a random position.
        noise: standard deviation of the pixels' noise, in levels of 255.
    """

    def __init__(self, background: Background | None, split: str, *, speed: int, fixed: bool, noise: float) -> None:
        self._background, self._split = background, split
        self._speed, self._fixed, self._std = speed, fixed, noise
        self.behind: Frame | None = None  # picture of the background at this moment

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Everything random from here on follows from `seed`."""
        self._rng = background_rng(seed, self._split)
        (self._noise,) = self._rng.spawn(1)
        self._begun = False

    def begin(self) -> None:
        """Start an episode."""
        if self._background and not (self._begun and self._fixed):
            self._background.start(self._rng)
        self._begun = True

    def advance(self, passed: int = 1) -> None:
        """Go on by an agent step of so many control steps."""
        if self._background:
            self.behind = self._background.frame((self._speed or passed) - 1)

    def noisy(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture of any shape with the noise on it."""
        return add_noise(picture, self._std, self._noise) if self._std else picture


class Gray(Background):
    """Another background without its colours."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def start(self, rng: np.random.Generator) -> None:
        """See `Background.start`."""
        self._background.start(rng)

    def frame(self, skip: int = 0) -> Frame:
        """The luma of the picture (ITU-R BT.601), in all three channels."""
        gray = (self._background.frame(skip) @ LUMA).round().astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)


class Gas(Background):
    """An ideal gas: balls that bounce off the walls and pass through each other.

    A split has `films` of 1,000 pictures, the same for every seed. An episode begins anywhere in one, which starts over
    at its end. With 0 films no two episodes share a background: the encoder can then identify each moment of a small
    replay by the balls, and memorise its reward.
    """

    def __init__(self, balls: int, size: int, films: int, split: str) -> None:
        self._balls, self._films, self._split = balls, films, SPLITS.index(split)
        self._colors = np.array([colorsys.hsv_to_rgb(i / balls, 1, 1) for i in range(balls)]) * 255
        self._pixels = (np.arange(size) + 0.5) / size

    def start(self, rng: np.random.Generator) -> None:
        """Choose a film and a moment in it. Balls begin anywhere, each component of their velocities in [-1, 1]."""
        self._step = 0
        if self._films:
            film, self._step = int(rng.integers(self._films)), int(rng.integers(FILM))
            rng = np.random.default_rng([film, self._split])
        self._origin = rng.random((2, self._balls))
        self._velocity = rng.uniform(-1, 1, (2, self._balls))

    def frame(self, skip: int = 0) -> Frame:
        """A step of 0.01 box sides at velocity 1."""
        self._step += skip
        x, y = self.positions(self._step % FILM if self._films else self._step)
        self._step += 1
        picture = np.zeros((len(self._pixels), len(self._pixels), 3), np.uint8)
        distance = (self._pixels - x[:, None])[:, None, :] ** 2 + (self._pixels - y[:, None])[:, :, None] ** 2
        for color, covered in zip(self._colors, distance < BALL_RADIUS**2, strict=True):
            picture[covered] = color
        return picture

    def positions(self, step: int) -> NDArray[np.float64]:
        """Coordinates x and y (2, balls) in [0, 1]: an elastic bounce is a straight flight, mirrored."""
        flight = self._origin + self._velocity * TIME_STEP * step
        mirrored: NDArray[np.float64] = 1 - np.abs(1 - flight % 2)
        return mirrored


class Noise(Background):
    """Independent uniform bytes."""

    def __init__(self, size: int) -> None:
        self._shape = (size, size, 3)

    def start(self, rng: np.random.Generator) -> None:
        """Take over the stream."""
        self._rng = rng

    def frame(self, skip: int = 0) -> Frame:  # noqa: ARG002
        """Nothing of the last one."""
        return self._rng.integers(256, size=self._shape, dtype=np.uint8)


class Clips(Background):
    """A file an episode, from a random moment on, again from its start at its end. An image is a clip of one frame."""

    def __init__(self, files: list[Path], size: int) -> None:
        self._files, self._size = files, size

    def start(self, rng: np.random.Generator) -> None:
        """Choose a file and a moment in it."""
        self._clip = load_clip(self._files[rng.integers(len(self._files))], self._size)
        self._position = int(rng.integers(len(self._clip)))

    def frame(self, skip: int = 0) -> Frame:
        """The next frame of the file."""
        self._position += skip
        frame: Frame = self._clip[self._position % len(self._clip)]
        self._position += 1
        return frame


@lru_cache
def check_files(kind: str, folder: str) -> None:
    """Look into every file of both splits, once a process, so that none ends a training that has begun.

    Raises:
        ValueError: one has no picture; the message names it.
    """
    if kind in SUFFIXES:
        split = split_files(Path(folder), kind)
        check_apart(split["train"], split["eval"], f"background_folder={folder}", "the backgrounds of evaluation")
        for path in itertools.chain.from_iterable(split.values()):
            _load(path, 8, most=1)
        log.info("background_folder=%s: %s", folder, ", ".join(f"{len(files)} {name}" for name, files in split.items()))


def describe_files(kind: str, folder: str) -> dict[str, Any]:
    """How many files a folder of backgrounds has, and a digest of their names, sizes and beginnings."""
    if kind not in SUFFIXES:
        return {}
    digest, count = hashlib.sha256(), 0
    for path in itertools.chain.from_iterable(split_files(Path(folder), kind).values()):
        with open_regular(path) as file:
            digest.update(repr((path.name, path.stat().st_size, file.read(BEGINNING))).encode())
        count += 1
    return {"backgrounds": count, "sha256": digest.hexdigest(), "dealt": "by name"}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size and beginning, whatever its name."""
    with open_regular(path) as file:
        return hashlib.sha256(str(path.stat().st_size).encode() + file.read(BEGINNING)).hexdigest()


def check_apart(files: Iterable[Path], others: Iterable[Path], what: str, which: str) -> None:
    """Raise ValueError, naming both, where a file has the content of one of `others`."""
    known = {fingerprint(path): path for path in others}
    for path in files:
        if known and (other := known.get(fingerprint(path))):
            raise ValueError(f"{what}: {path} is {other}, one of {which}: remove one of them")


def split_files(folder: Path, kind: str) -> dict[str, list[Path]]:
    """The files of a folder by split, a fifth of them for evaluation: a file's name alone decides, not the others.

    Raises:
        ValueError: the folder has fewer than two files of that kind.
    """
    try:
        files = find_files(folder, SUFFIXES[kind], deep=False)
    except ValueError as error:
        raise ValueError(f"background_folder={error}") from error
    if len(files) < 2:
        wanted = " ".join(sorted(SUFFIXES[kind]))
        raise ValueError(
            f"background_folder={folder} has {len(files)} {kind} files ({wanted}): 2 are needed, "
            "because training and evaluation share none"
        )
    names = [path.name for path in files]
    kept = dict(zip(files, held_out(names, HELD_OUT, seed=0), strict=True))
    return {name: [path for path in files if kept[path] == (name == "eval")] for name in SPLITS}


@lru_cache(maxsize=MAX_CLIPS)
def load_clip(path: Path, size: int) -> NDArray[np.uint8]:
    """The first frames of a file (T, H, W, 3), their middle square.

    Raises:
        ValueError: it has no picture that can be read.
    """
    return _load(path, size, MAX_FRAMES)


def _load(path: Path, size: int, most: int) -> NDArray[np.uint8]:
    still = path.suffix.lower() in IMAGES
    return np.stack([read_image(path, size)] if still else list(read_video(path, size, most)))


def add_noise(frames: NDArray[np.uint8], std: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Frames of any shape plus independent Gaussian noise on each number, its standard deviation in levels of 255."""
    noisy = frames + std * rng.standard_normal(frames.shape, np.float32)
    return noisy.round().clip(0, 255).astype(np.uint8)
