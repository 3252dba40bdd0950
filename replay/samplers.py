"""Which cells of the ring a batch takes. Sampling never writes; a cell is drawn only while it is open."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay.arrays import Array


class Sampler(ABC):
    """A set of open cells, and a distribution over it."""

    size: int  # open cells

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the arrays held."""

    @abstractmethod
    def change(self, opened: NDArray[np.int64], closed: NDArray[np.int64]) -> None:
        """Let `opened` cells, none of them open, be drawn from now on, and `closed` ones, open or not, no longer."""

    @abstractmethod
    def sample(self, batch_size: int, rng: Any) -> tuple[Array, Array]:
        """Draw cells with replacement: (B,) cells, and (B,) numbers in proportion to their probabilities."""

    @abstractmethod
    def update(self, cells: Array, td_error: Array) -> None:
        """Learn the (B,) newest errors of cells that were sampled."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Arrays and numbers that restore the sampler."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class UniformSampler(Sampler):
    """Every open cell alike."""

    def __init__(self, cells: int):
        self.size = 0
        self._open = np.zeros(cells, np.bool_)
        self._span = 0  # one past the last open cell: it follows from `_open`, so that resuming is exact

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return self._open.nbytes

    def change(self, opened: NDArray[np.int64], closed: NDArray[np.int64]) -> None:
        """Open and close cells."""
        self.size += len(opened) - int(self._open[closed].sum())
        self._open[closed] = False
        self._open[opened] = True
        self._span = max(self._span, int(opened.max(initial=-1)) + 1)
        while self._span and not self._open[self._span - 1]:
            self._span -= 1

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw again wherever a closed cell came up, so that open ones stay equally likely; few cells are closed."""
        cells = rng.integers(self._span, size=batch_size)
        while (miss := np.flatnonzero(~self._open[cells])).size:
            cells[miss] = rng.integers(self._span, size=miss.size)
        return cells, np.ones(batch_size)

    def update(self, cells: NDArray[np.int64], td_error: NDArray[np.floating]) -> None:
        """Nothing to learn."""

    def state_dict(self) -> dict[str, Any]:
        """The set of open cells."""
        return {"open": self._open.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the set of open cells."""
        self._open[:] = state["open"]
        open_cells = np.flatnonzero(self._open)
        self.size = len(open_cells)
        self._span = int(open_cells.max(initial=-1)) + 1


class PrioritizedSampler(Sampler):
    """Open cells in proportion to priority**alpha, priority = |TD error| + 1e-6 (Schaul et al. 2016, section 3.3).

    A cell that opens gets the largest priority seen so far; a closed one has priority 0. Draws are stratified: one from
    each of B equal parts of the total.

    Args:
        alpha: 0 uniform to 1 fully prioritised.
    """

    epsilon = 1e-6

    def __init__(self, cells: int, alpha: float):
        self.alpha = alpha
        self.size = 0
        self._tree = SumTree(cells)
        self._largest = 1.0  # priority**alpha

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return self._tree.nbytes

    def change(self, opened: NDArray[np.int64], closed: NDArray[np.int64]) -> None:
        """Open cells with the largest priority and close cells."""
        self.size += len(opened) - int((self._tree.leaves[closed] > 0).sum())
        values = np.repeat((0.0, self._largest), (len(closed), len(opened)))
        self._tree.set(np.concatenate((closed, opened)), values)

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw stratified: (B,) cells and their priority**alpha."""
        mass = (np.arange(batch_size) + rng.random(batch_size)) / batch_size * self._tree.total
        cells = self._tree.find(mass)
        return cells, self._tree.leaves[cells]

    def update(self, cells: NDArray[np.int64], td_error: NDArray[np.floating]) -> None:
        """Set priorities from (B,) errors of either sign; cells closed since they were sampled stay closed.

        Raises:
            ValueError: an error is not finite.
        """
        if not np.isfinite(td_error).all():
            raise ValueError("replay: td_error must be finite to be a priority, got NaN or infinity")
        values = self.priority(np.abs(td_error, dtype=np.float64))
        self._largest = max(self._largest, float(values.max()))
        still_open = self._tree.leaves[cells] > 0
        self._tree.set(cells[still_open], values[still_open])

    def priority(self, td_error: Array) -> Array:
        """Priority**alpha of absolute errors (B,), in an array or in a tensor."""
        return (td_error + self.epsilon) ** self.alpha

    def state_dict(self) -> dict[str, Any]:
        """The priorities; the sums follow from them."""
        return {"priority": self._tree.leaves.copy(), "largest": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the priorities."""
        self._largest = state["largest"]
        self._tree.set(np.arange(len(self._tree.leaves)), state["priority"])
        self.size = int((self._tree.leaves > 0).sum())


class LapSampler(PrioritizedSampler):
    """Open cells in proportion to max(|TD error|**alpha, 1), LAP (Fujimoto et al. 2020, "An equivalence between
    loss functions and non-uniform sampling in experience replay").

    With the Huber loss of threshold 1 and no importance weights, the gradient is in expectation that of uniform
    sampling and a loss of error**2 / 2 up to 1, and |error|**(1 + alpha) / (1 + alpha) beyond.
    """

    def priority(self, td_error: Array) -> Array:
        """See `PrioritizedSampler.priority`."""
        return (td_error**self.alpha).clip(1.0)


class SumTree:
    """Non-negative leaves and the sums of each `fanout` of them, and of those, up to one total.

    Wide nodes need three or four rounds of numpy a call where a binary tree needs twenty, and a tenth of its sums.
    A sum is always taken anew from its children, so the tree is a function of its leaves and never drifts.
    """

    fanout = 64

    def __init__(self, size: int):
        self._levels: list[NDArray[np.float64]] = []
        nodes = size
        while nodes > 1 or not self._levels:
            nodes = -(-nodes // self.fanout)
            self._levels.append(np.zeros((nodes, self.fanout)))
        self.leaves = self._levels[0].reshape(-1)[:size]

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._levels[-1].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of leaves and sums."""
        return sum(level.nbytes for level in self._levels)

    def set(self, index: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Replace leaves (M,); of an index given twice the last value stays."""
        self.leaves[index] = values
        node = index
        for children, sums in zip(self._levels, self._levels[1:], strict=False):
            node = node // self.fanout
            sums.reshape(-1)[node] = children[node].sum(axis=1)

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """The leaf where each (B,) mass in [0, total) falls when leaves are laid end to end; never a zero leaf."""
        node = np.zeros(len(mass), np.int64)
        sample = np.arange(len(mass))
        for children in reversed(self._levels):
            ends = children[node].cumsum(axis=1)
            mass = np.minimum(mass, np.nextafter(ends[:, -1], 0))  # rounding must not carry it past the end
            child = (ends <= mass[:, None]).sum(axis=1)
            mass = mass - np.where(child > 0, ends[sample, child - 1], 0)
            node = node * self.fanout + child
        return node
