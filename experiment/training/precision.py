"""Replace `agent.precision=auto` by the faster precision, before the run folder records the config."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from gymnasium.spaces import Discrete, flatdim

from agents import Agent, AgentConfig, Precision
from configs.schema import Config, RunConfig
from envs import VectorEnv
from experiment.command_line.composition import read_config
from experiment.folders.run_folder import run_folder
from experiment.training.build import build_player, build_streams
from harness.process import computes_bfloat16, pick_device, tune_process
from replay import Batch

log = logging.getLogger(__name__)

GAIN = 1.1  # speed-up that bfloat16 needs: below, other load on the machine could decide
ROUNDS, SECONDS = 6, 1.0  # the most that the timing takes


def is_auto(config: RunConfig) -> bool:
    """Whether the config has `agent.precision=auto`."""
    return isinstance(config, Config) and getattr(config.agent, "precision", None) is Precision.auto


def settle_precision(config: Config) -> Config:
    """The config with a definite precision: the one the run began with, or else the faster one on this machine.

    Raises:
        ValueError: the run cannot be built.
    """
    if not is_auto(config):
        return config
    assert isinstance(config.agent, AgentConfig)
    precision = recorded_precision(config)
    if precision:
        log.info("agent.precision=auto: %s, as the run began", precision)
    else:
        precision = pick_precision(config)
    return replace(config, agent=replace(config.agent, precision=precision))


def settle_sweep(configs: Sequence[Config], threads: int) -> list[Precision | None]:
    """The precision for each run of a sweep with `auto`; None for runs that have begun, whose folder records it.

    It is the same for all: that of a run that has begun, or else the faster one for the first that can be built.

    Args:
        threads: of torch, for each run.
    """
    begun = [recorded_precision(config) for config in configs]
    if all(begun):
        return [None] * len(begun)
    tune_process(threads)
    shared = next(filter(None, begun), None)
    for config in configs:
        with suppress(ValueError):  # the run itself will raise it
            shared = shared or pick_precision(config)
    return [None if known else shared for known in begun]


def recorded_precision(config: Config) -> Precision | None:
    """The precision in the folder of a run, if it has begun."""
    with suppress(ValueError):  # no run is there, or one of another version, for which `claim_run_dir` raises
        agent = read_config(run_folder(config) / "config.yaml", Config).agent
        return agent.precision if isinstance(agent, AgentConfig) else None
    return None


def pick_precision(config: Config) -> Precision:
    """The precision in which this machine computes the agent's loss and gradients faster; float32 on a GPU."""
    device = pick_device(config.device)
    if device.type != "cpu" or not computes_bfloat16():
        log.info("agent.precision=auto: float32, because this is not a CPU with AVX-512")
        return Precision.float32
    env, agent, _, _ = build_player(config, build_streams(config.seed, device), device)
    try:
        seconds = time_precisions(agent, blank_batch(agent, env, config.batch_size))
    finally:
        env.close()
    chosen = Precision.bfloat16 if seconds["float32"] >= GAIN * seconds["bfloat16"] else Precision.float32
    measured = ", ".join(f"{1e3 * each:.1f} ms in {name}" for name, each in seconds.items())
    log.info("agent.precision=auto: %s; losses and gradients take %s", chosen, measured)
    return chosen


def blank_batch(agent: Agent, env: VectorEnv, batch_size: int) -> Batch:
    """A batch of zeros, for timing."""
    obs = torch.from_numpy(np.zeros((batch_size, *agent.encoder.obs_shape), env.frame_dtype))
    obs = obs.contiguous(memory_format=torch.channels_last)
    space, number = env.action_space, torch.zeros(batch_size)
    action = number.long() if isinstance(space, Discrete) else torch.zeros(batch_size, flatdim(space))
    goal = torch.zeros(batch_size, agent.goal_dim) if agent.goal_dim else None
    return Batch(obs, action, number, number, obs, number, number, number.long(), goal=goal)


def time_precisions(agent: Agent, batch: Batch) -> dict[str, float]:
    """CPU seconds of loss and gradients in each precision: the minimum over some rounds, after one to warm up."""
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    begun = time.perf_counter()
    while len(times["bfloat16"]) < ROUNDS and time.perf_counter() - begun < SECONDS:
        for name, seconds in times.items():
            agent.config = replace(agent.config, precision=Precision(name))
            start = time.process_time()  # hardly depends on other load
            with agent.autocast():
                loss, _, _ = agent.td_loss(agent.encoder(batch.obs), batch, batch.nstep_obs)
            loss.mean().backward()  # type: ignore[no-untyped-call]
            agent.zero_grad()
            seconds.append(time.process_time() - start)
    return {name: min(seconds[1:] or seconds) for name, seconds in times.items()}
