"""Build the parts of a training from its config."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from agents import Agent, AgentConfig, Capture, Precision
from agents import Streams as AgentStreams
from agents.capture import make_capturable
from agents.config import SACConfig, Svea
from agents.learning import check_ownership
from aux_tasks import AuxSuite, TaskSetting
from configs.schema import Config, RunConfig
from encoders import Encoder, EncoderConfig, FrozenEncoder, StateEncoder, build_encoder
from encoders.backbones import ImageNetPixels
from envs import GoalSpaceVector, VectorEnv, action_sizes
from experiment.command_line.composition import read_config
from experiment.folders.run_folder import run_folder
from experiment.folders.weights import check_network, load_encoder, load_weights, read_shapes
from experiment.folders.zoo import locate
from experiment.goals.env import env_of_run
from experiment.goals.space import AUX, TaskSpace, own_goal_task
from experiment.training.collecting import Collector, LocalCollector, OverlappedCollector
from experiment.training.overlays import read_overlays
from experiment.training.synthetic import check_synthetic, synthetic_features
from harness.process import computes_bfloat16, pick_device
from harness.seeding import generator_state, numpy_stream, seeded, set_generator_state, torch_stream
from replay import Batch, Replay, build_replay
from replay.relabel import GoalFunctions

log = logging.getLogger(__name__)
C = TypeVar("C", bound=RunConfig)


class Streams(NamedTuple):
    """Every random stream of a training; each is seeded from (seed, its own name)."""

    explore: np.random.Generator
    replay: np.random.Generator
    draw: torch.Generator  # in place of `replay`, where batches are drawn on the device
    augment: torch.Generator
    policy: torch.Generator
    auxiliary: torch.Generator
    synthetic: torch.Generator


@dataclass(frozen=True)
class Parts:
    """The parts of a training."""

    rollout: Collector  # steps the environment
    replay: Replay
    agent: Agent  # holds the auxiliary heads
    suite: AuxSuite
    streams: Streams

    @property
    def env(self) -> VectorEnv:
        """The environment. The rollout steps its copies, in this process or in others."""
        return self.rollout.env

    def draw(self, batch_size: int) -> Batch:
        """A batch with all fields that the agent and its tasks read."""
        return self.replay.sample(batch_size, self.suite.reads, clip_length=self.suite.clip_length)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the environment, which is reset at a checkpoint."""
        return {
            "agent": self.agent.state_dict(),
            "updates": self.agent.updates,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers(self.agent, self.suite)],
            "streams": {name: generator_state(stream) for name, stream in self.streams._asdict().items()},
            "replay": self.replay.state_dict(),
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
        self.replay.load_state_dict(state["replay"])


def build(config: Config) -> Parts:
    """Build everything a run needs.

    Raises:
        ValueError: parts do not fit each other; the message says which parts and what would fit.
    """
    config.env.check_training()
    check_synthetic(config)
    agent_config, device = own_agent(config), pick_device(config.device)
    if device.type == "cpu" and agent_config.precision is Precision.bfloat16 and not computes_bfloat16():
        log.warning("agent.precision=bfloat16: without AVX-512, convolutions take many times as long as in float32")
    streams = build_streams(config.seed, device)
    env, agent, suite, space = build_player(config, streams, device)
    if (pictures := read_overlays(config, agent.encoder.obs_shape[1])) is not None:
        agent.pictures = pictures.to(device)
    replay = build_replay(
        config.replay,
        num_envs=config.num_envs,
        frame_shape=env.frame_shape,
        action_space=env.action_space,
        frame_stack=config.frame_stack,
        padding=config.env.padding,
        gamma=config.gamma,
        clip_reward=config.clip_reward,
        rng=streams.replay,
        device_rng=streams.draw,
        device=device,
        frame_dtype=env.frame_dtype,
        goal_dim=env.goal_dim,
        goal_functions=goal_functions(config, env, space),
        features=synthetic_features(config, agent, streams.synthetic),
    )
    return Parts(build_collector(config, env, agent), replay, agent, suite, streams)


