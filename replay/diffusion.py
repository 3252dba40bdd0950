"""A diffusion model of flat vectors: EDM (Karras et al. 2022, "Elucidating the design space of diffusion-based
generative models"), with the residual network and the constants of SynthER (Lu et al. 2023).
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

SIGMA_DATA = 1.0  # standard deviation of the vectors, which are standardised
P_MEAN, P_STD = -1.2, 1.2  # of the logarithm of the noise level in training
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # the noise levels of the sampler
CHURN, CHURN_MIN, CHURN_MAX, CHURN_NOISE = 80.0, 0.05, 50.0, 1.003  # the noise that the sampler adds
WIDTH, DEPTH = 256, 4  # 1024 and 6 in SynthER, on a GPU
FREQUENCIES = 8  # of the embedding of the noise level


class Denoiser(nn.Module):
    """Estimates clean vectors (B, D) of mean 0 and standard deviation 1 from noisy ones (table 1, last column)."""

    frequency: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("frequency", torch.randn(FREQUENCIES))
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.inputs = nn.Linear(dim, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.outputs = nn.Linear(WIDTH, dim)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Estimates of the clean vectors, at noise levels (B,) above 0 (equation 7)."""
        variance = sigma[:, None].square() + SIGMA_DATA**2
        skip, out = SIGMA_DATA**2 / variance, sigma[:, None] * SIGMA_DATA / variance.sqrt()
        return skip * noisy + out * self.network(noisy / variance.sqrt(), sigma.log() / 4)

    def network(self, scaled: Tensor, level: Tensor) -> Tensor:
        """The residual network F on (B, D) vectors and (B,) logarithmic noise levels."""
        angle = 2 * math.pi * level[:, None] * self.frequency
        x = self.inputs(scaled) + self.level(torch.cat([level[:, None], angle.sin(), angle.cos()], 1))
        for block in self.blocks:
            x = x + block(x.relu())
        return self.outputs(x.relu())  # type: ignore[no-any-return]

    def loss(self, clean: Tensor, rng: torch.Generator) -> Tensor:
        """Weighted squared errors (B,) of vectors (B, D), each at a noise level of its own (equation 2)."""
        sigma = (P_MEAN + P_STD * torch.randn(len(clean), generator=rng, device=clean.device)).exp()
        noise = torch.randn(clean.shape, generator=rng, device=clean.device)
        error: Tensor = self(clean + sigma[:, None] * noise, sigma) - clean
        return (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square() * error.square().mean(1)

    @torch.no_grad()
    def sample(self, count: int, steps: int, rng: torch.Generator) -> Tensor:
        """Vectors (count, D), from noise in so many steps of the stochastic sampler (algorithm 2)."""
        device = self.outputs.weight.device
        levels = noise_levels(steps)
        x = levels[0] * torch.randn(count, self.dim, generator=rng, device=device)
        for sigma, following in pairwise(levels):
            x, sigma = churn(x, sigma, steps, rng)
            x = heun_step(lambda x, sigma: self(x, x.new_full((len(x),), sigma)), x, sigma, following)
        return x


def noise_levels(steps: int) -> list[float]:
    """The levels of a sampler of so many steps, from the largest to 0 (equation 5)."""
    ends = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return [(ends[0] + i / max(steps - 1, 1) * (ends[1] - ends[0])) ** RHO for i in range(steps)] + [0.0]


def churn(x: Tensor, sigma: float, steps: int, rng: torch.Generator) -> tuple[Tensor, float]:
    """Noise added to vectors of level `sigma`, and their new level; as they are outside of the range that has any."""
    if not CHURN_MIN <= sigma <= CHURN_MAX:
        return x, sigma
    raised = sigma * (1 + min(CHURN / steps, math.sqrt(2) - 1))
    noise = CHURN_NOISE * torch.randn(x.shape, generator=rng, device=x.device)
    return x + math.sqrt(raised**2 - sigma**2) * noise, raised


def heun_step(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float, following: float) -> Tensor:
    """Vectors (B, D) of level `sigma` to those of level `following`: Heun's step, or Euler's where that is 0."""
    slope = (x - denoise(x, sigma)) / sigma
    euler = x + (following - sigma) * slope
    if not following:
        return euler
    corrected = (euler - denoise(euler, following)) / following
    return x + (following - sigma) * (slope + corrected) / 2
