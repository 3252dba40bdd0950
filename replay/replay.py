"""Replay: storage and sampler composed, and batches assembled from what they give."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.seeding import Generator, generator_state, set_generator_state
from replay.arrays import Array, ahead, arange
from replay.batch import Batch
from replay.config import ReplayConfig
from replay.relabel import Relabeller
from replay.samplers import Sampler
from replay.storage import END, FIRST, TERMINATED, VALID, FrameStorage


class Replay:
    """Transitions with stacked observations and n-step returns, made when sampled.

    Row t can be sampled once the row after its longest window exists, and until a frame of its stack is overwritten.
    A window ends after n rows, or after the first terminated or truncated one.

    Args:
        config: gives rows in a window and the exponent of the importance weights at each agent step.
        frame_stack: frames in an observation.
        gamma: discount of one row, in (0, 1].
        clip_reward: clip each reward in `nstep_reward` to [-1, 1]; `reward` stays raw.
        rng: the only source of chance; on the storage's device where batches are drawn there.
        device: where batches go.
        relabeller: chooses the goals of a batch, where the environment has goals. Rewards and ends of returns follow.

    Raises:
        ValueError: the ring is too short to hold one stack and one window.
    """

    def __init__(
        self,
        storage: FrameStorage,
        sampler: Sampler,
        config: ReplayConfig,
        *,
        frame_stack: int,
        gamma: float,
        clip_reward: bool,
        rng: Generator,
        device: torch.device,
        relabeller: Relabeller | None = None,
    ):
        shortest = frame_stack + config.longest
        if storage.rows < shortest:
            raise ValueError(
                f"replay.capacity gives {storage.rows} rows of {storage.num_envs} copies; {frame_stack} frames and "
                f"{config.longest} steps need {shortest}: set it to {shortest * storage.num_envs} or more"
            )
        self._storage = storage
        self._sampler = sampler
        self._frame_stack = frame_stack
        self._config, self._n_step = config, config.longest
        self._gamma = gamma
        self._gammas: Array = gamma ** np.arange(self._n_step + 1)
        self._clip_reward = clip_reward
        self._rng = rng
        self._device = device
        self._relabeller = relabeller
        # What moves with the agent step: steps of a window, and the exponent of the importance weights.
        self._values = (0, 0.0)
        self._moving: Array = np.zeros(2)
        if storage.device is not None:
            host = (self._gammas, self._moving)
            self._gammas, self._moving = (torch.from_numpy(values).to(storage.device) for values in host)
        self.advance(0)

    @property
    def on_device(self) -> bool:
        """Whether batches are drawn on a device, without the host: `sample` and `update_priorities` can be captured."""
        return self._storage.device is not None

    def advance(self, step: int) -> None:
        """Set what moves with the agent step: the length of the windows and the importance weights."""
        values = self._config.n_step_at(step), self._config.beta_at(step)
        if values != self._values:
            self._values = values
            self._moving[0], self._moving[1] = values

    def __len__(self) -> int:
        """Rows that can be sampled."""
        return self._sampler.size

    @property
    def nbytes(self) -> int:
        """Bytes of storage and sampler, pages not yet touched included."""
        return self._storage.nbytes + self._sampler.nbytes

    @property
    def bytes_per_transition(self) -> float:
        """`nbytes` over the transitions that the ring can hold."""
        return self.nbytes / (self._storage.rows * self._storage.num_envs)

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
        """Write one row of every copy; see `FrameStorage.add`."""
        self._storage.add(frame, first, action, reward, terminated, truncated, valid, achieved, desired)
        self._sampler.change(self._opened(), self._closed())

    def cut(
        self,
        frame: NDArray[Any],
        achieved: NDArray[np.float32] | None = None,
        desired: NDArray[np.float32] | None = None,
    ) -> None:
        """Truncate the running episodes, before a reset; see `FrameStorage.cut`."""
        self._storage.cut(frame, achieved, desired)
        self._sampler.change(self._opened(), self._closed())

    def _opened(self) -> NDArray[np.int64]:
        """Cells whose window is followed by the row just added."""
        newest = self._storage.written - 1
        rows = np.arange(max(0, newest - self._n_step), newest)
        if rows.size == 0:
            return rows
        flags = self._storage.flags.host[rows % self._storage.rows]
        end = (flags & END) != 0
        earlier_end = np.zeros_like(end)
        earlier_end[:-1] = np.logical_or.accumulate(end[-2::-1])[::-1]
        full = (rows == newest - self._n_step)[:, None]
        return self._cells(rows, ((flags & VALID) != 0) & ~earlier_end & (full | end[-1]))

    def _closed(self) -> NDArray[np.int64]:
        """Cells that lost their row, or a frame of their stack, to the row just added."""
        overwritten = self._storage.written - 1 - self._storage.rows
        if overwritten < 0:
            return np.zeros(0, np.int64)
        rows = np.arange(overwritten, overwritten + self._frame_stack)
        first = (self._storage.flags.host[rows % self._storage.rows] & FIRST) != 0
        first[0] = False  # these are already the flags of the row just added
        return self._cells(rows, ~np.logical_or.accumulate(first))

    def _cells(self, rows: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        row, copy = mask.nonzero()
        return rows[row] % self._storage.rows * self._storage.num_envs + copy

    def sample(self, batch_size: int, fields: frozenset[str], clip_length: int = 0) -> Batch:
        """Draw a batch, with windows and importance weights of the agent step that `advance` was given last.

        Args:
            batch_size: transitions, drawn with replacement.
            fields: what the losses read; those of `Batch` with a default are made only if they are here, `rgb` only
                where frames are in colour.
            clip_length: T, observations in a clip.

        Raises:
            ValueError: no row can be sampled yet.
        """
        if not len(self):
            raise ValueError("replay: nothing to sample yet, collect more steps before learning starts")
        index, priority = self._sampler.sample(batch_size, self._rng)
        slot, copy = index // self._storage.num_envs, index % self._storage.num_envs
        goal = self._goals(slot, copy)
        reward, nstep_reward, discount, length = self._windows(slot, copy, goal)
        nstep_obs = self._observe(slot + length, copy)
        next_obs = None
        if "next_obs" in fields:
            next_obs = nstep_obs if self._n_step == 1 else self._observe(slot + 1, copy)
        clips = self._clips(slot, copy, clip_length) if "clip" in fields else {}
        obs = clips["clip"][:, 0] if clips else self._observe(slot, copy)
        return Batch(
            obs=obs,
            action=self._actions(slot, copy),
            reward=self._tensor(reward, torch.float32),
            nstep_reward=self._tensor(nstep_reward, torch.float32),
            nstep_obs=nstep_obs,
            discount=self._tensor(discount, torch.float32),
            weight=self._tensor((priority / priority.min()) ** -self._moving[1], torch.float32),
            index=self._tensor(index, torch.int64),
            next_obs=next_obs,
            context=self._context(slot, copy) if "context" in fields else None,
            future=self._later(slot, copy) if "future" in fields else None,
            goal=None if goal is None else self._tensor(goal, torch.float32),
            rgb=obs[:, -3:] if "rgb" in fields else None,
            **clips,
        )

    def _goals(self, slot: Array, copy: Array) -> NDArray[np.float32] | None:
        if self._relabeller is None:
            return None
        assert isinstance(self._rng, np.random.Generator)
        return self._relabeller.goals(self._storage, slot, copy, self._rng)

    def _windows(self, slot: Array, copy: Array, goal: NDArray[np.float32] | None) -> tuple[Array, Array, Array, Array]:
        """(B,) reward of the first row, return, discount and number of rows of the windows that begin at these cells,
        for goals (B, G) if there are any.
        """
        column = arange(0, self._n_step, self._storage.device)
        slots = (slot[:, None] + column) % self._storage.rows
        flags = self._storage.flags.view[slots, copy[:, None]]
        ends, terminal = (flags & END) != 0, (flags & TERMINATED) != 0
        reward = self._storage.reward.view[slots, copy[:, None]]
        if goal is not None:
            reward, terminal = self._rewards_for(slots, copy, goal, terminal)
            ends |= terminal
        inside = _until_end(ends) & (column < self._moving[0])
        length = inside.sum(1)
        clipped = reward.clip(-1, 1) if self._clip_reward else reward
        nstep_reward = (inside * clipped * self._gammas[:-1]).sum(1)
        terminated = (inside & terminal).any(1)
        return reward[:, 0], nstep_reward, self._gammas[length] * ~terminated, length

    def _rewards_for(
        self, slots: NDArray[np.int64], copy: NDArray[np.int64], goal: NDArray[np.float32], ended: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The rewards of (B, K) rows for goals (B, G), and whether they end the return.

        A row that terminated (`ended`) because the pursued goal was reached does not end the return for another goal.
        Values past the end of an episode are not used.
        """
        assert self._relabeller is not None
        functions, copies = self._relabeller.functions, np.repeat(copy, slots.shape[1])
        achieved = functions.achieved(self._storage, (slots.ravel() + 1) % self._storage.rows, copies)
        desired = np.repeat(goal, slots.shape[1], axis=0)
        pursued = functions.terminated(achieved, self._storage.desired[slots.ravel(), copies])
        terminal = functions.terminated(achieved, desired) | (ended.ravel() & ~pursued)
        return functions.reward(achieved, desired).reshape(slots.shape), terminal.reshape(slots.shape)

    def _clips(self, slot: Array, copy: Array, length: int) -> dict[str, Tensor]:
        """The fields of clips that begin at these cells."""
        steps = arange(0, length, self._storage.device)
        slots = (slot[:, None] + steps) % self._storage.rows
        copies = copy[:, None] + 0 * slots
        ends = (self._storage.flags.view[slots[:, :-1], copies[:, 1:]] & END) != 0
        mask = _until_end(ends) & (steps[1:] <= self._storage.rows_written_after(slot)[:, None])
        frames = self._observe(slots.ravel(), copies.ravel())
        return {
            "clip": frames.reshape(*slots.shape, *frames.shape[1:]),
            "clip_action": self._actions(slots[:, :-1], copies[:, 1:]),
            "clip_mask": self._tensor(mask, torch.float32),
        }

    def _context(self, slot: Array, copy: Array) -> Tensor:
        return self._storage.opening(slot, copy, self._frame_stack).to(self._device)

    def _later(self, slot: Array, copy: Array) -> Tensor:
        steps = ahead(self._storage.rows_after(slot, copy), self._gamma, self._rng)
        return self._observe((slot + steps) % self._storage.rows, copy)

    def _actions(self, slot: Array, copy: Array) -> Tensor:
        action = self._storage.action
        dtype = torch.float32 if action.host.dtype == np.float32 else torch.int64
        return self._tensor(action.view[slot, copy], dtype)

    def _observe(self, slot: Array, copy: Array) -> Tensor:
        return self._storage.stack(slot, copy, self._frame_stack).to(self._device)

    def _tensor(self, values: Array, dtype: torch.dtype) -> Tensor:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
        return tensor.to(self._device, dtype)

    def update_priorities(self, index: Tensor, td_error: Tensor) -> None:
        """Give the sampler the (B,) newest TD errors of a batch's `index`.

        Raises:
            ValueError: an error is not finite, where batches are drawn on the host.
        """
        if self.on_device:
            self._sampler.update(index, td_error.detach())
        else:
            self._sampler.update(index.cpu().numpy(), td_error.detach().cpu().numpy())

    def _layout(self) -> dict[str, Any]:
        storage = self._storage
        return {
            "rows": storage.rows,
            "num_envs": storage.num_envs,
            "frame_shape": list(storage.frame_shape),
            "goal_dim": storage.goal_dim,
            "frame_stack": self._frame_stack,
            "n_step": self._n_step,
            "sampler": type(self._sampler).__name__,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that `sample` depends on, as a tree (see `harness.tree`)."""
        return {
            "layout": self._layout(),
            "storage": self._storage.state_dict(),
            "sampler": self._sampler.state_dict(),
            "rng": generator_state(self._rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken.

        Raises:
            ValueError: the checkpoint is of a replay of another shape.
        """
        for key, mine in self._layout().items():
            if (saved := state["layout"].get(key, 0)) != mine:  # 0: written before there were goals
                raise ValueError(f"replay: the checkpoint has {key}={saved}, this run has {key}={mine}")
        self._storage.load_state_dict(state["storage"])
        self._sampler.load_state_dict(state["sampler"])
        set_generator_state(self._rng, state["rng"])


def _until_end(ends: Array) -> Array:
    """Of (B, K) consecutive rows, those up to the first that ends a return, itself included."""
    return ends.cumsum(1) <= ends
