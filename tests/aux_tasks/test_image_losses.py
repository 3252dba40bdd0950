"""Loss and metrics of each task on images against a slow version, and where the answer is blind in closed form."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, noise
from pretext_help import ahead, loss_of
from view_help import PUZZLES, ROWS, SHAPE, array, move, tiny, two_views, unit

from aux_tasks.parts.patches import normalize

B = 5
SQUARE, GRAY, COLOUR = (2, 24, 24), (4, 12, 14), (6, 12, 14)
Found = tuple[Sequence[float], dict[str, float]]


def answered(questions: Sequence[Sequence[tuple[np.ndarray, int]]], chance: float) -> Found:
    """Of several logits with the right answer for each sample; chance is that of a guess."""
    losses = [np.mean([np.log(np.exp(z).sum()) - z[own] for z, own in of_sample]) for of_sample in questions]
    hits = [[z.argmax() == own for z, own in of_sample] for of_sample in questions]
    return losses, {"accuracy": np.mean(hits), "chance": chance}


def own_is_best(scores: np.ndarray) -> float:
    """The share of rows whose highest score is on the diagonal."""
    return float(np.mean([row.argmax() == i for i, row in enumerate(scores)]))


def enlarged(patch: torch.Tensor) -> torch.Tensor:
    """A batch of one patch at the size of the input."""
    return F.interpolate(patch[None], SQUARE[1:], mode="bilinear")


def pixels(obs: torch.Tensor) -> np.ndarray:
    return (array(obs) + 0.5) / 256 - 0.5


def simclr(task, encoder, obs) -> Found:
    z = unit(task.head(encoder(torch.cat(two_views(task, obs)))))
    logits = z @ z.T / 0.3
    logits[np.diag_indices(2 * B)] = -np.inf
    return answered([[(logits[i], i + B), (logits[i + B], i)] for i in range(B)], 1 / (2 * B - 1))


def byol(task, encoder, obs) -> Found:
    views = two_views(task, obs)  # each by itself, from the pixels to the prediction
    first, second = (unit(task.predictor(task.head(encoder(view)))) for view in views)
    of_first, of_second = (unit(task.target_head(task.target_encoder(view))) for view in views)
    losses = [4 - 2 * first[i] @ of_second[i] - 2 * second[i] @ of_first[i] for i in range(B)]
    return losses, {"accuracy": own_is_best(first @ of_second.T), "chance": 1 / B}


def soda(task, encoder, obs) -> Found:
    clean = task.views(obs, task.generator, 2).to(torch.uint8)
    picture = task.pictures[torch.randint(len(task.pictures), (B,), generator=task.generator)]
    mixed = torch.stack([o // 2 + torch.cat([p, p]) // 2 for o, p in zip(clean, picture, strict=True)])
    predicted = unit(task.predictor(task.head(encoder(mixed))))
    target = unit(task.target_head(task.target_encoder(clean)))
    losses = [2 - 2 * predicted[i] @ target[i] for i in range(B)]
    return losses, {"accuracy": own_is_best(predicted @ target.T), "chance": 1 / B}


def barlow_twins(task, encoder, obs) -> Found:
    rows = [array(task.head(encoder(view))) for view in two_views(task, obs)]
    a, b = ((half - half.mean(0)) / (half.var(0) + 1e-5) ** 0.5 for half in rows)
    correlation, same = a.T @ b / B, np.eye(4, dtype=bool)
    loss = ((1 - correlation[same]) ** 2).sum() + 0.2 * (correlation[~same] ** 2).sum()
    cosine = a @ b.T / (((a**2).sum(1)[:, None] * (b**2).sum(1)) ** 0.5)
    return [loss / 4] * B, {"agreement": correlation[same].mean(), "accuracy": own_is_best(cosine)}


def vicreg(task, encoder, obs, *, weights) -> Found:
    a, b = (array(task.head(encoder(view))) for view in two_views(task, obs))
    hinge = redundancy = 0.0
    for half in (a, b):
        covariance = np.cov(half.T)
        hinge += np.maximum(0, 1 - np.sqrt(covariance.diagonal() + 1e-4)).mean() / 2
        redundancy += (covariance[~np.eye(4, dtype=bool)] ** 2).sum() / 4
    return weights[0] * ((a - b) ** 2).mean(1) + weights[1] * hinge + weights[2] * redundancy, {}


def exemplar(task, encoder, obs) -> Found:
    task.after_step(batch_of(obs[:3]), encoder)
    label = torch.randint(2**62, (B,), generator=task.generator) % 3
    logits = array(task.head(encoder(task.views(task.bank[label], task.generator, 2))))[:, :3]
    losses, metrics = answered([[question] for question in zip(logits, label.tolist(), strict=True)], 1 / 3)
    return losses, metrics | {"filled": 3}


def rotation(task, encoder, obs) -> Found:
    turned = [torch.rot90(obs[:, :, task.rows], quarter, dims=(2, 3)) for quarter in range(4)]
    logits = array(torch.stack([task.head(encoder(images)) for images in turned], dim=1))
    return answered([[(four[quarter], quarter) for quarter in range(4)] for four in logits], 1 / 4)


def denoising(task, encoder, obs, *, emphasis) -> Found:
    corrupted = task.corrupt(obs)
    decoded, clean = array(task.decoder(encoder(corrupted))), pixels(obs)
    variance = clean.var(0)
    weight = 1 - emphasis + emphasis * variance / variance.mean()
    losses = [(weight * (d - c) ** 2).sum() / weight.sum() for d, c in zip(decoded, clean, strict=True)]
    copied = (weight * (pixels(corrupted) - clean) ** 2).mean()
    loss = np.mean(losses)
    return losses, {"copy_ratio": loss / copied, "error_ratio": loss / (weight * variance).mean()}


def context_encoder(task, encoder, obs) -> Found:
    missing, holed = task._holed(obs)
    decoded, clean = task.decoder(encoder(holed)), pixels(obs)
    losses, baseline = np.zeros((2, B))
    for i in range(B):
        hole = np.broadcast_to(missing[i].numpy(), clean[i].shape)
        losses[i] = ((array(decoded[i]) - clean[i])[hole] ** 2).mean()
        baseline[i] = ((clean.mean(0) - clean[i])[hole] ** 2).mean()
    metrics = {"error_ratio": losses.mean() / baseline.mean()}
    assert (task.adversary is None) == (task.adversarial == 0)
    if task.adversary is None:
        return losses, metrics
    logits = array(task.adversary(torch.where(missing, decoded, 0)))
    return 0.7 * losses + 0.3 * np.log(1 + np.exp(-logits)), metrics | {"fooled": (logits > 0).mean()}


def split_brain(task, encoder, obs) -> Found:
    inputs, halves = task.split(obs)
    targets = [array(half) for half in reversed(halves)]
    guesses = [array(decode(encoder(half))) for decode, half in zip(task.decoders, inputs, strict=True)]
    errors = [((g - t) ** 2).mean((1, 2, 3)) for g, t in zip(guesses, targets, strict=True)]
    ratios = [error.mean() / target.var(0).mean() for error, target in zip(errors, targets, strict=True)]
    names = ("colour", "lightness") if obs.shape[1:] == COLOUR else ("newer", "older")
    metrics = {f"{name}_error_ratio": ratio for name, ratio in zip(names, ratios, strict=True)}
    return np.mean(errors, axis=0), metrics | {"error_ratio": np.mean(ratios)}


def bigan(task, encoder, obs) -> Found:
    z = torch.rand(B, 3, generator=task.generator) * 2 - 1
    clean, latent = (obs + 0.5) / 256 - 0.5, task.to_latent(encoder(obs))
    real, generated = array(task.adversary(clean, latent)), array(task.adversary(task.generate(z), z))
    rebuilt, clean = array(task.generate(latent)), array(clean)
    distance = ((rebuilt[:, None] - clean) ** 2).mean((2, 3, 4))
    metrics = {"accuracy": own_is_best(-distance), "chance": 1 / B}
    metrics["error_ratio"] = distance.diagonal().mean() / clean.var(0).mean()
    metrics["adversary_accuracy"] = np.mean([real > 0, generated <= 0])
    return np.log(1 + np.exp(real)) + np.log(1 + np.exp(-generated)), metrics


def counting(task, encoder, obs) -> Found:
    task.count[0].weight.data *= 20  # distances of the order of 1
    counts = np.stack([[array(task.count(encoder(view[None])))[0] for view in image] for image in task._views(obs)])
    assert (counts >= 0).all()
    parts = counts[:, 1:].sum(1)
    distance = ((counts[:, 0] - parts[:, None]) ** 2).sum(2)
    other = [distance[i, (i + 1) % B] for i in range(B)]
    task.margin = sorted(other)[2]  # so that the hinge is open for two and shut for three
    losses = [distance[i, i] + max(0.0, task.margin - other[i]) for i in range(B)]
    metrics = {"accuracy": own_is_best(-distance), "chance": 1 / B, "error_ratio": np.mean(losses) / task.margin}
    return losses, metrics | {"active_counts": (counts[:, 0] > 0).any(0).mean()}


def jigsaw(task, encoder, obs) -> Found:
    tiles, label, questions = task._tiles(obs), task._labels(B, 3), []
    for b in range(B):
        embedded = [task.tile(encoder(enlarged(tile)))[0] for tile in normalize(tiles[b])]
        laid = [[embedded[t] for t in task.permutations[number].tolist()] for number in label[b]]
        questions.append([(array(task.head(torch.cat(z))), int(own)) for z, own in zip(laid, label[b], strict=True)])
    return answered(questions, 1 / 6)


def relative_position(task, encoder, obs) -> Found:
    pairs = [(4, cell, k) for k, cell in enumerate([0, 1, 2, 3, 5, 6, 7, 8])]
    pairs += [(cell, 4, 7 - k) for _, cell, k in pairs]
    questions = []
    for patches in task._inputs(task.grid.cut(obs, task.generator)):
        z = [encoder(patch[None])[0] for patch in patches]
        questions.append([(array(task.head(torch.cat([z[one], z[other]]))), own) for one, other, own in pairs])
    return answered(questions, 1 / 8)


def cpc_image(task, encoder, obs) -> Found:
    patches, positions = normalize(task.grid.cut(obs, task.generator)), list(np.ndindex(B, 5, 5))
    latent = {(b, i, j): task.latent(encoder(enlarged(patches[b, 5 * i + j])))[0] for b, i, j in positions}
    target = [array(task.target(latent[position])) for position in positions]
    found = []
    for k, predict in zip((2, 3), task.predictors, strict=True):
        questions = []
        for b in range(B):
            seen = torch.stack([latent[position] for position in positions if position[0] == b]).view(1, 5, 5, 8)
            predicted = array(predict(task.context(seen)[0])) / math.sqrt(8)
            own = [(i, j, positions.index((b, i + k, j))) for i, j in np.ndindex(5 - k, 5)]
            questions.append([(np.array([predicted[i, j] @ t for t in target]), right) for i, j, right in own])
        found.append(answered(questions, 1 / (B * 25)))
    (near, metrics), (far, others) = found
    return np.mean([near, far], axis=0), metrics | {"accuracy": (metrics["accuracy"] + others["accuracy"]) / 2}


class Case(NamedTuple):
    slow: Callable[..., Found]
    options: dict[str, Any]
    shape: tuple[int, int, int] = SHAPE
    frame_stack: int = 2
    rel: float = 1e-4


CASES = {
    "simclr": Case(simclr, {"hidden": 7, "projection_dim": 4, "temperature": 0.3}),
    "byol": Case(byol, {"hidden": 7, "projection_dim": 4}),
    "soda": Case(soda, {"hidden": 7, "projection_dim": 4}, COLOUR),
    "barlow_twins": Case(barlow_twins, {"hidden": 7, "projection_dim": 4, "redundancy": 0.2}, rel=1e-3),
    "exemplar": Case(exemplar, {"classes": 12}),
    "rotation": Case(rotation, {"all_rotations": True, "crop_rows": [2, 9]}, (6, 10, 10)),
    "denoising": Case(partial(denoising, emphasis=0.0), {"channels": 2}, COLOUR),
    "denoising/some": Case(partial(denoising, emphasis=0.75), {"emphasis": 0.75, "channels": 2}, COLOUR),
    "context_encoder": Case(context_encoder, {"channels": 2}, COLOUR),
    "context_encoder/game": Case(context_encoder, {"channels": 2, "adversarial": 0.3}, COLOUR),
    "split_brain/time": Case(split_brain, {"channels": 2}, GRAY, 4),
    "split_brain/colour": Case(split_brain, {"channels": 2}, COLOUR, 2),
    "bigan": Case(bigan, {"channels": 2, "latent_dim": 3}, COLOUR),
    "counting": Case(counting, {"counts": 7}, SQUARE),
    "jigsaw": Case(jigsaw, PUZZLES, SQUARE, rel=5e-6),
    "relative_position": Case(relative_position, {"hidden": 7}, SQUARE, rel=5e-6),
    "cpc_image": Case(cpc_image, ROWS, SQUARE),
}
for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, 3.0, 5.0)):
    named = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    CASES[f"vicreg/{weights}"] = Case(
        partial(vicreg, weights=weights), {"hidden": 7, "projection_dim": 4, **named}, rel=1e-3
    )


@pytest.mark.parametrize("name", CASES)
def test_loss_and_metrics_against_a_slow_version(name):
    case = CASES[name]
    task, encoder = tiny(name.partition("/")[0], case.shape, case.frame_stack, **case.options)
    move(task)
    move(encoder)
    obs = noise(B, *case.shape) // torch.arange(1, B + 1).view(B, 1, 1, 1).byte()
    with torch.no_grad():
        losses, metrics = ahead(task, case.slow, task, encoder, obs)
    output = loss_of(task, obs, encoder)
    assert output.loss.tolist() == pytest.approx(list(losses), rel=case.rel, abs=1e-6)
    for key, value in metrics.items():
        assert float(output.metrics[key]) == pytest.approx(float(value), rel=case.rel), key


BLIND: dict[str, tuple[dict[str, Any], float, dict[str, float]]] = {  # options, loss and metrics
    "simclr": ({}, math.log(2 * B - 1), {"spread": 0}),
    "moco": ({"queue": 8}, math.log(9), {"accuracy": 1 / B, "spread": 0}),
    "byol": ({}, 4, {"accuracy": 1 / B, "spread": 0}),
    "barlow_twins": ({}, 1, {"accuracy": 1 / B, "agreement": 0}),
    "vicreg": ({"variance": 3.0}, 3 * 0.99, {"accuracy": 1 / B, "std": 0.01}),
    "exemplar": ({}, math.log(2 * B), {"chance": 1 / (2 * B)}),
    "jigsaw": (PUZZLES, math.log(6), {}),
    "cpc_image": (ROWS, math.log(B * 25), {}),
    "relative_position": ({}, math.log(8), {}),
    "counting": ({"margin": 3.0}, 3, {"error_ratio": 1, "active_counts": 0}),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_head_that_answers_zero_has_the_loss_of_a_guess_and_finite_gradients(name):
    options, loss, metrics = BLIND[name]
    task, encoder = tiny(name, SQUARE, **options)
    for parameter in task.parameters():
        parameter.data.zero_()
    for seed in range(2):  # queue and bank fill
        task.after_step(batch_of(noise(B, *SQUARE, seed=seed)), encoder)
    output = loss_of(task, noise(B, *SQUARE), encoder)
    torch.testing.assert_close(output.loss, torch.full((B,), float(loss)))
    for key, value in metrics.items():
        assert float(output.metrics[key]) == pytest.approx(value, abs=1e-6), key
    output.loss.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in [*task.parameters(), *encoder.parameters()])
