"""A training: its progress, its update, and how it is saved and restored."""

from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import floor, isfinite
from pathlib import Path

import numpy as np
import torch

from agents import Captured, Update
from analysis.denoising import DenoisingTest
from analysis.probes import OnlineProbe
from configs.schema import Config
from envs import action_sizes
from experiment.folders.weights import export_agent
from experiment.goals.space import AUX, export_goal_space
from experiment.training.build import Parts
from experiment.training.collecting import Collector
from experiment.training.solved import SolvedTasks
from harness.checkpoint import load_latest, save, warning_if_unsaved
from harness.finite import check_finite
from harness.logger import MetricWindow, RunLogger
from replay import Batch

MEAN_EPISODES = 100  # episodes that the logged means are of
SCORE_EPISODES = 10  # episodes whose mean return `until_score` is compared with


@dataclass
class Progress:
    """The progress of a training. Steps are agent steps, summed over the environment copies."""

    steps: int = 0
    updates: int = 0
    episodes: int = 0  # whole ones
    episodes_logged: int = 0
    returns: list[float] = field(default_factory=list)  # raw, of the most recent episodes
    lengths: list[int] = field(default_factory=list)  # agent steps
    successes: list[float] = field(default_factory=list)  # 1 if the goal was reached at the end; empty without goals
    goal_distances: list[float] = field(default_factory=list)  # at the end
    saved: int = 0  # `steps` at the last checkpoint
    cuts_seen: int = 0  # `episodes` when `warn_of_cuts` last looked
    cuts_told: bool = False
    stride: int = 0  # agent steps in one step of all copies
    diagnosis_due: bool = False  # at the next update
    evaluation_due: bool = False  # a signal ended it

    def check(self, steps: int, updates: int) -> None:
        """Raise ValueError unless this can be the progress of a training of so many steps and updates."""
        exact = {"steps": steps, "updates": updates}
        most = {"saved": steps, "episodes_logged": self.episodes}
        for name in ("steps", "updates", "episodes", "episodes_logged", "saved", "cuts_seen", "stride"):
            count = getattr(self, name)
            if type(count) is not int or count < 0 or count != exact.get(name, count) or count > most.get(name, count):
                raise ValueError(f"its progress cannot be: {name} is {count!r}, in a checkpoint of step {steps}")
        numbers = [*self.returns, *self.lengths, *self.successes, *self.goal_distances]
        if not all(type(number) in (int, float) and isfinite(number) for number in numbers):
            raise ValueError("its progress cannot be: returns and lengths are not all finite numbers")

    def add(self, rollout: Collector) -> None:
        """Count the last step of `rollout`, and the episodes that ended at it."""
        self.stride = rollout.num_envs
        self.steps += self.stride
        for episode in rollout.episodes:
            self.add_episode(episode.score, episode.length)
            if episode.success is not None and episode.goal_distance is not None:
                self.successes = [*self.successes, float(episode.success)][-MEAN_EPISODES:]
                self.goal_distances = [*self.goal_distances, episode.goal_distance][-MEAN_EPISODES:]

    def add_episode(self, score: float, length: int) -> None:
        """Count an episode by its raw return and its agent steps."""
        self.episodes += 1
        self.returns = [*self.returns, score][-MEAN_EPISODES:]
        self.lengths = [*self.lengths, length][-MEAN_EPISODES:]

    def due(self, every: int) -> bool:
        """Whether the last step reached or crossed a multiple of `every` agent steps; 0 is never."""
        return every > 0 and self.steps % every < self.stride

    def updates_due(self, config: Config, at: int | None = None) -> int:
        """Updates still to make now, or by step `at`, for `replay_ratio` updates a step since learning started."""
        # As a fraction, 1/10 or 1/3: products of the float may fall just below a whole number.
        ratio = Fraction(config.replay_ratio).limit_denominator(10_000)
        steps = self.steps if at is None else at
        return max(0, floor((steps - config.learning_starts) * ratio) - self.updates)

    def clock(self, config: Config) -> dict[str, int]:
        """Environment steps and updates, for a row of the log."""
        return {"env_steps": self.steps * config.env.repeat, "updates": self.updates}

    def finished(self, config: Config) -> bool:
        """Whether the training ends at this checkpoint: it has made its steps, or reached `until_score`."""
        if self.steps >= config.steps:
            return True
        recent = self.returns[-SCORE_EPISODES:]
        if config.until_score is None or len(recent) < SCORE_EPISODES:
            return False
        return float(np.mean(recent)) >= config.until_score


