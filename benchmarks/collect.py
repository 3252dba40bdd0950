"""Collection between or beside updates, or by one or two Ray actors: speed, CPU time, age of the weights, scores.

    python benchmarks/collect.py [rounds=2] [steps=2000] [catch=2] [pong=1]

Rounds of Pong (`experiment=pong_cpu`, eight copies) and of cartpole (`experiment=sac_cartpole`) give the speeds, in
alternation: collecting alone, before learning begins, and learning. Every process has one thread. CPU time is counted
too, since other programs on the same cores change it little. Trainings on so many seeds of Catch and of Pong give
scores at equal steps and at equal times. A zero keeps what is there. Writes results/collect.json and the block of its
page.
"""

import itertools
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from common import RESULTS, ROOT, log_of, need, options, read_json, table, this_command, with_block

from harness.metrics import read_rows
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "collect.json", RESULTS / "collect.md"
COPIES = 8
ACTORS = {"ray, 1 actor": 1, "ray, 2 actors": 2}
SCORED = ("local", *ACTORS)
CATCH = [
    *("env=toy", "encoder=der", "replay=prioritized", "replay.capacity=20000", "learning_starts=500"),
    *("agent.learning_rate=1e-3", "agent.hidden=64", "agent.target_tau=0.02", "agent.epsilon_steps=6000"),
    *("steps=12000", "eval_every=3000", "eval_every_episodes=100"),
]
TRAINED = {  # game: its settings and the environment copies of all actors together
    "Catch": (CATCH, 4),
    "Pong": (
        [
            *("experiment=pong_cpu", "aux=none", "until_score=null", "steps=56000", "agent.head=quantile"),
            *("agent.precision=bfloat16", "agent.epsilon_steps=15000", "agent.average_tau=1e-3", "replay.alpha=0.5"),
            *("replay.capacity=60000", "eval_every=14000", "eval_every_episodes=10"),
        ],
        COPIES,
    ),
}


class Timed(NamedTuple):
    """What is timed, and by which arms."""

    words: str
    copies: int  # of the environment, of all actors together
    starts: int  # steps before learning begins; the first of them start everything
    slower: int  # than Pong: so many times fewer steps
    arms: Sequence[str]


TIMED = {
    "Pong": Timed("experiment=pong_cpu until_score=null", COPIES, 2_000, 1, ("local", "overlap", *ACTORS)),
    "cartpole": Timed("experiment=sac_cartpole env.processes=1", 1, 1_000, 10, ("local", "overlap")),
}
SHARED = ["threads=1", "diagnose_every=0", "eval_episodes=0", "checkpoint_every=1000000", "device=cpu"]


def words(arm: str, copies: int) -> list[str]:
    """Who collects, with so many environment copies together."""
    if not (actors := ACTORS.get(arm)):
        return [f"collect={arm}", f"env.num_envs={copies}"]
    return [
        "collect=ray",
        f"collect.actors={actors}",
        "collect.cpus=0.5",
        f"env.num_envs={copies // actors}",
    ]


class Seen(NamedTuple):
    """A moment of a run."""

    row: dict[str, Any]  # of its log
    seconds: float
    learner: float  # seconds of CPU time
    actors: float


def speeds(game: str, arm: str, steps: int) -> dict[str, float | None]:
    """Steps a second before and after learning begins, CPU milliseconds a step, and by how many updates an actor's
    weights are old.
    """
    given, copies, starts, slower, _ = TIMED[game]
    logged = [f"learning_starts={starts}", f"log_every={200 // slower}"]
    seen = watch([*given.split(), *logged, *SHARED, *words(arm, copies)], starts + steps // slower)
    before = [one for one in seen if not one.row["clock"]["updates"]][2:]
    after = [one for one in seen if one.row["clock"]["updates"]][1:]
    ages = [one.row["collect/weight_age"] for one in after if "collect/weight_age" in one.row]
    made = after[-1].row["step"] - after[0].row["step"]
    return {
        "collecting": rate(before),
        "learning": rate(after),
        "learner": (after[-1].learner - after[0].learner) / made * 1e3,
        "actors": (after[-1].actors - after[0].actors) / made * 1e3,
        "age": statistics.mean(ages) if ages else None,
    }


def watch(given: Sequence[str], last: int) -> list[Seen]:
    """A training each time its log grows, until a row is of the step `last` or later."""
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *given, f"run_dir={folder}/run"]
        run = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = Path(folder, "run/metrics.jsonl")
        while run.poll() is None and not (seen and seen[-1].row["step"] >= last):
            time.sleep(0.05)
            rows = read_rows(path)[0] if path.exists() else []
            if rows and rows[-1]["step"] > (seen[-1].row["step"] if seen else 0):
                actors = [p for p in run.children(recursive=True) if "ray::Actor" in " ".join(p.cmdline())]
                used = [sum(sum(p.cpu_times()[:2]) for p in group) for group in ([run], actors)]
                seen.append(Seen(rows[-1], time.perf_counter(), *used))
        if run.poll() is not None:
            sys.exit(f"{shlex.join(command)} ended too soon")
        run.terminate()
        run.wait()
    return seen


