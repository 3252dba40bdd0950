"""Vector environments of pixels, their families, frame stacking, and the one rollout; nothing of agents or replay."""

from envs.atari import AtariConfig, AtariVector, atari_games
from envs.base import Actions, EnvConfig, EnvError, Goals, Padding, Protocol, VectorEnv, VectorStep, action_sizes
from envs.bitflip import BitFlipConfig, BitFlipVector
from envs.deep_sea import DeepSeaConfig, DeepSeaVector
from envs.dmc import DmcConfig, DmcVector
from envs.goals import GoalSpaceVector
from envs.grasping import GraspingConfig, GraspingVector
from envs.gym_goal import GymGoalConfig, GymGoalVector
from envs.imitation import ImitationVector
from envs.pointmass import PointMassConfig, PointMassVector
from envs.pusher import PusherConfig, PusherVector
from envs.rollout import Episode, Observation, Policy, Rollout, Transition
from envs.single import SingleEnv, SingleGoalEnv
from envs.stack import FrameStack
from envs.toy import ToyConfig, ToyVector

# Environment families by tag. A user's module adds its own: `ENVS["mine"] = MyConfig`.
ENVS: dict[str, type[EnvConfig]] = {
    "atari": AtariConfig,
    "bitflip": BitFlipConfig,
    "deep_sea": DeepSeaConfig,
    "dmc": DmcConfig,
    "grasping": GraspingConfig,
    "gym_goal": GymGoalConfig,
    "pointmass": PointMassConfig,
    "pusher": PusherConfig,
    "toy": ToyConfig,
}

__all__ = [
    "ENVS",
    "Actions",
    "AtariConfig",
    "AtariVector",
    "BitFlipConfig",
    "BitFlipVector",
    "DeepSeaConfig",
    "DeepSeaVector",
    "DmcConfig",
    "DmcVector",
    "EnvConfig",
    "EnvError",
    "Episode",
    "FrameStack",
    "GoalSpaceVector",
    "Goals",
    "GraspingConfig",
    "GraspingVector",
    "GymGoalConfig",
    "GymGoalVector",
    "ImitationVector",
    "Observation",
    "Padding",
    "PointMassConfig",
    "PointMassVector",
    "Policy",
    "Protocol",
    "PusherConfig",
    "PusherVector",
    "Rollout",
    "SingleEnv",
    "SingleGoalEnv",
    "ToyConfig",
    "ToyVector",
    "Transition",
    "VectorEnv",
    "VectorStep",
    "action_sizes",
    "atari_games",
]
