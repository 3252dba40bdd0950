"""Where the runs of a sweep run, by the name that `sweep=` uses."""

from dataclasses import dataclass

from harness.checks import check_least


@dataclass
class LocalSweep:
    """Processes of this machine."""

    jobs: int = 0  # at once; 0: one for each core

    def __post_init__(self) -> None:
        check_least(0, "sweep", jobs=self.jobs)


@dataclass
class RaySweep:
    """Tasks of a Ray cluster, whose nodes share the working folder."""

    address: str | None = None  # of the cluster, `auto` for that of this node; default: a Ray of this machine alone
    cpus: float = 1.0  # of each run
    gpus: float = 0.0  # of each run; a fraction shares one GPU
    retries: int = 3  # of a run whose process, worker or node was killed; it continues from its newest checkpoint

    def __post_init__(self) -> None:
        check_least(0, "sweep", cpus=self.cpus, gpus=self.gpus, retries=self.retries)


SWEEPS: dict[str, type[LocalSweep | RaySweep]] = {"local": LocalSweep, "ray": RaySweep}
