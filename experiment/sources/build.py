"""Build the episodes of a source from its config: read them, or record them first."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis.policies import greedy, mix_random, random_policy
from configs.schema import Config
from configs.sources import (
    BallsConfig,
    FramesConfig,
    IdxConfig,
    ImagesConfig,
    MultiviewConfig,
    ReplayRunConfig,
    SourceConfig,
    TripletsConfig,
    VideosConfig,
)
from datasets import Episodes
from datasets.readers import (
    CONTENT_BYTES,
    read_content,
    read_idx,
    read_images,
    read_multiview,
    read_recording,
    read_storage,
    read_videos,
)
from datasets.synthetic import bouncing_balls
from datasets.triplets import read_triplets
from envs import EnvConfig, GraspingConfig, Policy, VectorEnv, action_sizes
from envs.base import NO_EFFECT
from experiment.command_line.composition import read_config
from experiment.folders.foreign import PATH_KEYS
from experiment.folders.weights import read_shapes
from experiment.folders.zoo import locate
from experiment.sources.recording import CheckLabels, record
from experiment.sources.triplets import record_triplets
from experiment.training.build import load_agent
from harness.checkpoint import holds_checkpoints, load_latest
from harness.files import sha256
from harness.provenance import read_json, write_json
from harness.seeding import numpy_stream

log = logging.getLogger(__name__)

SOURCE_FILE = "source.json"  # in the folder of a run: `describe_source`
RANDOM_SHARE = 0.05  # random actions of a trained agent, without which all games of many environments are the same
UNSEEN = NO_EFFECT | {"name"}  # environment keys that change no frame, or are recorded separately


def is_same(source: SourceConfig, other: SourceConfig) -> bool:
    """Whether two configs name the same files, and read them in the same way."""

    def settings(config: SourceConfig) -> dict[str, Any]:
        return {
            key: str(Path(value).resolve()) if key in PATH_KEYS and value else value
            for key, value in asdict(config).items()
        }

    return settings(source) == settings(other)


def describe_source(episodes: Episodes) -> dict[str, Any]:
    """Counts and hash that identify a source, for `source.json` in the folder of a run."""
    dealt = "as marked" if episodes.test is not None else "by number" if episodes.split_names is None else "by name"
    counts = {"frames": len(episodes.frames), "episodes": len(episodes.begin)}
    return {**counts, "sha256": episodes.fingerprint, "dealt": dealt}


def save_source(run_dir: Path, found: Mapping[str, Any]) -> None:
    """Write the description of a source into the folder of a new run, or check it against that of a resumed run.

    Raises:
        ValueError: the checkpoints in the folder learned from another source, or from another part of it.
    """
    change = source_change(run_dir, found)
    if change and holds_checkpoints(run_dir / "checkpoints"):
        raise ValueError(f"{run_dir} learned from another source ({change}): restore that one, or give run_dir=...")
    if change or not (run_dir / SOURCE_FILE).is_file():
        write_json(found, run_dir / SOURCE_FILE)


def source_change(run_dir: Path, found: Mapping[str, Any]) -> str:
    """How a source differs from the one that a run learned from; empty if it does not.

    Raises:
        ValueError: the description in the folder of the run is damaged.
    """
    if not (path := run_dir / SOURCE_FILE).is_file():  # a run of an earlier version
        return "its files were split between training and testing in another way" if found["dealt"] == "by name" else ""
    try:
        kept = read_json(path, CONTENT_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): give run_dir=... to start over") from error
    counts = [
        f"{key} {kept.get(key)}, now {found[key]}" for key in found if key != "sha256" and kept.get(key) != found[key]
    ]
    return ", ".join(counts) or ("" if kept.get("sha256") == found["sha256"] else "other content")


def build_source(source: SourceConfig, env: EnvConfig, seed: int, check_labels: CheckLabels | None = None) -> Episodes:
    """The episodes that `source` describes.

    Args:
        env, seed: for frames that have to be recorded or generated.
        check_labels: called with labels before frames are recorded; may raise ValueError.

    Raises:
        ValueError: the episodes are missing, or not those that the config describes.
        MemoryError: they do not fit into memory or on the disk.
    """
    match source:
        case FramesConfig():
            return read_or_record_frames(source, env, seed, check_labels)
        case ReplayRunConfig():
            return read_replay_of(Path(source.run))
        case ImagesConfig():
            return read_images(Path(source.folder), source.size, source.crop)
        case VideosConfig():
            return read_videos(Path(source.folder), source.size, source.stride, source.cut, source.crop)
        case MultiviewConfig():
            return read_multiview(Path(source.folder), source.size, source.stride)
        case IdxConfig():
            return read_idx(Path(source.folder))
        case BallsConfig():
            rng = numpy_stream(seed, "balls")
            return bouncing_balls(source.episodes, source.length, source.size, source.balls, rng)
        case TripletsConfig(folder=None):
            return read_or_record_triplets(source, env, seed)
        case TripletsConfig():
            return read_triplets(Path(str(source.folder)), source.size)
        case _:
            return source.read(seed)


def read_or_record_frames(
    source: FramesConfig, env: EnvConfig, seed: int, check_labels: CheckLabels | None
) -> Episodes:
    """The recording of `source`, which is made if it does not exist yet.

    Raises:
        ValueError: the folder holds something else, or the agent is for other frames.
    """
    policy = source.policy.strip("/").replace("/", "-")
    label = env.label.replace("/", "_")  # a config of somebody else may have put slashes there
    wanted = recording_settings(source, env, seed)
    folder = Path(source.path or f"data/frames/{label}-{policy}-{source.frames}-s{seed}-{_short(wanted)}")
    episodes = _read_or_record(folder, wanted, partial(_record, source, env, seed, folder, wanted, check_labels))
    return replace(episodes, padding=env.padding)


def read_or_record_triplets(source: TripletsConfig, env: EnvConfig, seed: int) -> Episodes:
    """The triplets of `source`, which are recorded if they do not exist yet.

    Raises:
        ValueError: the folder holds something else, or the environment has no grasps.
    """
    if not isinstance(env, GraspingConfig):
        raise ValueError(f"source=triplets records env=grasping, not env={env.name}; source.folder=... reads your own")
    wanted = {"source.grasps": source.grasps, "seed": seed, "env": env.name, **_env_keys(env)}
    folder = Path(source.path or f"data/triplets/{env.label}-{source.grasps}-s{seed}-{_short(wanted)}")
    return _read_or_record(folder, wanted, partial(record_triplets, env, folder, wanted, source.grasps, seed))


def _short(wanted: Mapping[str, Any]) -> str:
    """Six hexadecimal digits that stand for the settings of a recording."""
    return hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:6]


def _read_or_record(folder: Path, wanted: Mapping[str, Any], record: Callable[[], None]) -> Episodes:
    """The recording in a folder, after a call of `record` if the folder is missing or empty.

    Raises:
        ValueError: the recording was made with other settings than `wanted`.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        record()
    found = read_content(folder)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{folder} was recorded with {key}={found.get(key)}, this one has {value}: "
                "give source.path=... or remove that folder"
            )
    return read_recording(folder)


