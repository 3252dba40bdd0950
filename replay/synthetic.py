"""Synthetic experience replay, SynthER (Lu et al. 2023): a diffusion model of the replay makes part of each batch."""

import logging
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.seeding import seeded
from replay.batch import Batch
from replay.diffusion import Denoiser
from replay.replay import Replay

log = logging.getLogger(__name__)

LEARNING_RATE, BATCH = 1e-3, 256  # of the model
ENCODED, GENERATED = 256, 4096  # transitions in a forward pass of the encoder, and of the model


class Features(NamedTuple):
    """What synthetic transitions are made of, in place of observations."""

    encode: Callable[[Tensor], Tensor]  # observations (B, C, H, W) to features (B, Z), which must not change any more
    dim: int  # Z
    rng: torch.Generator  # on the device of the batches


class SyntheticReplay(Replay):
    """A replay that replaces a share of each batch by transitions of a diffusion model, once that has learned.

    The model learns rows of features, action, return, discount and features after the window, side by side and
    standardised. Every `every` agent steps it learns on from where it was, on rows drawn from all that can be sampled,
    and then makes a new set of transitions. All observations of a batch are features (B, Z, 1, 1) float32. Of a
    synthetic transition `index` is -1, and `reward` is NaN where windows are longer than a step: it is not modelled.

    Args:
        features: what observations become.
        action_dim: A. The others are those of `Replay`.
    """

    def __init__(self, *args: Any, features: Features, action_dim: int, **kwargs: Any) -> None:
        self._learned_at = 0  # agent step
        self._features = features
        self._sizes = [features.dim, action_dim, 1, 1, features.dim]
        dim = sum(self._sizes)
        with seeded(features.rng.initial_seed(), "init"):
            self._model = Denoiser(dim).to(features.rng.device)
        self._made = torch.zeros(0, dim, device=features.rng.device)
        super().__init__(*args, **kwargs)
        occurring = [0.0, *self._gammas[1:]]
        self._discounts = torch.tensor(occurring, dtype=torch.float32, device=features.rng.device)

    def advance(self, step: int) -> None:
        """See `Replay.advance`; the model learns where it is due."""
        super().advance(step)
        if step - self._learned_at >= self._config.synthetic.every:
            self._learned_at = step
            self._renew(step)

    def sample(self, batch_size: int, fields: frozenset[str], clip_length: int = 0) -> Batch:
        """See `Replay.sample`: the real transitions come first.

        Raises:
            ValueError: fields are asked for, which the model does not make.
        """
        if fields:
            raise ValueError(f"replay.synthetic does not make {', '.join(sorted(fields))}")
        made = int(batch_size * self._config.synthetic.share) if len(self._made) else 0
        real = self._encoded(super().sample(batch_size - made, fields, clip_length))
        if not made:
            return real
        index = torch.randint(len(self._made), (made,), generator=self._features.rng, device=self._made.device)
        return joined(real, self._batch(self._made[index]))

    def _encoded(self, batch: Batch) -> Batch:
        with torch.no_grad():
            obs, nstep_obs = (self._features.encode(obs) for obs in (batch.obs, batch.nstep_obs))
        return replace(batch, obs=obs[:, :, None, None], nstep_obs=nstep_obs[:, :, None, None])

    def _renew(self, step: int) -> None:
        """Learn from the replay, and make new transitions."""
        config, rng = self._config.synthetic, self._features.rng
        count = min(len(self), config.updates * BATCH)  # more are not read
        parts = chunks(count, ENCODED)
        real = [self._encoded(super(SyntheticReplay, self).sample(size, frozenset())) for size in parts]
        rows = torch.cat([flat(batch) for batch in real])
        mean, std = moments(rows)
        loss = fit(self._model, (rows - mean) / std, config.updates, rng)
        made = [self._model.sample(size, config.sampling_steps, rng) for size in chunks(config.transitions, GENERATED)]
        self._made = torch.cat(made) * std + mean
        log.info("replay.synthetic: %d transitions at step %d, loss of the model %.3f", len(self._made), step, loss)

    def _batch(self, rows: Tensor) -> Batch:
        """The transitions that rows (B, D) stand for: actions in range, and discounts that occur."""
        obs, action, nstep_reward, discount, nstep_obs = torch.split(rows, self._sizes, 1)
        reward = nstep_reward[:, 0]
        return Batch(
            obs=obs[:, :, None, None],
            action=action.clamp(-1, 1),
            reward=reward if self._n_step == 1 else torch.full_like(reward, math.nan),
            nstep_reward=reward,
            nstep_obs=nstep_obs[:, :, None, None],
            discount=self._discounts[(discount - self._discounts).abs().argmin(1)],
            weight=torch.ones_like(reward),
            index=torch.full_like(reward, -1, dtype=torch.int64),
        )

    def state_dict(self) -> dict[str, Any]:
        """See `Replay.state_dict`; the random stream is kept by who gave it."""
        synthetic = {"model": self._model.state_dict(), "made": self._made, "learned_at": self._learned_at}
        return super().state_dict() | {"synthetic": synthetic}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Replay.load_state_dict`."""
        super().load_state_dict(state)
        synthetic = state["synthetic"]
        self._model.load_state_dict(synthetic["model"])
        self._made = synthetic["made"].to(self._made.device, copy=True)
        self._learned_at = synthetic["learned_at"]


def chunks(count: int, most: int) -> list[int]:
    """A count in parts of at most so many."""
    return [min(most, count - begun) for begun in range(0, count, most)]


def flat(batch: Batch) -> Tensor:
    """Rows (B, D) of transitions whose observations are features."""
    numbers = batch.nstep_reward[:, None], batch.discount[:, None]
    return torch.cat([batch.obs.flatten(1), batch.action, *numbers, batch.nstep_obs.flatten(1)], 1)


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches, one after the other, of what both have."""
    pairs = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(Batch)}
    return Batch(**{name: torch.cat(pair) for name, pair in pairs.items() if pair[1] is not None})


def fit(model: Denoiser, rows: Tensor, updates: int, rng: torch.Generator) -> float:
    """Train a model on standardised rows (N, D), the learning rate falling to 0; its mean loss in the last tenth."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    recent = []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * update / updates)) / 2
        index = torch.randint(len(rows), (BATCH,), generator=rng, device=rows.device)
        loss = model.loss(rows[index], rng).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.detach())
    return float(torch.stack(recent[-max(updates // 10, 1) :]).mean())


def moments(rows: Tensor) -> Tensor:
    """Mean and standard deviation (2, D) of rows (N, D); the latter is 1 where a number never varies."""
    std, mean = torch.std_mean(rows, 0)
    return torch.stack([mean, torch.where(std > 1e-6, std, 1.0)])
