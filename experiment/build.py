"""From a config to the parts of a run."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, flatdim
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.backends.cpu import get_cpu_capability as cpu_capability

from agents import DQN, SAC, Agent, DQNConfig, SACConfig
from agents.base import Precision, check_ownership
from aux_tasks import AuxSuite, TaskSetting
from aux_tasks.base import check_choice
from configs.schema import Config, RunConfig, read_config
from encoders import Encoder, EncoderConfig, build_encoder
from encoders.momentum import is_momentum_copy
from envs import DmcConfig, VectorEnv, build_env
from harness.process import replacing
from harness.seeding import generator_state, numpy_stream, seeded, set_generator_state, torch_stream
from harness.tree import Segment
from replay import Replay, build_replay

log = logging.getLogger(__name__)
AVERAGE = "target_average."  # of those that act in place of what they average
C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Streams:
    """Every random stream of a run; each is seeded from (seed, its own name)."""

    explore: np.random.Generator
    replay: np.random.Generator
    augment: torch.Generator
    policy: torch.Generator
    auxiliary: torch.Generator


@dataclass(frozen=True)
class Parts:
    """What `train.py` runs."""

    env: VectorEnv
    replay: Replay
    agent: Agent  # holds the side quests' heads
    suite: AuxSuite
    streams: Streams

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the environment, which starts anew at a checkpoint."""
        replay = self.replay.state_dict()
        replay["storage"]["segments"] = [Segment(name, rows) for name, rows in replay["storage"]["segments"]]
        return {
            "agent": self.agent.state_dict(),
            "updates": self.agent.updates,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers(self.agent, self.suite)],
            "streams": {name: generator_state(stream) for name, stream in vars(self.streams).items()},
            "replay": replay,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: the state is of another network or of another replay.
        """
        check_network(self.agent.state_dict(), state["agent"])
        self.agent.load_state_dict(state["agent"])
        self.agent.updates = state["updates"]
        load_optimizers(optimizers(self.agent, self.suite), state["optimizers"])
        for name, saved in state["streams"].items():
            set_generator_state(getattr(self.streams, name), saved)
        replay = state["replay"]
        replay["storage"]["segments"] = [(s.name, s.array) for s in replay["storage"]["segments"]]
        self.replay.load_state_dict(replay)


def build(config: Config) -> Parts:
    """Build everything a run needs.

    Raises:
        ValueError: parts do not fit each other, or a run; the message says which and what would.
    """
    if isinstance(config.env, DmcConfig) and config.env.background_split != "train":
        raise ValueError("env.background_split=eval is what agents are judged before: leave it out of a training")
    device = pick_device(config.device)
    if device.type == "cpu" and config.agent.precision is Precision.bfloat16 and cpu_capability() in ("NO AVX", "AVX2"):
        log.warning("agent.precision=bfloat16: without AVX-512, convolutions take many times as long as in float32")
    streams = build_streams(config.seed, device)
    env = build_env(config.env)
    agent, suite = build_agent(config, env.frame_shape, env.action_space, streams)
    if "rgb" in suite.reads and env.frame_shape[0] != 3:
        raise ValueError(f"aux={'+'.join(config.aux)} needs colour frames: env.grayscale=false")
    replay = build_replay(
        config.replay,
        num_envs=env.num_envs,
        frame_shape=env.frame_shape,
        action_space=env.action_space,
        frame_stack=config.frame_stack,
        gamma=config.gamma,
        clip_reward=config.clip_reward,
        rng=streams.replay,
        device=device,
    )
    return Parts(env, replay, agent, suite, streams)


def build_streams(seed: int, device: torch.device) -> Streams:
    """The random streams of a run."""
    return Streams(
        explore=numpy_stream(seed, "explore"),
        replay=numpy_stream(seed, "replay"),
        augment=torch_stream(seed, "augment", device),
        policy=torch_stream(seed, "policy", device),
        auxiliary=torch_stream(seed, "auxiliary", device),
    )


def build_agent(
    config: Config, frame_shape: tuple[int, int, int], action_space: Discrete | Box, streams: Streams
) -> tuple[Agent, AuxSuite]:
    """The agent and its side quests; encoder, agent and heads are initialised from streams of their own.

    Raises:
        ValueError: the agent is for other actions, or a part does not fit the observations.
    """
    channels, height, width = frame_shape
    obs_shape = (channels * config.frame_stack, height, width)
    encoder = build_initial_encoder(config.encoder, obs_shape, config.seed)
    num_actions = int(action_space.n) if isinstance(action_space, Discrete) else None
    setting = TaskSetting(
        encoder=encoder,
        frame_stack=config.frame_stack,
        num_actions=num_actions,
        action_dim=num_actions or flatdim(action_space),
        gamma=config.gamma,
        generator=streams.auxiliary,
    )
    with seeded(config.seed, "init/auxiliary"):
        suite = AuxSuite(
            config.aux,
            setting,
            learning_rate=config.agent.learning_rate,
            adam_eps=config.agent.adam_eps,
            max_grad_norm=config.agent.max_grad_norm,
        )
    with seeded(config.seed, "init/agent"):
        agent = _agent(config, encoder, action_space, suite, streams)
    check_ownership(agent, optimizers(agent, suite))
    return agent, suite


def build_initial_encoder(config: EncoderConfig, obs_shape: tuple[int, int, int], seed: int) -> Encoder:
    """The encoder as a run begins with it: from a stream of its own, or from a file."""
    with seeded(seed, "init/encoder"):
        encoder = build_encoder(config, obs_shape)
    if config.init:
        path = Path(config.init)
        load_encoder(encoder, path) if path.is_dir() else load_weights(encoder, path)
    return encoder


def without_init(config: C) -> C:
    """The config for weights that are read from elsewhere: the file that the run began with may be gone."""
    return replace(config, encoder=replace(config.encoder, init=None))


def _agent(config: Config, encoder: Encoder, action_space: Discrete | Box, suite: AuxSuite, streams: Streams) -> Agent:
    shared: Any = {"explore_rng": streams.explore, "augment_generator": streams.augment}
    match config.agent, action_space:
        case DQNConfig(), Discrete():
            return DQN(config.agent, encoder, int(action_space.n), suite, **shared)
        case SACConfig(), Box():
            return SAC(config.agent, encoder, flatdim(action_space), suite, **shared, policy_generator=streams.policy)
        case DQNConfig(), _:
            raise ValueError(
                "agent=dqn chooses among actions, but those of this environment are continuous: use agent=sac"
            )
        case _:
            raise ValueError("agent=sac acts continuously, but this environment has a choice of actions: use agent=dqn")


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]]) -> None:
    """Give each optimiser its saved state back."""
    for optimizer, saved in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(saved)
        for parameter, moments in optimizer.state.items():
            for name, moment in moments.items():
                if moment.shape == parameter.shape:  # a fused step pairs raw memory, so the layouts must be equal
                    moments[name] = torch.empty_like(parameter).copy_(moment)


def optimizers(agent: Agent, suite: AuxSuite) -> list[torch.optim.Optimizer]:
    """Every optimiser of a run."""
    return [*agent.optimizers, *suite.optimizers]


def load_agent(path: Path, device: str = "cpu") -> tuple[Config, Agent]:
    """The agent of a run folder or of a folder in zoo/: `config.yaml` beside `agent.safetensors`.

    Raises:
        ValueError: something is missing, corrupt, or of another network; the message names the file.
    """
    config = read_config(path / "config.yaml", Config)
    plain = replace(without_init(config), agent=replace(config.agent, compile=False))  # there may be no compiler here
    env, streams = build_env(config.env), build_streams(config.seed, pick_device(device))
    agent, _ = build_agent(plain, env.frame_shape, env.action_space, streams)
    env.close()
    load_weights(agent, path / "agent.safetensors", skip_targets=True)
    return config, agent


def load_encoder(encoder: Encoder, folder: Path) -> Path:
    """Load the encoder of a run folder or of a folder in zoo/, where it may be part of `agent.safetensors` alone.

    Returns:
        The file.

    Raises:
        ValueError: as `load_weights`.
    """
    alone, agent = folder / "encoder.safetensors", folder / "agent.safetensors"
    if agent.is_file() and not alone.is_file():
        load_weights(encoder, agent, prefix="encoder.")
        return agent
    load_weights(encoder, alone)
    return alone


def load_weights(module: torch.nn.Module, path: Path, skip_targets: bool = False, prefix: str = "") -> None:
    """Load a safetensors file into a module, all of it or all that `acting_weights` gives.

    Args:
        prefix: of the names in the file that are the module's; the others are passed over.

    Raises:
        ValueError: missing, corrupt, or of another network; the message names the file and the tensor.
    """
    try:
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — not iterable
            promised = (file.metadata() or {}).get("sha256")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if promised not in (None, checksum(held)):
        raise ValueError(f"{path} is damaged: its tensors do not match the sha256 that they were written with")
    weights = {n.removeprefix(prefix): t for n, t in held.items() if n.startswith(prefix)}
    try:
        check_network(acting_weights(module) if skip_targets else module.state_dict(), weights)
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error
    module.load_state_dict(weights, strict=False)


def check_network(wanted: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError, naming the first tensor, unless names and shapes of `weights` are those of `wanted`."""
    expected, found = ({n: tuple(t.shape) for n, t in tensors.items()} for tensors in (wanted, weights))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            hint = f": encoder.standardize is {name in found} there" if "pixel_moments" in name else ""
            raise ValueError(
                f"of another network: {name} is {found.get(name, 'missing')} there "
                f"and {expected.get(name, 'missing')} in the network of this config{hint}"
            )


