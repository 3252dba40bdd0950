"""What the families drawn by MuJoCo share: the settings of the picture, and what moves behind it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from envs.base import EnvConfig, Protocol
from envs.distractors import (
    BACKGROUNDS,
    SPLITS,
    SUFFIXES,
    Background,
    Distractors,
    background_rng,
    build_background,
    describe_files,
    split_files,
)
from envs.rendering import QUALITIES, Screen
from harness.checks import check_choice, check_least

PIECES = 16  # of a background that follow each other


@dataclass(frozen=True)
class SceneConfig(EnvConfig):
    """A family drawn by MuJoCo, whose sky and floor a background can replace."""

    simulator: ClassVar[tuple[str, ...]] = ("dm-control", "mujoco")

    size: int = 84  # pixels, height and width
    camera: str = ""  # camera of the frames: a name, or azimuth/elevation in degrees; empty: the usual one
    views: list[str] = field(default_factory=list)  # further cameras, which a recording keeps beside the frames
    quality: str = "fast"  # full adds shadows, reflections and smooth edges, and is many times slower on a CPU
    background: str = "none"  # what stands in place of sky and floor
    background_folder: str = ""  # folder of the images or videos
    background_split: str = "train"  # eval shares no background with train
    background_gray: bool = False  # without its colours
    background_speed: int = 0  # its pictures that pass in an agent step; 0: one a control step; DBC's code: 1
    background_fixed: bool = False  # it continues across episodes, as in DBC's code; false: it starts anywhere
    background_floor: bool = True  # it stands in place of the floor too; false: of the sky alone
    pixel_noise: float = 0.0  # standard deviation of Gaussian noise on each pixel of each frame, in levels of 255
    balls: int = 10  # balls of background=gas
    films: int = 1  # background=gas: films of 1,000 steps in each split; 0: backgrounds never repeat

    def __post_init__(self) -> None:
        check_choice("env.quality", self.quality, QUALITIES)
        check_choice("env.background", self.background, BACKGROUNDS)
        check_choice("env.background_split", self.background_split, SPLITS)
        check_least(1, "env", num_envs=self.num_envs, size=self.size, balls=self.balls)
        check_least(0, "env", films=self.films, background_speed=self.background_speed, pixel_noise=self.pixel_noise)

    def build_background(self) -> Background | None:
        """What moves behind one copy; see `envs.distractors.build_background`."""
        return build_background(
            self.background,
            self.size,
            balls=self.balls,
            films=self.films,
            folder=self.background_folder,
            split=self.background_split,
            gray=self.background_gray,
        )

    def build_distractors(self) -> Distractors:
        """Those of one copy."""
        return Distractors(
            self.build_background(),
            self.background_split,
            speed=self.background_speed,
            fixed=self.background_fixed,
            noise=self.pixel_noise,
        )

    @property
    def distracted(self) -> bool:
        """Whether anything is seen that means nothing."""
        return self.background != "none" or self.pixel_noise > 0

    @property
    def columns(self) -> tuple[str, ...]:
        """See `EnvConfig.columns`."""
        return ("clean", "seen") if self.distracted else ()

    def background_files(self, split: str) -> list[Path]:
        """The files of a split of the backgrounds; none where those are generated."""
        if self.background not in SUFFIXES:
            return []
        return split_files(Path(self.background_folder), self.background)[split]

    def background_clips(self, split: str, count: int, length: int) -> NDArray[np.uint8]:
        """Pieces (count, length, 3, H, W) of the backgrounds of a split, as they pass in agent steps; black without."""
        background = replace(self, background_split=split).build_background()
        if background is None:
            return np.zeros((count, length, 3, self.size, self.size), np.uint8)
        skip = (self.background_speed or self.repeat) - 1
        rng, clips = background_rng(np.random.SeedSequence(0), split), []
        for i in range(count):
            if i % PIECES == 0:  # each start may read another file
                background.start(rng)
            clips.append([background.frame(skip) for _ in range(length)])
        return np.array(clips).transpose(0, 1, 4, 2, 3)

    def build_screens(self, physics: Any, usual: str = "") -> list[Screen]:
        """The camera of the frames, then the further ones; see `envs.rendering.Screen`.

        Args:
            physics: has not rendered yet.
            usual: stands for no name.
        """
        hidden = {"hide_background": self.background != "none", "hide_floor": self.background_floor}
        cameras = (self.camera or usual, *self.views)
        return [Screen(physics, self.size, camera, self.quality, **hidden) for camera in cameras]

    def protocol(self, name: str | None = None) -> Protocol:
        """See `EnvConfig.protocol`: `env`, with backgrounds that were not seen in training; `seen`, with those of
        the training; `clean`, without any distractor.
        """
        if name == "clean":
            return Protocol(name, 0.0, replace(self, background="none", pixel_noise=0.0))
        if name == "seen":
            return Protocol(name, 0.0, replace(self, background_split="train"))
        return replace(super().protocol(name), env=replace(self, background_split="eval"))

    def display(self, size: int) -> Self:
        """See `EnvConfig.display`."""
        return replace(self, size=size)

    def files(self) -> dict[str, Any]:
        """See `EnvConfig.files`: those of the backgrounds."""
        return describe_files(self.background, self.background_folder)

    def description(self) -> dict[str, Any]:
        """See `EnvConfig.description`: the files of the backgrounds in place of their folder."""
        described = super().description()
        del described["background_folder"]
        return described | self.files()

    def check_training(self) -> None:
        """See `EnvConfig.check_training`: the backgrounds of evaluation stay unseen."""
        if self.background_split != "train":
            raise ValueError(
                f"env.background_split={self.background_split} is for evaluation: leave it out of a training"
            )
