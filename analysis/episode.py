"""One episode shown to people: its moments, and a video of them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agents import Agent
from analysis.attribution import Head, heat_panels, on_device
from analysis.evaluation import env_seed, start_rollout
from analysis.picture import panel, rgb_frames, side_by_side
from analysis.video import VideoWriter
from aux_tasks.transform import questions
from encoders import StateEncoder
from envs import Policy, Protocol
from harness.progress import Meter

PANEL = 336  # pixels a side of each picture in a video
T = TypeVar("T")


@dataclass(frozen=True)
class Moment:
    """One step of an episode."""

    obs: NDArray[np.uint8]  # (C, H, W) the agent's observation
    frame: NDArray[np.uint8]  # (C', H', W') a picture for people, in colour and larger if the environment allows
    score: float  # sum of the rewards so far
    goal: NDArray[np.uint8] | None = None  # (C', H', W') a picture of the goal, if there is one


def play_moments(policy: Policy, protocol: Protocol, frame_stack: int, seed: int, size: int) -> Iterator[Moment]:
    """Play one episode; yields every moment.

    The pictures, of about `size` pixels, are those of a twin environment with the same seed and actions.
    """
    alone = replace(protocol, env=replace(protocol.env, num_envs=1))
    display = alone.env.display(size)
    assert display is not None, f"env={protocol.env.name} has no pictures"
    with closing(alone.env.build()) as env, closing(display.build()) as twin:
        rollout, policy = start_rollout(policy, env, alone, frame_stack, seed)
        frame, score = twin.reset(env_seed(seed)), 0.0
        while True:
            goal = twin.goal_frame() if twin.goal_dim else None
            yield Moment(rollout.observation.pixels[0].copy(), frame[0], score, None if goal is None else goal[0])
            if rollout.episodes:
                return
            row = rollout.step(policy)
            shown = twin.step(row.action)
            own = env.goal_dim or env.frame_dtype != np.uint8  # seen through a goal space, which gives other rewards
            assert own or shown.reward == row.reward, "the twin plays another episode"
            frame, score = shown.frame, score + float(row.reward[0])


def evenly_spaced(items: Iterable[T], count: int) -> list[T]:
    """At most `count` items, evenly spaced over a stream of unknown length. At most twice as many are held."""
    kept: list[T] = []
    stride = 1
    for i, item in enumerate(items):
        if i % stride == 0:
            kept.append(item)
        if len(kept) == 2 * count:
            kept, stride = kept[::2], 2 * stride
    return kept[:: -(-len(kept) // count)]


def attribution_targets(agent: Agent) -> dict[str, Head]:
    """The heads to explain, by name: action values, and the class that each task predicts for unchanged pixels."""
    pixels_decide = not agent.goal_dim and not isinstance(agent.encoder, StateEncoder)
    values = {"Q": agent.q_values} if pixels_decide else {}
    return on_device(values | questions(agent, agent.encoder), agent.device)


def write_video(moments: Iterable[Moment], targets: Mapping[str, Head], frame_stack: int, video: VideoWriter) -> None:
    """Write an episode as a video: the picture with the return so far, and the attribution map of each head."""
    with video as add, Meter("video moment", None) as meter:
        for count, moment in enumerate(moments):
            meter.tick(count)
            shown = [panel(rgb_frames(moment.frame, 1)[0], PANEL, f"return {moment.score:.4g}")]
            if moment.goal is not None:
                shown.append(panel(rgb_frames(moment.goal, 1)[0], PANEL, "goal"))
            maps = heat_panels(targets, moment.obs, frame_stack, PANEL, samples=8) if targets else []
            add(side_by_side([*shown, *maps]))
