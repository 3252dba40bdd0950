"""Pixel environments: a config says which, `build_env` makes it."""

from envs.atari import AtariConfig, AtariVector, atari_games
from envs.base import Actions, VectorEnv, VectorStep
from envs.dmc import DmcConfig, DmcVector
from envs.pointmass import PointMassConfig, PointMassVector
from envs.single import SingleEnv
from envs.stack import FrameStack
from envs.toy import ToyConfig, ToyVector

EnvConfig = AtariConfig | DmcConfig | PointMassConfig | ToyConfig
ENVS: dict[str, type[EnvConfig]] = {
    "atari": AtariConfig,
    "dmc": DmcConfig,
    "pointmass": PointMassConfig,
    "toy": ToyConfig,
}


def build_env(config: EnvConfig, labels: bool = False) -> VectorEnv:
    """The environment that `config` describes; it needs a `reset(seed)` before the first step.

    Atari games have `labels` only if they are asked for here: they take a second emulation.
    """
    match config:
        case AtariConfig():
            return AtariVector(config, labels)
        case DmcConfig():
            return DmcVector(config)
        case PointMassConfig():
            return PointMassVector(config)
        case ToyConfig():
            return ToyVector(config)


__all__ = [
    "ENVS",
    "Actions",
    "AtariConfig",
    "AtariVector",
    "DmcConfig",
    "DmcVector",
    "EnvConfig",
    "FrameStack",
    "PointMassConfig",
    "PointMassVector",
    "SingleEnv",
    "ToyConfig",
    "ToyVector",
    "VectorEnv",
    "VectorStep",
    "atari_games",
    "build_env",
]
