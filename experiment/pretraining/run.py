"""The parts of a pretraining, its update, its held-out metrics, and how it is saved and restored."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.learning import Schedule, check_ownership, weighted_sum
from analysis.representation import representation
from aux_tasks import AuxSuite, TaskSetting
from configs.schema import PretrainConfig, ProbeConfig
from datasets import Episodes, EpisodeSampler
from encoders import Encoder
from experiment.command_line.composition import read_config
from experiment.folders.weights import check_network, export_encoder
from experiment.goals.space import export_goal_space
from experiment.sources.build import build_source, describe_source, source_change
from experiment.training.build import build_initial_encoder, load_optimizers, without_init
from harness.checkpoint import load_latest, save, warning_if_unsaved
from harness.finite import check_finite
from harness.logger import MetricWindow, RunLogger
from harness.process import pick_device
from harness.seeding import generator_state, numpy_stream, seeded, set_generator_state, torch_stream
from replay import Batch

log = logging.getLogger(__name__)

ADAM_EPS = 1e-8
TEST_BATCHES = 8


@dataclass(frozen=True)
class PretrainingParts:
    """What a pretraining learns with and learns from."""

    episodes: Episodes  # of which `train` and `test` are parts
    train: EpisodeSampler
    test: EpisodeSampler
    encoder: Encoder
    suite: AuxSuite
    optimizer: torch.optim.Optimizer  # of the encoder
    schedule: Schedule  # of the weights of the auxiliary tasks
    rng: np.random.Generator  # of the sampling
    auxiliary: torch.Generator  # of the tasks

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Every optimiser of the run."""
        return [self.optimizer, *self.suite.optimizers]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "encoder": self.encoder.state_dict(),
            "suite": self.suite.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "streams": {"rng": generator_state(self.rng), "auxiliary": generator_state(self.auxiliary)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: the state is of another network.
        """
        for name, module in (("encoder", self.encoder), ("suite", self.suite)):
            check_network(module.state_dict(), state[name])
            module.load_state_dict(state[name])
        load_optimizers(self.optimizers, state["optimizers"])
        set_generator_state(self.rng, state["streams"]["rng"])
        set_generator_state(self.auxiliary, state["streams"]["auxiliary"])


@dataclass
class Pretraining:
    """A pretraining in its run folder."""

    config: PretrainConfig
    parts: PretrainingParts
    run_dir: Path
    logger: RunLogger
    step: int = 0  # updates so far
    saved: int = 0  # `step` at the last checkpoint
    window: MetricWindow = field(default_factory=MetricWindow)  # metrics since the last row of the log


def build_pretraining(config: PretrainConfig) -> PretrainingParts:
    """Build everything a pretraining needs.

    Raises:
        ValueError: parts do not fit each other; the message says which parts and what would fit.
    """
    device = pick_device(config.device)
    episodes = build_source(config.source, config.env, config.seed)
    train, test = (
        EpisodeSampler(
            half, frame_stack=config.frame_stack, grayscale=config.grayscale, device=device, gamma=config.gamma
        )
        for half in episodes.split(config.test_share, config.seed)
    )
    generator = torch_stream(config.seed, "auxiliary", device)
    encoder = build_initial_encoder(config.encoder, train.obs_shape, config.seed, config.frame_stack).to(device)
    suite = build_suite(config, encoder, train, config.gamma, generator, config.seed)
    for half, what in ((train, "to learn from"), (test, "held out")):
        try:
            half.drawable(suite.reads, suite.clip_length)
        except ValueError as error:
            raise ValueError(f"of the episodes {what}: {error}") from error
    optimizer = torch.optim.Adam(encoder.parameters(), config.learning_rate, eps=ADAM_EPS, fused=True)
    check_ownership(nn.ModuleList([encoder, suite]), [optimizer, *suite.optimizers])
    rng = numpy_stream(config.seed, "replay")
    schedule = Schedule(suite.schedules(), device)
    return PretrainingParts(episodes, train, test, encoder, suite, optimizer, schedule, rng, generator)


def load_pretraining(run: Path) -> PretrainingParts:
    """The parts of a pretraining, heads included, from its newest checkpoint.

    Raises:
        ValueError: the folder has no checkpoint, or its source cannot be read.
    """
    parts = build_pretraining(without_init(read_config(run / "config.yaml", PretrainConfig)))
    warn_if_changed(run, parts.episodes)
    if not restore(parts, run):
        raise ValueError(f"{run} has no checkpoints: it must be the folder of a pretraining")
    return parts


def restore(parts: PretrainingParts, run_dir: Path) -> int:
    """Continue from the newest checkpoint of a run folder, if there is one; returns the updates so far.

    Raises:
        CheckpointError: no checkpoint can be read, or it is of another run.
    """
    checkpoint = load_latest(run_dir / "checkpoints")
    if not checkpoint:
        return 0
    with checkpoint.restoring() as state:
        parts.load_state_dict(state["parts"])
    return checkpoint.step


def warn_if_changed(run: Path, episodes: Episodes) -> None:
    """Warn if the source has changed since the run: what is held out now may have been trained on."""
    if change := source_change(run, describe_source(episodes)):
        what = "what is held out now may have been learned from"
        log.warning("%s: the source has changed since (%s): %s", run, change, what)


def build_suite(
    config: PretrainConfig | ProbeConfig,
    encoder: Encoder,
    source: EpisodeSampler,
    gamma: float,
    generator: torch.Generator,
    seed: int,
) -> AuxSuite:
    """The auxiliary tasks of `config` on an encoder and a source. Heads are initialised from their own random stream.

    Raises:
        ValueError: a task does not fit the encoder, or reads a field that the source lacks.
    """
    setting = TaskSetting(encoder, source.frame_stack, *source.actions, gamma, generator)
    with seeded(seed, "init/auxiliary"):
        suite = AuxSuite(
            config.aux,
            setting,
            learning_rate=config.learning_rate,
            adam_eps=ADAM_EPS,
            max_grad_norm=config.max_grad_norm,
        )
    if missing := suite.reads - source.provides:
        fields = ", ".join(sorted(missing))
        raise ValueError(f"aux={'+'.join(config.aux)} reads {fields}, which this source does not provide")
    return suite.to(source.device)


def draw(parts: PretrainingParts, source: EpisodeSampler, batch_size: int, rng: np.random.Generator) -> Batch:
    """A batch with all fields that the tasks read."""
    return source.sample(batch_size, parts.suite.reads, parts.suite.clip_length, rng)


def losses(parts: PretrainingParts, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss terms (B,) and the metrics of a batch. Features are computed only if a task reads them."""
    features = parts.encoder(batch.obs) if "features" in parts.suite.reads else batch.obs.new_empty(0)
    return parts.suite.losses(batch, features, parts.encoder)


def update(parts: PretrainingParts, batch: Batch, step: int) -> dict[str, Tensor]:
    """Make one update of encoder and heads; returns scalar metrics by TensorBoard tag."""
    parts.schedule.advance(step)
    terms, metrics = losses(parts, batch)
    loss = weighted_sum(terms, parts.schedule.tensors, batch.weight)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parts.encoder.parameters(), parts.suite.max_grad_norm)
    parts.optimizer.step()
    parts.optimizer.zero_grad()
    parts.suite.after_step(batch, parts.encoder)
    return {"train/loss": loss.detach(), "health/grad_norm": norm} | metrics


