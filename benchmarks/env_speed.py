"""Speed of the environments with goals, and what doing nothing, random and scripted actions reach in the pusher.

Steps per second of CPU time in one process of one thread, with random actions, medians of rounds that alternate over
the environments. Those whose packages are missing are left out. Writes results/env_speed.json and the block of its
page. Options: rounds=N.
"""

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
from common import RESULTS, need_env, options, read_json, table, with_block
from numpy.typing import NDArray

from envs import EnvConfig, GymGoalConfig, PusherConfig, PusherVector, VectorEnv
from envs.pusher import scripted_action
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "env_speed.json", RESULTS / "env_speed.md"
PUSHER = PusherConfig(num_envs=8)
ENVIRONMENTS: dict[str, EnvConfig] = {
    "pusher, state": replace(PUSHER, observe="state"),
    "pusher, 48 pixels": PUSHER,
    "pusher, 84 pixels": replace(PUSHER, size=84),
    "pusher, 48 pixels, quality=full": replace(PUSHER, quality="full"),
    "pusher, 48 pixels, background=gas": replace(PUSHER, background="gas"),
    "pusher, 48 pixels, objects=many": replace(PUSHER, objects="many"),
    "pusher, 48 pixels, a further view": replace(PUSHER, views=["oblique"]),
    "FetchReach-v4, state": GymGoalConfig(id="FetchReach-v4"),
    "FetchPush-v4, state": GymGoalConfig(id="FetchPush-v4"),
    "FetchReach-v4, 84 pixels": GymGoalConfig(id="FetchReach-v4", observe="pixels"),
    "PointMaze_UMaze-v3, state": GymGoalConfig(id="PointMaze_UMaze-v3"),
    "ogbench:pointmaze-medium-v0, state": GymGoalConfig(id="ogbench:pointmaze-medium-v0"),
    "ogbench:cube-single-v0, state": GymGoalConfig(id="ogbench:cube-single-v0"),
}
SECONDS = 0.5  # of a round
EPISODES = 1000


def rate(env: VectorEnv) -> float:
    """Steps of all copies per second of CPU time."""
    actions = [np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(16)]
    begun, steps = time.process_time(), 0
    while time.process_time() < begun + SECONDS:
        env.step(actions[steps % 16])
        if env.num_views:
            env.views()
        steps += 1
    return steps * env.num_envs / (time.process_time() - begun)


def speeds(rounds: int) -> dict[str, float]:
    """Medians by environment."""
    built = {}
    for name, config in ENVIRONMENTS.items():
        try:
            built[name] = config.build()
        except RuntimeError as error:
            print(f"left out: {error}")
    for env in built.values():
        env.reset(0)
        env.action_space.seed(0)
    rates = [{name: rate(env) for name, env in built.items()} for _ in range(1 + rounds)]
    for env in built.values():
        env.close()
    return {name: statistics.median(row[name] for row in rates[1:]) for name in built}


def act(policy: str, env: PusherVector, rng: np.random.Generator) -> NDArray[np.float32]:
    """Actions of a policy by its name."""
    if policy == "scripted":
        labels = env.labels()
        positions = np.stack([labels[name] for name in ("puck_x", "puck_y", "pointer_x", "pointer_y")], axis=1)
        return scripted_action(positions, env.goals().desired)
    return (policy == "random") * rng.uniform(-1, 1, (env.num_envs, 2)).astype(np.float32)


def play(policy: str) -> dict[str, float]:
    """What a policy reaches at the end of the first episode of each copy."""
    env = PusherConfig(num_envs=EPISODES, observe="state").build(labels=True)
    env.reset(0)
    start, rng, over = env.goals().achieved, np.random.default_rng(0), False
    while not over:
        over = bool(env.step(act(policy, env, rng)).game_over.any())
    achieved, desired = env.goals()
    moved = env.goal_distance(achieved, start) > 1e-3
    return {
        "distance": float(env.goal_distance(achieved, desired).mean()),
        "success": float(env.is_success(achieved, desired).mean()),
        "moved": float(moved.mean()),
    }


def main() -> None:
    """Measure and write the page."""
    chosen = options(rounds=5)
    need_env(PUSHER)
    content = {
        "command": f"python benchmarks/env_speed.py rounds={chosen['rounds']}",
        "rounds": chosen["rounds"],
        "versions": versions("gymnasium", "gymnasium-robotics", "mujoco", "ogbench"),
        "speeds": speeds(chosen["rounds"]),
        "episodes": EPISODES,
        "pusher": {policy: play(policy) for policy in ("nothing", "random", "scripted")},
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content: dict[str, Any] = read_json(JSON)
    packages = ("gymnasium", "gymnasium-robotics", "mujoco", "ogbench", "cpu")
    used = ", ".join(f"{name} {content['versions'][name]}" for name in packages)
    text = f"`{content['command']}`: medians of {content['rounds']} alternating rounds; {used}.\n\n"
    text += table(["environment", "steps/s"], [[name, f"{rate:,.0f}"] for name, rate in content["speeds"].items()])
    text += f"\nThe pusher, {content['episodes']:,} episodes of seed 0, at their ends:\n\n"
    rows = [
        [policy, f"{found['distance']:.3f}", f"{found['success']:.3f}", f"{found['moved']:.3f}"]
        for policy, found in content["pusher"].items()
    ]
    text += table(["actions", "distance of the puck to its goal", "success", "episodes in which it moved"], rows)
    return with_block(page, __file__, text)


if __name__ == "__main__":
    main()
