"""Build the parts of a probe: the encoder of a run, trained and untrained, and labelled frames."""

import logging
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.learning import check_ownership
from analysis.denoising import DenoisingTest, record_scenes
from analysis.probes import CHUNK, MIN_ENTROPY, Labels, OnlineProbe, is_class, low_entropy
from aux_tasks import AuxSuite, TaskConfig
from aux_tasks.transform import TransformTask
from configs.schema import Config, PretrainConfig, ProbeConfig, RunConfig
from configs.sources import FramesConfig, SourceConfig
from datasets import Episodes, EpisodeSampler
from encoders import Encoder
from encoders.base import measure_norms
from envs import AtariConfig, EnvConfig, VectorEnv
from envs.scenes import SceneConfig
from experiment.folders.foreign import check_paths, results_folder
from experiment.folders.run_folder import read_run
from experiment.folders.weights import load_encoder
from experiment.folders.zoo import locate
from experiment.pretraining.run import ADAM_EPS, build_suite, warn_if_changed
from experiment.sources.build import build_source, is_same
from experiment.training.build import build_initial_encoder
from harness.files import check_writable
from harness.process import pick_device
from harness.seeding import numpy_stream, seeded, torch_stream
from harness.suggest import nearest

log = logging.getLogger(__name__)

GROUP = "group"  # the label that says which frames belong together
TEST_SHARE = 0.2  # of the episodes, where the run kept none for testing
ONLINE_FRAMES, ONLINE_COPIES = 4_000, 16  # many copies, since whole episodes are held out

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Probing:
    """The parts of a probe."""

    run: RunConfig
    source: SourceConfig
    env: EnvConfig
    sampler: EpisodeSampler
    weights: Path  # of the trained encoder
    encoders: dict[str, Encoder]  # `initial`, as at the start of the run, and `trained`
    labels: dict[str, Labels]  # (N,) each, of the sampler's frames
    dropped: list[str]  # labels left out because they vary too little
    splits: dict[str, tuple[Rows, Rows]]  # training and test frames
    report: Path  # the file for the scores
    denoising: DenoisingTest | None = None  # None without backgrounds


