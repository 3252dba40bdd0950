"""How an agent of Pong wins and loses its points: the length of rallies, and random moves before them.

python benchmarks/lost_points.py checkpoint=zoo/pong-permutation [epsilon=0.05] [games=8] [seed=5]
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from common import options
from numpy.typing import NDArray

from analysis.policies import greedy
from envs import Actions, Observation, Rollout
from experiment.training.build import load_agent
from harness.process import tune_process

MOVES = np.array([0, 0, 1, 2, 1, 2])  # what each of Pong's six actions does to the paddle
CONTACT = slice(-10, -5)  # steps before a lost point when the ball passes the paddle


def play(checkpoint: str, epsilon: float, games: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each step moved the paddle otherwise than the agent would have, and its points, both (T, games)."""
    run, agent = load_agent(Path(checkpoint))
    config = replace(run.env.protocol().env, num_envs=games)
    env, policy, rng = config.build(), greedy(agent), np.random.default_rng(seed)
    rollout, over = Rollout(env, run.frame_stack, config.padding), np.zeros(games, bool)
    rollout.reset(seed)
    moved, points = [], []

    def act(obs: Observation) -> Actions:
        best = policy(obs)
        random = rng.random(games) < epsilon
        action = np.where(random, rng.integers(len(MOVES), size=games), best)
        moved.append((MOVES[action] != MOVES[best]) & ~over)
        return action

    while not over.all():
        points.append(np.where(over, 0, rollout.step(act).reward))
        over[[episode.copy for episode in rollout.episodes]] = True
    env.close()
    return np.array(moved), np.array(points)


def main() -> None:
    """Play and print."""
    chosen = options(checkpoint="zoo/pong-permutation", epsilon=0.05, games=8, seed=5)
    tune_process(1)
    moved, points = play(**chosen)
    for kind, sign in (("won", 1), ("lost", -1)):
        lengths, before = [], []
        for game in range(chosen["games"]):
            ends = np.flatnonzero(points[:, game])
            for begin, end in zip([0, *ends[:-1]], ends, strict=True):
                if np.sign(points[end, game]) == sign:
                    lengths.append(end - begin)
                    before.append(moved[begin:end, game][CONTACT].mean() if end - begin >= 10 else 0.0)
        if lengths:
            low, median, high = np.percentile(lengths, [10, 50, 90])
            rally = f"{median:.0f} steps (median; {low:.0f} to {high:.0f} for the middle four fifths)"
            print(f"{len(lengths)} points {kind}: {rally}, {np.mean(before):.1%} other moves from ten to five before")
    print(f"{moved.mean():.1%} other moves in all, scores {points.sum(0).astype(int).tolist()}")


if __name__ == "__main__":
    main()
