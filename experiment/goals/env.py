"""The environment as the agent of a run sees it: unchanged, or through a goal space."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from configs.schema import Config, GoalConfig
from datasets.readers import read_recording
from envs import EnvConfig, GoalSpaceVector, ImitationVector, Protocol, VectorEnv
from envs.base import Padding
from experiment.folders.weights import read_weights
from experiment.goals.space import AUX, GOAL_SPACE_FILE, PIXELS, TaskSpace, space_file
from harness.files import digest
from harness.media import read_image, read_video
from harness.process import pick_device

POOLED = 12  # pixels of a side, in goal.space=pixels


class PixelSpace:
    """Goals are pictures averaged to 12 x 12 pixels: the baseline without a learned representation."""

    def __init__(self, frame_shape: tuple[int, int, int]) -> None:
        self.goal_dim, self._size = frame_shape[0] * POOLED**2, frame_shape[1:]

    def embed(self, frames: NDArray[np.uint8], context: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        """See `envs.goals.GoalSpace`."""
        pooled = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(frames)).float() / 255, POOLED)
        array: NDArray[np.float32] = pooled.flatten(1).numpy()
        return array

    @property
    def feature_dim(self) -> int:
        """See `envs.goals.GoalSpace`."""
        return self.goal_dim

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        return self.embed(frames, frames)

    def reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        distance: NDArray[np.float32] = np.linalg.norm(achieved - desired, axis=1)
        return -distance

    def decode(self, goals: NDArray[np.float32]) -> NDArray[np.uint8]:
        """See `envs.goals.GoalSpace`."""
        coarse = torch.from_numpy(goals * 255).to(torch.uint8).view(len(goals), -1, POOLED, POOLED)
        pictures: NDArray[np.uint8] = F.interpolate(coarse, self._size).numpy()
        return pictures

    def imagine(self, achieved: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """See `envs.goals.GoalSpace`."""
        raise ValueError("goal.space=pixels cannot imagine goals: give goal.source=env")


@dataclass(frozen=True)
class GoalSpaceEnv(EnvConfig):
    """An environment seen through a goal space; everything else is delegated to `env`."""

    env: EnvConfig = field(kw_only=True)
    space: str = field(kw_only=True)  # its file, or `pixels`
    goal: GoalConfig = field(kw_only=True)  # what the agent observes, where goals come from, what it imitates
    picture: str | None = None  # the goal, in place of all others
    device: str = "cpu"  # where pictures are embedded
    evaluated: bool = False  # whether goals are those of an evaluation

    def build(self, labels: bool = False) -> GoalSpaceVector | ImitationVector:
        """See `EnvConfig.build`."""
        env = replace(self.env, num_envs=self.num_envs).build(labels)
        try:
            space: TaskSpace | PixelSpace = PixelSpace(env.frame_shape)
            if self.space != PIXELS:
                space = TaskSpace.load(Path(self.space), torch.device(self.device))
            if self.goal.demonstration:
                shown = read_demonstration(Path(self.goal.demonstration), self.goal.view, env.frame_shape[1])
                return ImitationVector(env, space, shown)
            source = self.goal.source
            if self.evaluated:  # without pictures of its own goals, the space imagines them
                source = "env" if type(env).goal_frame is not VectorEnv.goal_frame else "imagined"
            picture = read_image(Path(self.picture), env.frame_shape[1]).transpose(2, 0, 1) if self.picture else None
            return GoalSpaceVector(env, space, observe=self.goal.observe, source=source, goal=picture)
        except ValueError:
            env.close()
            raise

    @property
    def padding(self) -> Padding:
        """See `EnvConfig.padding`."""
        return self.env.padding

    @property
    def fps(self) -> float:
        """See `EnvConfig.fps`."""
        return self.env.fps

    @property
    def repeat(self) -> int:
        """See `EnvConfig.repeat`."""
        return self.env.repeat

    def protocol(self, name: str | None = None) -> Protocol:
        """See `EnvConfig.protocol`. The goals are the environment's own if it has pictures of them."""
        protocol = self.env.protocol(name)
        env = replace(self, env=protocol.env, num_envs=protocol.env.num_envs, evaluated=True)
        return replace(protocol, env=env)

    def display(self, size: int) -> EnvConfig | None:
        """See `EnvConfig.display`."""
        return replace(self.env, num_envs=self.num_envs).display(size)

    def files(self) -> dict[str, Any]:
        """See `EnvConfig.files`."""
        return self.env.files()

    @property
    def columns(self) -> tuple[str, ...]:
        """See `EnvConfig.columns`."""
        return self.env.columns

    @property
    def simulator(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `EnvConfig`."""
        return self.env.simulator

    def description(self) -> dict[str, Any]:
        """See `EnvConfig.description`. Goal space, picture and demonstration are given by SHA-256."""
        space = PIXELS if self.space == PIXELS else read_weights(Path(self.space))[1]["sha256"]
        seen = {"space": space, "observe": self.goal.observe}
        for name, path in {"picture": self.picture, "demonstration": self.goal.demonstration}.items():
            seen[name] = path and digest(Path(path))
        return replace(self.env, num_envs=self.num_envs).description() | {"goal": seen}


def env_of_run(config: Config, folder: Path, picture: str | None = None) -> EnvConfig:
    """The environment as the agent of a run sees it.

    Args:
        config: of the run.
        folder: of the run; it may hold the goal space.
        picture: the goal of every episode.

    Raises:
        ValueError: the goal space is missing, or the run has none to embed the picture in.
    """
    goal = config.goal
    if goal.space is None or (goal.space == AUX and not (folder / GOAL_SPACE_FILE).is_file()):
        if picture:
            raise ValueError(f"goal={picture}: {folder} has no goal space to compare pictures in")
        return config.env
    space = goal.space
    if (folder / GOAL_SPACE_FILE).is_file():
        space = str(folder / GOAL_SPACE_FILE)
    elif space != PIXELS:
        space = str(space_file(space))
    device = str(pick_device(config.device))
    return GoalSpaceEnv(
        "goal_space", config.env.num_envs, env=config.env, space=space, goal=goal, picture=picture, device=device
    )


def read_demonstration(path: Path, view: int, size: int) -> NDArray[np.uint8]:
    """The pictures (T, C, H, W) of a video, resized, or of one view of the first episode of a recording.

    Raises:
        ValueError: the path is neither, or the recording has no such view.
    """
    if not path.is_dir():
        return np.stack([picture.transpose(2, 0, 1) for picture in read_video(path, size)])
    episodes = read_recording(path)
    views = episodes.frames[:, None] if episodes.views is None else episodes.views
    if not 0 <= view < views.shape[1]:
        raise ValueError(f"goal.view={view}: {path} has {views.shape[1]} views, counted from 0")
    return np.asarray(views[episodes.begin[0] : episodes.end[0], view])
