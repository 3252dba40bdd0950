"""The contract of every agent, and the one update that all of them run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.capture import Captured
from agents.config import AgentConfig, AuxSchedule, Capture, Conflict, Precision
from agents.conflict import backward
from agents.learning import Schedule, weighted_sum
from encoders import Encoder, StateEncoder, fit_moments, moments, standardize, track
from encoders.augment import random_shift
from encoders.momentum import is_momentum_copy
from harness.schedules import linear
from replay import Batch

R = TypeVar("R")


class Suite(Protocol):
    """The auxiliary tasks of a run as an agent sees them: more terms for its weighted sum, with heads of their own."""

    def schedules(self) -> dict[str, Callable[[int], float]]:
        """The weight of each term as a function of the agent step."""

    def losses(self, batch: Batch, features: Tensor, encoder: Encoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Unreduced loss terms (B,), and scalars to log."""

    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder, *, learning: bool) -> Tensor | None:
        """What is added to the rewards (B,) for exploration, if anything is; only learning moves its scale."""

    def after_step(self, batch: Batch, encoder: Encoder) -> None:
        """Move heads, adversaries and momentum copies, after the encoder has moved."""

    def preserved_streams(self) -> AbstractContextManager[None]:
        """Compute losses without moving the random stream."""


class Observation(Protocol):
    """What a policy sees: see `envs.Observation`."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, C, H, W) stacked frames."""

    @property
    def goal(self) -> NDArray[np.float32] | None:
        """(N, G) what is to be reached, where there are goals."""


class Streams(NamedTuple):
    """The random streams of an agent; the torch ones are on the run's device."""

    explore: np.random.Generator  # exploratory actions
    augment: torch.Generator
    policy: torch.Generator  # actions sampled in updates


@dataclass(frozen=True)
class Update:
    """What one update leaves, all detached tensors."""

    td_error: Tensor  # (B,) absolute, for priorities; never holds a self-supervised loss
    metrics: dict[str, Tensor]  # scalars by TensorBoard tag, every loss among them


