"""Goal spaces on disk, and environments seen through them."""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aux_tasks import TASKS, AuxSuite, TaskSetting
from aux_tasks.config import options_of
from aux_tasks.goals.base import GoalTask
from configs.schema import Config, PretrainConfig
from encoders import Encoder, EncoderConfig, build_encoder
from envs import EnvConfig, GoalSpaceVector, Protocol
from envs.base import Padding
from experiment.weights import load_weights, read_weights, write_weights
from experiment.zoo import locate
from harness.files import replacing
from harness.media import read_image
from harness.process import pick_device

FILE = "goal_space.safetensors"  # in the folder of a pretraining, and of a training that used it
PIXELS = "pixels"  # goal.space=pixels: the pictures themselves, as a baseline
POOLED = 12  # pixels a side of those


# --- files ---


def export_goal_space(
    config: PretrainConfig, encoder: Encoder, suite: AuxSuite, actions: tuple[int | None, int], folder: Path
) -> None:
    """Write `goal_space.safetensors`: encoder and goal task, with all that is needed to build them.

    Nothing is written unless exactly one task of the run defines goals.

    Args:
        actions: `num_actions` and `action_dim` of what the task learned from.
    """
    tasks = [(name, task) for name, task in suite if isinstance(task, GoalTask)]
    if len(tasks) != 1:
        return
    name, task = tasks[0]
    parts = torch.nn.ModuleDict({"encoder": encoder, "task": task})
    num_actions, action_dim = actions
    network = {
        "encoder": asdict(replace(config.encoder, init=None)),
        "obs_shape": encoder.obs_shape,
        "task": name,
        "options": config.aux[name].options,
        "setting": {
            "frame_stack": config.frame_stack,
            "num_actions": num_actions,
            "action_dim": action_dim,
            "gamma": config.gamma,
        },
    }
    write_weights({key: value.contiguous() for key, value in parts.state_dict().items()}, folder / FILE, network)


def space_file(space: str) -> Path:
    """The file of a goal space: `space` is it, or the folder of a pretraining.

    Raises:
        ValueError: there is none.
    """
    path = locate(space)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"goal.space={space}: {file} does not exist; pretrain.py writes it where one auxiliary task defines goals"
        )
    return file


def keep_goal_space(config: Config, run_dir: Path) -> None:
    """Leave a copy of the goal space in the folder of a run, which can then be evaluated without the pretraining.

    Raises:
        ValueError: the run there was trained with another one.
    """
    if config.goal.space in (None, PIXELS):
        return
    kept = run_dir / FILE
    try:
        source = space_file(config.goal.space)
    except ValueError:
        if not kept.is_file():
            raise
        return
    if not kept.is_file():
        with replacing(kept) as temporary:
            shutil.copyfile(source, temporary)
    elif read_weights(kept)[1] != read_weights(source)[1]:
        raise ValueError(f"{run_dir} was trained with another goal space than {source}: give run_dir=...")


# --- in use ---