def acting_weights(agent: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that acting and attribution need: all but the momentum copies of agent and auxiliary tasks.

    An average of encoder and head is given in their place.
    """
    weights = agent.state_dict()
    copies = tuple(f"{name}." for name, module in agent.named_modules() if is_momentum_copy(module))
    weights |= {n.removeprefix(AVERAGE): tensor for n, tensor in weights.items() if n.startswith(AVERAGE)}
    return {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith(copies)}


def export(agent: Agent, run_dir: Path) -> None:
    """Leave `agent.safetensors` and `encoder.safetensors` in the run's folder, each replaced at once."""
    weights, prefix = acting_weights(agent), "encoder."
    _write_weights(weights, run_dir / "agent.safetensors")
    encoder = {n.removeprefix(prefix): tensor for n, tensor in weights.items() if n.startswith(prefix)}
    _write_weights(encoder, run_dir / "encoder.safetensors")


def export_encoder(encoder: Encoder, run_dir: Path) -> None:
    """Leave `encoder.safetensors` in the run's folder, replaced at once."""
    _write_weights(acting_weights(encoder), run_dir / "encoder.safetensors")


def _write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as temporary:  # not by save_file, which lets nobody else read
        temporary.write_bytes(save(weights, {"sha256": checksum(weights)}))


def checksum(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes; it stands in the header of exported weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """`auto` is a CUDA device where there is one; `cuda:1` is the second.

    Raises:
        ValueError: no such kind of device, or CUDA was asked for and there is none.
    """
    check_choice("device", name.partition(":")[0], ("auto", "cpu", "cuda"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}: this machine or this build of torch has no CUDA device; use device=cpu")
    return torch.device(name)
