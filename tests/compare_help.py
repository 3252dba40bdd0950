"""Folders of trainings that never took place."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from analysis.statistics import summary
from configs.schema import Config
from experiment.command_line.composition import complete, freeze, write_config
from experiment.command_line.overrides import compose_words

VERSIONS = {"sidequest": "0.1.0", "torch": "2.13", "gymnasium": "1.4.0", "cpu": "a CPU"}


@cache
def composed(*words: str) -> Config:
    """Of `python train.py env=toy ...`."""
    words = words if any(word.startswith("env=") for word in words) else ("env=toy", *words)
    return complete(freeze(compose_words("config", *words).config, Config))


def config_of(*words: str, steps: int = 1000) -> Config:
    """The same with a seed, which does not take part in the composing."""
    seed = next((int(word.removeprefix("seed=")) for word in words if word.startswith("seed=")), 0)
    return replace(composed(*(word for word in words if not word.startswith("seed="))), steps=steps, seed=seed)


def fake_run(
    folder: Path,
    *words: str,
    score: float = 1.0,
    steps: int = 1000,
    end: int | None = None,
    evaluated: bool = True,
    torn: str = "",
    **report: Any,
) -> Path:
    """What a training with these words leaves: 20 rows whose score rises from 0 to `score`, and a report of `score`.

    Args:
        folder: of the run.
        words: of the command line.
        score: of the evaluation.
        steps: of the config.
        end: where the log ends, if not there.
        evaluated: whether there is a report.
        torn: what stands at the end of the log.
        report: keys of the report to replace.
    """
    config = config_of(*words, steps=steps)
    folder.mkdir(parents=True)
    write_config(config, folder / "config.yaml")
    rows = []
    for step in np.linspace(steps / 20, steps, 20).astype(int):
        row = {"step": int(step), "rollout/score": score * int(step) / steps, "repr/effective_rank": 10.0}
        for i, task in enumerate(config.aux):
            metrics = {"loss": 1.5, "accuracy": 0.75, "chance": 0.25, "grad_cosine": 0.1 * (-1) ** (len(rows) + i)}
            row |= {f"aux/{task}/{name}": value for name, value in metrics.items()}
        clock = {"seconds": step * (0.01 + 0.01 * len(config.aux)), "env_steps": int(step), "updates": int(step) // 4}
        rows.append(row | {"clock": clock})
    lines = [json.dumps(row) + "\n" for row in rows if row["step"] <= (end or steps)]
    (folder / "metrics.jsonl").write_text("".join(lines) + torn)
    if evaluated:
        content = {
            "summary": summary([score - 1, score, score + 1]),
            "protocol": {"name": "env", "epsilon": 0.0},
            "env": {"name": "toy", "num_envs": 3, "size": 36},
            "versions": VERSIONS,
        }
        (folder / "report.json").write_text(json.dumps(content | report))
    return folder


def study(root: Path, seeds: int = 5, **more: Any) -> Path:
    """Three arms: none, rotation half a point better, permutation one worse; seeds differ by 0.1."""
    for arm, gain in {"none": 0.0, "rotation": 0.5, "permutation": -1.0}.items():
        for seed in range(seeds):
            fake_run(root / arm / f"s{seed}", f"aux={arm}", f"seed={seed}", score=3 + gain + 0.1 * seed, **more)
    return root
