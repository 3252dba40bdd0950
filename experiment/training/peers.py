"""Training of Stable-Baselines3's agents, with the environments, log, evaluation and run folder of this suite."""

import logging
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import ClipReward
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.peers import PeerConfig
from configs.schema import Config, flat
from envs import EnvConfig, Observation, SingleEnv
from experiment.folders.next_commands import log_outputs, log_views, training_command
from experiment.folders.run_folder import claim_run_dir
from experiment.training.charts import open_logger
from experiment.training.ending import Player, write_score
from experiment.training.monitoring import log_row, log_scores
from experiment.training.rescue import check_saved, saving_on_error
from experiment.training.run import Progress
from harness.checkpoint import load_latest, save, warning_if_unsaved
from harness.files import replacing
from harness.finite import check_finite
from harness.logger import RunLogger
from harness.process import pick_device, tune_process
from harness.seeding import derive
from harness.signals import GracefulExit

log = logging.getLogger("sidequest")

MODEL = "model.zip"  # in the run folder
NEVER = sys.maxsize  # episodes between rows of Stable-Baselines3's own log


@dataclass(frozen=True)
class PeerTraining:
    """A training of a Stable-Baselines3 agent in its run folder."""

    config: Config
    model: BaseAlgorithm
    progress: Progress
    run_dir: Path
    logger: RunLogger
    stop: GracefulExit


def train_peer(config: Config) -> int:
    """Run or resume a training; returns the exit code of the process: 0, or 128 + the signal that ended it.

    Checkpoints hold networks, optimisers and counts. A resumed run begins with an empty replay and new episodes, so
    it does not repeat an uninterrupted run.
    """
    threads = tune_process(config.threads)
    assert isinstance(config.agent, PeerConfig)
    with closing(build_vec_env(config.env, config.frame_stack, config.clip_reward)) as env:
        seed = derive(config.seed, "peer") % 2**32  # copy i has the seed i above this one
        model = config.agent.build(env, gamma=config.gamma, seed=seed, device=pick_device(config.device))
        model.set_logger(Logger(None, []))
        with claim_run_dir(config) as run_dir:  # only now, so that a config that cannot be built leaves no folder
            progress = restore(model, run_dir, config.seed)
            begun = progress.steps
            log.info("%s: step %d of %d, %d torch threads", run_dir, begun, config.steps, threads)
            with open_logger(run_dir, step=begun, total=config.steps, tasks=()) as logger:
                stop = GracefulExit()
                run = PeerTraining(config, model, progress, run_dir, logger, stop)
                if begun < config.steps:
                    (run_dir / MODEL).unlink(missing_ok=True)  # of an earlier step
                    with stop, saving_on_error(run_dir, partial(save_peer, run)):
                        learn(run)
                if stop.requested:
                    log.info("%s: saved at step %d; run the same command to resume", stop.requested, progress.saved)
                    return stop.exit_code
                check_saved(run_dir, progress.saved, progress.steps)
                finish_peer(run)
    log_outputs({"video": run_dir / "game.mp4", "model": run_dir / MODEL})
    log_views(run_dir)
    return 0


def learn(run: PeerTraining) -> None:
    """Train to the last step or to a signal, and save."""
    config, progress, begun = run.config, run.progress, run.progress.steps
    if progress.evaluation_due:
        log_scores(config, progress, run.logger, policy_of(run.model), config.env, run.stop)
    steps, first = config.steps - begun, not begun
    run.model.learn(steps, TrainingCallback(run), log_interval=NEVER, reset_num_timesteps=first)
    save_peer(run)


class TrainingCallback(BaseCallback):
    """Counts, logs, evaluates and saves at the same steps as the training loop of this suite."""

    def __init__(self, run: PeerTraining) -> None:
        super().__init__()
        self._run = run

    def _on_step(self) -> bool:
        run, progress, config = self._run, self._run.progress, self._run.config
        progress.stride = self.training_env.num_envs
        progress.steps, progress.updates = self.num_timesteps, self.model._n_updates
        for episode in (info["episode"] for info in self.locals["infos"] if "episode" in info):
            progress.add_episode(float(episode["r"]), int(episode["l"]))
        run.logger.meter.tick(progress.steps)
        last = progress.steps >= config.steps
        saving = run.stop.save_requested or progress.due(config.checkpoint_every)
        if progress.due(config.log_every) or saving or last:
            log_peer(run)
        if progress.due(config.eval_every):
            log_scores(config, progress, run.logger, policy_of(run.model), config.env, run.stop)
        if saving and not last:
            run.stop.save_requested = False
            save_peer(run)
        return not last and not run.stop.requested


