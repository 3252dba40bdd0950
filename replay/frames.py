"""Where single frames lie (RAM, a memory-mapped file, a device) and how stacks are read from them."""

import errno
import fcntl
import logging
import math
import os
import re
import shutil
import weakref
from collections import defaultdict
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from replay.arrays import Array, arange, upload

Dtype: TypeAlias = type[np.uint8 | np.float32]  # of frames: pixels, or numbers of a state
Padding: TypeAlias = Literal["zeros", "repeat"]  # what stands before an episode's first frame: black, or that frame

log = logging.getLogger(__name__)


def pad(slots: Array, blank: Array, padding: Padding) -> tuple[Array, Array]:
    """The slots of stacked frames, and which of them are zeros.

    Args:
        slots: (B, K) of the frames of each stack, oldest first.
        blank: (B, K) True where a frame is from before the episode; the last never is.
        padding: with `repeat`, the episode's first frame stands there.
    """
    if padding == "zeros":
        return slots, blank
    device = slots.device if isinstance(slots, Tensor) else None
    oldest = slots[arange(0, len(slots), device), blank.sum(1)]
    return slots + blank * (oldest[:, None] - slots), blank & False


class ArrayFrames:
    """`cells` frames (C, H, W) in RAM, where pages cost nothing until written, or in a file at `path`.

    Raises:
        ValueError: the file at `path` is another run's, or none of a replay.
        MemoryError: the frames do not fit in the memory, or on the disk, that is free now.
        OSError: the disk does not give the file its room.
    """

    def __init__(self, cells: int, frame_shape: tuple[int, int, int], path: str | None = None, dtype: Dtype = np.uint8):
        shape, itemsize = (cells, *frame_shape), np.dtype(dtype).itemsize
        if path is None:
            check_room(cells, frame_shape, free_memory(), "memory", itemsize=itemsize)
            self._hold(np.zeros(shape, dtype))
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
            with Path(path).open("r+b") as file:  # the mapping holds it, and with it the lock
                _claim(file, math.prod(shape) * itemsize)
                check_room(cells, frame_shape, shutil.disk_usage(path).free, "disk", itemsize=itemsize)
                allocate(file, math.prod(shape) * itemsize)
                self._hold(np.asarray(np.memmap(file, dtype, "w+", shape=shape)))

    @classmethod
    def over(cls, data: NDArray[Any]) -> "ArrayFrames":
        """Frames (N, C, H, W) that are there already."""
        frames = cls.__new__(cls)
        frames._hold(data)
        return frames

    def _hold(self, data: NDArray[Any]) -> None:
        self._data, self.nbytes = data, data.nbytes
        self._spare: defaultdict[tuple[int, ...], list[NDArray[Any]]] = defaultdict(list)

    def write(self, begin: int, frames: NDArray[Any]) -> None:
        """Put (M, C, H, W) frames into the cells from `begin` on."""
        self._data[begin : begin + len(frames)] = frames

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """The frames of cells [begin, end): a view, valid until the next write."""
        return self._data[begin:end]

    def stack(self, cells: NDArray[np.int64], blank: NDArray[np.bool_]) -> Tensor:
        """Stack K frames a sample, zeros where `blank`.

        Args:
            cells: (B, K) which frames, oldest first.
            blank: (B, K) True where there is no such frame.

        Returns:
            (B, K * C, H, W) in channels-last memory: written so, which is faster than converting.
        """
        batch, depth = cells.shape
        _, channels, height, width = self._data.shape
        out = self._buffer((batch, height, width, depth, channels))
        for k, c in np.ndindex(depth, channels):  # by planes: numpy copies few long rows faster than many short ones
            out[..., k, c] = self._data[cells[:, k], c]
        sample, k_blank = blank.nonzero()
        out[sample, :, :, k_blank] = 0
        return torch.from_numpy(out).flatten(3).permute(0, 3, 1, 2)

    def _buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array over memory that a dead batch left behind: fresh pages can cost more than filling them."""
        spare = self._spare[shape]
        memory = spare.pop() if spare else np.empty(shape, self._data.dtype)
        array = memory[:]
        weakref.finalize(array, spare.append, memory).atexit = False
        return array


def _claim(file: BinaryIO, size: int) -> None:
    """Lock a file and empty it, to free its space.

    Raises:
        ValueError: another run uses the file, or it has another size than this replay.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"replay.path={file.name}: in use by another run; give each one its own") from error
    if (found := os.fstat(file.fileno()).st_size) not in (0, size):
        raise ValueError(f"replay.path={file.name}: {found} bytes of something else; remove it, or give another path")
    file.truncate(0)


