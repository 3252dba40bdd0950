"""Where pretraining and probes get their frames, by the name that a config uses."""

from collections.abc import Mapping
from dataclasses import dataclass

from envs import ENVS, AtariConfig, DmcConfig, EnvConfig
from replay import Episodes


@dataclass(frozen=True)
class FramesConfig:
    """Frames of the environment `env`, recorded once and used again."""

    frames: int = 12_000  # of all copies together
    policy: str = "random"  # or a run folder, or a folder of zoo/
    path: str | None = None  # default: data/frames/<env>-<policy>-<frames>-s<seed>


SourceConfig = FramesConfig
SOURCES: dict[str, type[SourceConfig]] = {"frames": FramesConfig}


def build_source(source: SourceConfig, env: EnvConfig, seed: int) -> Episodes:
    """The episodes that `source` describes.

    Raises:
        ValueError: there are none; the message says what is missing.
    """
    raise NotImplementedError


def env_name(env: EnvConfig) -> str:
    """What an environment is called in the name of a folder."""
    match env:
        case AtariConfig():
            return env.game
        case DmcConfig():
            background = [] if env.background == "none" else [env.background]
            return "_".join([env.domain, env.task, *background])
        case _:
            return choice(env, ENVS)


def choice(part: object, kinds: Mapping[str, type]) -> str:
    """The name by which a group of Hydra's knows this config."""
    return next(name for name, kind in kinds.items() if isinstance(part, kind))
