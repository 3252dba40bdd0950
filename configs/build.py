"""From a config to the parts of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents import DQN
from agents.base import check_ownership
from aux_tasks import AuxSuite
from configs.schema import Config, read_config
from encoders import build_encoder
from envs import VectorEnv, build_env
from harness.seeding import generator_state, numpy_stream, seeded, set_generator_state, torch_stream
from harness.tree import Segment
from replay import Replay, build_replay


@dataclass(frozen=True)
class Streams:
    """Every random stream of a run; each is seeded from (seed, its own name)."""

    explore: np.random.Generator
    replay: np.random.Generator
    augment: torch.Generator
    auxiliary: torch.Generator


@dataclass(frozen=True)
class Parts:
    """What `train.py` runs."""

    env: VectorEnv
    replay: Replay
    agent: DQN  # holds the side quests' heads
    suite: AuxSuite
    streams: Streams

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the environment, which starts anew at a checkpoint."""
        replay = self.replay.state_dict()
        replay["storage"]["segments"] = [Segment(name, rows) for name, rows in replay["storage"]["segments"]]
        return {
            "agent": self.agent.state_dict(),
            "updates": self.agent.updates,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "streams": {name: generator_state(stream) for name, stream in vars(self.streams).items()},
            "replay": replay,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: the state is of another replay.
            RuntimeError: the state is of another network.
        """
        self.agent.load_state_dict(state["agent"])
        self.agent.updates = state["updates"]
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, moments in optimizer.state.items():
                for name, moment in moments.items():
                    if moment.shape == parameter.shape:  # a fused step pairs raw memory, so the layouts must be equal
                        moments[name] = torch.empty_like(parameter).copy_(moment)
        for name, stream in vars(self.streams).items():
            set_generator_state(stream, state["streams"][name])
        replay = state["replay"]
        replay["storage"]["segments"] = [(s.name, s.array) for s in replay["storage"]["segments"]]
        self.replay.load_state_dict(replay)

    @property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [o for o in (self.agent.optimizer, self.suite.optimizer) if o]


def build(config: Config) -> Parts:
    """Build everything a run needs.

    Raises:
        ValueError: parts do not fit each other; the message says which and what would.
    """
    device = pick_device(config.device)
    streams = build_streams(config.seed, device)
    env = build_env(config.env)
    agent, suite = build_agent(config, env.frame_shape, env.num_actions, streams)
    replay = build_replay(
        config.replay,
        num_envs=env.num_envs,
        frame_shape=env.frame_shape,
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
        auxiliary=torch_stream(seed, "auxiliary", device),
    )


def build_agent(
    config: Config, frame_shape: tuple[int, int, int], num_actions: int, streams: Streams
) -> tuple[DQN, AuxSuite]:
    """The agent and its side quests; encoder, agent and heads are initialised from streams of their own."""
    channels, height, width = frame_shape
    obs_shape = (channels * config.frame_stack, height, width)
    with seeded(config.seed, "init/encoder"):
        encoder = build_encoder(config.encoder, obs_shape)
    if config.encoder.init:
        load_weights(encoder, Path(config.encoder.init))
    with seeded(config.seed, "init/auxiliary"):
        suite = AuxSuite(
            config.aux,
            encoder,
            config.frame_stack,
            streams.auxiliary,
            learning_rate=config.agent.learning_rate,
            adam_eps=config.agent.adam_eps,
            max_grad_norm=config.agent.max_grad_norm,
        )
    with seeded(config.seed, "init/agent"):
        agent = DQN(
            config.agent,
            encoder,
            num_actions,
            suite,
            explore_rng=streams.explore,
            augment_generator=streams.augment,
        )
    check_ownership(agent, [o for o in (agent.optimizer, suite.optimizer) if o])
    return agent, suite


def load_agent(path: Path, device: str = "cpu") -> tuple[Config, DQN]:
    """The agent of a run folder or of a folder in zoo/: `config.yaml` beside `agent.safetensors`.

    Raises:
        ValueError: something is missing, corrupt, or of another network; the message names the file.
    """
    config = read_config(path / "config.yaml")
    env = build_env(config.env)
    agent, _ = build_agent(config, env.frame_shape, env.num_actions, build_streams(config.seed, pick_device(device)))
    env.close()
    load_weights(agent, path / "agent.safetensors", skip="target_")
    return config, agent


def load_weights(module: torch.nn.Module, path: Path, skip: str | None = None) -> None:
    """Load a safetensors file into a module; parameters whose name starts with `skip` need not be there.

    Raises:
        ValueError: missing, corrupt, or of another network; the message names the file and the tensor.
    """
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    expected = {n: tuple(t.shape) for n, t in module.state_dict().items() if not skip or not n.startswith(skip)}
    found = {n: tuple(t.shape) for n, t in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} is of another network: {name} is {found.get(name, 'missing')} there "
                f"and {expected.get(name, 'missing')} in the network of this config"
            )
    module.load_state_dict(weights, strict=False)


def acting_weights(agent: DQN) -> dict[str, torch.Tensor]:
    """The weights that acting and attribution need: all but the target network."""
    return {name: tensor.contiguous() for name, tensor in agent.state_dict().items() if not name.startswith("target_")}


def export(agent: DQN, run_dir: Path) -> None:
    """Leave `agent.safetensors` and `encoder.safetensors` in the run's folder, each replaced at once."""
    for name, weights in {
        "agent": acting_weights(agent),
        "encoder": {k: v.contiguous() for k, v in agent.encoder.state_dict().items()},
    }.items():
        temporary = run_dir / f".{name}.safetensors.tmp"
        try:
            save_file(weights, temporary)
        except SafetensorError as error:  # a full disk among others
            raise OSError(str(error)) from error
        temporary.replace(run_dir / f"{name}.safetensors")


def pick_device(name: str) -> torch.device:
    """`auto` is a CUDA device where there is one.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}: this machine or this build of torch has no CUDA device; use device=cpu")
    return torch.device(name)
