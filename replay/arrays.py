"""Arrays of a replay: on the host NumPy's, on a device tensors. Index arithmetic is written for both."""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = Any  # a NumPy array, or a tensor: what both understand is used
Device: TypeAlias = torch.device | None  # of tensors; None: NumPy arrays on the host


class Column:
    """One array of the ring. Rows are written to `host` and saved from there; batches are drawn from `view`.

    Args:
        host: its content.
        device: of `view`, a copy of `host` on that device; None: both are the same array.
    """

    def __init__(self, host: NDArray[Any], device: Device) -> None:
        self.host, self._device = host, device
        self.view: Array = host if device is None else torch.from_numpy(host.copy()).to(device)

    @property
    def nbytes(self) -> int:
        """Bytes of `host`, and of a copy on a device."""
        return int(self.host.nbytes + (0 if self._device is None else self.view.nbytes))

    def sync(self, *index: int | slice | NDArray[np.int64]) -> None:
        """Copy the values at an index from `host` into `view`."""
        if self._device is not None:
            at = tuple(upload(i, self._device) if isinstance(i, np.ndarray) else i for i in index)
            self.view[at] = upload(self.host[index], self._device)


def upload(values: NDArray[Any], device: torch.device) -> Tensor:
    """The values on a device, without waiting for it: a copy in pinned memory lives until it was read."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def arange(begin: int, end: int, device: Device) -> Array:
    """The integers in [begin, end)."""
    return np.arange(begin, end) if device is None else torch.arange(begin, end, device=device)


def uniform(rng: np.random.Generator | torch.Generator, size: int) -> Array:
    """(size,) float64 numbers in [0, 1)."""
    if isinstance(rng, torch.Generator):
        return torch.rand(size, generator=rng, device=rng.device, dtype=torch.float64)
    return rng.random(size)


def ahead(rows: Array, discount: float, rng: np.random.Generator | torch.Generator) -> Array:
    """Draw (B,) steps ahead, k in [1, rows] with probability proportional to discount**k; rows (B,) are 1 or more."""
    share = uniform(rng, len(rows))
    if discount < 1:  # the inverse distribution function of a truncated geometric distribution
        log1p = torch.log1p if isinstance(share, Tensor) else np.log1p
        steps = log1p(-share * (1 - discount**rows)) / math.log(discount)
    else:
        steps = share * rows
    steps = steps.long() if isinstance(steps, Tensor) else steps.astype(np.int64)
    return 1 + steps.clip(None, rows - 1)