def build_player(
    config: Config, streams: Streams, device: torch.device
) -> tuple[VectorEnv, Agent, AuxSuite, TaskSpace | None]:
    """The environment as the agent sees it, the agent, its tasks, and the goal space that learns with them, if any.

    Raises:
        ValueError: they do not fit each other.
    """
    learns_space = config.goal.space == AUX  # a file of it in the run folder is of an earlier step
    env = (config.env if learns_space else env_of_run(config, run_folder(config))).build()
    agent_config = own_agent(config)
    channels, height, width = env.frame_shape
    obs_shape = (channels * config.frame_stack, height, width)
    if env.frame_dtype == np.float32 and (config.aux or agent_config.random_shift):
        raise ValueError("auxiliary tasks and agent.random_shift need pixels, but this environment gives states")
    colour = channels == 3 and env.frame_dtype == np.uint8
    if isinstance(agent_config, SACConfig) and agent_config.svea is not Svea.none and not colour:
        raise ValueError("agent.svea changes colours, and these frames have none: env.grayscale=false")
    agent, suite = build_agent(config, obs_shape, env.action_space, streams, env.goal_dim)
    if views := suite.reads & {"views", "clip_views"}:
        names = "+".join(config.aux)
        raise ValueError(f"aux={names} reads {', '.join(views)}, which train.py does not have: pretrain.py aux={names}")
    if "rgb" in suite.reads and channels != 3:
        raise ValueError(f"aux={'+'.join(config.aux)} needs colour frames: env.grayscale=false")
    space = None
    if learns_space:
        space = TaskSpace(*own_goal_task(suite, agent.encoder), device)
        env = GoalSpaceVector(env, space, observe=config.goal.observe, source=config.goal.source)
    return env, agent, suite, space


def build_collector(config: Config, env: VectorEnv, agent: Agent) -> Collector:
    """The collector that steps the environment.

    Args:
        env: as one process steps it.

    Raises:
        ValueError: the environment cannot step beside updates, or the Ray cluster cannot be reached.
    """
    if config.collect.name != "ray":
        kind = OverlappedCollector if config.collect.name == "overlap" else LocalCollector
        return kind(agent, env, config.frame_stack, config.env.padding)
    from experiment.training.ray_collecting import RayCollector

    return RayCollector(config, env, agent)


def own_agent(config: Config) -> AgentConfig:
    """The hyperparameters of the agent, which must be one of this suite.

    Raises:
        ValueError: the agent is one of Stable-Baselines3.
    """
    if isinstance(config.agent, AgentConfig):
        return config.agent
    raise ValueError(
        f"agent={config.agent.name} is a Stable-Baselines3 agent, which only train.py supports: load model.zip in the "
        "run folder with Stable-Baselines3"
    )


def build_streams(seed: int, device: torch.device) -> Streams:
    """The random streams of a run."""
    return Streams(
        explore=numpy_stream(seed, "explore"),
        replay=numpy_stream(seed, "replay"),
        draw=torch_stream(seed, "draw", device),
        augment=torch_stream(seed, "augment", device),
        policy=torch_stream(seed, "policy", device),
        auxiliary=torch_stream(seed, "auxiliary", device),
        synthetic=torch_stream(seed, "synthetic", device),
    )


def goal_functions(config: Config, env: VectorEnv, space: TaskSpace | None) -> GoalFunctions | None:
    """What the replay needs to relabel goals; None for an environment without goals.

    Args:
        space: the goal space that learns during the training, if there is one.

    Raises:
        ValueError: there are no goals to relabel, or goals cannot be imagined.
    """
    shares = config.replay.relabel.shares()
    if space and config.goal.source == "env" and "rollout" in shares:
        raise ValueError(
            "goal.space=aux moves, and with it the goals of goal.source=env that were pursued: replay.relabel.rollout=0"
        )
    if not env.goal_dim:
        if list(shares) != ["rollout"]:
            raise ValueError(f"replay.relabel gives batches other goals, but env={config.env.name} has no goals")
        return None
    if "imagined" in shares:
        env.imagine(np.zeros((1, env.goal_dim), np.float32), np.random.default_rng(0))  # raises where it cannot
    return GoalFunctions(env.compute_reward, env.compute_terminated, env.imagine, space.embed if space else None)


