"""What does an encoder know? Labels read from its features, beside those of the same network untrained, and pixels.

    python probe.py checkpoint=zoo/pong-permutation
    python probe.py checkpoint=runs/pretrain/idx/rotation/s0 source=idx source.folder=data/mnist labels=[class]
    python probe.py checkpoint=runs/pretrain/idx/rotation/s0 mode=joint aux=rotation aux.rotation.weight=0.5

Every comparison is paired: the same weights before and after training, the same examples, the same probe.
"""

import hashlib
import logging
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from agents.learning import weighted_sum
from analysis.probes import Features, class_scores, comparable, embed, guess, interval, outputs, pixels, read, unseen
from configs.schema import ProbeConfig, flat
from experiment.composition import freeze
from experiment.launch import launch
from experiment.probing import Probing, Rows, Supervised, build_probing, build_supervised
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream

log = logging.getLogger("sidequest")

MAIN_METRICS = ("accuracy", "r2")
SHOWN = ("accuracy", "knn", "r2")  # on the terminal, and the classes one by one where there are so many at most
MAX_CLASSES = 20


class Row(NamedTuple):
    """What a score is of."""

    split: str  # held-out or random
    label: str
    features: str  # baseline, pixels, initial maps, initial output, trained maps, trained output
    scaling: str  # standardised or raw
    metric: str


class Draw(NamedTuple):
    """A random subset of the examples."""

    split: str
    seed: int
    train: Rows
    test: Rows
    seen: int  # test examples left out, for a training example is the same byte for byte


Scores: TypeAlias = dict[Row, list[float]]  # one for each seed


def probe(config: ProbeConfig, argv: list[str]) -> int:
    """Measure, report and show; returns the process exit code."""
    start, threads = time.perf_counter(), tune_process(config.threads)
    parts = build_probing(config)
    log.info("%s: %d seeds, %d torch threads", config.checkpoint, config.seeds, threads)
    if parts.dropped:
        log.info("dropped, for they hardly vary: %s", ", ".join(parts.dropped))
    scores, draws = measure(config, parts)
    compared = differences(scores)
    path = Path(config.report or parts.weights.parent / f"probe-{config.mode}-{parts.source.name}.json")
    command = shlex.join(["python", "probe.py", *argv])
    write_json(report(config, parts, scores, compared, draws, command, time.perf_counter() - start), path)
    show(scores, compared)
    log.info("report  %s", path)
    sys.stdout.write(summary(compared) + "\n")
    return 0


# --- the numbers ---


def measure(config: ProbeConfig, parts: Probing) -> tuple[Scores, list[Draw]]:
    """Every score for every seed, and the examples that they are over."""
    scores: Scores = defaultdict(list)
    draws = [draw(config, parts, split, seed) for split in parts.splits for seed in range(config.seeds)]
    for drawn in draws:
        trained = linear(config, parts, drawn) if config.mode == "linear" else supervised(config, parts, drawn)
        for row, value in chain(baseline(parts, drawn), trained):
            scores[row].append(value)
        log.info(
            "%s, seed %d: %d training and %d test examples", drawn.split, drawn.seed, len(drawn.train), len(drawn.test)
        )
    return scores, draws


def draw(config: ProbeConfig, parts: Probing, split: str, seed: int) -> Draw:
    """Choose labelled examples and test examples; those that show what a labelled one shows are left out.

    Raises:
        ValueError: none is left.
    """
    rng = numpy_stream(seed, "probe")
    wanted = zip(parts.splits[split], (config.train_labels, config.test_labels), strict=True)
    train, test = (rng.choice(rows, min(count, len(rows)), replace=False) for rows, count in wanted)
    fresh = unseen(*(parts.sampler.observe(rows).cpu().numpy() for rows in (train, test)))
    if not fresh.any():
        raise ValueError("every test observation is, byte for byte, a training observation: record more episodes")
    return Draw(split, seed, train, test[fresh], int((~fresh).sum()))


def linear(config: ProbeConfig, parts: Probing, drawn: Draw) -> Iterator[tuple[Row, float]]:
    """Scores of linear models and neighbours on features as they are."""
    for features, given in both(parts, drawn):
        for scaling in ("standardised", "raw") if config.raw else ("standardised",):
            train, test = comparable(*given, standardise=scaling == "standardised")
            for label, values in parts.labels.items():
                found = read(train, values[drawn.train], test, values[drawn.test])
                yield from ((Row(drawn.split, label, features, scaling, metric), found[metric]) for metric in found)


def both(parts: Probing, drawn: Draw) -> Iterator[tuple[str, tuple[Features, Features]]]:
    """Every kind of features, of the training and of the test examples."""
    yield "pixels", (pixels(parts.sampler, drawn.train), pixels(parts.sampler, drawn.test))
    for name, encoder in parts.encoders.items():
        train, test = (embed(encoder, parts.sampler, rows) for rows in (drawn.train, drawn.test))
        yield from ((f"{name} {layer}", (train[layer], test[layer])) for layer in train)


def baseline(parts: Probing, drawn: Draw) -> Iterator[tuple[Row, float]]:
    """Scores of the most frequent class, or of the mean."""
    for label, values in parts.labels.items():
        found = guess(values[drawn.train], values[drawn.test])
        yield from ((Row(drawn.split, label, "baseline", "standardised", metric), found[metric]) for metric in found)


