"""Probe an encoder: predict labels from its features, from those of the same network untrained, and from pixels.

    python probe.py checkpoint=zoo/pong-permutation
    python probe.py checkpoint=runs/pretrain/idx/rotation/s0 source=idx source.folder=data/mnist labels=[class]
    python probe.py checkpoint=resnet50.pth encoder=resnet50 source=images source.folder=FOLDER
    python probe.py checkpoint=runs/pretrain/idx/rotation/s0 mode=joint aux=rotation aux.rotation.weight=0.5

Every comparison is paired: the same weights before and after training, the same examples, the same probe.
"""

if __name__ == "__main__":
    from experiment.launching.start import start

    start("probe", __doc__)  # before torch is imported

import logging
import shlex
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from analysis.probe_table import Scores, differences, format_gaps, format_summary, gaps, print_denoising, print_tables
from analysis.statistics import t_interval
from configs.schema import ProbeConfig, flat
from experiment.command_line.composition import Composed, freeze
from experiment.command_line.overrides import repeating
from experiment.launching.launch import launch
from experiment.probing.build import Probing, build_probing
from experiment.probing.scores import Draw, denoising_scores, measure
from experiment.sources.build import describe_source
from harness.files import sha256
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.signals import GracefulExit

log = logging.getLogger("sidequest")


def probe(config: ProbeConfig, argv: list[str], suffix: str = "") -> int:
    """Measure the probes, write the report and print tables; returns the exit code of the process.

    Args:
        argv: the words that repeat it.
        suffix: of the report's name where `config` gives none.
    """
    start, threads = time.perf_counter(), tune_process(config.threads)
    parts = build_probing(config, suffix)
    log.info("%s: %d seeds, %d torch threads", config.checkpoint, config.seeds, threads)
    if parts.dropped:
        log.info("labels left out because they hardly vary: %s", ", ".join(parts.dropped))
    with GracefulExit() as stop:
        denoised = denoising_scores(parts)
        scores, draws = measure(config, parts, lambda: bool(stop.requested))
    compared = differences(scores)
    command = f"python probe.py {shlex.join(argv)}"
    try:
        whole = report(config, parts, scores, compared, draws, command, time.perf_counter() - start)
        write_json(whole | ({"denoising": denoised} if denoised else {}), parts.report)
        log.info("%-13s %s", "report", parts.report)
    finally:  # a full disk does not take the scores
        print_tables(scores, compared)
        if denoised:
            print_denoising(denoised)
        sys.stdout.write(format_gaps(scores) + format_summary(compared) + "\n")
    if stop.requested:
        log.warning("%s: the report is of %d of %d draws", stop.requested, len(draws), config.seeds * len(parts.splits))
    return stop.exit_code


def report(
    config: ProbeConfig,
    parts: Probing,
    scores: Scores,
    compared: Scores,
    draws: list[Draw],
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """The content of the report: all scores, and everything needed to repeat them."""
    return {
        "differences": with_intervals(compared),  # trained - initial, for this one trained encoder
        "gaps": [{**row, "split": "random - held-out"} for row in with_intervals(gaps(scores))],
        "scores": [{**row._asdict(), "mean": np.mean(values), "values": values} for row, values in scores.items()],
        "partial": len(draws) < config.seeds * len(parts.splits),  # stopped
        "examples": [{**d._asdict(), "train": len(d.train), "test": len(d.test)} for d in draws],
        "dropped": parts.dropped,
        "config": flat(config),
        "source": asdict(parts.source),
        "found": describe_source(parts.sampler.episodes),
        "env": asdict(parts.env),
        "sha256": {parts.weights.name: sha256(parts.weights)},
        "command": command,
        "versions": versions("scikit-learn"),
        "seconds": seconds,
    }


def with_intervals(scores: Scores) -> list[dict[str, Any]]:
    """Each row with its mean and the 95 % t interval over the seeds."""
    return [
        {**row._asdict(), "mean": np.mean(values), "interval": t_interval(values), "values": values}
        for row, values in scores.items()
    ]


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""

    def one(composed: Composed) -> int:
        composed.check_outputs("report")
        return probe(freeze(composed.config, ProbeConfig), repeating(words, composed), composed.suffix)

    return launch(one, "probe", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
