"""Does it help to learn from transitions that a diffusion model makes (SynthER), and are they like real ones?

    python benchmarks/synther.py [seeds=3] [steps=1000] [jobs=1]

SAC on the point mass moved by forces, from its state: with as many updates as steps, with more, and with half of each
batch synthetic. CPU seconds are of a whole training, evaluations included. Then two arms, of seed 0, on the features of
a frozen encoder, pretrained by reconstruction on random play. The transitions are measured on random play, against the
motion of the world: the error of a change is over the deviation of real changes, so that 1 is that of knowing nothing.
Makes what is missing in runs/synther, then results/synther.json and the block of its page.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    RESULT,
    RESULTS,
    config_of,
    finish,
    log_of,
    mean_cell,
    measured,
    options,
    read_json,
    table,
    this_command,
    with_block,
)
from scipy.stats import ks_2samp
from torch import Tensor

from configs.schema import Config, PretrainConfig
from envs.pointmass import DRAG, FORCE
from experiment.training.build import build
from harness.provenance import versions, write_json
from harness.seeding import seeded, torch_stream
from pretrain import pretrain
from replay.diffusion import Denoiser
from replay.synthetic import SyntheticReplay, fit, flat, moments
from train import train

JSON, PAGE = RESULTS / "synther.json", RESULTS / "synther.md"
RUNS = Path("runs/synther")
ENCODER = RUNS / "encoder"
EVERY = 200  # agent steps between evaluations, and between trainings of the model
COMMON = f"env=pointmass agent=sac frame_stack=1 clip_reward=false gamma=0.97 batch_size=128 learning_starts={EVERY}"
COMMON += f" agent.hidden=128 agent.policy_delay=1 log_every={EVERY} eval_every={EVERY} eval_every_episodes=20"
COMMON += " eval_episodes=0 checkpoint_every=10_000 diagnose_every=0 threads=1 device=cpu"
STATE, UNIFORM = "env.observe=state env.control=force encoder=state", "replay.n_step=1"
FEATURES = f"encoder=control_fast encoder.feature_dim=16 encoder.init={ENCODER} agent.encoder_scale=0"
MODEL = "replay=synthetic replay.synthetic.updates=500 replay.synthetic.transitions=5_000 replay.synthetic.every"
ARMS = {
    "1 update a step": f"{STATE} {UNIFORM} replay_ratio=1",
    "4 updates a step": f"{STATE} {UNIFORM} replay_ratio=4",
    "10 updates a step": f"{STATE} {UNIFORM} replay_ratio=10",
    "SynthER, 4 updates a step": f"{STATE} {MODEL}={EVERY} replay_ratio=4",
    "features, 4 updates a step": f"{FEATURES} {MODEL}=1_000_000 replay_ratio=4",
    "features, SynthER, 4 updates a step": f"{FEATURES} {MODEL}={EVERY} replay_ratio=4",
}
PLAY, ROWS = 2_000, 4_096  # agent steps of random play, and transitions that are measured
COLUMNS = [4, 2, 1, 1, 4]  # of a row: state, action, reward, discount, next state


def folder(arm: str, seed: int) -> Path:
    """The run's folder."""
    return RUNS / f"{arm.replace(', ', '-').replace(' ', '_')}-s{seed}"


def run(arm: str, seed: int, steps: int) -> None:
    """Train, and keep the evaluations."""
    path = folder(arm, seed)
    words = [*COMMON.split(), *ARMS[arm].split(), f"steps={steps}", f"seed={seed}", f"run_dir={path}"]
    config, begun = config_of("config", words, Config), time.process_time()
    if code := train(config):
        sys.exit(code)
    returns = {row["step"]: row["eval/mean_reward"] for row in log_of(path) if "eval/mean_reward" in row}
    cpu = time.process_time() - begun
    write_json({"steps": steps, "arm": arm, "seed": seed, "cpu_seconds": cpu, "returns": returns}, path / RESULT)


def pretrained() -> None:
    """The frozen encoder."""
    words = ["source=frames", "source.frames=4_000", f"source.path={RUNS / 'frames'}", "env=pointmass"]
    words += ["encoder=control_fast", "encoder.feature_dim=16", "aux=reconstruction", "steps=600", f"run_dir={ENCODER}"]
    if not (ENCODER / "encoder.safetensors").is_file() and (
        code := pretrain(config_of("pretrain", [*words, "threads=1", "device=cpu"], PretrainConfig))
    ):
        sys.exit(code)


