"""Hindsight: other goals for the transitions of a batch, among them some that were reached."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replay.arrays import ahead
from replay.config import RelabelConfig
from replay.storage import FrameStorage

Goal = NDArray[np.float32]


@dataclass(frozen=True)
class GoalFunctions:
    """What an environment says of goals; all of it on whole batches."""

    reward: Callable[[Goal, Goal], NDArray[np.float32]]  # achieved (M, G), desired (M, G) -> (M,)
    terminated: Callable[[Goal, Goal], NDArray[np.bool_]]  # the same -> (M,)
    imagine: Callable[[Goal, np.random.Generator], Goal]  # achieved (M, G) in the scenes meant -> goals (M, G)
    # Frames (M, C, H, W), and the first ones of their episodes -> goals (M, G). It is given where the map goes on
    # learning: then goals follow from the frames that a batch needs, and those that were stored are not read.
    embed: Callable[[NDArray[np.uint8], NDArray[np.uint8]], Goal] | None = None

    def achieved(self, storage: FrameStorage, slot: NDArray[np.int64], copy: NDArray[np.int64]) -> Goal:
        """The goals (M, G) achieved at (M,) slots."""
        if self.embed is None:
            return storage.achieved[slot, copy]
        frames, context = (storage.stack(row, copy, 1).cpu().numpy() for row in (slot, storage.first(slot, copy)))
        return self.embed(frames, context)


class Relabeller:
    """Chooses the goal that each transition of a batch is learned for (Andrychowicz et al. 2017, HER).

    The goals are chosen when a batch is drawn, by row: that of `rollout` is the one pursued; all others are goals that
    were achieved after some row, or imagined ones. Goals of the same episode never come from outside of it.

    Args:
        config: the share of each kind.
        functions: of the environment.
    """

    def __init__(self, config: RelabelConfig, functions: GoalFunctions) -> None:
        shares = config.shares()
        self._kinds, self._shares = list(shares), list(shares.values())
        self._discount, self.functions = config.discount, functions

    def goals(
        self, storage: FrameStorage, slot: NDArray[np.int64], copy: NDArray[np.int64], rng: np.random.Generator
    ) -> Goal:
        """Goals (B, G) for the transitions at (B,) slots; those of a running episode know it up to its newest row."""
        kinds = rng.choice(len(self._kinds), len(slot), p=self._shares)
        desired = storage.desired[slot, copy]
        for kind, name in enumerate(self._kinds):
            chosen = np.flatnonzero(kinds == kind)
            if name != "rollout" and chosen.size:
                desired[chosen] = self._of(name, storage, slot[chosen], copy[chosen], rng)
        return desired

    def _of(
        self,
        kind: str,
        storage: FrameStorage,
        slot: NDArray[np.int64],
        copy: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Goal:
        if kind == "imagined":
            return self.functions.imagine(self.functions.achieved(storage, slot, copy), rng)
        if kind in ("random", "outcome"):  # of any row, of any other episode
            rows = storage.oldest + rng.integers(1, storage.written - storage.oldest, size=len(slot))
            slot, copy = rows % storage.rows, rng.integers(storage.num_envs, size=len(slot))
        if kind == "episode":
            slot = storage.first(slot, copy)
        after = storage.rows_after(slot, copy)
        if kind in ("final", "outcome"):
            slot = slot + after
        elif kind != "random":
            slot = slot + ahead(after, self._discount if kind == "future" else 1.0, rng)
        return self.functions.achieved(storage, slot % storage.rows, copy)
