"""Every task on control is learned from 64 samples, and from none whose content was destroyed."""

from functools import partial

import pytest
import torch
from aux_help import generator, make_setting, make_task
from control_help import dots, dots_encoder, shuffled
from pretext_help import train_on
from torch import Tensor

OPTIONS = {
    "deepmdp": {"hidden": 64},
    "dbc/paper": {"hidden": 64, "form": "paper"},
    "dbc/released": {"hidden": 64, "form": "released"},
    "dbc/robust": {"hidden": 64, "form": "robust", "bisimulation_weight": 2.0},
    "curl": {"pad": 1},
    "reconstruction": {"channels": 16, "bits": 1},
    "spr": {"horizon": 2, "projection_dim": 32, "pad": 0, "momentum": 1.0},  # alone, moving targets would collapse
    "predictive": {"hidden": 64},
    "self_prediction": {"hidden": 64, "momentum": 1.0},
    "contrastive_ucb": {"hidden": 64, "latent_dim": 32},
    "inverse_dynamics": {"hidden": 64},
}
SOLVED = {
    "deepmdp": 0.7,
    "dbc/paper": 0.7,
    "dbc/released": 0.75,
    "reconstruction": 0.3,
    "self_prediction": 0.7,
}  # 0.9 for accuracies
SOLVED["dbc/robust"] = 0.55  # its distances are at most 2, whatever the rewards ask for
CHANCE = {"curl": 1 / 64, "spr": 1 / 64, "inverse_dynamics": 1 / 3}
LEARNING_RATE = {"deepmdp": 1e-3, "predictive": 1e-3}  # the gradient of a norm does not fade near the goal


setting_of = partial(make_setting, num_actions=4, action_dim=4)


def metrics_after_training(name: str, *, steps: int, destroyed: bool = False) -> dict[str, Tensor]:
    """Train encoder and head on the same 64 samples; with `destroyed`, each step pairs them anew at random."""
    encoder = dots_encoder()
    task = make_task(name.partition("/")[0], encoder, setting_of(encoder), **OPTIONS[name])
    whole, draw = dots(), generator(4)
    if destroyed and name == "curl":
        views = task._views
        task._views = lambda obs: (views(obs)[0], views(obs)[1][torch.randperm(len(obs), generator=draw)])
    trained = [p for p in [*encoder.parameters(), *task.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE.get(name, 3e-3))
    seen = []
    for _ in range(steps):
        batch = shuffled(whole, draw) if destroyed else whole
        features = encoder(batch.obs)
        if destroyed and name == "reconstruction":
            features = features[torch.randperm(len(features), generator=draw)]
        output = task.loss(batch, features, encoder)
        optimizer.zero_grad()
        output.loss.mean().backward()
        optimizer.step()
        task.after_step(batch, encoder)
        seen.append(output.metrics)
    return {key: torch.stack([metrics[key] for metrics in seen[-10:]]).mean() for key in seen[0]}


def score(name: str, metrics: dict[str, Tensor]) -> float:
    """1 when solved, about 0 at chance."""

    def explained(what: str) -> float:
        return 1 - float(metrics[f"{what}_error"] / metrics[f"{what}_baseline"])

    match name.partition("/")[0]:
        case "deepmdp":
            return min(explained("transition"), explained("reward"))
        case "dbc":
            return min(float(metrics["correlation"]), explained("reward"))
        case "predictive":
            return explained("prediction")
        case "reconstruction" | "self_prediction":
            return 1 - float(metrics["error_ratio"])
        case "contrastive_ucb":
            return 2 * float(metrics["accuracy"]) - 1
        case _:
            return float(metrics["accuracy"])


@pytest.mark.parametrize("name", OPTIONS)
def test_64_samples_are_learned(name):
    before, after = (score(name, metrics_after_training(name, steps=steps)) for steps in (1, 150))
    assert before < 0.5
    assert after > SOLVED.get(name, 0.9)


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_learned_from_destroyed_content(name):
    assert score(name, metrics_after_training(name, steps=60, destroyed=True)) < CHANCE.get(name, 0.0) + 0.1


def spread(negative_weight: float) -> float:
    """Mean distance of the latents of different dots, nearly none at first, after training on this task alone."""
    encoder, batch = dots_encoder(), dots()
    with torch.no_grad():
        encoder.neck.weight *= 1e-3
    task = make_task("predictive", encoder, setting_of(encoder), hidden=64, negative_weight=negative_weight)
    train_on(task, encoder, lambda _: batch, steps=150)
    with torch.no_grad():
        return float(torch.pdist(encoder(batch.obs)).mean())


def test_the_negatives_of_the_predictive_task_keep_the_latents_apart():
    assert spread(0.0) < 3  # measured 1.6
    assert spread(1.0) > 5  # 7.3
