"""Hyperparameters of the agents, by the name that a config uses. Nothing here needs torch."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from gymnasium.spaces import Box, Discrete, flatdim

from harness.checks import check_above, check_least, check_within

if TYPE_CHECKING:
    from agents.base import Agent, Streams, Suite
    from encoders import Encoder

ACTORS_EPSILON, ACTORS_ALPHA = 0.4, 7.0  # of Ape-X: how the epsilons of several actors spread


class Precision(StrEnum):
    """Number format of matrix products in an update; weights and losses are float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"  # the faster of both on this CPU: see `experiment.training.precision`


class AuxSchedule(StrEnum):
    """When the auxiliary tasks train the encoder."""

    joint = "joint"  # in one sum with the agent's loss
    alternating = "alternating"  # after each step of the agent, in a step of their own


class Conflict(StrEnum):
    """What becomes of a task's gradient on the encoder where it opposes the agent's: see `agents.conflict`."""

    none = "none"  # it is added
    gate = "gate"  # it is left out
    gate_weighted = "gate_weighted"  # it is left out, and otherwise scaled by the cosine
    pcgrad = "pcgrad"  # each loses what opposes the other


class Capture(StrEnum):
    """Whether updates and actions are recorded as CUDA graphs: see `agents.capture`."""

    auto = "auto"  # off, since it was not measured
    on = "on"
    off = "off"


