"""Where pretraining and probes get their frames, by the name that a config uses."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from harness.checks import check_choice, check_least

if TYPE_CHECKING:
    from datasets import Episodes

CROPS = ("middle", "face")


@dataclass(frozen=True)
class SourceConfig:
    """Where frames come from; `name` says which of `SOURCES`."""

    name: str = field(kw_only=True)

    def read(self, seed: int) -> "Episodes":  # noqa: ARG002
        """The episodes of a source that a user's module adds; those of this project have readers of their own.

        Raises:
            ValueError: they cannot be read.
        """
        raise ValueError(f"source={self.name}: there is no reader for it")


@dataclass(frozen=True)
class FramesConfig(SourceConfig):
    """Frames of the environment `env`, recorded once and used again."""

    name: str = field(default="frames", kw_only=True)
    frames: int = 12_000  # frames to record, of all environment copies together
    policy: str = "random"  # random, or a run folder or folder of zoo/: its agent, with 5 % random actions
    path: str | None = None  # folder of the recording; default: in data/frames, named by all settings

    def __post_init__(self) -> None:
        check_least(1, "source", frames=self.frames)


@dataclass(frozen=True)
class ReplayRunConfig(SourceConfig):
    """The replay that a training left in its newest checkpoint."""

    name: str = field(default="replay", kw_only=True)
    run: str = MISSING  # run folder of a training


@dataclass(frozen=True)
class ImagesConfig(SourceConfig):
    """A folder of images: folder/class/image.png, folder/class/group/image.png, or without labels."""

    name: str = field(default="images", kw_only=True)
    folder: str = MISSING  # folder of the images
    size: int = 64  # pixels, height and width
    crop: str = "middle"  # the middle square, or face: the largest face, for the extra `faces`

    def __post_init__(self) -> None:
        check_least(1, "source", size=self.size)
        check_choice("source.crop", self.crop, CROPS)


@dataclass(frozen=True)
class VideosConfig(SourceConfig):
    """A folder of video files: folder/class/group.mp4, folder/class/group/video.mp4, or without labels."""

    name: str = field(default="videos", kw_only=True)
    folder: str = "data/clips"  # folder of the video files; `make clips` brings three
    size: int = 64  # pixels, height and width
    stride: int = 1  # one of so many frames is used; 1: all
    cut: float = 40.0  # mean difference of two frames, of 255, above which the second begins another shot
    crop: str = "middle"  # the middle square, or face: the largest face, for the extra `faces`

    def __post_init__(self) -> None:
        check_least(1, "source", size=self.size, stride=self.stride)
        check_choice("source.crop", self.crop, CROPS)


@dataclass(frozen=True)
class MultiviewConfig(SourceConfig):
    """A folder of videos that several cameras took at the same time: folder/sequence/camera.mp4."""

    name: str = field(default="multiview", kw_only=True)
    folder: str = MISSING  # folder of the sequences
    size: int = 64  # pixels, height and width
    stride: int = 1  # one of so many frames is used; 1: all

    def __post_init__(self) -> None:
        check_least(1, "source", size=self.size, stride=self.stride)


@dataclass(frozen=True)
class IdxConfig(SourceConfig):
    """A folder of IDX files, such as those of MNIST and Fashion-MNIST."""

    name: str = field(default="idx", kw_only=True)
    folder: str = "data/mnist"  # folder of the IDX files; `make mnist` brings MNIST


@dataclass(frozen=True)
class BallsConfig(SourceConfig):
    """Coloured balls that fall and bounce, with their positions and speeds as labels, made in memory."""

    name: str = field(default="balls", kw_only=True)
    balls: int = 2  # balls in a picture
    episodes: int = 120  # episodes to generate
    length: int = 100  # frames of an episode
    size: int = 32  # pixels, height and width

    def __post_init__(self) -> None:
        check_least(1, "source", balls=self.balls, episodes=self.episodes, length=self.length, size=self.size)


@dataclass(frozen=True)
class TripletsConfig(SourceConfig):
    """Pictures before and after a grasp, and of what was grasped: of `env=grasping`, recorded once, or of a folder."""

    name: str = field(default="triplets", kw_only=True)
    grasps: int = 10_000  # successful grasps to record, each at the middle of an object
    path: str | None = None  # folder of the recording; default: in data/triplets, named by all settings
    folder: str | None = None  # your own: folder/<grasp>/before.png, after.png and outcome.png, in place of a recording
    size: int = 64  # pixels, height and width, of the pictures of `folder`

    def __post_init__(self) -> None:
        check_least(1, "source", grasps=self.grasps, size=self.size)


SOURCES: dict[str, type[SourceConfig]] = {
    "frames": FramesConfig,
    "replay": ReplayRunConfig,
    "images": ImagesConfig,
    "videos": VideosConfig,
    "multiview": MultiviewConfig,
    "idx": IdxConfig,
    "balls": BallsConfig,
    "triplets": TripletsConfig,
}