def build_vec_env(config: EnvConfig, frame_stack: int, clip_reward: bool) -> DummyVecEnv:
    """The environment copies, each as an environment of its own, as Stable-Baselines3 expects.

    Raises:
        ValueError: the observations are not pixels.
    """

    def one() -> gymnasium.Env[NDArray[np.uint8], Any]:
        vector = replace(config, num_envs=1).build()
        if vector.frame_dtype != np.uint8:
            raise ValueError(f"env={config.name} gives states, but the agents of Stable-Baselines3 read pixels here")
        env = Monitor(SingleEnv(vector, frame_stack, config.padding))  # raw returns
        return ClipReward(env, -1, 1) if clip_reward else env

    return DummyVecEnv([one] * config.num_envs)


def policy_of(model: BaseAlgorithm) -> Callable[[Observation], NDArray[Any]]:
    """The policy of the model, without exploration."""

    def act(obs: Observation) -> NDArray[Any]:
        return model.predict(obs.pixels, deterministic=True)[0]

    return act


def log_peer(run: PeerTraining) -> None:
    """Log what the agent logged since the last row, and the training episodes."""
    progress, logged = run.progress, run.model.logger.name_to_value
    metrics = {tag: float(value) for tag, value in logged.items() if tag.startswith(("train/", "rollout/"))}
    logged.clear()
    run.model.logger.name_to_count.clear()
    log_row(run.config, progress, run.logger, metrics)


def save_peer(run: PeerTraining) -> None:
    """Save networks, optimisers and counts, but not the replay, if there was a step since the last checkpoint.

    If the disk refuses, warn and keep the previous checkpoint.

    Raises:
        NonFiniteError: a tensor holds NaN or infinity; nothing was written.
    """
    model, progress = run.model, run.progress
    if progress.saved == progress.steps:
        return
    run.logger.flush()
    variables = {name: getattr(model, name).detach() for name in model._get_torch_save_params()[1]}
    saved = replace(progress, saved=progress.steps)
    state = {"networks": model.get_parameters(), "variables": variables, "progress": asdict(saved)}
    check_finite(state["networks"], progress.steps)
    with warning_if_unsaved(progress.steps):
        save(run.run_dir / "checkpoints", progress.steps, state)
        progress.saved = progress.steps


def restore(model: BaseAlgorithm, run_dir: Path, seed: int) -> Progress:
    """Continue from the newest checkpoint of a run's folder, if there is one.

    Raises:
        CheckpointError: no checkpoint can be read, or it is of another run.
    """
    checkpoint = load_latest(run_dir / "checkpoints")
    if not checkpoint:
        return Progress()
    with checkpoint.restoring() as state:
        model.set_parameters(state["networks"], device=model.device)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        progress = Progress(**state["progress"])
        progress.check(checkpoint.step, progress.updates)
    model.num_timesteps, model._n_updates = progress.steps, progress.updates
    model.set_random_seed(derive(seed, "env", progress.steps) % 2**32)  # new episodes
    return progress


def finish_peer(run: PeerTraining) -> None:
    """Write the model in Stable-Baselines3's format, report, row of the log and video, where they are missing."""
    config, model, weights = run.config, run.model, run.run_dir / MODEL
    if not is_zipfile(weights):
        with replacing(weights) as temporary, temporary.open("wb") as file:
            model.save(file)
    if config.eval_episodes:
        command = training_command(flat(config)) or f"the config of {run.run_dir}"
        assert isinstance(model.action_space, Discrete | Box)
        player = Player(policy_of(model), weights, model.action_space, {}, command)
        write_score(config, run.progress, run.logger, player)
