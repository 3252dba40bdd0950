"""Probes: how well linear models and nearest neighbours predict labels from features, by one protocol for all."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import EpisodeSampler
from encoders import Encoder
from harness.lazy import LazyModule

dummy, linear_model, metrics, neighbors = (
    LazyModule(f"sklearn.{name}") for name in ("dummy", "linear_model", "metrics", "neighbors")
)
stats = LazyModule("scipy.stats")

Features = NDArray[np.floating]  # (N, D)
Labels = NDArray[Any]  # (N,) strings are classes, floats are measures, integers are both

# Features are scaled to a mean square norm of 1 first, so that these do not depend on the number of features.
LOGISTIC_C = 10.0
RIDGE_ALPHAS = np.logspace(-4, 2, 7)
NEIGHBOURS = 5
MIN_ENTROPY = 0.6  # nats of a label, below which a constant prediction is good enough (Anand et al. 2019)
CHUNK = 256  # observations in a forward pass


@torch.no_grad()
def embed(encoder: Encoder, sampler: EpisodeSampler, rows: NDArray[np.int64]) -> dict[str, Features]:
    """The encoder's feature maps, flat, and its output, as `maps` and `output`, for observations at (N,) rows."""
    parts: dict[str, list[Features]] = {"maps": [], "output": []}
    for obs in observations(sampler, rows):
        maps = encoder.maps(obs)
        parts["maps"].append(maps.flatten(1).cpu().numpy())
        parts["output"].append(encoder.features(maps).cpu().numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


@torch.no_grad()
def outputs(encoder: Encoder, sampler: EpisodeSampler, rows: NDArray[np.int64]) -> Tensor:
    """The encoder's output (N, Z) alone, which takes much less memory than `embed`."""
    return torch.cat([encoder(obs) for obs in observations(sampler, rows)])


def observations(sampler: EpisodeSampler, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    """The observations at (N,) rows, in chunks for one forward pass each."""
    return map(sampler.observe, np.array_split(rows, -(-len(rows) // CHUNK)))


def pixels(sampler: EpisodeSampler, rows: NDArray[np.int64]) -> Features:
    """The observations at (N,) rows, flat: the baseline."""
    return sampler.observe(rows).flatten(1).float().cpu().numpy()


def comparable(train: Features, test: Features, *, standardise: bool = True) -> tuple[Features, Features]:
    """Training and test features, normalised as every probe reads them.

    Dimensions that are constant in the training part are dropped. Test values are clipped to the range of the training
    part, since a unit that hardly ever fired has a tiny standard deviation. Features are standardised by the training
    part, if asked for, and scaled to a mean square norm of 1. If there are more dimensions than examples, features are
    projected on the span of the training part. This is exact: other directions change neither an L2-regularised linear
    model nor the order of neighbours.
    """
    low, high = train.min(0), train.max(0)
    varies = low < high
    if not varies.any():
        return np.zeros((len(train), 1)), np.zeros((len(test), 1))
    train, test = train[:, varies], test.clip(low, high)[:, varies]
    if standardise:
        mean, std = train.mean(0), train.std(0)
        train, test = (train - mean) / std, (test - mean) / std
    if train.shape[1] > len(train):
        basis = np.linalg.qr(train.T)[0]
        train, test = train @ basis, test @ basis
    size = np.sqrt(np.square(train).sum(1).mean())
    return (train / size).astype(np.float64), (test / size).astype(np.float64)


def ridge(train: Features, values: NDArray[Any], test: Features) -> NDArray[Any]:
    """Predict values (M, K) of test features (M, D) by ridge regression on training features (N, D), values (N, K)."""
    fitted = linear_model.RidgeCV(RIDGE_ALPHAS, alpha_per_target=True).fit(train, values)
    predicted: NDArray[Any] = fitted.predict(test).reshape(len(test), -1)
    return predicted


def is_class(label: Labels) -> bool:
    """Whether a label can be predicted as classes."""
    return not np.issubdtype(label.dtype, np.floating)


def is_measure(label: Labels) -> bool:
    """Whether a label can be predicted as a number."""
    return np.issubdtype(label.dtype, np.number)


def score_probe(train: Features, label: Labels, test: Features, truth: Labels) -> dict[str, float]:
    """Scores on the test part of linear models, and for classes of nearest neighbours, fitted on the training part."""
    found = {}
    if is_class(label):
        several = len(np.unique(label)) > 1
        linear = linear_model.LogisticRegression(C=LOGISTIC_C, max_iter=1000) if several else dummy.DummyClassifier()
        near = neighbors.KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, label)
        found = class_scores(linear.fit(train, label).predict(test), truth) | {"knn": float(near.score(test, truth))}
    if is_measure(label):
        found |= measure_scores(linear_model.RidgeCV(RIDGE_ALPHAS).fit(train, label).predict(test), truth)
    return found


def score_baseline(label: Labels, truth: Labels) -> dict[str, float]:
    """Scores without features: of always predicting the training part's most frequent class, or its mean."""
    found = {}
    if is_class(label):
        classes, counts = np.unique(label, return_counts=True)
        found = class_scores(np.full(len(truth), classes[counts.argmax()]), truth)
    if is_measure(label):
        found |= measure_scores(np.full(len(truth), label.mean()), truth)
    return found


def class_scores(predicted: Labels, truth: Labels) -> dict[str, float]:
    """`accuracy`, `f1` (weighted) and `accuracy/<class>`."""
    right = predicted == truth
    classes = {f"accuracy/{kind}": float(right[truth == kind].mean()) for kind in np.unique(truth)}
    f1 = metrics.f1_score(truth, predicted, average="weighted", zero_division=0)
    return {"accuracy": float(right.mean()), "f1": float(f1), **classes}


def measure_scores(predicted: Labels, truth: Labels) -> dict[str, float]:
    """`r2`, and `mae` in the label's unit."""
    r2, mae = metrics.r2_score(truth, predicted), metrics.mean_absolute_error(truth, predicted)
    return {"r2": float(r2), "mae": float(mae)}


def unseen(train: Features, test: Features) -> NDArray[np.bool_]:
    """(M,) whether each test observation differs from all training observations, byte for byte."""
    known = {row.tobytes() for row in train}
    return np.array([row.tobytes() not in known for row in test])


def low_entropy(labels: Mapping[str, Labels], *parts: NDArray[np.int64], most: float = MIN_ENTROPY) -> list[str]:
    """The labels with an entropy of at most `most` nats over one of the parts, each (N,) rows; 0 finds constants."""

    def entropy(values: Labels) -> float:
        return float(stats.entropy(np.unique(values, return_counts=True)[1]))

    return [name for name, label in labels.items() if min(entropy(label[rows]) for rows in parts) <= most]


class OnlineProbe:
    """Ridge probes of an encoder during its training, always on the same examples and without randomness.

    Args:
        sampler: of the labelled observations, on the encoder's device.
        train, test: (N,), (M,) rows, of different episodes.

    Raises:
        ValueError: no label varies.
    """

    def __init__(self, sampler: EpisodeSampler, train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
        self.sampler, self.train, self.test = sampler, train, test
        labels = sampler.episodes.labels
        dropped = low_entropy(labels, train, test)
        self.labels = {name: np.asarray(labels[name], np.float64) for name in labels if name not in dropped}
        if not self.labels:
            raise ValueError("probe_every: the frames of this environment have no label that varies; use probe_every=0")

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """`repr/probe/<label>`, the R2 on the test rows from `encoder`'s output, and `repr/probe/mean`."""
        train, test = (outputs(encoder, self.sampler, rows).cpu().numpy() for rows in (self.train, self.test))
        train, test = comparable(train, test)
        names = list(self.labels)
        known, truth = (np.stack([self.labels[name][rows] for name in names], 1) for rows in (self.train, self.test))
        scores = metrics.r2_score(truth, ridge(train, known, test), multioutput="raw_values")
        found = {f"repr/probe/{name}": float(value) for name, value in zip(names, scores, strict=True)}
        return found | {"repr/probe/mean": float(np.mean(scores))}