class FrozenSpace:
    """A goal task and its encoder behind NumPy: what `envs.goals.GoalSpace` asks for.

    Args:
        file: that `export_goal_space` wrote.
        device: where the networks are.

    Raises:
        ValueError: missing, damaged, or of a task or encoder that is not here.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        _, network = read_weights(file)
        try:
            channels, height, width = map(int, network["obs_shape"])
            self.obs_shape, setting = (channels, height, width), network["setting"]
            encoder = build_encoder(EncoderConfig(**network["encoder"]), self.obs_shape)
            kind, options = TASKS[network["task"]], network["options"]
            if unknown := options.keys() - options_of(kind).keys():
                raise ValueError(f"unknown options {sorted(unknown)}")
            generator = torch.Generator(device)
            task = kind(TaskSetting(encoder=encoder, generator=generator, **setting), **options)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} does not say which goal space it holds: {error!r}") from error
        if not isinstance(task, GoalTask):
            raise ValueError(f"{file} holds {network['task']}, which defines no goals")
        parts = torch.nn.ModuleDict({"encoder": encoder, "task": task})
        load_weights(parts, file)
        parts.to(device).eval().requires_grad_(False)
        self.encoder, self.task, self._device = encoder, task, device

    @property
    def goal_dim(self) -> int:
        """See `envs.goals.GoalSpace`."""
        return self.task.goal_dim

    @torch.inference_mode()
    def embed(self, frames: NDArray[np.uint8], context: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`.

        Raises:
            ValueError: the pictures have another shape than those that it learned from.
        """
        if frames.shape[1:] != self.obs_shape:
            raise ValueError(f"the goal space is of pictures {self.obs_shape}, these are {frames.shape[1:]}")
        beside = self._tensor(context) if self.task.uses_context else None
        return _array(self.task.embed(self._tensor(frames), self.encoder, beside))

    @torch.inference_mode()
    def reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        return _array(self.task.reward(self._tensor(achieved), self._tensor(desired)))

    @torch.inference_mode()
    def imagine(self, achieved: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        self.task.generator.manual_seed(int(rng.integers(2**63)))
        return _array(self.task.imagine(self._tensor(achieved)))

    @torch.inference_mode()
    def decode(self, goals: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """Pictures (M, C, H, W) of goals (M, G); None where the task has no decoder."""
        decoded = self.task.decode(self._tensor(goals))
        return None if decoded is None else decoded.cpu().numpy()

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


class PixelSpace:
    """Pictures averaged to 12 x 12 pixels as goals, the baseline without a representation."""

    def __init__(self, frame_shape: tuple[int, int, int]) -> None:
        self.goal_dim = frame_shape[0] * POOLED**2

    def embed(self, frames: NDArray[np.uint8], context: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        """See `envs.goals.GoalSpace`."""
        pooled = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(frames)).float() / 255, POOLED)
        return _array(pooled.flatten(1))

    def reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        distance: NDArray[np.float32] = np.linalg.norm(achieved - desired, axis=1)
        return -distance

    def imagine(self, achieved: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """See `envs.goals.GoalSpace`."""
        raise ValueError("goal.space=pixels cannot imagine goals: give goal.source=env")


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array


# --- environments ---


@dataclass(frozen=True)
class GoalSpaceEnv(EnvConfig):
    """An environment seen through a goal space; all else is as `env` says."""

    env: EnvConfig = field(kw_only=True)
    space: str = field(kw_only=True)  # its file, or `pixels`
    observe: str = field(kw_only=True)
    source: str = field(kw_only=True)
    picture: str | None = None  # to reach, in place of other goals
    device: str = "cpu"  # where pictures are embedded

    def build(self, labels: bool = False) -> GoalSpaceVector:
        """See `EnvConfig.build`."""
        env = replace(self.env, num_envs=self.num_envs).build(labels)
        try:
            space: FrozenSpace | PixelSpace = PixelSpace(env.frame_shape)
            if self.space != PIXELS:
                space = FrozenSpace(Path(self.space), torch.device(self.device))
            picture = read_image(Path(self.picture), env.frame_shape[1]).transpose(2, 0, 1) if self.picture else None
            return GoalSpaceVector(env, space, observe=self.observe, source=self.source, goal=picture)
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
        """See `EnvConfig.protocol`: goals are those of the environment."""
        protocol = self.env.protocol(name)
        env = replace(self, env=protocol.env, num_envs=protocol.env.num_envs, source="env")
        return replace(protocol, env=env)

    def display(self, size: int) -> EnvConfig | None:
        """See `EnvConfig.display`."""
        return replace(self.env, num_envs=self.num_envs).display(size)

    def files(self) -> dict[str, Any]:
        """See `EnvConfig.files`."""
        return self.env.files()


def world_of(config: Config, folder: Path, picture: str | None = None) -> EnvConfig:
    """The environment that the agent of a run sees.

    Args:
        config: of the run.
        folder: of the run, which may hold its goal space.
        picture: to reach in every episode.

    Raises:
        ValueError: the goal space is missing, or there is none for the picture.
    """
    goal, device = config.goal, str(pick_device(config.device))
    if goal.space is None:
        if picture:
            raise ValueError(f"goal={picture}: {folder} has no goal space to compare pictures in")
        return config.env
    space = goal.space
    if (folder / FILE).is_file():
        space = str(folder / FILE)
    elif space != PIXELS:
        space = str(space_file(space))
    return GoalSpaceEnv(
        "goal_space",
        config.env.num_envs,
        env=config.env,
        space=space,
        observe=goal.observe,
        source=goal.source,
        picture=picture,
        device=device,
    )