class Agent(nn.Module, ABC):
    """A policy and its learner on a pixel encoder.

    A subclass makes its networks, then calls `set_up`. `self.optimizers[0]` moves the encoder; the heads of the
    auxiliary tasks have optimisers of their own.

    Args:
        config: hyperparameters.
        encoder: the shared encoder, trained by the TD loss and by the auxiliary losses.
        suite: the auxiliary tasks of the run.
        streams: random streams.
        goal_dim: G, numbers in a goal; policy and values then read features and goal side by side. 0: no goals.
    """

    optimizers: list[torch.optim.Optimizer]
    goal_moments: Tensor | None  # mean and deviation of each number of a goal

    def __init__(
        self, config: AgentConfig, encoder: Encoder, suite: Suite, streams: Streams, goal_dim: int = 0
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.suite, self.streams = config, encoder, suite, streams
        self.goal_dim = goal_dim
        unscaled = torch.stack([torch.zeros(goal_dim), torch.ones(goal_dim)])
        self.register_buffer("goal_moments", unscaled if goal_dim else None)
        if not config.encoder_scale:
            encoder.requires_grad_(False)
        self.updates = 0

    def set_up(self, *owned: list[dict[str, Any]], compiled: Sequence[nn.Module]) -> None:
        """Move the networks to the run's device, and make schedules and optimisers.

        Args:
            owned: the parameter groups of each optimiser, each with the `scale` of its learning rate.
            compiled: networks that `config.compile` compiles.
        """
        self.to(self.device)
        weights = {f"weight/{name}": function for name, function in self.suite.schedules().items()}
        self.schedule = Schedule(self.schedules() | weights, self.device)
        self.weights = {name: self.schedule.tensors[f"weight/{name}"] for name in self.suite.schedules()}
        eps = self.config.adam_eps
        self.optimizers = [torch.optim.Adam(groups, eps=eps, fused=True) for groups in owned]
        self.state_encoders = [module for module in self.modules() if isinstance(module, StateEncoder)]
        self.captured_outputs = self.captured(self.policy_outputs)
        if self.config.compile:
            for network in compiled:
                network.compile()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.streams.augment.device

    def parameter_groups(self, head: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser that moves encoder and `head`."""
        scales = {self.encoder: self.config.encoder_scale, head: 1.0}
        return [{"params": list(m.parameters()), "scale": scale} for m, scale in scales.items() if scale]

    @property
    def input_dim(self) -> int:
        """Numbers that policy and values read: features, and the goal where there are goals."""
        return self.encoder.feature_dim + self.goal_dim

    def beside_goal(self, features: Tensor, goal: Tensor | None) -> Tensor:
        """Features (K * B, Z) with the standardised goals (B, G) of their samples, (K * B, Z + G); as they are where
        there are no goals.
        """
        if self.goal_moments is None:
            return features
        assert goal is not None, "this agent pursues goals, but none is given"
        scaled = standardize(goal, self.goal_moments)
        return torch.cat([features, scaled.repeat(len(features) // len(goal), 1)], 1)

    def fit_moments(self, batch: Batch) -> None:
        """Measure pixels, states and goals on the first batch that is learned from."""
        fit_moments(self, batch.obs)
        if self.goal_moments is not None and batch.goal is not None:
            self.goal_moments.copy_(moments(batch.goal))

    def track(self, batch: Batch) -> None:
        """Follow the moments of states and goals."""
        for encoder in self.state_encoders:
            track(encoder.state_moments, batch.obs)
        if self.goal_moments is not None and batch.goal is not None:
            track(self.goal_moments, batch.goal)

    def goal_of(self, obs: Observation) -> Tensor | None:
        """The goals (N, G) of an observation, on the run's device."""
        return None if obs.goal is None else torch.from_numpy(obs.goal).to(self.device)

    def schedules(self) -> dict[str, Callable[[int], float]]:
        """What follows from the agent step: the learning rate, which the heads of auxiliary tasks do not follow."""
        c = self.config
        final = c.learning_rate if c.final_learning_rate is None else c.final_learning_rate
        return {"learning_rate": lambda step: linear(c.learning_rate, final, step, c.decay_steps)}

    @abstractmethod
    def act(self, obs: Observation, *, explore: bool) -> NDArray[Any]:
        """Choose actions.

        Args:
            obs: pixels (N, C, H, W), and goals (N, G) where there are goals.
            explore: False for the policy that is evaluated; it draws no random number.

        Returns:
            (N,) int64, or (N, A) float32 in [-1, 1].
        """

    @abstractmethod
    def policy_outputs(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Network outputs that exploration reads, at pixels (N, C, H, W), for goals (N, G) if there are any."""

    @abstractmethod
    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss that trains the encoder.

        Args:
            features: (K * B, Z) of K copies of the observations, with their graph.
            batch: the transitions.
            next_obs: (K' * B, C, H, W) the observations after them, in K' copies, augmented or not.

        Returns:
            (B,) unreduced loss, (B,) detached absolute TD error, and detached scalars to log.
        """

    @abstractmethod
    def q_values(self, obs: Tensor, goal: Tensor | None = None) -> Tensor:
        """Values (B, K) of what the evaluated policy may do at pixels (B, C, H, W), for goals (B, G) if there are any;
        for attribution.
        """

    def captured(self, function: Callable[..., R], generators: Sequence[torch.Generator] = ()) -> Captured[R]:
        """The function as a graph, if `config.capture` asks for it and the device has graphs."""
        enabled = self.config.capture is Capture.on
        return Captured(function, self.device, enabled=enabled, generators=generators, reset=self.zero_grad)

    def update(self, batch: Batch) -> Update:
        """Learn from one batch: count the update, and `learn`."""
        self.begin_update()
        return self.learn(batch)

    def begin_update(self) -> Hashable:
        """Count an update; returns its `phase`."""
        self.updates += 1
        return self.phase()

    def phase(self) -> Hashable:
        """A key of what the newest update computes. Updates with equal keys differ only in the values of tensors."""
        turn = (self.updates - 1) % (1 + len(self.weights)) if self.config.conflict is Conflict.pcgrad else 0
        return turn, self.steps_twice

    @property
    def steps_twice(self) -> bool:
        """Whether the newest update makes a step of its own for the tasks: they alternate, and one has a weight now."""
        weights = (self.schedule.values[f"weight/{name}"] for name in self.weights)
        return self.config.aux_schedule is AuxSchedule.alternating and any(weights)

    def learn(self, batch: Batch) -> Update:
        """Learn from one batch, in a way that can be captured: what changes over time is read from the tensors of
        `self.schedule`, no tensor that stays is replaced, and nothing is read from the device.

        1. Augment and encode. 2. TD loss and auxiliary losses: one weighted sum and one step of encoder and TD head;
        with `aux_schedule=alternating` two sums and two steps. 3. The auxiliary heads step. 4. The policy learns, if it
        is not the TD head itself. 5. The targets follow.
        """
        self.track(batch)
        obs, next_obs = self.augment(batch.obs), self.augment(batch.nstep_obs)
        own = obs[: len(batch.obs)]  # the first shifted copy, which auxiliary tasks and policy read
        joint = self.config.aux_schedule is AuxSchedule.joint
        aux_terms: dict[str, Tensor] = {}
        aux_metrics: dict[str, Tensor] = {}
        with self.autocast():
            features = self.encoder(self.with_hard_copies(obs))
            rewarded, bonus_metrics = self.with_bonus(batch, features[: len(own)], learning=True)
            td_loss, td_error, metrics = self.td_loss(features, rewarded, next_obs)
            if joint:
                aux_terms, aux_metrics = self.suite.losses(batch, features[: len(own)], self.encoder)
        weights = {"td": 1.0} | (self.weights if joint else {})
        descent = self.descend({"td": td_loss} | aux_terms, weights, batch.weight)
        if not joint and self.weights:
            with self.autocast():
                aux_terms, aux_metrics = self.suite.losses(batch, self.encoder(own), self.encoder)
            if self.steps_twice:  # at weight 0, Adam's momentum alone would still move the encoder
                self.descend(aux_terms, self.weights, batch.weight)
        self.suite.after_step(batch, self.encoder)
        policy_metrics = self.update_policy(own, batch)
        self.update_targets()
        return Update(td_error, {**metrics, **bonus_metrics, **aux_metrics, **policy_metrics, **descent})

    def with_bonus(self, batch: Batch, features: Tensor, *, learning: bool) -> tuple[Batch, dict[str, Tensor]]:
        """The batch with the exploration bonus in its returns, which are of one step, and scalars to log.

        Args:
            features: (B, Z) of its observations.
            learning: whether the bonus may move its scale.
        """
        bonus = self.suite.bonus(batch, features, self.encoder, learning=learning)
        if bonus is None:
            return batch, {}
        return replace(batch, nstep_reward=batch.nstep_reward + bonus), {"train/bonus": bonus.mean()}

    def update_policy(self, obs: Tensor, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Train what acts, where the TD loss does not, on the augmented `obs` of a batch; returns scalars to log."""
        return {}

    @abstractmethod
    def update_targets(self) -> None:
        """Let target networks and averages follow."""

    def augment(self, obs: Tensor) -> Tensor:
        """Shift the pixels (B, C, H, W) if the run asks for it; (K * B, C, H, W), K copies of each."""
        if not self.config.random_shift:
            return obs
        return random_shift(obs, self.config.random_shift, self.streams.augment, self.num_shifts)

    def with_hard_copies(self, obs: Tensor) -> Tensor:
        """The augmented observations (K * B, C, H, W), and perhaps further copies that the TD loss alone learns on."""
        return obs

    @property
    def num_shifts(self) -> int:
        """Shifted copies of each observation."""
        return 1

    def autocast(self) -> torch.autocast:
        """The configured precision, for the forward passes of an update."""
        enabled = self.config.precision is Precision.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def descend(
        self, terms: dict[str, Tensor], weights: Mapping[str, Tensor | float], sample_weight: Tensor
    ) -> dict[str, Tensor]:
        """One step of the encoder's optimiser; the heads of the auxiliary tasks keep their gradients for their own.

        Returns:
            Scalars to log: the norm of the gradient of that optimiser's parameters, before clipping, and what is known
            of conflicts.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.tensors["learning_rate"] * group["scale"]
        metrics = {}
        if self.config.conflict is Conflict.none or len(terms) == 1:
            weighted_sum(terms, weights, sample_weight).backward()  # type: ignore[no-untyped-call]
        else:
            metrics = self.backward_apart(terms, weights, sample_weight)
        optimizer = self.optimizers[0]
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(moved, self.config.max_grad_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return metrics | {"health/grad_norm": norm}

    def backward_apart(
        self, terms: dict[str, Tensor], weights: Mapping[str, Tensor | float], sample_weight: Tensor
    ) -> dict[str, Tensor]:
        """The gradients of the weighted sum, but on the encoder those that `config.conflict` makes of each term's.

        Returns:
            The cosine of each task's gradient with the agent's, and 1 where it is negative: in the log, a share.
        """
        losses = [weighted_sum({name: terms[name]}, {name: weights[name]}, sample_weight) for name in terms]
        cosines = backward(losses, list(self.encoder.parameters()), self.config.conflict, self.updates - 1)
        found: dict[str, Tensor] = {}
        for name, cosine in zip(list(terms)[1:], cosines, strict=True):
            found |= {f"aux/{name}/update_cosine": cosine, f"aux/{name}/conflict_share": (cosine < 0).float()}
        return found

    @contextmanager
    def preserved_streams(self) -> Iterator[None]:
        """Compute losses without moving a random stream of the training."""
        states = [(stream, stream.get_state()) for stream in (self.streams.augment, self.streams.policy)]
        try:
            with self.suite.preserved_streams():
                yield
        finally:
            for stream, state in states:
                stream.set_state(state)

    # --- the weights that are exported ---

    def acting_weights(self) -> dict[str, Tensor]:
        """What acting and attribution need, by name: every parameter and buffer outside of momentum copies."""
        return acting_weights(self)

    def load_acting_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `acting_weights` of an equal agent gave."""
        self.load_state_dict(weights, strict=False)


def acting_weights(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module by name, without that of momentum copies."""
    copies = tuple(f"{name}." for name, part in module.named_modules() if is_momentum_copy(part))
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items() if not name.startswith(copies)}