@torch.no_grad()
def held_out_metrics(parts: PretrainingParts, config: PretrainConfig) -> dict[str, float]:
    """`test/<task>/<metric>` on the held-out episodes, always the same batches, and the rank of the features."""
    rng, window = numpy_stream(config.seed, "test"), MetricWindow()
    parts.suite.eval()
    with parts.suite.preserved_streams():
        for _ in range(TEST_BATCHES):
            batch = draw(parts, parts.test, config.batch_size, rng)
            metrics = losses(parts, batch)[1]
            window.add(0, {name.replace("aux/", "test/", 1): value for name, value in metrics.items()})
    parts.suite.train()
    features = parts.encoder(batch.obs)
    window.add(0, {name: value for name, value in representation(features).items() if not value.ndim})
    return window.drain()


def export(run: Pretraining) -> None:
    """Write the encoder, and the goal space if a task defines one, into the run folder."""
    parts = run.parts
    export_encoder(parts.encoder, run.run_dir)
    export_goal_space(run.config, parts.encoder, parts.suite, parts.train.actions, run.run_dir)


def save_pretraining(run: Pretraining) -> None:
    """Save everything. If the disk does not take it, warn and keep the previous checkpoint.

    Raises:
        NonFiniteError: a tensor holds NaN or infinity; nothing was written.
    """
    run.logger.flush()
    state = run.parts.state_dict()
    check_finite(state, run.step)
    with warning_if_unsaved(run.step):
        export(run)
        save(run.run_dir / "checkpoints", run.step, {"parts": state})
        run.saved = run.step


def save_rest(run: Pretraining) -> None:
    """Save the updates since the last checkpoint, if there are any."""
    if run.step > run.saved:
        run.window.drain()  # a NaN stops here and is not saved
        save_pretraining(run)
