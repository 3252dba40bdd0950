"""RIG: goals are latents of a variational autoencoder, imagined from its prior."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, Examples, TaskSetting
from aux_tasks.goals.base import GoalTask
from aux_tasks.parts.decoder import centred, decoder, foreground_error, to_pixels
from aux_tasks.parts.posterior import Posterior, kl_divergence, kl_metrics, sample
from encoders import Encoder
from harness.checks import check_above, check_within
from replay import Batch

SEEN = 1024  # latents that skewed goals are drawn from
FRESH = 8  # of them that an update replaces
DRAWS = 10  # latents for the likelihood of a picture (Pong et al. 2020, appendix C)


class RIG(GoalTask):
    """Mean squared error of the decoded pixels + beta * KL(q(z|x) || N(0, 1)) (Nair et al. 2018, "Visual reinforcement
    learning with imagined goals"). A goal is the mean of q, its reward the negative Euclidean distance.

    Pixels are in [-0.5, 0.5] and `beta` belongs to their mean, not to a sum: compare `kl_per_dim` (nats) and
    `error_ratio` with other implementations, never beta. With the plain error, whatever covers few pixels is left out
    of the latents, so pixels are weighted by their deviation from the batch's mean picture.

    Args:
        setting: the run.
        latent_dim: G.
        beta: of the KL in nats.
        channels: of the decoder's feature maps.
        foreground: share of the error's weight that follows the deviation, in [0, 1]; 0 is the paper's error.
        skew: goals are latents of seen pictures drawn with weights p(x)^skew, in [-1, 0] (Pong et al. 2020, "Skew-Fit",
            equation 3); 0 draws them from the prior. The paper's -1 draws outliers alone here: begin with -0.1.

    Raises:
        ValueError: a value is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features"})
    seen: Tensor
    log_likelihood: Tensor
    written: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        latent_dim: int = 4,
        beta: float = 3e-4,
        channels: int = 16,
        foreground: float = 0.9,
        skew: float = 0.0,
    ) -> None:
        super().__init__(setting)
        check_within("[-1, 0]", skew=skew)
        check_above(0, beta=beta)
        check_within("[0, 1]", foreground=foreground)
        self.goal_dim, self.beta, self.foreground, self.skew = latent_dim, beta, foreground, skew
        self.posterior = Posterior(setting.feature_dim, latent_dim)
        self.decoder = decoder(latent_dim, setting.map_shape, setting.obs_shape, channels)
        self.register_buffer("seen", torch.zeros(SEEN if skew else 0, latent_dim))
        self.register_buffer("log_likelihood", torch.zeros(len(self.seen)))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))  # latents written so far

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the weighted error and divergence (B,)."""
        mean, log_variance = self.posterior(features)
        kl = kl_divergence(mean, log_variance)
        decoded, target = self.decoder(sample(mean, log_variance, self.generator)), centred(batch.obs)
        pixels = foreground_error(decoded, target, self.foreground, target.mean(0))
        return AuxOutput(pixels.loss + self.beta * kl.sum(1), pixels.metrics | kl_metrics(kl))

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: Encoder) -> None:
        """Replace the oldest of the latents that skewed goals are drawn from."""
        if self.skew:
            mean, likelihood = self.likelihood(batch.obs, encoder, min(FRESH, len(batch.obs)))
            slot = (self.written + torch.arange(len(mean), device=mean.device)) % SEEN
            self.seen.index_copy_(0, slot, mean)
            self.log_likelihood.index_copy_(0, slot, likelihood)
            self.written += len(mean)

    def likelihood(self, obs: Tensor, encoder: Encoder, count: int) -> tuple[Tensor, Tensor]:
        """Return the means (count, G) of the first of pictures (B, C, H, W), and log p(x) (count,) up to a constant.

        By importance sampling, the mean of p(x|z) p(z) / q(z|x) over `DRAWS` latents of q, where log p(x|z) is the
        negative error over beta: the decoder for which the loss is a bound.
        """
        mean, log_variance = (part.repeat_interleave(DRAWS, 0) for part in self.posterior(encoder(obs[:count])))
        z, target = sample(mean, log_variance, self.generator), centred(obs)
        repeated = target[:count].repeat_interleave(DRAWS, 0)
        picture = -foreground_error(self.decoder(z), repeated, self.foreground, target.mean(0)).loss / self.beta
        surprise = (z - mean).square() / log_variance.exp() + log_variance - z.square()  # 2 (log p(z) - log q(z|x))
        ratios = (picture + surprise.sum(1) / 2).view(-1, DRAWS)
        return mean[::DRAWS], ratios.logsumexp(1)

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return the means (B, G)."""
        mean: Tensor = self.posterior(encoder(obs))[0]
        return mean

    def imagine(self, achieved: Tensor) -> Tensor:
        """Return samples (B, G) of the prior, or of the seen pictures' latents."""
        prior = torch.empty_like(achieved).normal_(generator=self.generator)
        if not self.skew:
            return prior
        empty = torch.arange(SEEN, device=self.seen.device) >= self.written
        weight = (self.skew * self.log_likelihood).masked_fill(empty, -torch.inf).softmax(0).nan_to_num(1.0)
        chosen = weight.multinomial(len(achieved), replacement=True, generator=self.generator)
        return torch.where(empty.all(), prior, self.seen[chosen])

    def decode(self, goals: Tensor) -> Tensor:
        """Return pictures (B, C, H, W) uint8."""
        return to_pixels(self.decoder(goals))

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return observations, their reconstructions, imagined goals, and what each latent changes."""
        count = min(4, self.goal_dim, len(batch.obs))
        goals = self.embed(batch.obs[:count], encoder)
        shown = {"observation": batch.obs[:count], "rebuilt": self.decode(goals)}
        shown["imagined"] = self.decode(self.imagine(goals))
        for value in (-2, 0, 2):  # row i has latent i at this value
            shown[f"latent at {value}"] = self.decode(goals.diagonal_scatter(goals.new_full((count,), value)))
        question = (
            "What do the latents keep of the picture? In row i, latent i is moved. Imagined goals are of no picture."
        )
        return Examples(question, shown)