def rate(seen: Sequence[Seen]) -> float:
    """Steps a second between the first moment and the last."""
    return float((seen[-1].row["step"] - seen[0].row["step"]) / (seen[-1].seconds - seen[0].seconds))


def scores(game: str, arm: str, seed: int) -> list[dict[str, float]]:
    """Step, seconds and mean return of each evaluation of a training."""
    settings, copies = TRAINED[game]
    with tempfile.TemporaryDirectory() as folder:
        given = [*settings, *SHARED, *words(arm, copies), f"seed={seed}", f"run_dir={folder}/run"]
        subprocess.run([sys.executable, str(ROOT / "train.py"), *given], cwd=folder, check=True, capture_output=True)
        rows = [row for row in log_of(Path(folder, "run")) if "eval/mean_reward" in row]
    return [{"step": r["step"], "seconds": r["clock"]["seconds"], "score": r["eval/mean_reward"]} for r in rows]


def scores_table(game: str, arms: dict[str, list[list[dict[str, float]]]]) -> str:
    """Mean scores of each arm after so many steps and after the time that the fastest run needs for all of them."""
    every = [run for runs in arms.values() for run in runs]
    least = max(min(run[-1]["seconds"] for run in every), max(run[0]["seconds"] for run in every))  # all have a score
    steps = [int(one["step"]) for one in every[0]]
    rows = []
    for arm, runs in arms.items():
        means = [statistics.mean(run[i]["score"] for run in runs) for i in range(len(steps))]
        equal = statistics.mean([one["score"] for one in run if one["seconds"] <= least][-1] for run in runs)
        taken = statistics.mean(run[-1]["seconds"] for run in runs)
        rows.append([arm, *(f"{mean:.2f}" for mean in [*means, equal]), f"{taken:.0f}"])
    return table([game, *(f"{step:,} steps" for step in steps), f"after {least:.0f} s", "s for all steps"], rows)


def speeds_table(game: str, arms: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the rounds, and the ratio of each to `local` in its round."""
    header = [game, "steps/s, collecting alone", "ratio", "steps/s, learning", "ratio"]
    header += ["CPU ms a step, learner", "CPU ms a step, actors", "weights' age, updates"]
    lines = []
    for arm, rounds in arms.items():
        cells = [arm]
        for phase in ("collecting", "learning"):
            ratios = [one[phase] / base[phase] for one, base in zip(rounds, arms["local"], strict=True)]
            median = statistics.median(one[phase] for one in rounds)
            cells += [f"{median:.{0 if median > 100 else 1}f}", " ".join(f"{ratio:.2f}" for ratio in ratios)]
        for key in ("learner", "actors", "age"):
            found = [one[key] for one in rounds if one[key] is not None]
            cells.append(f"{statistics.median(found):.1f}" if found else "-")
        lines.append(cells)
    return table(header, lines)


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    timed = [speeds_table(game, arms) for game, arms in content["speeds"].items()]
    trained = [scores_table(game, arms) for game, arms in content["scores"].items()]
    made = "".join(f"- {line}\n" for line in content["made"].values())
    return with_block(page, __file__, "\n".join([made, *timed, *trained]))


def main() -> None:
    """Measure and write the tables."""
    need("ray", "pip install 'sidequest[ray]'")
    given, used, content = options(rounds=2, steps=2_000, catch=2, pong=1), versions("ray"), read_json(JSON)
    command = this_command(__file__)
    machine = f"{os.cpu_count()} cores, {used['cpu']}, torch {used['torch']}, ray {used['ray']}"
    made = f"`{command}`: {{}}, {machine}, load {{:.0f}} at the end"
    content.setdefault("made", {})
    if given["rounds"]:
        content["speeds"] = {game: {arm: [] for arm in one.arms} for game, one in TIMED.items()}
        for _, (game, timed) in itertools.product(range(given["rounds"]), content["speeds"].items()):
            for arm, rounds in timed.items():
                rounds.append(speeds(game, arm, given["steps"]))
                print(game, arm, rounds[-1], flush=True)
        content["made"]["speeds"] = made.format(f"speeds, {given['rounds']} rounds", os.getloadavg()[0])
        write_json(content, JSON)
    for game in TRAINED:
        if seeds := given[game.lower()]:
            arms: dict[str, list[Any]] = {arm: [] for arm in SCORED}
            content.setdefault("scores", {})[game] = arms
            for seed, arm in itertools.product(range(seeds), SCORED):
                arms[arm].append(scores(game, arm, seed))
                print(game, arm, seed, arms[arm][-1], flush=True)
            content["made"][game] = made.format(f"{game}, {seeds} seeds", os.getloadavg()[0])
            write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
