"""The diffusion model against EDM's formulas in float64 loops, closed forms of Gaussians, and a mixture to learn."""

import math
from itertools import pairwise

import pytest
import torch

from replay.diffusion import Denoiser, churn, heun_step, noise_levels
from replay.synthetic import fit, moments

DIM = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(DIM)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 80.0])
def test_preconditioning_is_that_of_table_1(model, sigma):
    noisy = torch.randn(5, DIM, generator=generator())
    found = model(noisy, torch.full((5,), sigma))
    root = math.sqrt(sigma**2 + 1)  # sigma_data is 1
    inner = model.network(noisy / root, torch.full((5,), math.log(sigma) / 4))
    for i in range(5):
        for j in range(DIM):
            expected = noisy[i, j].item() / (sigma**2 + 1) + sigma / root * inner[i, j].item()
            assert found[i, j].item() == pytest.approx(expected, abs=2e-6, rel=1e-5)


def test_loss_is_the_weighted_error_at_noise_levels_that_are_log_normal(model):
    clean = torch.randn(4000, DIM, generator=generator(1))
    found, rng = model.loss(clean, generator(2)), generator(2)
    sigma = torch.exp(-1.2 + 1.2 * torch.randn(4000, generator=rng).double())
    noise = torch.randn(4000, DIM, generator=rng).double()
    noisy = clean + sigma[:, None] * noise
    for i in range(10):
        weight = (sigma[i] ** 2 + 1) / sigma[i] ** 2
        estimate = model(noisy[i : i + 1].float(), sigma[i : i + 1].float())[0].double()
        expected = weight * sum((estimate[j] - clean[i, j]) ** 2 for j in range(DIM)) / DIM
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-3)
    # What the network itself is to give has unit variance at every level, so that a network of zeros has loss 1.
    torch.nn.init.zeros_(model.outputs.weight)
    torch.nn.init.zeros_(model.outputs.bias)
    assert model.loss(clean, generator(3)).mean().item() == pytest.approx(1, abs=0.05)


def test_levels_are_those_of_equation_5():
    for steps in (1, 2, 9):
        levels = noise_levels(steps)
        assert len(levels) == steps + 1
        assert levels[0] == pytest.approx(80)
        assert levels[-1] == 0
    assert levels[-2] == pytest.approx(0.002)
    assert levels[3] == pytest.approx((80 ** (1 / 7) + 3 / 8 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)


def gaussian(mean: float, std: float):
    """The exact denoiser of a Gaussian."""
    return lambda x, sigma: (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)


def test_a_step_follows_the_flow_to_second_order():
    """The flow of a Gaussian is known: x - mean grows as sqrt(std**2 + sigma**2)."""
    x, denoise = torch.tensor([[4.0, -1.0]], dtype=torch.float64), gaussian(1.0, 0.5)
    exact = 1 + (x - 1) * math.sqrt((0.25 + 1) / (0.25 + 4))  # from level 2 to 1
    errors = []
    for steps in (8, 16):
        levels, y = torch.linspace(2, 1, steps + 1).tolist(), x
        for sigma, following in pairwise(levels):
            y = heun_step(denoise, y, sigma, following)
        errors.append((y - exact).abs().max().item())
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.5)
    torch.testing.assert_close(heun_step(denoise, x, 2.0, 0.0), denoise(x, 2.0))  # the last step is the estimate itself


def test_churn_raises_the_level_by_the_noise_that_it_adds():
    x = torch.zeros(40_000, 1)
    for steps, share in ((16, math.sqrt(2) - 1), (400, 0.2)):
        raised, sigma = churn(x, 3.0, steps, generator())
        assert sigma == pytest.approx(3 * (1 + share))
        assert raised.std().item() == pytest.approx(1.003 * math.sqrt(sigma**2 - 9), rel=0.02)
    for outside in (0.04, 60.0):
        assert churn(x, outside, 16, generator()) == (x, outside)


def test_the_sampler_draws_from_a_mixture_whose_denoiser_is_known(model, monkeypatch):
    """A quarter at -2 and the rest at 1, each with deviation 0.3."""
    means, shares, std = torch.tensor([-2.0, 1.0]), torch.tensor([0.25, 0.75]), 0.3

    def denoise(x, sigma):
        variance = std**2 + sigma[0] ** 2
        belief = (shares.log() - (x[..., None] - means) ** 2 / (2 * variance)).softmax(-1)
        return (belief * (std**2 * x[..., None] + sigma[0] ** 2 * means) / variance).sum(-1)

    monkeypatch.setattr(model, "forward", denoise)
    drawn = model.sample(4000, 64, generator())
    assert drawn.shape == (4000, DIM)
    assert (drawn < -0.5).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert drawn[drawn > -0.5].mean().item() == pytest.approx(1, abs=0.03)
    assert drawn[drawn > -0.5].std().item() == pytest.approx(std, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("learns", [True, False])
def test_it_learns_a_curve_on_which_two_numbers_lie(model, learns):
    x = torch.rand(2000, generator=generator()) * 4 - 2
    rows = torch.stack([x, x.square(), -x], 1)
    mean, std = moments(rows)
    if not learns:
        model.requires_grad_(False)
        model.outputs.bias.requires_grad_(True)
    fit(model, (rows - mean) / std, 800, generator(1))
    drawn = model.sample(1000, 16, generator(2)) * std + mean
    off = (drawn[:, 1] - drawn[:, 0].square()).abs().mean() + (drawn[:, 0] + drawn[:, 2]).abs().mean()
    assert (off.item() < 0.4) is learns
    assert not learns or drawn[:, 0].std().item() == pytest.approx(std[0].item(), rel=0.15)