@dataclass(frozen=True)
class AgentConfig(ABC):
    """Hyperparameters of every agent; steps are agent steps."""

    name: str = field(kw_only=True)
    learning_rate: float = 1e-3  # of Adam, at the start
    # reached linearly after `decay_steps`; null: the learning rate is constant
    final_learning_rate: float | None = None
    decay_steps: int = 400_000  # agent steps until `final_learning_rate` is reached
    encoder_scale: float = 1.0  # factor of the encoder's learning rate; 0 keeps the encoder as it is
    adam_eps: float = 1e-8  # epsilon of Adam
    max_grad_norm: float = math.inf  # the norm of the gradient that moves the encoder is clipped to this
    random_shift: int = 0  # pixels of shift augmentation (DrQ); 0: none
    # joint: one weighted sum of all losses; alternating: a step of the agent's loss, then one of the tasks'
    aux_schedule: AuxSchedule = AuxSchedule.joint
    # where a task's gradient on the encoder opposes the agent's. none: it is added; gate: left out; gate_weighted: left
    # out, and scaled by the cosine where it agrees; pcgrad: each loses what opposes the other
    conflict: Conflict = Conflict.none
    # number format of matrix products in an update; auto: the faster one, timed at the start and recorded in the run
    precision: Precision = Precision.float32
    compile: bool = False  # torch.compile for the networks; on a CPU it needs a C++ compiler
    capture: Capture = Capture.auto  # on a GPU, replay updates and actions as CUDA graphs; auto: off, not measured yet

    def __post_init__(self) -> None:
        check_least(0, "agent", encoder_scale=self.encoder_scale, final_learning_rate=self.final_learning_rate)
        check_least(0, "agent", adam_eps=self.adam_eps, random_shift=self.random_shift)
        check_above(0, "agent", learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        check_least(1, "agent", decay_steps=self.decay_steps)
        if self.conflict is not Conflict.none and self.aux_schedule is AuxSchedule.alternating:
            raise ValueError(
                f"agent.conflict={self.conflict} compares gradients of one step: aux_schedule must be joint"
            )
        if self.precision is Precision.auto and self.compile:
            raise ValueError("agent.precision=auto would compile both: give agent.precision=float32 or bfloat16")
        if self.conflict is not Conflict.none and not self.encoder_scale:
            raise ValueError(f"agent.conflict={self.conflict} has no effect: agent.encoder_scale=0 freezes the encoder")

    def for_actor(self, actor: int, actors: int) -> "AgentConfig":  # noqa: ARG002
        """The config of one of several actors that collect for one learner; itself where the policy samples."""
        return self

    @abstractmethod
    def build(
        self, encoder: "Encoder", action_space: Discrete | Box, suite: "Suite", streams: "Streams", goal_dim: int = 0
    ) -> "Agent":
        """The agent of this config.

        Raises:
            ValueError: the agent does not fit the action space.
        """


class Svea(StrEnum):
    """How observations are augmented that the critics learn on beside the clean ones."""

    none = "none"  # not at all
    overlay = "overlay"  # mixed with another picture
    random_conv = "random_conv"  # other colours and textures


class Target(StrEnum):
    """How the target network follows."""

    soft = "soft"
    hard = "hard"


class Head(StrEnum):
    """What DQN learns of the return."""

    plain = "plain"  # its mean, the action value
    quantile = "quantile"  # fixed quantiles: QR-DQN
    implicit = "implicit"  # quantiles at drawn fractions: IQN
    spatial = "spatial"  # its mean, where actions are positions in the image


@dataclass(frozen=True)
class DQNConfig(AgentConfig):
    """Hyperparameters; steps are agent steps."""

    name: str = field(default="dqn", kw_only=True)
    learning_rate: float = 2.5e-4
    adam_eps: float = 1.5e-4
    max_grad_norm: float = 10.0
    # plain: action values; quantile: QR-DQN; implicit: IQN; these are dueling. spatial: values of a grid of positions
    # in the image for a goal, each by the encoder's maps there
    head: Head = Head.plain
    quantiles: int = 32  # head=quantile: quantiles of the return; head=implicit: fractions drawn in an update
    double: bool = True  # the online network chooses the next action, the target network values it; false: it does both
    hidden: int = 256  # width of each stream of a dueling head; head=spatial: feature maps of its hidden layer
    layer_norm: bool = True  # layer normalisation in the head
    target: Target = Target.soft  # how the target network follows: a moving average, or a copy from time to time
    target_tau: float = 0.005  # target=soft: share of the online network blended in at each update
    target_every: int = 1000  # target=hard: updates between copies
    average_tau: float = 0.0  # share blended at each update into the average that is evaluated; 0: no average
    target_epsilon: float = 0.0  # share of random actions in the policy that the target values; 0 is Q-learning
    epsilon_start: float = 1.0  # share of random actions at the start
    epsilon_end: float = 0.01  # share of random actions after `epsilon_steps`
    epsilon_steps: int = 30_000  # agent steps over which the share of random actions falls

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(1, "agent", hidden=self.hidden, quantiles=self.quantiles, target_every=self.target_every)
        check_least(1, "agent", epsilon_steps=self.epsilon_steps)
        check_within("[0, 1]", "agent", epsilon_start=self.epsilon_start, epsilon_end=self.epsilon_end)
        check_within("[0, 1]", "agent", target_epsilon=self.target_epsilon, average_tau=self.average_tau)
        check_within("(0, 1]", "agent", target_tau=self.target_tau)

    def for_actor(self, actor: int, actors: int) -> "DQNConfig":
        """Of several actors, number i of N ends at epsilon 0.4**(1 + 7 i / (N - 1)) (Horgan et al. 2018, section 4)."""
        if actors == 1:
            return self
        return replace(self, epsilon_end=ACTORS_EPSILON ** (1 + ACTORS_ALPHA * actor / (actors - 1)))

    def build(
        self, encoder: "Encoder", action_space: Discrete | Box, suite: "Suite", streams: "Streams", goal_dim: int = 0
    ) -> "Agent":
        """See `AgentConfig.build`."""
        if not isinstance(action_space, Discrete):
            raise ValueError(
                "agent=dqn chooses among actions, but those of this environment are continuous: use agent=sac"
            )
        from agents.dqn import DQN

        return DQN(self, encoder, int(action_space.n), suite, streams, goal_dim)


@dataclass(frozen=True)
class SACConfig(AgentConfig):
    """Hyperparameters of DrQ (Kostrikov et al. 2020), except `hidden`, `num_shifts` and `random_shift`."""

    name: str = field(default="sac", kw_only=True)
    hidden: int = 256  # width of both hidden layers of actor and critics
    init_temperature: float = 0.1  # weight of the entropy at the start; it is learned
    target_tau: float = 0.01  # share of the online encoder and critics blended into the target
    num_shifts: int = 1  # shifted copies of each observation; targets and losses are their means, DrQ's K = M = 2
    # SVEA: critics learn on clean and on augmented observations alike, towards targets of clean ones. overlay mixes in
    # another picture, random_conv changes colours and textures
    svea: Svea = Svea.none
    overlay_folder: str = ""  # images or videos for svea=overlay; empty: generated colour fields
    policy_delay: int = 2  # updates of the critics for each one of actor, temperature and target

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(1, "agent", hidden=self.hidden, policy_delay=self.policy_delay, num_shifts=self.num_shifts)
        check_above(0, "agent", init_temperature=self.init_temperature)
        check_within("(0, 1]", "agent", target_tau=self.target_tau)
        if self.num_shifts > 1 and not self.random_shift:
            raise ValueError(f"agent.num_shifts={self.num_shifts}: all equal without agent.random_shift, 4 for example")
        if self.overlay_folder and self.svea is not Svea.overlay:
            raise ValueError(f"agent.overlay_folder={self.overlay_folder} is only used with agent.svea=overlay")

    def build(
        self, encoder: "Encoder", action_space: Discrete | Box, suite: "Suite", streams: "Streams", goal_dim: int = 0
    ) -> "Agent":
        """See `AgentConfig.build`."""
        if not isinstance(action_space, Box):
            raise ValueError("agent=sac acts continuously, but this environment has a choice of actions: use agent=dqn")
        from agents.sac import SAC

        return SAC(self, encoder, flatdim(action_space), suite, streams, goal_dim)


AGENTS: dict[str, type[AgentConfig]] = {"dqn": DQNConfig, "sac": SACConfig}
