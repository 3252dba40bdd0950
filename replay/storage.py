"""A ring of single frames and raw transitions; it knows rows and flags, not what is sampled."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from torch import Tensor

from harness.tree import Segment
from replay.arrays import Array, Column, Device, arange
from replay.frames import ArrayFrames, Dtype, Padding, TensorFrames, pad

FIRST, TERMINATED, TRUNCATED, VALID = (1 << bit for bit in range(4))
END = TERMINATED | TRUNCATED

SEGMENTS = 32  # pieces of a checkpointed ring: what is rewritten each time is about one of them


class FrameStorage:
    """The newest `rows` = ceil(capacity / num_envs) steps of `num_envs` environment copies.

    Row t of a copy is (f_t, first_t, a_t, r_t, terminated_t, truncated_t): the frame before the action, and what the
    action brought. Rows are numbered from the start of the run; row t lies in slot t % rows. Write protocol:

    - After the last transition of an episode comes one row with `valid` False, whose frame is the episode's last one
      and whose action was ignored; the row after it has `first` True.
    - A lost life is `terminated`, and the row after it is valid and not `first`.
    - Before a reset, `cut` ends the running episodes.
    - More rows that are not valid may follow, in a copy that waits for the others.

    With goals, each row also holds the goal achieved at its frame, and the one desired.

    Methods that read take rows and copies as arrays of `device`: where frames lie on a device, and there are no goals,
    tensors there, so that a batch is made without the host. Goals are functions of NumPy.

    Args:
        capacity: transitions in all copies together.
        frame_shape: (C, H, W) of one frame.
        action_space: of one copy.
        path: keep the frames in a new file there instead of in RAM.
        device: keep the frames in a tensor there instead of in RAM.
        padding: what `stack` gives before an episode's first frame: zeros, or that frame again.
        frame_dtype: of one frame.
        goal_dim: G, numbers in a goal; 0: there are no goals.

    Raises:
        MemoryError: the frames do not fit.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        frame_shape: tuple[int, int, int],
        action_space: Discrete | Box,
        *,
        path: str | None = None,
        device: torch.device | None = None,
        padding: Padding = "zeros",
        frame_dtype: Dtype = np.uint8,
        goal_dim: int = 0,
    ):
        self.rows = -(-capacity // num_envs)
        self.num_envs = num_envs
        self.frame_shape = frame_shape
        self._padding: Padding = padding
        self.written = 0  # rows added since the start of the run
        self.device: Device = None if goal_dim else device
        cells = self.rows * num_envs
        self._frames: ArrayFrames | TensorFrames
        if device is None:
            self._frames = ArrayFrames(cells, frame_shape, path, frame_dtype)
        else:
            self._frames = TensorFrames(cells, frame_shape, device, frame_dtype)
        kind, shape = (np.int32, ()) if isinstance(action_space, Discrete) else (np.float32, action_space.shape or ())
        self.action = Column(np.zeros((self.rows, num_envs, *shape), kind), self.device)
        self.reward = Column(np.zeros((self.rows, num_envs), np.float32), self.device)
        self.flags = Column(np.zeros((self.rows, num_envs), np.uint8), self.device)
        self._count = Column(np.zeros(1, np.int64), self.device)  # `written`, for those who read
        self.frame_dtype, self.goal_dim = np.dtype(frame_dtype), goal_dim
        self.achieved, self.desired = np.zeros((2, self.rows, num_envs, goal_dim), np.float32)
        self.bounds = EpisodeBounds(self.rows, num_envs, self.device)

    @property
    def oldest(self) -> int:
        """Number of the oldest row that is still held."""
        return max(0, self.written - self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of everything held, pages not yet touched included."""
        columns = (self.action, self.reward, self.flags, *self.bounds.columns)
        goals = self.achieved.nbytes + self.desired.nbytes
        return self._frames.nbytes + goals + sum(column.nbytes for column in columns)

    def add(
        self,
        frame: NDArray[Any],
        first: NDArray[np.bool_],
        action: NDArray[Any],
        reward: NDArray[np.floating],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        valid: NDArray[np.bool_],
        achieved: NDArray[np.float32] | None = None,
        desired: NDArray[np.float32] | None = None,
    ) -> None:
        """Write one row over the oldest.

        Args:
            frame: (N, C, H, W) the frame before the action; all others but `action` and goals are (N,).
            first: `frame` opens an episode.
            action: (N,) integers or (N, A) floats, what was done at `frame`.
            reward: what it brought, raw.
            terminated: the return ends there.
            truncated: the episode was cut there, the return goes on.
            valid: False if the environment ignored the action, since the episode was over.
            achieved, desired: (N, G) goals at `frame`, where there are goals.

        Raises:
            ValueError: a shape or type is wrong, or the rows break the protocol.
        """
        if frame.dtype != self.frame_dtype or frame.shape != (self.num_envs, *self.frame_shape):
            wanted = f"{self.frame_dtype} {(self.num_envs, *self.frame_shape)}"
            raise ValueError(f"replay: frame must be {wanted}, got {frame.dtype} {frame.shape}")
        columns = (first, reward, terminated, truncated, valid)
        if any(column.shape != (self.num_envs,) for column in columns):
            raise ValueError(
                f"replay: first, reward, terminated, truncated and valid must be ({self.num_envs},), "
                f"got {[column.shape for column in columns]}"
            )
        held = self.action.host[0]
        if action.shape != held.shape or not np.can_cast(action.dtype, held.dtype, "same_kind"):
            raise ValueError(f"replay: action must be {held.dtype} {held.shape}, got {action.dtype} {action.shape}")
        if not bool(self.goal_dim) == (achieved is not None) == (desired is not None):
            raise ValueError("replay: rows come with achieved and desired goals where there are goals, and only there")
        self._check_protocol(first, valid)
        slot = self.written % self.rows
        self._frames.write(slot * self.num_envs, frame)
        self.action.host[slot] = action
        self.reward.host[slot] = reward
        self.flags.host[slot] = first * FIRST | terminated * TERMINATED | truncated * TRUNCATED | valid * VALID
        for column in (self.action, self.reward, self.flags):
            column.sync(slot)
        if self.goal_dim:
            self.achieved[slot], self.desired[slot] = achieved, desired
        self.bounds.add(self.written, first, valid)
        self.bounds.sync()
        self.written += 1
        self._sync_count()

    def _sync_count(self) -> None:
        self._count.host[0] = self.written
        self._count.sync(slice(None))

    def cut(
        self,
        frame: NDArray[Any],
        achieved: NDArray[np.float32] | None = None,
        desired: NDArray[np.float32] | None = None,
    ) -> None:
        """Truncate every running episode after its newest row, and write its last `frame` (N, C, H, W) and goals behind
        it.
        """
        newest, nothing = (self.written - 1) % self.rows, np.zeros(self.num_envs, np.bool_)
        flags = self.flags.host
        flags[newest, (flags[newest] & TERMINATED) == 0] |= TRUNCATED
        self.flags.sync(newest)
        no_reward = nothing.astype(np.float32)
        self.add(frame, nothing, self.action.host[newest], no_reward, nothing, nothing, nothing, achieved, desired)

    def _check_protocol(self, first: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        if self.written == 0:
            wrong = ~(first & valid)
        else:
            previous = self.flags.host[(self.written - 1) % self.rows]
            over = (previous & VALID) == 0
            ended = (previous & END) != 0
            wrong = np.where(valid, first != over, ~(over | (ended & ~first)))
        if wrong.any():
            raise ValueError(
                f"replay: row {self.written} of copy {int(wrong.argmax())} breaks the order of an episode: first row, "
                "more valid rows, the last of them terminated or truncated, one row that is not valid"
            )

    def first(self, slot: Array, copy: Array) -> Array:
        """The slots (B,) of the first rows of the episodes at (B,) slots, or of the oldest that are still held."""
        begin = self.bounds.of(slot, copy)[0]
        return (begin + (self._oldest() - begin).clip(0)) % self.rows

    def rows_after(self, slot: Array, copy: Array) -> Array:
        """How many rows (B,) of the same episodes follow those at (B,) slots."""
        oldest = self._oldest()
        return self.bounds.of(slot, copy)[1] - (oldest + (slot - oldest) % self.rows)

    def rows_written_after(self, slot: Array) -> Array:
        """How many rows (B,), of any episode, follow those at (B,) slots."""
        return (self._count.view - 1 - slot) % self.rows

    def _oldest(self) -> Array:
        return (self._count.view - self.rows).clip(0)

    def stack(self, slot: Array, copy: Array, depth: int) -> Tensor:
        """The observations at (B,) slots: frames of `depth` rows up to each, `padding` before the episode's first.

        Returns:
            (B, depth * C, H, W) in channels-last memory, oldest frame first.
        """
        slots = (slot[:, None] + arange(1 - depth, 1, self.device)) % self.rows
        firsts = ((self.flags.view[slots, copy[:, None]] & FIRST) != 0).cumsum(1)
        blank = firsts < firsts[:, -1:]  # an episode began after it
        slots, blank = pad(slots, blank, self._padding)
        return self._frames.stack(slots * self.num_envs + copy[:, None], blank)

    def opening(self, slot: Array, copy: Array, depth: int) -> Tensor:
        """The observations at the rows that `first` gives: one frame, and before it `padding`; shaped as `stack`'s."""
        back = arange(1 - depth, 1, self.device)
        slots = self.first(slot, copy)[:, None] + 0 * back
        slots, blank = pad(slots, back + 0 * slots < 0, self._padding)
        return self._frames.stack(slots * self.num_envs + copy[:, None], blank)

    def state_dict(self) -> dict[str, Any]:
        """Everything held, oldest row first.

        `segments` hold the frames (R, N, C, H, W). A name `rows-BEGIN-END` tells the rows that a segment holds; a row
        never changes once written, so within one run an equal name means equal bytes. The arrays are views, valid until
        the next `add`.
        """
        slots = np.arange(self.oldest, self.written) % self.rows
        state = {name: values[slots] for name, values in self._columns().items()}
        return {"written": self.written, "segments": self._segments(), **state}

    def _columns(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint holds beside the frames, by name."""
        columns = {name: getattr(self, name).host for name in ("action", "reward", "flags")}
        return columns | ({"achieved": self.achieved, "desired": self.desired} if self.goal_dim else {})

    def _segments(self) -> list[Segment]:
        length = -(-self.rows // SEGMENTS)
        bounds = {self.oldest, self.written}
        for step in (length, self.rows):  # also cut where the ring wraps, so that each segment is one view
            bounds.update(range(self.oldest // step * step + step, self.written, step))
        segments = []
        for begin, end in pairwise(sorted(bounds)):
            cell = begin % self.rows * self.num_envs
            frames = self._frames.read(cell, cell + (end - begin) * self.num_envs)
            frames = frames.reshape(end - begin, self.num_envs, *self.frame_shape)
            segments.append(Segment(f"rows-{begin:09d}-{end:09d}", frames))
        return segments

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` of a storage of the same shape gave."""
        self.written = state["written"]
        slots = np.arange(self.oldest, self.written) % self.rows
        for name, values in self._columns().items():
            values[slots] = state[name]
        if len(slots):
            self.bounds.rebuild(self.oldest, self.flags.host[slots])
        for column in (self.action, self.reward, self.flags, *self.bounds.columns):
            column.sync(slice(None))
        self._sync_count()
        row = self.oldest
        for segment in state["segments"]:
            self._frames.write(row % self.rows * self.num_envs, segment.array.reshape(-1, *self.frame_shape))
            row += len(segment.array)
        if row != self.written:
            raise ValueError(f"replay: the checkpoint's segments end at row {row}, not at row {self.written}")


class EpisodeBounds:
    """The first and the newest row of the episode that each row belongs to.

    Episodes are numbered by copy; fewer than `rows` of them lie in the ring, so that a slot per number is enough.
    """

    def __init__(self, rows: int, num_envs: int, device: Device) -> None:
        self._rows, self._copies = rows, np.arange(num_envs)
        self._number = np.zeros(num_envs, np.int64)  # of the running episodes
        self._over = np.zeros(num_envs, np.bool_)
        self._row = 0  # the newest
        self.columns = tuple(Column(np.zeros((rows, num_envs), np.int64), device) for _ in range(3))
        self._episode, self._begin, self._last = self.columns

    def add(self, row: int, first: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        """Count a row that was written; `first` (N,) is where it opens an episode. `sync` copies it to `view`.

        The first row that is not `valid` (N,) is an episode's last one. More of them show what may be the next one's
        frame, and belong to none.
        """
        self._row = row
        self._number += first
        self._episode.host[row % self._rows] = self._number
        slot = self._number % self._rows
        self._begin.host[slot[first], self._copies[first]] = row
        more = valid | ~self._over
        self._last.host[slot[more], self._copies[more]] = row
        self._over = ~valid

    def sync(self) -> None:
        """Copy what the newest row changed to `view`."""
        self._episode.sync(self._row % self._rows)
        for column in (self._begin, self._last):
            column.sync(self._number % self._rows, self._copies)

    def rebuild(self, oldest: int, flags: NDArray[np.uint8]) -> None:
        """Count rows (R, N) from number `oldest` on by their flags; the same as adding them one after the other."""
        first, valid = (flags & FIRST) != 0, (flags & VALID) != 0
        rows = np.arange(oldest, oldest + len(flags))
        slots, number = rows % self._rows, first.cumsum(0)
        self._episode.host[slots], self._begin.host[:] = number, 0
        row, copy = first.nonzero()
        self._begin.host[number[row, copy] % self._rows, copy] = rows[row]
        over = np.zeros_like(valid)
        over[1:] = ~valid[:-1]
        row, copy = (valid | ~over).nonzero()  # row by row: the last one of an episode stays
        self._last.host[number[row, copy] % self._rows, copy] = rows[row]
        self._number, self._over = number[-1].copy(), ~valid[-1]

    def of(self, slot: Array, copy: Array) -> tuple[Array, Array]:
        """The numbers (B,) of the first and the newest row of the episodes at (B,) slots."""
        episode = self._episode.view[slot, copy] % self._rows
        return self._begin.view[episode, copy], self._last.view[episode, copy]
