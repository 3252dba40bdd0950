"""Actors on a Ray cluster that collect for one learner, as in Ape-X (Horgan et al. 2018).

While the learner works through one block of steps, every actor computes the next one, with the weights that the learner
had when it asked for the block. The number of a step decides which weights act in it, never the clock. So a training
repeats and resumes bit for bit, unless an actor is lost.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents import Agent
from agents.base import acting_weights
from configs.schema import Config
from envs import EnvError, Episode, Goals, Transition, VectorEnv
from envs.workers import HANG_SECONDS
from experiment.command_line.modules import import_modules
from experiment.goals.space import AUX
from experiment.training.build import build_player, build_streams, own_agent, without_init
from experiment.training.collecting import LocalCollector
from harness.errors import first_line
from harness.process import tune_process
from harness.ray_cluster import check_nodes, check_shared, connect
from harness.seeding import derive, generator_state, numpy_stream, set_generator_state

log = logging.getLogger(__name__)

TRIES = 3  # a block is given up after so many actors in a row were lost


class Weights(NamedTuple):
    """The weights that an actor acts with."""

    values: dict[str, NDArray[Any]]
    updates: int  # number of updates behind them
    step: int  # of the agent's schedule


class Block(NamedTuple):
    """Consecutive steps of the M copies of an actor."""

    rows: Transition  # columns (T + 1, M, ...); the last row ends the running episodes, as in `FrameStorage.cut`
    episodes: list[list[Episode]]  # that ended at each of the T steps
    epsilon: float | None  # share of random actions, of an agent that has one


class Actor:
    """Environment copies and a copy of the agent, in a Ray process.

    Everything is built at the first call of `collect`, which then raises what fails.

    Args:
        config: of this actor.
        folder: working folder of the learner.
    """

    def __init__(self, config: Config, folder: str) -> None:
        self._config, self._folder = config, folder
        self._built: tuple[Agent, LocalCollector] | None = None

    def collect(self, steps: int, weights: Weights, seed: int | None) -> Block:
        """Step every copy `steps` times. With a seed, new episodes and new random streams begin first."""
        agent, collector = self._built = self._built or self._build()
        agent.load_state_dict({name: torch.tensor(value) for name, value in weights.values.items()}, strict=False)
        agent.updates = weights.updates
        agent.schedule.advance(weights.step)
        if seed is not None:
            set_generator_state(agent.streams.explore, generator_state(numpy_stream(seed, "explore")))
            collector.reset(derive(seed, "env"))
        rows, episodes = [], []
        for _ in range(steps):
            rows.append(_each(np.copy, collector.collect()))
            episodes.append(collector.episodes)
        nothing = np.zeros(collector.num_envs, np.bool_)
        end = (collector.frame, nothing, rows[-1].action, nothing.astype(np.float32), nothing, nothing, nothing)
        rows.append(Transition(*end, *(collector.goals or ())))
        return Block(_join(np.stack, rows), episodes, agent.schedule.values.get("epsilon"))

    def _build(self) -> tuple[Agent, LocalCollector]:
        check_shared(self._folder, "collect")
        os.chdir(self._folder)
        tune_process(1)
        config, device = self._config, torch.device("cpu")
        import_modules(config.imports)
        env, agent, _, _ = build_player(config, build_streams(config.seed, device), device)
        return agent, LocalCollector(agent, env, config.frame_stack, config.env.padding)


class RayCollector:
    """The learner's `Collector`: joins the steps of all actors into rows over all copies, in the order of the actors.

    The newest step of each block is held back until the next block arrives. If the actor is lost instead, its running
    episodes are truncated at that step, and another actor begins new episodes in the same copies.

    Args:
        config: of the training.
        env: as a single actor steps it. Only its shapes are read; it is closed.
        agent: the learner's, whose weights the actors get.

    Raises:
        ValueError: the cluster cannot be reached, or is too small.
    """

    frame: NDArray[Any]
    goals: Goals | None
    episodes: list[Episode]

    def __init__(self, config: Config, env: VectorEnv, agent: Agent) -> None:
        self.env, self._agent, self._config = env, agent, config
        env.close()
        settings, self._with_tasks = config.collect, config.goal.space == AUX  # one of them embeds goals
        self._ray = connect("collect", settings.address)
        check_nodes(self._ray, "collect.cpus", "CPU", settings.cpus, settings.actors)
        self._actors = [self._start(actor) for actor in range(settings.actors)]

    @property
    def num_envs(self) -> int:
        """See `Collector`."""
        return self._config.num_envs

    def reset(self, seed: int) -> None:
        """See `Collector`. Every actor's random streams follow from the seed; blocks asked for before are dropped."""
        self._seed, self._losses, self._ages, self._epsilons = seed, 0, list[int](), list[float]()
        self._rows: Transition | None = None  # (T + 1, N, ...) as in `Block`; from the second block on, T is one more
        self._ended: list[list[Episode]] = []  # by each of the T steps
        self._made: list[int] = []  # updates that had made the weights of each
        self._at = 0  # the next step to give
        self._send()
        self._asked = [self._ask(actor, derive(seed, "actor", actor)) for actor in range(len(self._actors))]

    def collect(self) -> Transition:
        """See `Collector`."""
        if self._at >= len(self._ended) - 1:
            self._receive()
        assert self._rows
        row = _each(lambda column: column[self._at], self._rows)
        self.episodes = self._ended[self._at]
        self._ages.append(self._agent.updates - self._made[self._at])
        self._at += 1
        after = _each(lambda column: column[self._at], self._rows)
        self.frame = after.frame
        self.goals = None if after.achieved is None or after.desired is None else Goals(after.achieved, after.desired)
        return row

    def begin(self) -> None:
        """Do nothing: the actors always collect."""

    def drain(self) -> dict[str, float]:
        """See `Collector`: the mean age of the weights in updates, and the mean share of random actions."""
        ages, self._ages = self._ages, []
        metrics = {"collect/weight_age": float(np.mean(ages))} if ages else {}
        return metrics | ({"rollout/exploration_rate": float(np.mean(self._epsilons))} if self._epsilons else {})

    def close(self) -> None:
        """See `Collector`."""
        self._ray.shutdown()

    def _start(self, actor: int) -> Any:
        config, actors = without_init(self._config), self._config.collect.actors
        agent = replace(own_agent(config).for_actor(actor, actors), compile=False)
        config = replace(config, agent=agent, aux=config.aux if self._with_tasks else {}, device="cpu")
        return self._ray.remote(num_cpus=config.collect.cpus)(Actor).remote(config, os.getcwd())

    def _send(self) -> None:
        """Put the current weights into Ray's object store."""
        weights = {name: value.cpu().numpy() for name, value in acting_weights(self._agent).items()}
        own = {name: value for name, value in weights.items() if self._with_tasks or not name.startswith("suite.")}
        self._updates = self._agent.updates
        self._weights = self._ray.put(Weights(own, self._updates, self._agent.schedule.step))

    def _ask(self, actor: int, seed: int | None = None) -> Any:
        """Ask for a block. The successor of a lost actor makes one step less, since `_cut` adds a row."""
        steps = self._config.collect.block - (seed is not None and self._rows is not None)
        return self._actors[actor].collect.remote(steps, self._weights, seed)

    def _receive(self) -> None:
        """Wait for a block of every actor, and ask for the next blocks with the current weights."""
        blocks = [self._block(actor) for actor in range(len(self._actors))]
        rows = _join(partial(np.concatenate, axis=1), [block.rows for block in blocks])
        if self._rows:
            rows = _join(np.concatenate, [_each(lambda column: column[-2:-1], self._rows), rows])
        copies = self._config.env.num_envs
        for ended in zip(*(block.episodes for block in blocks), strict=True):
            self._ended.append([e._replace(copy=actor * copies + e.copy) for actor, es in enumerate(ended) for e in es])
            self._made.append(self._updates)
        self._rows, self._at = rows, 0
        self._ended, self._made = self._ended[1 - len(rows.valid) :], self._made[1 - len(rows.valid) :]
        self._epsilons = [block.epsilon for block in blocks if block.epsilon is not None]
        self._send()
        self._asked = [self._ask(actor) for actor in range(len(blocks))]

    def _block(self, actor: int) -> Block:
        """The block of an actor. A lost actor is replaced by a new one.

        Raises:
            EnvError: the actor fails or takes too long, or too many actors in a row are lost.
        """
        errors = self._ray.exceptions
        for _ in range(TRIES):
            try:
                block: Block = self._ray.get(self._asked[actor], timeout=HANG_SECONDS)
                return block if len(block.episodes) == self._config.collect.block else self._cut(actor, block)
            except (errors.RayActorError, errors.ObjectLostError) as error:
                reason = first_line(error)
            except errors.GetTimeoutError as error:
                raise EnvError(f"actor {actor} gave no block in {HANG_SECONDS:g} s") from error
            except errors.RayTaskError as error:
                raise EnvError(f"actor {actor}: {first_line(error.cause)}") from error
            log.warning("actor %d was lost, its running episodes are cut, another one starts: %s", actor, reason)
            self._losses += 1
            self._actors[actor] = self._start(actor)
            self._asked[actor] = self._ask(actor, derive(self._seed, "actor", actor, self._losses))
        raise EnvError(f"actor {actor} was lost {TRIES} times in a row: {reason}")

    def _cut(self, actor: int, block: Block) -> Block:
        """Truncate a lost actor's episodes at the step held back; returns its successor's block after their end."""
        assert self._rows
        copies = self._config.env.num_envs
        own = _each(lambda column: column[-2:, actor * copies : (actor + 1) * copies], self._rows)
        own.truncated[0] |= own.valid[0] & ~own.terminated[0]
        end = _each(lambda column: column[1:], own)
        return block._replace(rows=_join(np.concatenate, [end, block.rows]), episodes=[[], *block.episodes])


def _each(function: Callable[[NDArray[Any]], NDArray[Any]], row: Transition) -> Transition:
    columns: list[Any] = [column if column is None else function(column) for column in row]
    return Transition(*columns)


def _join(function: Callable[[Sequence[NDArray[Any]]], NDArray[Any]], rows: Iterable[Transition]) -> Transition:
    columns: list[Any] = [None if parts[0] is None else function(parts) for parts in zip(*rows, strict=True)]
    return Transition(*columns)