def supervised(config: ProbeConfig, parts: Probing, drawn: Draw) -> Iterator[tuple[Row, float]]:
    """Scores of encoders that were trained on the labelled examples."""
    for start in parts.encoders:
        learner = build_supervised(config, parts, start, drawn.train, drawn.seed)
        fit(config, learner)
        for (label, values), predicted in zip(parts.labels.items(), predict(learner, drawn.test), strict=True):
            found = class_scores(predicted, values[drawn.test])
            features = f"{start} output"
            yield from ((Row(drawn.split, label, features, "standardised", metric), found[metric]) for metric in found)


def fit(config: ProbeConfig, learner: Supervised) -> None:
    """Train encoder and classifiers on the labels, and on the auxiliary tasks of the same batches."""
    encoder, suite = learner.encoder, learner.suite
    for step in range(config.steps):
        batch = learner.sampler.sample(config.batch_size, suite.reads | {"obs"}, suite.clip_length, learner.rng)
        features = encoder(batch.obs)
        terms, _ = suite.losses(batch, features, encoder)
        for i, (head, target) in enumerate(zip(learner.heads, learner.targets, strict=True)):
            terms[f"label/{i}"] = F.cross_entropy(head(features), target[batch.index], reduction="none")
        weights = dict.fromkeys(terms, 1.0) | {name: weight(step) for name, weight in suite.schedules().items()}
        weighted_sum(terms, weights, batch.weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(encoder.parameters(), config.max_grad_norm)
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        suite.after_step(batch, encoder)


@torch.no_grad()
def predict(learner: Supervised, rows: Rows) -> list[Any]:
    """The classes (M,) that each classifier sees at (M,) rows."""
    features = outputs(learner.encoder, learner.sampler, rows)
    answers = (head(features).argmax(1).cpu().numpy() for head in learner.heads)
    return [kinds[answer] for kinds, answer in zip(learner.classes, answers, strict=True)]


def differences(scores: Scores) -> Scores:
    """Trained minus initial, seed by seed, for each row of trained features."""
    trained = {row: values for row, values in scores.items() if row.features.startswith("trained")}
    partners = {row: scores[row._replace(features=row.features.replace("trained", "initial"))] for row in trained}
    return {row: [float(v) for v in np.subtract(values, partners[row])] for row, values in trained.items()}


# --- the report ---


def report(
    config: ProbeConfig,
    parts: Probing,
    scores: Scores,
    compared: Scores,
    draws: list[Draw],
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """All numbers, and all that is needed to get them again."""
    return {
        "differences": [  # trained - initial; the interval is over the seeds, for this one trained encoder
            {**row._asdict(), "mean": np.mean(values), "interval": interval(values), "values": values}
            for row, values in compared.items()
        ],
        "scores": [{**row._asdict(), "mean": np.mean(values), "values": values} for row, values in scores.items()],
        "examples": [{**d._asdict(), "train": len(d.train), "test": len(d.test)} for d in draws],
        "dropped": parts.dropped,
        "config": flat(config),
        "source": asdict(parts.source),
        "env": asdict(parts.env),
        "sha256": {parts.weights.name: hashlib.sha256(parts.weights.read_bytes()).hexdigest()},
        "command": command,
        "versions": versions("scikit-learn"),
        "seconds": seconds,
    }


def show(scores: Scores, compared: Scores) -> None:
    """Tables on the terminal, one for each split and scaling."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    columns = dict.fromkeys(row.features for row in scores)
    for split, scaling in dict.fromkeys((row.split, row.scaling) for row in scores):
        table = Table(title=f"{split}, {scaling} features")
        table.add_column("label")
        for features in columns:
            table.add_column(features.replace(" ", "\n"), justify="right")
            if features.startswith("trained"):
                table.add_column("trained - initial", justify="right")
        for label, metrics in shown(scores).items():
            table.add_section()
            for metric in metrics:
                cells = []
                for features in columns:
                    row = Row(split, label, features, scaling, metric)
                    cells.append(f"{np.mean(scores[row]):.3f}" if row in scores else "")
                    if features.startswith("trained"):
                        cells.append(with_interval(compared[row]) if row in compared else "")
                table.add_row(f"{label} {metric}", *cells)
        console.print(table)


def shown(scores: Scores) -> dict[str, list[str]]:
    """The metrics of each label that are shown; its classes too where it is not measured and they are few."""
    chosen = {}
    for label in dict.fromkeys(row.label for row in scores):
        metrics = dict.fromkeys(row.metric for row in scores if row.label == label and row.features != "baseline")
        classes = [metric for metric in metrics if metric.startswith("accuracy/")]
        few = "r2" not in metrics and len(classes) <= MAX_CLASSES
        chosen[label] = [metric for metric in SHOWN if metric in metrics] + (classes if few else [])
    return chosen


def with_interval(values: list[float]) -> str:
    """`+mean [low, high]`."""
    bounds = interval(values)
    return f"{np.mean(values):+.3f}" + (f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else "")


def summary(compared: Scores) -> str:
    """One line: trained minus initial on the held-out split, mean over the labels."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for row, values in compared.items():
        if row.metric in MAIN_METRICS and (row.split, row.scaling) == ("held-out", "standardised"):
            groups[f"{row.metric} at {row.features.removeprefix('trained ')}"].append(values)
    return "trained - initial: " + ", ".join(
        f"{name} {with_interval(list(np.mean(values, 0)))}" for name, values in groups.items()
    )


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(lambda composed: probe(freeze(composed.config, ProbeConfig), words), "probe", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