@dataclass(frozen=True)
class Training:
    """A training in its run folder."""

    config: Config
    parts: Parts
    progress: Progress
    run_dir: Path
    logger: RunLogger
    probe: OnlineProbe | None = None
    denoising: DenoisingTest | None = None
    window: MetricWindow = field(default_factory=MetricWindow)  # metrics since the last row of the log

    @cached_property
    def learn(self) -> Captured[tuple[Batch, Update]]:
        """An update of the agent on a batch, which `update` has counted.

        Without a batch, it draws one on the device and updates the priorities too.
        """
        agent, parts = self.parts.agent, self.parts

        def learn(given: Batch | None) -> tuple[Batch, Update]:
            batch = parts.draw(self.config.batch_size) if given is None else given
            if agent.updates == 1:  # never recorded, since graphs begin later
                agent.fit_moments(batch)
            done = agent.learn(batch)
            if given is None:
                parts.replay.update_priorities(batch.index, done.td_error)
            return batch, done

        generators = [stream for stream in parts.streams if isinstance(stream, torch.Generator)]
        return agent.captured(learn, generators)

    @cached_property
    def solved(self) -> SolvedTasks:
        """The warnings of solved tasks. Tasks that give a bonus are not watched: exploration needs them to the end."""
        taught = [name for name, task in self.config.aux.items() if task.weight and not task.bonus_weight]
        return SolvedTasks(taught, self.config.steps)


def restore(parts: Parts, run_dir: Path) -> Progress:
    """Continue from the newest checkpoint of a run's folder, if there is one.

    Raises:
        CheckpointError: no checkpoint can be read, or it is of another run.
    """
    checkpoint = load_latest(run_dir / "checkpoints")
    if not checkpoint:
        return Progress()
    with checkpoint.restoring() as state:
        parts.load_state_dict(state["parts"])
        progress = Progress(**state["progress"])
        progress.check(checkpoint.step, parts.agent.updates)
    return progress


def update(run: Training) -> Batch:
    """Update the agent and the priorities once; returns the batch."""
    progress, agent, replay = run.progress, run.parts.agent, run.parts.replay
    if not progress.updates:
        run.logger.meter.count_from(progress.steps)
    replay.advance(progress.steps)
    run.learn.phase = agent.begin_update()
    progress.updates = agent.updates  # before the update may fail: a checkpoint is refused unless both are equal
    batch, done = run.learn(None if replay.on_device else run.parts.draw(run.config.batch_size))
    run.window.add(progress.steps, done.metrics)
    if not replay.on_device:
        replay.update_priorities(batch.index, done.td_error)
    return batch


def export(run: Training) -> None:
    """Write the weights of the agent, and of a goal space that learns with it, into the run folder."""
    config, parts, space = run.config, run.parts, run.parts.env.action_space
    export_agent(parts.agent, space, run.run_dir)
    if config.goal.space == AUX:
        export_goal_space(config, parts.agent.encoder, parts.suite, action_sizes(space), run.run_dir)


def save_training(run: Training) -> None:
    """Cut the running episodes and save everything. If the disk refuses, warn and keep the previous checkpoint.

    Raises:
        NonFiniteError: a tensor holds NaN or infinity; nothing was written.
    """
    parts, progress = run.parts, run.progress
    parts.replay.cut(parts.rollout.frame, *(parts.rollout.goals or ()))
    run.logger.flush()
    saved = replace(progress, saved=progress.steps)
    state = {"parts": parts.state_dict(), "progress": asdict(saved)}
    check_finite(state["parts"], progress.steps)
    with warning_if_unsaved(progress.steps):
        # Weights first: after the last checkpoint the run has ended, and nothing may be missing.
        export(run)
        save(run.run_dir / "checkpoints", progress.steps, state)
        progress.saved = saved.saved
