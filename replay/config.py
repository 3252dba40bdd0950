"""Settings of the replay. Nothing here needs torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept, where, and how it is drawn."""

    capacity: int = 100_000  # transitions of all environment copies together
    n_step: int = 3
    prioritized: bool = False
    alpha: float = 0.5  # 0 uniform to 1 fully prioritised
    beta: float = 0.4  # importance weights: exponent at the start, rising to 1
    beta_steps: int = 400_000  # agent steps until it is 1
    storage: str = "ram"  # where frames lie: ram, mmap (a file) or cuda
    path: str | None = None  # of the file
