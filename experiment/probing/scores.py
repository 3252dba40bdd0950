"""The scores of a probe: every kind of features, every label, every seed."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.learning import weighted_sum
from analysis.denoising import Embed, raw_pixels
from analysis.probe_table import Row, Scores
from analysis.probes import (
    Features,
    class_scores,
    comparable,
    embed,
    observations,
    pixels,
    score_baseline,
    score_probe,
    unseen,
)
from configs.schema import ProbeConfig
from experiment.probing.build import Probing, Rows, Supervised, build_supervised
from harness.progress import Meter
from harness.seeding import numpy_stream

log = logging.getLogger("sidequest")


def denoising_scores(parts: Probing) -> dict[str, dict[str, float]]:
    """The scores of `DenoisingTest` for pixels and for the features of each encoder; empty without backgrounds."""
    if not parts.denoising:
        return {}
    embeds: dict[str, Embed] = {"pixels": raw_pixels, **parts.encoders}
    return {name: parts.denoising(encode) for name, encode in embeds.items()}


class Draw(NamedTuple):
    """A random subset of the examples, for training and testing a probe."""

    split: str
    seed: int
    train: Rows
    test: Rows
    seen: int  # test examples left out because a training example is byte for byte the same


def measure(config: ProbeConfig, parts: Probing, stop: Callable[[], bool] = lambda: False) -> tuple[Scores, list[Draw]]:
    """Every score for every seed, and the subsets of examples. `stop` is called after each subset; True ends here."""
    scores: Scores = defaultdict(list)
    draws = [draw(config, parts, split, seed) for split in parts.splits for seed in range(config.seeds)]
    linear_only = config.mode == "linear"
    total = len(draws) * (1 if linear_only else len(parts.encoders) * config.steps)
    with Meter("subset" if linear_only else "update", total) as meter:
        for done, drawn in enumerate(draws, start=1):
            trained = score_linear(config, parts, drawn) if linear_only else score_trained(config, parts, drawn, meter)
            for row, value in chain(score_baselines(parts, drawn), trained):
                scores[row].append(value)
            if linear_only:
                meter.tick(done)
            examples = f"{len(drawn.train)} training and {len(drawn.test)} test examples"
            log.info("%s, seed %d: %s", drawn.split, drawn.seed, examples)
            if stop():
                return scores, draws[:done]
    return scores, draws


def draw(config: ProbeConfig, parts: Probing, split: str, seed: int) -> Draw:
    """Choose training and test examples at random. Test examples equal to a training example are left out.

    Raises:
        ValueError: no test example is left.
    """
    rng = numpy_stream(seed, "probe")
    wanted = zip(parts.splits[split], (config.train_labels, config.test_labels), strict=True)
    train, test = (rng.choice(rows, min(count, len(rows)), replace=False) for rows, count in wanted)
    fresh = unseen(*(parts.sampler.observe(rows).cpu().numpy() for rows in (train, test)))
    if not fresh.any():
        raise ValueError("every test observation is, byte for byte, a training observation: record more episodes")
    return Draw(split, seed, train, test[fresh], int((~fresh).sum()))


def score_linear(config: ProbeConfig, parts: Probing, drawn: Draw) -> Iterator[tuple[Row, float]]:
    """Scores of linear models and nearest neighbours on the features of fixed encoders."""
    for features, given in extract_features(parts, drawn):
        for scaling in ("standardised", "raw") if config.raw else ("standardised",):
            train, test = comparable(*given, standardise=scaling == "standardised")
            for label, values in parts.labels.items():
                found = score_probe(train, values[drawn.train], test, values[drawn.test])
                yield from label_scores(found, drawn.split, label, features, scaling)


def label_scores(
    found: Mapping[str, float], split: str, label: str, features: str, scaling: str = "standardised"
) -> Iterator[tuple[Row, float]]:
    """The scores of some features by row; `found` are the scores by metric."""
    return ((Row(split, label, features, scaling, metric), score) for metric, score in found.items())


def extract_features(parts: Probing, drawn: Draw) -> Iterator[tuple[str, tuple[Features, Features]]]:
    """Every kind of features by name, of the training and of the test examples."""
    yield "pixels", (pixels(parts.sampler, drawn.train), pixels(parts.sampler, drawn.test))
    for name, encoder in parts.encoders.items():
        train, test = (embed(encoder, parts.sampler, rows) for rows in (drawn.train, drawn.test))
        yield from ((f"{name} {layer}", (train[layer], test[layer])) for layer in train)


def score_baselines(parts: Probing, drawn: Draw) -> Iterator[tuple[Row, float]]:
    """Scores of always predicting the most frequent class, or the mean."""
    for label, values in parts.labels.items():
        found = score_baseline(values[drawn.train], values[drawn.test])
        yield from label_scores(found, drawn.split, label, "baseline")


def score_trained(config: ProbeConfig, parts: Probing, drawn: Draw, meter: Meter) -> Iterator[tuple[Row, float]]:
    """Scores of encoders after training on the labelled examples."""
    for start in parts.encoders:
        learner = build_supervised(config, parts, start, drawn.train, drawn.seed)
        fit(config, learner, meter)
        for (label, values), predicted in zip(parts.labels.items(), predict(learner, drawn.test), strict=True):
            found = class_scores(predicted, values[drawn.test])
            yield from label_scores(found, drawn.split, label, f"{start} output")


def fit(config: ProbeConfig, learner: Supervised, meter: Meter) -> None:
    """Train encoder and classifiers on the labels, and on the auxiliary tasks with the same batches."""
    encoder, suite = learner.encoder, learner.suite
    for step in range(config.steps):
        batch = learner.sampler.sample(config.batch_size, suite.reads | {"obs"}, suite.clip_length, learner.rng)
        features = encode(learner, batch.obs)
        terms = {} if learner.augmentation else suite.losses(batch, features[0], encoder)[0]
        for i, (head, target) in enumerate(zip(learner.heads, learner.targets, strict=True)):
            way = torch.arange(len(features), device=target.device)[:, None]
            joint = target[batch.index] * len(features) + way  # (K, B)
            losses = F.cross_entropy(head(features).flatten(0, 1), joint.flatten(), reduction="none")
            terms[f"label/{i}"] = losses.view(joint.shape).mean(0)
        weights = dict.fromkeys(terms, 1.0)
        weights |= {name: weight(step) for name, weight in suite.schedules().items() if name in terms}
        weighted_sum(terms, weights, batch.weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(encoder.parameters(), config.max_grad_norm)
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        suite.after_step(batch, encoder)
        meter.tick(meter.done + 1)


def encode(learner: Supervised, obs: Tensor) -> Tensor:
    """Features (K, B, Z) of observations (B, C, H, W) under each of K transformations; K is 1 without augmentation."""
    if learner.augmentation is None:
        return learner.encoder(obs)[None]  # type: ignore[no-any-return]
    ways = range(len(learner.augmentation.classes))
    views = [learner.augmentation.transform(obs, obs.new_full((len(obs),), way, dtype=torch.long)) for way in ways]
    return learner.encoder(torch.cat(views)).unflatten(0, (len(views), -1))  # type: ignore[no-any-return]


@torch.no_grad()
def predict(learner: Supervised, rows: Rows) -> list[Any]:
    """The classes (M,) that each classifier predicts at (M,) rows.

    With K transformations, the output for a label and the applied transformation is averaged over the transformations
    (Lee et al. 2020, "Self-supervised label augmentation via input transformations", equation 4).
    """
    features = torch.cat([encode(learner, obs) for obs in observations(learner.sampler, rows)], dim=1)
    answers = []
    for head in learner.heads:
        joint = head(features).unflatten(2, (-1, len(features)))  # (K, M, labels, K)
        answers.append(joint.diagonal(dim1=0, dim2=3).mean(2).argmax(1).cpu().numpy())
    return [kinds[answer] for kinds, answer in zip(learner.classes, answers, strict=True)]
