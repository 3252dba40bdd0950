"""What the heads of Pong's agents read: each object is covered in all frames, and the answers are compared.

    python benchmarks/pong_objects.py [moments=100] [games=4] [seed=0]

Writes results/pong_objects.json and its table in results/pong.md. About a minute on one core. With moments=0 it
only writes the table of the JSON that is there.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, options, read_json, table, with_block
from lost_points import MOVES
from numpy.typing import NDArray
from torch import Tensor

from analysis.attribution import Head, agreement, background, occlusion, smoothgrad
from analysis.episode import attribution_targets, evenly_spaced
from analysis.evaluation import start_rollout
from analysis.policies import greedy
from analysis.statistics import FEW_RESAMPLES, mean_of_tasks, stratified_interval
from experiment.training.build import load_agent
from harness.process import tune_process
from harness.provenance import versions, write_json

AGENTS = ("zoo/pong-dqn", "zoo/pong-permutation")
OBJECTS = ("ball", "opponent", "own paddle", "score")
JSON, PAGE = RESULTS / "pong_objects.json", RESULTS / "pong.md"
HEADER = [
    "agent",
    "head",
    "covered",
    "change of the score (95 %)",
    "answer changes",
    "SmoothGrad there, times the mean",
]
FRAMES, SIDE = 4, 84
SCORE = 12  # rows of the screen
COLUMNS = {"opponent": slice(6, 13), "own paddle": slice(71, 78)}
REACH = 8  # rows that a paddle may have moved within the frames that one picture shows, and its edge
BALL = 5  # pixels around the upper left corner of the ball, likewise
NEAR = 7  # columns: closer to a paddle, the ball would be covered with it

Boxes = dict[str, tuple[slice, slice]]


def boxes(labels: dict[str, int]) -> Boxes | None:
    """Rows and columns of each object in a picture of 84 x 84, None where there is no ball or it is at a paddle.

    The console draws 160 x 210 pixels; its memory counts from outside of them.
    """
    x, y = round((labels["ball_x"] - 49) * SIDE / 160), round((labels["ball_y"] - 14) * SIDE / 210)
    low, high = COLUMNS["opponent"].stop, COLUMNS["own paddle"].start
    if not labels["ball_y"] or not low + NEAR <= x <= high - NEAR:
        return None
    tops = {"opponent": labels["enemy_y"] - 15, "own paddle": labels["player_y"] - 13}
    rows = {name: round(top * SIDE / 210) for name, top in tops.items()}
    paddles = {name: (slice(max(SCORE, row - REACH), row + 2 * REACH), COLUMNS[name]) for name, row in rows.items()}
    ball = slice(max(SCORE, y - BALL), y + 2 * BALL), slice(x - BALL, x + 2 * BALL)
    return {"ball": ball, **paddles, "score": (slice(0, SCORE), slice(0, SIDE))}


def play(agent: Any, trained: Any, games: int, seed: int) -> Iterator[tuple[NDArray[np.uint8], list[Boxes]]]:
    """Observations (4, 84, 84) of whole games, and the boxes of each frame; the protocol's random actions included."""
    protocol = trained.env.protocol()
    alone = replace(protocol, env=replace(protocol.env, num_envs=1))
    for game in range(games):
        with closing(alone.env.build(labels=True)) as env:
            rollout, policy = start_rollout(greedy(agent), env, alone, FRAMES, seed + game)
            seen: deque[Boxes | None] = deque(maxlen=FRAMES)
            while not rollout.episodes:
                rollout.step(policy)
                seen.append(boxes({name: int(value[0]) for name, value in env.labels().items()}))
                found = [one for one in seen if one]
                if len(found) == FRAMES:
                    yield rollout.observation.pixels[0].copy(), found


def masks(found: list[Boxes]) -> dict[str, Tensor]:
    """(4, 84, 84) where each object is."""
    places = {name: torch.zeros(FRAMES, SIDE, SIDE, dtype=torch.bool) for name in OBJECTS}
    for frame, of_frame in enumerate(found):
        for name, (rows, columns) in of_frame.items():
            places[name][frame, rows, columns] = True
    return places


