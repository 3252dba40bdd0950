"""Does a policy end where a demonstration ends, if all it is told is how close their embeddings are?

    python benchmarks/imitation.py [seeds=3] [steps=6000] [pretrain_steps=500] [jobs=1]

The point mass, demonstrated by a controller that steers to the middle from one position; the agent starts elsewhere.
The space is `experiment=pretrain_tcn_pointmass`, one for all arms. `same camera` and `other camera`: who saw the
demonstration; the agent sees itself with the first. `true reward`: SAC from pixels with the reward of the environment.
Makes what is missing in runs/imitation, then results/imitation.json and the block of its page.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULT, RESULTS, config_of, finish, measured, options, read_json, table, this_command, with_block

from analysis.policies import greedy, random_policy
from configs.schema import Config, PretrainConfig
from envs import EnvConfig, Observation, Policy, Rollout
from experiment.goals.env import env_of_run
from experiment.goals.space import GOAL_SPACE_FILE
from experiment.sources.recording import record
from experiment.training.build import load_agent
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream
from pretrain import pretrain
from train import train

JSON, PAGE = RESULTS / "imitation.json", RESULTS / "imitation.md"
RUNS = Path("runs/imitation")
SPACE, DEMONSTRATION = RUNS / "space", RUNS / "demonstration"
ARMS = ("same camera", "other camera", "true reward")
SLOW = 0.4  # of the largest action, by the demonstrator
EPISODES = 100
CLOSE = 0.1  # of a room that is 2 wide


def demonstrate(env: EnvConfig, seed: int) -> None:
    """Record an episode of a controller that knows where it is."""
    vector = replace(env, num_envs=1).build()

    def steer(_: Observation) -> Any:
        position = np.stack([vector.labels()[axis] for axis in "xy"], axis=1)
        return (SLOW * np.clip(-10 * position, -1, 1)).astype(np.float32)

    record(
        vector,
        steer,
        DEMONSTRATION,
        {"controller": "to the middle"},
        frame_stack=1,
        padding="zeros",
        frames=50,
        seed=seed,
    )
    vector.close()


def training(arm: str, seed: int, given: dict[str, Any]) -> Config:
    """The run of an arm."""
    words = ["experiment=imitate_pointmass", f"steps={given['steps']}", f"seed={seed}", f"run_dir={folder(arm, seed)}"]
    words += ["threads=1", "device=cpu"]
    if arm == "true reward":
        words += ["encoder=der", "encoder.feature_dim=16", "encoder.layer_norm=true", "gamma=0.95", "agent.hidden=64"]
    else:
        words += [f"goal.space={SPACE}", f"goal.demonstration={DEMONSTRATION}", f"goal.view={ARMS.index(arm)}"]
    return config_of("config", words, Config)  # type: ignore[no-any-return]


def folder(arm: str, seed: int) -> Path:
    """The run's folder."""
    return RUNS / f"{arm.replace(' ', '_')}-s{seed}"


def final_distances(env: EnvConfig, policy: Policy) -> list[float]:
    """From the middle, at the end of each episode."""
    vector = replace(env, num_envs=EPISODES).build()
    rollout, found = Rollout(vector, 1, "zeros"), list[float]()
    rollout.reset(1_000)
    while not found:
        rollout.step(policy)
        if rollout.episodes:
            position = vector.labels()
            found = np.hypot(position["x"], position["y"]).tolist()
    vector.close()
    return found


def run(arm: str, seed: int, given: dict[str, Any]) -> None:
    """Train and measure."""
    config, path = training(arm, seed, given), folder(arm, seed)
    if code := train(config):
        sys.exit(code)
    agent = load_agent(path)[1]
    found = final_distances(env_of_run(config, path), greedy(agent))
    write_json({"steps": given["steps"], "arm": arm, "seed": seed, "distances": found}, path / RESULT)


def prepare(given: dict[str, Any]) -> None:
    """The goal space and the demonstration."""
    words = ["experiment=pretrain_tcn_pointmass", f"steps={given['pretrain_steps']}", f"run_dir={SPACE}"]
    config = config_of("pretrain", [*words, "threads=1", "device=cpu"], PretrainConfig)
    if not (SPACE / GOAL_SPACE_FILE).is_file() and (code := pretrain(config)):
        sys.exit(code)
    if not DEMONSTRATION.is_dir():
        demonstrate(config.env, seed=7)


def render_page(page: str) -> str:
    """The page with the block that the JSON gives."""
    content = read_json(JSON)
    groups = {name: [content[name]] for name in ("demonstration", "random play")}
    groups |= {arm: [r["distances"] for r in content["results"] if r["arm"] == arm] for arm in ARMS}
    rows = [cells(name, found) for name, found in groups.items() if found]
    text = f"`{content['command']}`: {content['steps']:,} agent steps, torch {content['versions']['torch']}.\n\n"
    return with_block(
        page, __file__, text + table(["policy", "final distance", "within 0.1", "mean of each seed"], rows)
    )


def cells(name: str, found: list[list[float]]) -> list[str]:
    """A line of the table, of the final distances of each seed."""
    whole, means = np.concatenate(found), [f"{statistics.mean(one):.3f}" for one in found]
    return [name, f"{whole.mean():.3f}", f"{(whole < CLOSE).mean():.2f}", ", ".join(means)]


def main() -> None:
    """Run what is missing and write the table."""
    given = options(seeds=3, steps=6_000, pretrain_steps=500, jobs=1)
    prepare(given)
    runs = {folder(arm, seed): (arm, seed, given) for seed in range(given["seeds"]) for arm in ARMS}
    results, failed = measured(run, runs, given["steps"], given["jobs"])
    env, shown = training("true reward", 0, given).env, read_json(DEMONSTRATION / "source.json")
    random = random_policy(env.build().action_space, numpy_stream(0, "random"))
    position = [np.load(DEMONSTRATION / f"labels/{axis}.npy")[-1] for axis in "xy"]
    content = {
        "command": this_command(__file__),
        "steps": given["steps"],
        "controller": shown["controller"],
        "random play": final_distances(env, random),
        "demonstration": [float(np.hypot(*position))],
        "results": list(results.values()),
        "versions": versions(),
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


if __name__ == "__main__":
    main()
