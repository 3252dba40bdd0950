"""Goal spaces: auxiliary tasks that define goals, saved to a file, loaded and used."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aux_tasks import TASKS, AuxSuite, TaskSetting
from aux_tasks.config import options_of
from aux_tasks.goals.base import GoalTask
from configs.schema import Config, PretrainConfig
from encoders import Encoder, EncoderConfig, build_encoder
from experiment.folders.weights import load_weights, read_weights, write_weights
from experiment.folders.zoo import locate
from experiment.goals.check import check_goal_space
from harness.files import replacing
from harness.process import pick_device

GOAL_SPACE_FILE = "goal_space.safetensors"  # in the folder of a pretraining, and of a training that uses it
PIXELS = "pixels"  # goal.space=pixels: the pictures themselves, as a baseline
AUX = "aux"  # goal.space=aux: the auxiliary task of the run, which learns during it


# --- files ---


def goal_task(suite: AuxSuite) -> tuple[str, GoalTask] | None:
    """The name and the auxiliary task that defines goals; None unless there is exactly one."""
    tasks = [(name, task) for name, task in suite if isinstance(task, GoalTask)]
    return tasks[0] if len(tasks) == 1 else None


def own_goal_task(suite: AuxSuite, encoder: Encoder) -> tuple[GoalTask, Encoder]:
    """The auxiliary task that is the goal space of its own run, and the encoder that it trains.

    Args:
        encoder: the agent's.

    Raises:
        ValueError: not exactly one task defines goals.
    """
    if (found := goal_task(suite)) is None:
        raise ValueError("goal.space=aux needs one auxiliary task that defines goals, such as aux=rig")
    name, task = found
    return task, suite.encoder_of(name, encoder)


def export_goal_space(
    config: PretrainConfig | Config,
    encoder: Encoder,
    suite: AuxSuite,
    actions: tuple[int | None, int],
    folder: Path,
) -> None:
    """Write `goal_space.safetensors`: encoder and goal task, and everything needed to build them.

    Nothing is written unless exactly one task of the run defines goals.

    Args:
        actions: `num_actions` and `action_dim` of the data that the task learned from.
    """
    if (found := goal_task(suite)) is None:
        return
    name, task = found
    encoder = suite.encoder_of(name, encoder)
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
    weights = {key: value.contiguous() for key, value in parts.state_dict().items()}
    write_weights(weights, folder / GOAL_SPACE_FILE, network)


def space_file(space: str) -> Path:
    """The file of a goal space.

    Args:
        space: the file, or the folder of a pretraining.

    Raises:
        ValueError: there is none.
    """
    path = locate(space)
    file = path / GOAL_SPACE_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"goal.space={space}: {file} does not exist; pretrain.py writes it where one auxiliary task defines goals"
        )
    return file


def copy_goal_space(config: Config, run_dir: Path) -> None:
    """Copy the goal space into the folder of a run, which can then be evaluated without the pretraining.

    A new copy is checked by `check_goal_space`.

    Raises:
        ValueError: the run was trained with another goal space.
    """
    if config.goal.space in (None, PIXELS, AUX):
        return
    kept = run_dir / GOAL_SPACE_FILE
    try:
        source = space_file(config.goal.space)
    except ValueError:
        if not kept.is_file():
            raise
        return
    if not kept.is_file():
        with replacing(kept) as temporary:
            shutil.copyfile(source, temporary)
        check_goal_space(config.env, TaskSpace.load(kept, pick_device(config.device)), config.seed)
    elif read_weights(kept)[1] != read_weights(source)[1]:
        raise ValueError(f"{run_dir} was trained with another goal space than {source}: give run_dir=...")


# --- in use ---


class TaskSpace:
    """A goal task and its encoder as an `envs.goals.GoalSpace`, which takes and returns NumPy arrays.

    Neither is changed here. If they go on learning, the goals change with them.
    """

    def __init__(self, task: GoalTask, encoder: Encoder, device: torch.device) -> None:
        self.task, self.encoder, self._device = task, encoder, device

    @classmethod
    def load(cls, file: Path, device: torch.device) -> "TaskSpace":
        """The space in a file that `export_goal_space` wrote.

        Raises:
            ValueError: the file is missing or damaged, or its task or encoder is not registered.
        """
        network = read_weights(file)[1]
        try:
            channels, height, width = map(int, network["obs_shape"])
            encoder = build_encoder(EncoderConfig(**network["encoder"]), (channels, height, width))
            kind, options = TASKS[network["task"]], network["options"]
            if unknown := options.keys() - options_of(kind).keys():
                raise ValueError(f"unknown options {sorted(unknown)}")
            generator = torch.Generator(device)
            task = kind(TaskSetting(encoder=encoder, generator=generator, **network["setting"]), **options)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} does not say which goal space it holds: {error!r}") from error
        if not isinstance(task, GoalTask):
            raise ValueError(f"{file} holds {network['task']}, which defines no goals")
        parts = torch.nn.ModuleDict({"encoder": encoder, "task": task})
        load_weights(parts, file)
        parts.to(device).eval().requires_grad_(False)
        return cls(task, encoder, device)

    @property
    def goal_dim(self) -> int:
        """See `envs.goals.GoalSpace`."""
        return self.task.goal_dim

    @property
    def feature_dim(self) -> int:
        """See `envs.goals.GoalSpace`."""
        return self.encoder.feature_dim

    @torch.inference_mode()
    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        return _array(self.encoder(self._tensor(frames)))

    @torch.inference_mode()
    def embed(self, frames: NDArray[np.uint8], context: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`.

        Raises:
            ValueError: the pictures have another shape than those it was trained on.
        """
        if frames.shape[1:] != (shape := self.encoder.obs_shape):
            raise ValueError(f"the goal space is of pictures {shape}, these are {frames.shape[1:]}")
        beside = self._tensor(context) if self.task.uses_context else None
        return _array(self.task.embed(self._tensor(frames), self.encoder, beside))

    @torch.inference_mode()
    def compared(self, goals: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part (M, G') of goals (M, G) that rewards depend on."""
        return _array(self.task.compared(self._tensor(goals)))

    @torch.inference_mode()
    def reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        return _array(self.task.reward(self._tensor(achieved), self._tensor(desired)))

    @torch.inference_mode()
    def imagine(self, achieved: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """See `envs.goals.GoalSpace`."""
        stream = self.task.generator  # that of the training, which goes on as it would have
        self.task.generator = torch.Generator(self._device).manual_seed(int(rng.integers(2**63)))
        try:
            return _array(self.task.imagine(self._tensor(achieved)))
        finally:
            self.task.generator = stream

    @torch.inference_mode()
    def decode(self, goals: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """Pictures (M, C, H, W) of goals (M, G); None where the task has no decoder."""
        decoded = self.task.decode(self._tensor(goals))
        return None if decoded is None else decoded.cpu().numpy()

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array
