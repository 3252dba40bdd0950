"""SAC with hindsight on a task of Fetch, and that of Stable-Baselines3 for the same number of minutes.

    python benchmarks/fetch.py [task=FetchPush] [minutes=30] [seed=0] [more="learning_starts=2_000"]

Both run at once, one thread each, with the hyperparameters of `experiment=her_fetch` and the words of `more`.
VecNormalize normalises the observations of Stable-Baselines3. Every 10,000 agent steps the deterministic policy plays
50 episodes, whose time is included.
Adds to results/fetch.json and renews its page. Needs `pip install 'sidequest[robotics]'`.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, config_of, log_of, need_env, options, read_json, table, with_block

from agents.config import SACConfig
from configs.schema import Config
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "fetch.json", RESULTS / "fetch.md"
EVERY, EPISODES = 10_000, 50
Curve = list[tuple[int, float, float]]  # agent steps, seconds, share of successes


def settings(task: str, seed: int, more: str) -> list[str]:
    """The words of the training."""
    words = ["experiment=her_fetch", f"env=gym_goal/{task}-v4", f"seed={seed}", "steps=10_000_000", "threads=1"]
    return [*words, *shlex.split(more)]


def ours(task: str, minutes: float, seed: int, more: str) -> Curve:
    """The curve of our own training."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"eval_every={EVERY}", f"eval_every_episodes={EPISODES}", f"run_dir={folder}/run"]
        command = [sys.executable, str(ROOT / "train.py"), *settings(task, seed, more), *asked]
        run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.perf_counter() + 60 * minutes
        while run.poll() is None and time.perf_counter() < end:
            time.sleep(1)
        if run.poll() is not None:
            raise RuntimeError(f"{shlex.join(command)} ended too soon")
        rows = [row for row in log_of(Path(folder, "run")) if "eval/success_rate" in row]
        run.terminate()
        run.wait()
    return [(row["step"], row["clock"]["seconds"], row["eval/success_rate"]) for row in rows]


def theirs(task: str, minutes: float, seed: int, more: str) -> Curve:
    """The curve of SAC with HerReplayBuffer."""
    from stable_baselines3 import SAC, HerReplayBuffer
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from envs.single import SingleGoalEnv

    words = settings(task, seed, more)
    config: Config = config_of("config", words, Config)
    copies, agent = config.env.num_envs, config.agent
    assert isinstance(agent, SACConfig)
    one = config_of("config", [*words, "env.num_envs=1"], Config).env
    env = VecNormalize(DummyVecEnv([lambda: SingleGoalEnv(one.build())] * copies), norm_reward=False)
    eval_env = VecNormalize(DummyVecEnv([lambda: SingleGoalEnv(one.build())]), norm_reward=False, training=False)
    curve: Curve = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seconds = time.perf_counter() - begun
            if self.num_timesteps % EVERY < copies:
                eval_env.obs_rms = env.obs_rms
                curve.append((self.num_timesteps, round(seconds, 1), success(self.model)))
            return seconds < 60 * minutes

    def success(model: BaseAlgorithm) -> float:
        obs: Any = eval_env.reset()
        ends: list[bool] = []
        while len(ends) < EPISODES:
            obs, _, done, (info,) = eval_env.step(model.predict(obs, deterministic=True)[0])
            if done[0]:
                ends.append(info["is_success"])
        return float(np.mean(ends))

    model = SAC(
        "MultiInputPolicy",
        env,
        learning_rate=agent.learning_rate,
        buffer_size=config.replay.capacity,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        tau=agent.target_tau,
        gamma=config.gamma,
        ent_coef=f"auto_{agent.init_temperature}",
        train_freq=1,
        gradient_steps=copies,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4},
        policy_kwargs={"net_arch": [agent.hidden] * 2},
        seed=seed,
        device="cpu",
    )
    begun = time.perf_counter()
    model.learn(config.steps, Watch())
    return curve


def render_page(page: str | None) -> str:
    """The page with the table that the JSON gives."""
    rows = []
    for run in read_json(JSON)["runs"]:
        steps, seconds, last = run["curve"][-1]
        best = max(success for _, _, success in run["curve"])
        first = next((f"{at:,}, {s / 60:.0f} min" for at, s, success in run["curve"] if success >= 0.5), "not reached")
        changed = f"`{run['more']}`" if run["more"] else ""
        rows.append([run["task"], run["of"], changed, str(run["seed"]), f"{seconds / 60:.0f}", f"{steps:,}", first])
        rows[-1] += [f"{100 * value:.0f} %" for value in (best, last)]
    header = ["task", "agent", "changed", "seed", "minutes", "agent steps", "50 % at", "highest success", "last"]
    return with_block(page, __file__, table(header, rows))


def main() -> None:
    """Train both and write the page."""
    given = options(task="FetchPush", minutes=30.0, seed=0, more="")
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    need_env(config_of("config", settings(given["task"], given["seed"], given["more"]), Config).env)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = {of: pool.submit(of, *given.values()) for of in (ours, theirs)}
        curves = {"Sidequest" if of is ours else "Stable-Baselines3": curve.result() for of, curve in found.items()}
    if not all(curves.values()):
        sys.exit(f"minutes={given['minutes']:g} is too short for the first evaluation, at step {EVERY:,}")
    about = {name: given[name] for name in ("task", "seed", "more")}
    kept = [run for run in read_json(JSON).get("runs", []) if not about.items() <= run.items()]
    kept += [about | {"of": of, "curve": curve} for of, curve in curves.items()]
    write_json({"runs": kept, "versions": versions("stable-baselines3", "gymnasium-robotics")}, JSON)
    PAGE.write_text(render_page(PAGE.read_text() if PAGE.is_file() else None))


if __name__ == "__main__":
    main()
