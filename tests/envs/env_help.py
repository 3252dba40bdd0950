"""Steps of an environment, by the names of their columns."""

from collections.abc import Callable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import line_env  # noqa: F401  it registers Line-v0
import numpy as np
from gymnasium.spaces import Discrete

from envs import ENVS, VectorEnv, VectorStep

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of the last two frames


def built(name: str, num_envs: int) -> VectorEnv:
    """Copies of a family as it is by default, where that needs no extra."""
    return ENVS[name](num_envs=num_envs, **({"id": "Line-v0"} if name == "gym_goal" else {})).build()


def play(env: VectorEnv, seed: Any, steps: int, policy: Policy | None = None) -> list[Any]:
    """The first frame, then `VectorStep` and labels of each step.

    Without a policy, actions are random, the same for copy i whatever the number of copies.
    """
    rng, space = np.random.default_rng(0), env.action_space
    before = now = env.reset(seed)
    rows = [SimpleNamespace(frame=now)]
    for _ in range(steps):
        if policy:
            action = policy(before, now)
        elif isinstance(space, Discrete):
            action = rng.integers(space.n, size=3)[: env.num_envs]
        else:
            action = rng.uniform(-1, 1, (3, *space.shape))[: env.num_envs].astype(np.float32)
        step = env.step(action)
        columns = {field.name: getattr(step, field.name) for field in fields(VectorStep)}
        rows.append(SimpleNamespace(**{name: values for name, values in columns.items() if values is not None}))
        vars(rows[-1]).update(env.labels())
        before, now = now, step.frame
    return rows
