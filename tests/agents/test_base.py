"""The weighted sum, ownership of parameters, and the two measurements, against slow versions and closed forms."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.optim import SGD

from agents import DQNConfig, SACConfig
from agents.learning import check_ownership, weighted_sum
from analysis.representation import effective_rank, gradient_cosines
from encoders import Encoder


def test_weighted_sum_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    terms = {name: torch.rand(7, generator=generator) for name in ("td", "rotation", "permutation")}
    weights = {"td": 1.0, "rotation": 0.5, "permutation": 3.0}
    sample_weight = torch.rand(7, generator=generator)
    total = 0.0
    for i in range(7):
        for name, weight in weights.items():
            total += float(sample_weight[i]) * weight * float(terms[name][i])
    assert float(weighted_sum(terms, weights, sample_weight)) == pytest.approx(total / 7)


@pytest.mark.parametrize("weights", [{"td": 1.0}, {"td": 1.0, "rotatoin": 1.0}, {"td": 1.0, "rotation": 1.0, "x": 0.0}])
def test_names_of_terms_and_weights_must_be_equal(weights):
    terms = {"td": torch.ones(5), "rotation": torch.ones(5)}
    with pytest.raises(ValueError, match=r"loss terms \['rotation', 'td'\] and weights \[.*\] differ"):
        weighted_sum(terms, weights, torch.ones(5))


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (4,)])
def test_a_term_that_would_broadcast_is_refused(shape):
    with pytest.raises(ValueError, match=r"loss 'rotation' has shape \(.*\), expected \(5,\)"):
        weighted_sum({"td": torch.ones(5), "rotation": torch.ones(shape)}, {"td": 1.0, "rotation": 1.0}, torch.ones(5))


def test_one_parameter_has_one_owner():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    first, second, frozen = module
    frozen.requires_grad_(False)
    check_ownership(module, [SGD(first.parameters(), 0.1), SGD(second.parameters(), 0.1)])
    with pytest.raises(ValueError, match=r"parameter 1\.weight is in 0 optimisers, expected 1"):
        check_ownership(module, [SGD(first.parameters(), 0.1)])
    with pytest.raises(ValueError, match=r"parameter 0\.bias is in 2 optimisers, expected 1"):
        check_ownership(module, [SGD([*first.parameters(), *second.parameters()], 0.1), SGD([first.bias], 0.1)])


def test_effective_rank_in_closed_form():
    direction = torch.tensor([[1.0, -2.0, 3.0]])
    line = torch.linspace(-1, 1, 8)[:, None] * direction
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-4)
    assert float(effective_rank(line + 100)) == pytest.approx(1, abs=1e-3)  # the mean does not count
    assert float(effective_rank(torch.ones(8, 3))) == pytest.approx(1)  # collapsed

    square = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float32)
    assert float(effective_rank(square)) == pytest.approx(2)
    assert float(effective_rank(square * torch.tensor([3.0, 1.0, 1.0]))) == pytest.approx(4 / 3**0.75)  # shares 3:1
    assert float(effective_rank(torch.eye(6))) == pytest.approx(5, abs=1e-4)  # B - 1


def test_gradient_cosines_against_flattened_gradients():
    torch.manual_seed(0)
    encoder = Encoder(nn.Conv2d(2, 3, 3), nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (2, 6, 6))
    obs = torch.randint(256, (7, 2, 6, 6), dtype=torch.uint8)

    def terms():
        features = encoder(obs)
        return {
            "td": features[:, 0],
            "same": 3 * features[:, 0],
            "foe": -features[:, 0],
            "other": features.exp().sum(1),
        }

    cosines = gradient_cosines(terms(), "td", encoder)
    assert all(p.grad is None for p in encoder.parameters())
    gradients = {}
    for name in terms():
        encoder.zero_grad()
        terms()[name].mean().backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in encoder.parameters()])
    assert cosines.keys() == {"same", "foe", "other"}
    for name, cosine in cosines.items():
        a, b = gradients[name], gradients["td"]
        torch.testing.assert_close(cosine, a @ b / (a.norm() * b.norm()))
    assert float(cosines["same"]) == pytest.approx(1)
    assert float(cosines["foe"]) == pytest.approx(-1)


EVERY_AGENT = {
    **{"final_learning_rate": None, "decay_steps": 400_000, "encoder_scale": 1.0, "random_shift": 0},
    **{"aux_schedule": "joint", "precision": "float32", "compile": False, "hidden": 256, "conflict": "none"},
    **{"capture": "auto"},
}
DQN = {  # the epsilon of Adam is Rainbow's
    **{"name": "dqn", "learning_rate": 2.5e-4, "adam_eps": 1.5e-4, "max_grad_norm": 10.0, "layer_norm": True},
    **{"target": "soft", "target_tau": 0.005, "target_every": 1000, "average_tau": 0.0, "target_epsilon": 0.0},
    **{"epsilon_start": 1.0, "epsilon_end": 0.01, "epsilon_steps": 30_000, "head": "plain", "quantiles": 32},
    **{"double": True},
}
SAC = {  # of DrQ
    **{"name": "sac", "learning_rate": 1e-3, "adam_eps": 1e-8, "max_grad_norm": math.inf},
    **{"init_temperature": 0.1, "target_tau": 0.01, "num_shifts": 1, "policy_delay": 2},
    **{"svea": "none", "overlay_folder": ""},
}


@pytest.mark.parametrize(("kind", "own"), [(DQNConfig, DQN), (SACConfig, SAC)])
def test_the_default_hyperparameters(kind: type[DQNConfig | SACConfig], own: dict[str, object]) -> None:
    assert asdict(kind()) == EVERY_AGENT | own
