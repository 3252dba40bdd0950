"""Who steps the environment of a training: the process that learns, others beside it, or actors on a Ray cluster."""

from dataclasses import dataclass, fields

from harness.checks import check_above, check_choice, check_least

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
        check_least(1, "collect", actors=self.actors)
        check_least(2, "collect", block=self.block)
        check_above(0, "collect", cpus=self.cpus)
        if self.name == "ray":
            return
        for key in fields(self)[1:]:
            if (value := getattr(self, key.name)) != key.default:
                raise ValueError(f"collect.{key.name}={value}: belongs to collect=ray")
