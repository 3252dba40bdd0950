"""Settings of the replay. Nothing here needs torch."""

from dataclasses import dataclass

from harness.suggest import nearest

PLACES = ("ram", "mmap", "cuda")


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept, where, and how it is drawn."""

    capacity: int = 100_000  # transitions of all environment copies together
    n_step: int = 3  # steps of the return before it bootstraps
    prioritized: bool = False  # draw transitions by their TD error; replay=prioritized sets it
    alpha: float = 0.5  # prioritised: 0 draws uniformly, 1 in proportion to the TD error
    beta: float = 0.4  # prioritised: exponent of the importance weights at the start; it rises to 1
    beta_steps: int = 400_000  # agent steps until `beta` is 1
    storage: str = "ram"  # where frames lie: ram, mmap (a file) or cuda
    path: str | None = None  # file of storage=mmap

    def __post_init__(self) -> None:
        for name in ("capacity", "n_step", "beta_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"replay.{name}={getattr(self, name)}: must be at least 1")
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"replay.{name}={getattr(self, name)}: must be in [0, 1]")
        if self.storage not in PLACES:
            raise ValueError(f"unknown replay.storage {self.storage!r}: {nearest(self.storage, PLACES)}")