def measure(scores: Head, names: Tensor, obs: Tensor, places: dict[str, Tensor]) -> dict[str, Any]:
    """Of one head on observations (M, 4, 84, 84) with masks of their shape: what covering changes, and SmoothGrad.

    `names` (K,) are equal for classes that are one answer.
    """
    plain, heat = background(obs), np.concatenate([smoothgrad(scores, one[None], frames=FRAMES) for one in obs])
    occluded = [occlusion(scores, one[None], frames=FRAMES)[0] for one in obs[::4]]
    ranks = [agreement((a, b), one) for a, b, one in zip(heat[::4], occluded, obs[::4], strict=True)]
    relative = torch.from_numpy(heat) / torch.from_numpy(heat).mean((1, 2, 3), keepdim=True)
    visible, found = obs != plain, {}
    with torch.no_grad():
        before, answer = scores(obs.float()).cpu().max(1)
        for name, place in places.items():
            after = scores(torch.where(place, plain, obs.float())).cpu()
            change = (after.gather(1, answer[:, None])[:, 0] - before).abs().numpy()
            found[name] = {
                "change": float(change.mean()),
                "interval": stratified_interval([change], mean_of_tasks, resamples=FEW_RESAMPLES),
                "answer_changes": float((names[after.argmax(1)] != names[answer]).float().mean()),
                "smoothgrad": float(relative[place & visible].mean()),
            }
    return {"objects": found, "spearman": float(np.mean([rank for rank in ranks if rank is not None]))}


def examine(folder: str, moments: int, games: int, seed: int) -> dict[str, Any]:
    """Every head of an agent.

    Raises:
        ValueError: something is on the field beside the four objects, so a box is at a wrong place.
    """
    trained, agent = load_agent(Path(folder), "cpu")
    chosen = evenly_spaced(play(agent, trained, games, seed), moments)
    obs = torch.from_numpy(np.stack([pixels for pixels, _ in chosen]))
    each = [masks(found) for _, found in chosen]
    places = {name: torch.stack([of_one[name] for of_one in each]) for name in OBJECTS}
    everything = torch.stack(list(places.values())).any(0)
    if left := int(((obs != background(obs)) & ~everything).flatten(1).any(1).sum()):
        raise ValueError(f"{folder}: in {left} of {len(obs)} observations an object is outside of its box")
    names = {"Q": torch.from_numpy(MOVES)}  # two actions are one move of the paddle
    heads = {
        name: measure(scores, names.get(name, torch.arange(len(MOVES))), obs, places)
        for name, scores in attribution_targets(agent).items()
    }
    return {"moments": len(obs), "heads": heads}


def rows(kept: dict[str, Any]) -> Iterator[list[str]]:
    """The lines of the table."""
    for agent, of_agent in kept["agents"].items():
        for head, of_head in of_agent["heads"].items():
            for name, found in of_head["objects"].items():
                low, high = found["interval"]
                change = f"{found['change']:.3f} ({low:.3f} to {high:.3f})"
                yield [agent, head, name, change, f"{found['answer_changes']:.0%}", f"{found['smoothgrad']:.1f}"]


def render_page(page: str) -> str:
    """The page with the table of the kept JSON."""
    kept = read_json(JSON)
    agreements = ", ".join(
        f"{agent} {head} {of_head['spearman']:.2f}"
        for agent, of_agent in kept["agents"].items()
        for head, of_head in of_agent["heads"].items()
    )
    counts = ", ".join(f"{of_agent['moments']} of {agent}" for agent, of_agent in kept["agents"].items())
    told = f"\nMoments: {counts}. Rank correlation of the two maps: {agreements}.\n"
    return with_block(page, __file__, table(HEADER, rows(kept)) + told)


if __name__ == "__main__":
    given = options(moments=100, games=4, seed=0)
    tune_process(1)
    if given["moments"]:
        found = {agent: examine(agent, **given) for agent in AGENTS}
        write_json({"agents": found, **given, "versions": versions("ale-py")}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
