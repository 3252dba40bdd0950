"""Drawing on a device: no number goes to the host, so that it can be part of a captured update."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replay.arrays import Array, uniform, upload
from replay.samplers import Sampler

UNITS = 2**30  # of a priority of 1


class DeviceSampler(Sampler):
    """Open cells in proportion to priorities, which lie in one tensor; each draw takes its cumulative sum anew.

    Priorities are whole numbers of 2**-30: their sums are exact in any order, so that a closed cell is never drawn and
    equal seeds draw equal cells. They are cut off where the sum of all could overflow: at 4096 for a million cells.
    As in `PrioritizedSampler` draws are stratified, and a cell opens with the largest priority seen so far; of a cell
    drawn twice the larger error counts.

    Args:
        formula: absolute TD errors (B,) to priority**alpha; None: all cells alike, drawn independently.
        device: of the priorities.
    """

    def __init__(self, cells: int, formula: Callable[[Array], Array] | None, device: torch.device) -> None:
        self.size = 0
        self._formula, self._most = formula, 2**62 // cells
        self._open = np.zeros(cells, np.bool_)
        self._priority = torch.zeros(cells, dtype=torch.int64, device=device)
        self._largest = torch.full((), UNITS, dtype=torch.int64, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return self._open.nbytes + self._priority.nbytes

    def change(self, opened: NDArray[np.int64], closed: NDArray[np.int64]) -> None:
        """Open cells with the largest priority and close cells."""
        self.size += len(opened) - int(self._open[closed].sum())
        self._open[closed], self._open[opened] = False, True
        device = self._priority.device
        if len(closed):
            self._priority.index_fill_(0, upload(closed, device), 0)
        if len(opened):
            self._priority[upload(opened, device)] = self._largest

    def sample(self, batch_size: int, rng: Any) -> tuple[Tensor, Tensor]:
        """Draw with a generator of the device: (B,) cells and their priorities."""
        ends, mass = self._priority.cumsum(0), uniform(rng, batch_size)
        if self._formula is not None:
            mass = (torch.arange(batch_size, device=mass.device) + mass) / batch_size
        mass = torch.minimum((mass * ends[-1]).long(), ends[-1] - 1)  # rounding must not carry it past the end
        cells = torch.searchsorted(ends, mass, right=True)
        return cells, self._priority[cells].double() / UNITS

    def update(self, cells: Array, td_error: Array) -> None:
        """Set priorities from (B,) errors of either sign; cells closed since they were sampled stay closed.

        An error that is not finite counts as one that is small or large: the log finds it, without a wait here.
        """
        if self._formula is None:
            return
        units = (self._formula(td_error.double().abs()) * UNITS).nan_to_num(1).clamp(1, self._most).long()
        self._largest.copy_(torch.maximum(self._largest, units.max()))
        units = torch.where(self._priority[cells] > 0, units, 0)
        self._priority.scatter_reduce_(0, cells, units, "amax", include_self=False)

    def state_dict(self) -> dict[str, Any]:
        """The priorities."""
        return {"priority": self._priority.cpu().numpy(), "largest": int(self._largest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the priorities."""
        self._open[:] = state["priority"] > 0
        self.size = int(self._open.sum())
        self._priority.copy_(torch.from_numpy(state["priority"]))
        self._largest.fill_(state["largest"])
