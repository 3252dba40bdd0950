"""Who steps the environment of a training: the process that learns, others beside it, or actors on a Ray cluster."""

from dataclasses import dataclass, fields

from harness.suggest import check_choice

COLLECTORS = ("local", "overlap", "ray")


@dataclass(frozen=True)
class CollectConfig:
    """Where transitions are collected. Every actor has `env.num_envs` copies of the environment."""

    # local: between updates; overlap: while updates run, with the weights from before them; ray: by actors on a Ray
    # cluster
    name: str = "local"
    actors: int = 1  # ray: processes that collect for the one that learns
    block: int = 16  # ray: steps of each copy that an actor sends at once; its weights are one to two blocks old
    cpus: float = 1.0  # ray: of each actor; a fraction shares a core
    address: str | None = None  # ray: of the cluster, `auto` for that of this node; default: a Ray of this machine

    def __post_init__(self) -> None:
        check_choice("collect", self.name, COLLECTORS)
        for name, least in {"actors": 1, "block": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"collect.{name}={getattr(self, name)}: must be at least {least}")
        if not self.cpus > 0:
            raise ValueError(f"collect.cpus={self.cpus}: must be above 0")
        if self.name == "ray":
            return
        for key in fields(self)[1:]:
            if (value := getattr(self, key.name)) != key.default:
                raise ValueError(f"collect.{key.name}={value}: belongs to collect=ray")