def build_agent(
    config: Config,
    obs_shape: tuple[int, int, int],
    action_space: Discrete | Box,
    streams: Streams,
    goal_dim: int = 0,
) -> tuple[Agent, AuxSuite]:
    """The agent and its auxiliary tasks. Encoder, agent and heads are each initialised from their own random stream.

    Raises:
        ValueError: the agent is for other actions, or a part does not fit the observations.
    """
    agent_config = own_agent(config)
    encoder = build_initial_encoder(config.encoder, obs_shape, config.seed, config.frame_stack)
    if config.replay.synthetic.share and not isinstance(encoder, StateEncoder):
        encoder = FrozenEncoder(encoder)
    setting = TaskSetting(encoder, config.frame_stack, *action_sizes(action_space), config.gamma, streams.auxiliary)
    with seeded(config.seed, "init/auxiliary"):
        suite = AuxSuite(
            config.aux,
            setting,
            learning_rate=agent_config.learning_rate,
            adam_eps=agent_config.adam_eps,
            max_grad_norm=agent_config.max_grad_norm,
        )
    if config.goal.space == AUX:
        goal_dim = own_goal_task(suite, encoder)[0].goal_dim
    with seeded(config.seed, "init/agent"):
        own = AgentStreams(streams.explore, streams.augment, streams.policy)
        agent = agent_config.build(encoder, action_space, suite, own, goal_dim)
    check_ownership(agent, optimizers(agent, suite))
    if agent_config.capture is Capture.on and agent.device.type == "cuda":
        for optimizer in optimizers(agent, suite):
            make_capturable(optimizer)
    elif agent_config.capture is Capture.on:
        log.warning("agent.capture=on: device=%s has no graphs, and updates run eagerly", agent.device)
    return agent, suite


def build_initial_encoder(
    config: EncoderConfig, obs_shape: tuple[int, int, int], seed: int, frame_stack: int = 1
) -> Encoder:
    """The encoder at the start of a run: initialised from its own random stream, or loaded from `config.init`.

    Raises:
        ValueError: it does not fit the observations (C, H, W), or would take gray frames for colour channels.
    """
    with seeded(seed, "init/encoder"):
        encoder = build_encoder(config, obs_shape)
    scaled = any(isinstance(part, ImageNetPixels) for part in encoder.modules())
    if scaled and obs_shape[0] == frame_stack and frame_stack % 3 == 0:
        raise ValueError(
            f"encoder={config.name} would take three gray frames for one in RGB: give colour frames (grayscale=false), "
            f"or another frame_stack than {frame_stack}"
        )
    if config.init:
        load_encoder(encoder, locate(config.init))
    return encoder


def without_init(config: C) -> C:
    """The config without `encoder.init`, for weights that are loaded anyway: the initial file may be gone."""
    return replace(config, encoder=replace(config.encoder, init=None))


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]]) -> None:
    """Restore the saved state of each optimiser."""
    for optimizer, saved in zip(optimizers, states, strict=True):
        capturable = optimizer.param_groups[0]["capturable"]  # of this run, not of the one that saved it
        optimizer.load_state_dict(saved)
        for group in optimizer.param_groups:
            group["capturable"] = capturable
        for parameter, moments in optimizer.state.items():
            for name, moment in moments.items():  # copies: a checkpoint that is removed must not stay mapped
                same = moment.shape == parameter.shape  # a fused step pairs raw memory, so the layouts must be equal
                moments[name] = torch.empty_like(parameter).copy_(moment) if same else moment.clone()


def optimizers(agent: Agent, suite: AuxSuite) -> list[torch.optim.Optimizer]:
    """Every optimiser of a run."""
    return [*agent.optimizers, *suite.optimizers]


def load_agent(path: Path, device: str = "cpu") -> tuple[Config, Agent]:
    """The agent of a run folder or of a folder in zoo/: `config.yaml` beside `agent.safetensors`.

    Raises:
        ValueError: a file is missing, damaged, or of another network; the message names it.
    """
    config = read_config(path / "config.yaml", Config)
    weights = path / "agent.safetensors"
    eager = replace(own_agent(config), compile=False)  # there may be no compiler here
    obs_shape, space, goal_dim = read_shapes(weights)
    streams = build_streams(config.seed, pick_device(device))
    agent, _ = build_agent(replace(without_init(config), agent=eager), obs_shape, space, streams, goal_dim)
    load_weights(agent, weights)
    return config, agent
