"""CC-RIG: imagined goals that belong to the scene at hand."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, Examples, TaskSetting
from aux_tasks.goals.base import GoalTask
from aux_tasks.parts.decoder import centred, decoder, foreground_error, to_pixels
from aux_tasks.parts.posterior import Posterior, kl_divergence, kl_metrics, sample
from encoders import Encoder
from harness.checks import check_above, check_least, check_within
from replay import Batch

LOOKS = 64  # filters that tell what is in a first picture


class ContextConditionedRIG(GoalTask):
    """|D(z, c) - x|^2 + |D0(c) - x0|^2 + beta * KL(q(z|x, x0) || N(0, 1)), with the code c(x0) of the first picture of
    the episode (Nair et al. 2019, "Contextual imagined goals for self-supervised robotic learning").

    What an episode does not change, such as the colour of its object, is free of charge in c, and the KL keeps it out
    of z. A goal is [mean of q, c]; imagining redraws z and keeps c; the reward is the negative Euclidean distance of z.
    The errors are those of `RIG`. Beside the encoder's features, c reads the largest response of each of 64 filters of
    the head's own: what is in the picture, wherever it is, which an encoder of positions hardly tells. The paper has
    one encoder; its batch normalisation and dropout of c are left out: they answer otherwise in training than in use.

    Args:
        setting: the run.
        latent_dim: of z.
        context_dim: of c.
        beta: of the KL in nats beside the mean squared errors.
        channels: of the decoders' feature maps.
        foreground: see `RIG`.

    Raises:
        ValueError: a value is out of range.
    """

    uses_context = True
    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "context"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        latent_dim: int = 4,
        context_dim: int = 8,
        beta: float = 3e-4,
        channels: int = 16,
        foreground: float = 0.9,
    ) -> None:
        super().__init__(setting)
        check_least(1, context_dim=context_dim)
        check_above(0, beta=beta)
        check_within("[0, 1]", foreground=foreground)
        self.latent_dim, self.goal_dim = latent_dim, latent_dim + context_dim
        self.beta, self.foreground = beta, foreground
        self.posterior = Posterior(2 * setting.feature_dim, latent_dim)
        self.appearance = nn.Sequential(
            nn.Conv2d(setting.obs_shape[0], 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, LOOKS, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.code = nn.Linear(setting.feature_dim + LOOKS, context_dim)
        shapes = (setting.map_shape, setting.obs_shape, channels)
        self.decoder = decoder(self.goal_dim, *shapes)
        self.context_decoder = decoder(context_dim, *shapes)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return both errors and the divergence (B,)."""
        assert batch.context is not None
        context = encoder(batch.context)
        mean, log_variance = self.posterior(torch.cat([features, context], dim=1))
        code, kl = self._code(batch.context, context), kl_divergence(mean, log_variance)
        latent = torch.cat([sample(mean, log_variance, self.generator), code], dim=1)
        pixels = self._error(self.decoder(latent), batch.obs)
        first = self._error(self.context_decoder(code), batch.context)
        metrics = pixels.metrics | {"context_error_ratio": first.metrics["error_ratio"]} | kl_metrics(kl)
        return AuxOutput(pixels.loss + first.loss + self.beta * kl.sum(1), metrics)

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:
        """Return [mean, code] (B, G).

        Raises:
            ValueError: there is no context.
        """
        if context is None:
            raise ValueError("cc_rig embeds a picture beside the first of its episode: give context=")
        beside = encoder(context)
        mean: Tensor = self.posterior(torch.cat([encoder(obs), beside], dim=1))[0]
        return torch.cat([mean, self._code(context, beside)], dim=1)

    def compared(self, goals: Tensor) -> Tensor:
        """Return the latents (B, L) of goals, without the codes."""
        return goals[:, : self.latent_dim]

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the negative distance (B,) of the latents."""
        return super().reward(self.compared(achieved), self.compared(desired))

    def imagine(self, achieved: Tensor) -> Tensor:
        """Return samples of the prior (B, G), with the codes of the scenes."""
        latent = torch.empty_like(achieved[:, : self.latent_dim]).normal_(generator=self.generator)
        return torch.cat([latent, achieved[:, self.latent_dim :]], dim=1)

    def decode(self, goals: Tensor) -> Tensor:
        """Return pictures (B, C, H, W) uint8."""
        return to_pixels(self.decoder(goals))

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four first pictures with what their code keeps, observations, and goals imagined for the scene."""
        assert batch.context is not None
        obs, context = batch.obs[:4], batch.context[:4]
        goals = self.embed(obs, encoder, context)
        shown = {
            "first": context,
            "first rebuilt": to_pixels(self.context_decoder(goals[:, self.latent_dim :])),
            "observation": obs,
            "rebuilt": self.decode(goals),
        }
        shown |= {f"imagined {k}": self.decode(self.imagine(goals)) for k in (1, 2)}
        return Examples("Do the imagined goals show the things of the first picture, elsewhere?", shown)

    def _code(self, context: Tensor, features: Tensor) -> Tensor:
        """Return c (B, K) of first pictures (B, C, H, W), whose features (B, Z) are known."""
        code: Tensor = self.code(torch.cat([features, self.appearance(centred(context))], dim=1)).float()
        return code

    def _error(self, decoded: Tensor, obs: Tensor) -> AuxOutput:
        target = centred(obs)
        return foreground_error(decoded, target, self.foreground, target.mean(0))
