"""Settings of the replay. Nothing here needs torch."""

import math
from dataclasses import asdict, dataclass, field

from harness.checks import check_choice, check_least, check_within
from harness.schedules import linear

STORAGES = ("ram", "mmap", "cuda")


@dataclass(frozen=True)
class RelabelConfig:
    """Which goals a batch is learned for, in an environment with goals: the share of each kind. They sum to 1."""

    rollout: float = 1.0  # the goal that was pursued
    future: float = 0.0  # one that was achieved later in the episode
    final: float = 0.0  # the one achieved at the end of the episode
    episode: float = 0.0  # one achieved at any time in the episode
    random: float = 0.0  # one achieved at any time in any episode
    outcome: float = 0.0  # the one achieved at the end of any episode
    imagined: float = 0.0  # one that the goal space imagines
    discount: float = 1.0  # of `future`: a goal k steps ahead has a share of discount**k; 1: all the same

    def __post_init__(self) -> None:
        shares = {name: share for name, share in asdict(self).items() if name != "discount"}
        if not math.isclose(total := sum(shares.values()), 1) or not all(0 <= share <= 1 for share in shares.values()):
            given = ", ".join(f"{name}={share:g}" for name, share in shares.items() if share)
            raise ValueError(f"replay.relabel: shares are in [0, 1] and sum to 1, but {given} sum to {total:g}")
        check_within("(0, 1]", "replay.relabel", discount=self.discount)

    def shares(self) -> dict[str, float]:
        """The kinds that occur, with their shares."""
        return {name: share for name, share in asdict(self).items() if name != "discount" and share}


@dataclass(frozen=True)
class SyntheticConfig:
    """Transitions of a diffusion model in batches: SynthER (Lu et al. 2023), see `replay.synthetic`."""

    share: float = 0.0  # share of each batch that the model makes; 0: there is no model. replay=synthetic sets it
    every: int = 1_000  # agent steps between trainings of the model
    updates: int = 2_000  # of the model, in each training
    transitions: int = 10_000  # made after each training, in place of those before
    sampling_steps: int = 16  # of the diffusion sampler

    def __post_init__(self) -> None:
        check_within("[0, 1)", "replay.synthetic", share=self.share)
        check_least(1, "replay.synthetic", every=self.every, updates=self.updates, transitions=self.transitions)
        check_least(1, "replay.synthetic", sampling_steps=self.sampling_steps)


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept, where, and how it is drawn."""

    capacity: int = 100_000  # transitions of all environment copies together
    n_step: int = 3  # steps of the return before it bootstraps, at the start
    final_n_step: int | None = None  # reached exponentially after `n_step_steps`, as in BBF; null: it stays at `n_step`
    n_step_steps: int = 40_000  # agent steps until `final_n_step` is reached
    prioritized: bool = False  # draw transitions by their TD error; replay=prioritized sets it
    lap: bool = False  # prioritised: errors up to 1 count alike, and no importance weights; replay=lap sets it
    alpha: float = 0.5  # prioritised: 0 draws uniformly, 1 in proportion to the TD error
    beta: float = 0.4  # prioritised: exponent of the importance weights at the start; it rises to 1
    beta_steps: int = 400_000  # agent steps until `beta` is 1
    storage: str = "ram"  # where frames lie: ram, mmap (a file) or cuda, where batches are drawn on the GPU too
    path: str | None = None  # file of storage=mmap
    relabel: RelabelConfig = field(default_factory=RelabelConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        check_least(1, "replay", capacity=self.capacity, n_step=self.n_step, final_n_step=self.final_n_step)
        check_least(1, "replay", n_step_steps=self.n_step_steps, beta_steps=self.beta_steps)
        if self.lap and not self.prioritized:
            raise ValueError("replay.lap=true needs prioritized replay: give replay=lap")
        check_within("[0, 1]", "replay", alpha=self.alpha, beta=self.beta)
        check_choice("replay.storage", self.storage, STORAGES)
        if self.synthetic.share and (self.prioritized or self.storage == "cuda"):
            key = "prioritized=true" if self.prioritized else "storage=cuda"
            raise ValueError(f"replay.{key}: replay.synthetic draws uniformly on the host, leave it out")

    @property
    def longest(self) -> int:
        """Steps of the longest return that is ever asked for."""
        return max(self.n_step, self.final_n_step or 1)

    def n_step_at(self, step: int) -> int:
        """Steps of the return at an agent step (Schwarzer et al. 2023, BBF)."""
        if self.final_n_step is None:
            return self.n_step
        return round(self.n_step * math.pow(self.final_n_step / self.n_step, linear(0, 1, step, self.n_step_steps)))

    def beta_at(self, step: int) -> float:
        """Exponent of the importance weights at an agent step; LAP has none."""
        return 0.0 if self.lap else linear(self.beta, 1, step, self.beta_steps)