def _env_keys(env: EnvConfig) -> dict[str, Any]:
    return {f"env.{key}": value for key, value in asdict(env).items() if key not in UNSEEN}


def recording_settings(source: FramesConfig, env: EnvConfig, seed: int) -> dict[str, Any]:
    """The settings that decide every byte of a recording, by dotted key."""
    policy = "random"
    if source.policy != "random":
        weights = locate(source.policy) / "agent.safetensors"
        if not weights.is_file():
            raise ValueError(f"source.policy={source.policy}: must be random, a run folder or a folder of zoo/")
        policy = sha256(weights)
    return {"source.frames": source.frames, "source.policy": policy, "seed": seed, "env": env.name, **_env_keys(env)}


def _record(
    source: FramesConfig,
    env: EnvConfig,
    seed: int,
    folder: Path,
    wanted: dict[str, Any],
    check_labels: CheckLabels | None,
) -> None:
    with closing(env.build(labels=True)) as vector:
        if vector.frame_dtype != np.uint8:
            raise ValueError(f"source=frames records pixels, but env={env.name} gives states: env.observe=pixels")
        policy, frame_stack = random_policy(vector.action_space, rng := numpy_stream(seed, "record/actions")), 1
        if source.policy != "random":
            trained, frame_stack = _player(source.policy, vector)
            policy = mix_random(trained, vector.action_space, RANDOM_SHARE, rng)
        record(
            vector,
            policy,
            folder,
            wanted,
            frame_stack=frame_stack,
            padding=env.padding,
            frames=source.frames,
            seed=seed,
            check_labels=check_labels,
        )


def _player(path: str, vector: VectorEnv) -> tuple[Policy, int]:
    """The greedy policy of the agent in a folder, and its number of stacked frames."""
    config, agent = load_agent(locate(path))
    channels, height, width = vector.frame_shape
    shown = (channels * config.frame_stack, height, width)
    if agent.encoder.obs_shape != shown:
        raise ValueError(
            f"source.policy={path} plays from observations {agent.encoder.obs_shape}, env gives {shown}: "
            f"give env the settings of {path}/config.yaml"
        )
    return greedy(agent), config.frame_stack


def read_replay_of(run: Path) -> Episodes:
    """The episodes in the replay of the newest checkpoint of a training.

    Raises:
        ValueError: there is none, or it holds no replay.
    """
    config = read_config(run / "config.yaml", Config)
    checkpoint = load_latest(run / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoints: source.run must be the folder of a training")
    if "parts" not in checkpoint.state:
        raise ValueError(f"{checkpoint.path} holds no replay (Stable-Baselines3 saves none): give another source.run")
    with checkpoint.restoring() as state:
        storage = state["parts"]["replay"]["storage"]
        space = read_shapes(run / "agent.safetensors")[1]
        episodes = read_storage(storage, action_sizes(space)[0])
        return replace(episodes, padding=config.env.padding)