def build_probing(config: ProbeConfig, suffix: str = "") -> Probing:
    """Build the parts of a probe. Frames, and which of them are held out, are those of the run.

    Args:
        config: of the probe.
        suffix: of the report's name where `config` gives none.

    Raises:
        ValueError: parts do not fit each other; the message says which parts and what would fit.
    """
    device, path = pick_device(config.device), locate(config.checkpoint)
    if config.encoder and path.is_dir():
        raise ValueError(f"{path} is a run, whose config names its encoder: leave encoder=... out")
    is_file = config.encoder is not None or path.suffix == ".safetensors"
    folder = path.parent if is_file else path
    task = path.stem.partition("-")[2] if is_file and not config.encoder else ""  # of `encoder-<task>.safetensors`
    run = stand_in_run(config) or read_run(folder)
    source, env = source_of(config, run, folder)
    name = "-".join(filter(None, ["probe", config.mode, source.name, path.stem if config.encoder else task]))
    report = Path(config.report or results_folder(folder) / f"{name}{suffix}.json")
    check_writable(report)  # now, not when all is recorded and measured
    episodes = build_source(source, env, run.seed, lambda labels: choose_labels(config, labels))
    if not config.encoder and isinstance(run, PretrainConfig) and is_same(source, run.source) and env == run.env:
        warn_if_changed(folder, episodes)
    sampler = EpisodeSampler(episodes, frame_stack=run.frame_stack, grayscale=sees_gray(run), device=device)
    initial = build_initial_encoder(run.encoder, sampler.obs_shape, run.seed, run.frame_stack)
    trained = deepcopy(initial)
    weights = load_encoder(trained, path if config.encoder else folder, task)
    initial.pixel_moments = trained.pixel_moments  # the untrained encoder sees the same pixels
    encoders = {name: encoder.to(device) for name, encoder in (("initial", initial), ("trained", trained))}
    share = run.test_share if isinstance(run, PretrainConfig) else TEST_SHARE
    splits = split(episodes, share, run.seed)
    train = splits["held-out"][0]
    measure_norms(initial, sampler.observe(train[:: -(-len(train) // CHUNK)]))  # as the first batch of a run
    labels, dropped = varying_labels(config, episodes, [part for parts in splits.values() for part in parts])
    denoising = build_denoising(env, trained, run.frame_stack)
    return Probing(run, source, env, sampler, weights, encoders, labels, dropped, splits, report, denoising)


def source_of(config: ProbeConfig, run: RunConfig, folder: Path) -> tuple[SourceConfig, EnvConfig]:
    """The labelled frames of a probe: those that its config names, or else those of the run in `folder`.

    Raises:
        ValueError: the run names paths and is not the user's own.
    """
    if not config.source and isinstance(run, PretrainConfig):
        check_paths(folder, run.source, "give source=... and its paths")
    if not config.env:
        check_paths(folder, run.env, "give env=... and its paths")
    check_paths(folder, run.encoder, "probe the encoder in a folder under runs/")
    source = config.source or (run.source if isinstance(run, PretrainConfig) else FramesConfig())
    return source, config.env or run.env


def stand_in_run(config: ProbeConfig) -> PretrainConfig | None:
    """The pretraining on single RGB pictures that stands for a probe's own `encoder`; None if it has none."""
    if not config.encoder or not config.source:
        return None
    tasks = config.aux or {"rotation": TaskConfig()}  # a pretraining has one
    return PretrainConfig(config.source, config.env or AtariConfig(), config.encoder, tasks, grayscale=False)


def sees_gray(run: RunConfig) -> bool:
    """Whether the encoder of a run reads one channel a frame."""
    if isinstance(run, PretrainConfig):
        return run.grayscale
    env: VectorEnv = replace(run.env, num_envs=1).build()
    env.close()
    return env.frame_shape[0] == 1


def split(episodes: Episodes, share: float, seed: int) -> dict[str, tuple[Rows, Rows]]:
    """The split `held-out` by episodes, groups or the source's own marks, and with groups also `random` by frames."""
    train, test = (part.rows() for part in episodes.split(share, seed))
    splits = {"held-out": (train, test)}
    if GROUP in episodes.labels:
        order = numpy_stream(seed, "split/random").permutation(episodes.rows())
        splits["random"] = (order[len(test) :], order[: len(test)])
    return splits


def choose_labels(config: ProbeConfig, labels: Mapping[str, Labels]) -> dict[str, Labels]:
    """The labels that the config names, by default all; only classes, if the encoder is trained on them.

    Raises:
        ValueError: there is no such label.
    """
    known = {name: np.asarray(label) for name, label in labels.items() if name != GROUP}
    if config.mode != "linear":
        known = {name: label for name, label in known.items() if is_class(label)}
    if not known:
        raise ValueError(f"this source has no labels that mode={config.mode} can learn")
    for name in config.labels:
        if name not in known:
            raise ValueError(f"unknown label {name!r}: {nearest(name, known)}")
    return {name: known[name] for name in config.labels or known}


def varying_labels(
    config: ProbeConfig, episodes: Episodes, parts: Sequence[Rows]
) -> tuple[dict[str, Labels], list[str]]:
    """The labels to read, and the names of those left out because they hardly vary over one of the parts (N,).

    Raises:
        ValueError: no label is left.
    """
    labels = choose_labels(config, episodes.labels)
    most = 0.0 if config.labels else MIN_ENTROPY  # a label that is asked for only has to vary
    dropped = low_entropy(labels, *parts, most=most)
    kept = {name: label for name, label in labels.items() if name not in dropped}
    if not kept:
        raise ValueError(f"the labels {', '.join(dropped)} have {most} nats of entropy or less: nothing to read")
    return kept, dropped


@dataclass(frozen=True)
class Supervised:
    """An encoder and classifiers that learn labels, with or without auxiliary tasks."""

    sampler: EpisodeSampler  # of the labelled examples
    encoder: Encoder
    heads: nn.ModuleList  # a linear classifier for each label
    classes: list[Labels]  # (K,) the class of each output of each head
    targets: list[Tensor]  # (N,) the index of the right output for each frame
    suite: AuxSuite
    augmentation: TransformTask | None  # the outputs stand for pairs of a label and a transformation of this task
    optimizer: torch.optim.Optimizer  # of encoder and classifiers
    rng: np.random.Generator  # of the sampling


def build_supervised(config: ProbeConfig, parts: Probing, start: str, rows: Rows, seed: int) -> Supervised:
    """A copy of the encoder `start` that is to learn the labels of (M,) rows. All randomness follows from `seed`.

    Raises:
        ValueError: a task does not fit the source.
    """
    run, episodes, device = parts.run, parts.sampler.episodes, parts.sampler.device
    sampler = EpisodeSampler(
        episodes,
        frame_stack=run.frame_stack,
        grayscale=parts.sampler.grayscale,
        device=device,
        among=rows,
        gamma=run.gamma,
    )
    encoder = deepcopy(parts.encoders[start])
    classes, targets = zip(*(np.unique(label, return_inverse=True) for label in parts.labels.values()), strict=True)
    suite = build_suite(config, encoder, sampler, run.gamma, torch_stream(seed, "auxiliary", device), seed)
    augmentation = _augmentation(suite) if config.mode == "label_augmentation" else None
    ways = len(augmentation.classes) if augmentation else 1
    with seeded(seed, "init/probe"):
        heads = nn.ModuleList(nn.Linear(encoder.feature_dim, len(kinds) * ways) for kinds in classes).to(device)
    learners = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.Adam(learners, config.learning_rate, eps=ADAM_EPS, fused=True)
    check_ownership(nn.ModuleList([encoder, heads, suite]), [optimizer, *suite.optimizers])
    right = [torch.from_numpy(target).to(device) for target in targets]
    rng = numpy_stream(seed, "replay")
    return Supervised(sampler, encoder, heads, list(classes), right, suite, augmentation, optimizer, rng)


def _augmentation(suite: AuxSuite) -> TransformTask:
    (name, task), *others = suite
    if others or not isinstance(task, TransformTask):
        raise ValueError(f"mode=label_augmentation needs one task with transformations, as aux=rotation, got {name}")
    return task


def build_online_probe(config: Config, encoder: Encoder) -> OnlineProbe | None:
    """The probe that a training runs every `probe_every` steps, on one recording for all seeds. Its cost is logged.

    Raises:
        ValueError: the environment has no labels, or none that varies, or the agent sees no pixels.
    """
    if not config.probe_every:
        return None
    if encoder.obs_shape[1:] == (1, 1):
        raise ValueError(f"probe_every={config.probe_every} reads pixels, but this agent sees numbers: probe_every=0")
    env = replace(config.env, num_envs=ONLINE_COPIES)
    episodes = build_source(FramesConfig(frames=ONLINE_FRAMES), env, seed=0)
    grayscale = encoder.obs_shape[0] == config.frame_stack
    device = next(encoder.parameters()).device
    sampler = EpisodeSampler(episodes, frame_stack=config.frame_stack, grayscale=grayscale, device=device)
    train, test = split(episodes, TEST_SHARE, seed=0)["held-out"]
    probe = OnlineProbe(sampler, train, test)
    start = time.perf_counter()
    probe(encoder)
    what = f"{', '.join(probe.labels)} of {len(train) + len(test)} frames"
    log.info("probe: %.1f s every %d steps (%s)", time.perf_counter() - start, config.probe_every, what)
    return probe


def build_denoising(env: EnvConfig, encoder: Encoder, frame_stack: int) -> DenoisingTest | None:
    """The `DenoisingTest` of an encoder on random play; None without backgrounds or for an encoder of states."""
    if not isinstance(env, SceneConfig) or not env.distracted or encoder.obs_shape[1:] != (env.size, env.size):
        return None
    start = time.perf_counter()
    device = next(encoder.parameters()).device
    test = DenoisingTest(record_scenes(env, frame_stack), gray=encoder.obs_shape[0] == frame_stack, device=device)
    log.info("denoising: recorded in %.1f s", time.perf_counter() - start)
    return test