def allocate(file: BinaryIO, size: int) -> None:
    """Give a file of zeros its room on the disk before it is mapped: a full disk at a later write would be a SIGBUS.

    Raises:
        OSError: the disk is full; the file is empty then.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without it
            file.truncate(0)
            raise OSError(error.errno, f"{error.strerror}, {size / 1e9:.2f} GB are needed", file.name) from error


class TensorFrames:
    """The same frames in one tensor on `device`: no copy between host and device when sampling."""

    def __init__(self, cells: int, frame_shape: tuple[int, int, int], device: torch.device, dtype: Dtype = np.uint8):
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        kind = torch.uint8 if dtype == np.uint8 else torch.float32
        check_room(cells, frame_shape, free, f"{device} memory", itemsize=kind.itemsize)
        self._data = torch.zeros((cells, *frame_shape), dtype=kind, device=device)
        self.nbytes = self._data.nbytes

    def write(self, begin: int, frames: NDArray[Any]) -> None:
        """Put (M, C, H, W) frames into the cells from `begin` on."""
        self._data[begin : begin + len(frames)].copy_(upload(frames, self._data.device), non_blocking=True)

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """The frames of cells [begin, end), copied to the host."""
        return np.asarray(self._data[begin:end].cpu().numpy())

    def stack(self, cells: Array, blank: Array) -> Tensor:
        """As `ArrayFrames.stack`, on the device; of tensors, or of arrays of the host."""
        if isinstance(cells, np.ndarray):
            cells, blank = (upload(index, self._data.device) for index in (cells, blank))
        frames: Tensor = self._data[cells] * ~blank[..., None, None, None]
        return frames.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def free_memory() -> int:
    """Bytes that the machine has free, capped by the cgroup v2 limit; what caches files there is free too."""
    free, group = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    if (limit := group / "memory.max").is_file() and (most := limit.read_text().strip()) != "max":
        cache = re.findall(r"^(?:in)?active_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        used = int((group / "memory.current").read_text()) - sum(map(int, cache))
        free = min(free, max(0, int(most) - used))
    return free


def check_room(
    count: int,
    frame_shape: tuple[int, int, int],
    free: int,
    where: str,
    *,
    itemsize: int = 1,
    who: str = "replay",
    what: str = "{} transitions",
    advice: str = "set replay.capacity to {} or less",
) -> None:
    """Log how many bytes `count` frames (C, H, W) take, of `itemsize` bytes a number, and how many are free `where`.

    Raises:
        MemoryError: they do not fit. The {} of `what` is the count, that of `advice` the number that fits.
    """
    channels, height, width = frame_shape
    frame_bytes = channels * height * width * itemsize
    need = count * frame_bytes
    amount = f"{what.format(count)} of {height}x{width}x{channels}"
    if need > free:
        fits = free // frame_bytes
        fits -= fits % 10 ** max(len(str(fits)) - 2, 0)
        raise MemoryError(
            f"{who}: {amount} need {need / 1e9:.2f} GB, but {free / 1e9:.2f} GB of {where} is free: "
            + advice.format(fits)
        )
    log.info("%s: %.2f GB of %.1f GB (%s)", who, need / 1e9, free / 1e9, amount)
