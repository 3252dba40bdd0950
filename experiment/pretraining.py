"""From a config to the parts of a pretraining."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from agents.learning import Schedule, check_ownership
from aux_tasks import AuxSuite, TaskSetting
from configs.schema import PretrainConfig, ProbeConfig
from datasets import Episodes, EpisodeSampler
from encoders import Encoder
from experiment.build import build_initial_encoder, load_optimizers, without_init
from experiment.composition import read_config
from experiment.sources import build_source, describe, source_change
from experiment.weights import check_network
from harness.checkpoint import load_latest
from harness.process import pick_device
from harness.seeding import generator_state, numpy_stream, seeded, set_generator_state, torch_stream

log = logging.getLogger(__name__)

ADAM_EPS = 1e-8


@dataclass(frozen=True)
class Pretraining:
    """What `pretrain.py` runs."""

    episodes: Episodes  # of the two below
    train: EpisodeSampler
    test: EpisodeSampler
    encoder: Encoder
    suite: AuxSuite
    optimizer: torch.optim.Optimizer  # of the encoder
    schedule: Schedule  # of the weights of the auxiliary tasks
    rng: np.random.Generator  # of the sampling
    auxiliary: torch.Generator

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Every optimiser of the run."""
        return [self.optimizer, *self.suite.optimizers]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
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


def build_pretraining(config: PretrainConfig) -> Pretraining:
    """Build everything a pretraining needs.

    Raises:
        ValueError: parts do not fit each other; the message says which and what would.
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
    return Pretraining(episodes, train, test, encoder, suite, optimizer, schedule, rng, generator)


def load_pretraining(run: Path) -> Pretraining:
    """A pretraining, heads and all, as its newest checkpoint left it.

    Raises:
        ValueError: the folder has no checkpoint, or its source cannot be read any more.
    """
    parts = build_pretraining(without_init(read_config(run / "config.yaml", PretrainConfig)))
    warn_if_changed(run, parts.episodes)
    checkpoint = load_latest(run / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoints: it must be the folder of a pretraining")
    with checkpoint.restoring() as state:
        parts.load_state_dict(state["parts"])
    return parts


def warn_if_changed(run: Path, episodes: Episodes) -> None:
    """Say where a source is not what a run learned from: then nobody knows what is held out."""
    if change := source_change(run, describe(episodes)):
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
    """The auxiliary tasks of `config` on an encoder and a source, their heads initialised from a stream of their own.

    Raises:
        ValueError: a task does not fit the encoder, or reads what the source has not.
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
        raise ValueError(f"aux={'+'.join(config.aux)} reads {', '.join(sorted(missing))}, which this source has not")
    return suite.to(source.device)
