"""For Stable-Baselines3: trained encoders of this suite as features extractors, and its agents as policies."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import Agent
from analysis.policies import greedy
from encoders import build_encoder
from envs import Observation
from experiment.folders.run_folder import read_run
from experiment.folders.weights import load_encoder, read_weights
from experiment.folders.zoo import locate
from experiment.training.build import without_init


class SidequestExtractor(BaseFeaturesExtractor):
    """A trained encoder for the `CnnPolicy` of any agent of Stable-Baselines3.

        DQN("CnnPolicy", env, policy_kwargs={
            "features_extractor_class": SidequestExtractor,
            "features_extractor_kwargs": {"checkpoint": "zoo/pong-dqn"},
        })

    Args:
        observation_space: uint8 pixels (C, H, W), as the encoder was trained on; `envs.SingleEnv` gives them.
        checkpoint: a run folder or a folder of zoo/.
        frozen: keep the encoder fixed; otherwise the agent trains it further.

    Raises:
        ValueError: the encoder is for other observations, or its file is missing or damaged.
    """

    def __init__(self, observation_space: Space, checkpoint: str, frozen: bool = True) -> None:  # type: ignore[type-arg]
        shape = observation_space.shape
        if not isinstance(observation_space, Box) or shape is None or len(shape) != 3:
            raise ValueError(f"SidequestExtractor reads pixels (C, H, W), got {observation_space}")
        folder = locate(checkpoint)
        run = read_run(folder)
        encoder = build_encoder(without_init(run).encoder, (shape[0], shape[1], shape[2]))
        file = load_encoder(encoder, folder)
        trained_on = tuple(read_weights(file)[1].get("obs_shape", shape))
        if trained_on != shape:
            raise ValueError(f"{file} is for observations {trained_on}, these are {shape}")
        super().__init__(observation_space, encoder.feature_dim)
        self.encoder = encoder.requires_grad_(not frozen)

    def apply(self, _: Callable[[nn.Module], None]) -> Self:
        """Nothing: PPO and A2C would give the layers new weights."""
        return self

    def forward(self, observations: Tensor) -> Tensor:
        """Features (B, Z) of pixels (B, C, H, W), which Stable-Baselines3 has divided by 255."""
        features: Tensor = self.encoder(observations * 255)
        return features


class SB3Policy:
    """An agent with the `predict` of a Stable-Baselines3 model, as `evaluate_policy` expects."""

    def __init__(self, agent: Agent) -> None:
        self._policy = greedy(agent)

    def predict(self, observation: NDArray[np.uint8], *_: Any, **__: Any) -> tuple[NDArray[Any], None]:
        """The greedy actions for observations (N, C, H, W), or the action for one (C, H, W), and no state."""
        if observation.ndim == 3:
            return self._policy(Observation(observation[None])).squeeze(0), None
        return self._policy(Observation(observation)), None