def measure(seed: int) -> list[dict[str, Any]]:
    """A row for each kind of transitions: how far they are from the motion of the world, and from real ones."""
    words = f"{COMMON} {ARMS['SynthER, 4 updates a step']} seed={seed}".split()
    parts = build(config_of("config", words, Config))
    assert isinstance(parts.replay, SyntheticReplay)
    parts.rollout.reset(seed)
    while len(parts.replay) < PLAY:
        parts.replay.add(*parts.rollout.collect())
    real, reference = (flat(parts.replay.sample(ROWS, frozenset())) for _ in range(2))
    rng = torch_stream(seed, "benchmark")
    shuffled = real.clone()
    shuffled[:, -COLUMNS[-1] :] = real[torch.randperm(ROWS, generator=rng), -COLUMNS[-1] :]
    kinds = {"real": real, "real, next states shuffled": shuffled, "Gaussian fit": gaussian(real, rng)}
    for name, rows, updates in (
        ("SynthER, 500 updates", real, 500),
        ("SynthER, 2,000 updates", real, 2_000),
        ("SynthER, 500 updates on shuffled next states", shuffled, 500),
    ):
        with seeded(seed, "benchmark"):
            model = Denoiser(real.shape[1])
        mean, std = moments(rows)
        fit(model, (rows - mean) / std, updates, rng)
        kinds[name] = model.sample(ROWS, 16, rng) * std + mean
    return [{"kind": kind, "seed": seed} | errors(rows, reference) for kind, rows in kinds.items()]


def gaussian(rows: Tensor, rng: torch.Generator) -> Tensor:
    """As many rows of a Gaussian with the mean and the covariance of `rows`."""
    values, vectors = torch.linalg.eigh(rows.T.cov())
    drawn: Tensor = torch.randn(rows.shape, generator=rng) * values.clamp_min(0).sqrt() @ vectors.T
    return rows.mean(0) + drawn


def errors(rows: Tensor, real: Tensor) -> dict[str, float]:
    """Of next state and reward, in deviations, and the mean distance of Kolmogorov and Smirnov of the columns."""
    state, action, reward, _, following = (part.numpy() for part in torch.split(rows, COLUMNS, 1))
    velocity = (1 - DRAG) * state[:, 2:] + FORCE * action
    position = np.clip(state[:, :2] + velocity, -1, 1)
    velocity[position != state[:, :2] + velocity] = 0
    true = np.concatenate([position, velocity], 1)
    true_reward = np.exp(-2 * np.linalg.norm(following[:, :2], axis=1, keepdims=True))
    changes = (real[:, -4:] - real[:, :4]).std(0).numpy()
    apart = [ks_2samp(rows[:, i], real[:, i]).statistic for i in range(rows.shape[1]) if real[:, i].std() > 0]
    return {
        "next state": float(np.sqrt(np.square((following - true) / changes).mean())),
        "reward": float(np.sqrt(np.square(reward - true_reward).mean()) / real[:, 6].std()),
        "marginals": statistics.mean(map(float, apart)),
    }


def render_page(page: str) -> str:
    """The page with the tables that the JSON gives."""
    content = read_json(JSON)
    shown = [str(step) for step in range(2 * EVERY, content["steps"] + 1, EVERY)]
    rows = []
    for arm in ARMS:
        if found := [result for result in content["results"] if result["arm"] == arm]:
            seconds = statistics.mean(result["cpu_seconds"] for result in found)
            returns = [mean_cell([result["returns"][step] for result in found], 1) for step in shown]
            rows.append([arm, str(len(found)), f"{seconds:.0f}", *returns])
    text = f"`{content['command']}`: torch {content['versions']['torch']}; returns of 20 episodes, ± 95 % interval.\n\n"
    text += table(["arm", "seeds", "CPU seconds", *(f"after {step} steps" for step in shown)], rows)
    kinds = list(dict.fromkeys(row["kind"] for row in content["transitions"]))
    names, lines = ("next state", "reward", "marginals"), []
    for kind in kinds:
        same = [row for row in content["transitions"] if row["kind"] == kind]
        lines.append([kind, *(mean_cell([row[name] for row in same], 3) for name in names)])
    text += "\n" + table(["transitions", "error of the next state", "error of the reward", "marginals"], lines)
    return with_block(page, __file__, text)


def main() -> None:
    """Run what is missing and write the tables."""
    given = options(seeds=3, steps=1_000, jobs=1)
    torch.set_num_threads(1)
    pretrained()
    each = [(arm, seed) for seed in range(given["seeds"]) for arm in ARMS]
    each = [(arm, seed) for arm, seed in each if seed == 0 or not arm.startswith("features")]
    runs = {folder(arm, seed): (arm, seed, given["steps"]) for arm, seed in each}
    results, failed = measured(run, runs, given["steps"], given["jobs"])
    content = {
        "command": this_command(__file__),
        "steps": given["steps"],
        "words": {"all": COMMON, **ARMS},
        "results": list(results.values()),
        "transitions": [row for seed in range(given["seeds"]) for row in measure(seed)],
        "versions": versions(),
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


if __name__ == "__main__":
    main()
