"""Batches that are partly made: what stands in them, when the model learns, and that it knows the world."""

import copy
from typing import Any

import pytest
import torch
from capture_help import NoHost
from gymnasium.spaces import Box
from replay_help import GAMMA, World, assert_equal_batches, build

from replay.config import SyntheticConfig
from replay.diffusion import Denoiser
from replay.synthetic import Features, SyntheticReplay, fit, flat, moments

Z, A, SHAPE = 5, 2, (1, 5, 7)
SMALL = SyntheticConfig(share=0.5, every=10, updates=3, transitions=50, sampling_steps=2)


def encode(obs: torch.Tensor) -> torch.Tensor:
    """Features (B, Z) of pixels."""
    return obs.float().flatten(1)[:, :Z] / 255


def world() -> World:
    return World(2, SHAPE, 1, 6, Box(-1, 1, (A,)))


def made(rows: int = 40, n_step: int = 1, **changes: Any) -> SyntheticReplay:
    features = Features(encode, Z, torch.Generator().manual_seed(3))
    settings = {"n_step": n_step, "synthetic": SMALL} | changes
    replay = build(source := world(), 80, depth=1, features=features, **settings)
    assert isinstance(replay, SyntheticReplay)
    source.fill(rows, replay)
    return replay


def test_half_of_each_batch_is_made_once_the_model_has_learned() -> None:
    replay = made()
    before = replay.sample(8, frozenset())
    assert (before.index >= 0).all()
    assert before.obs.shape == before.nstep_obs.shape == (8, Z, 1, 1)
    replay.advance(9)
    assert (replay.sample(8, frozenset()).index >= 0).all()
    replay.advance(12)
    batch = replay.sample(9, frozenset())
    assert (batch.index >= 0).tolist() == [True] * 5 + [False] * 4
    assert (batch.obs.shape, batch.action.shape, batch.obs.dtype) == ((9, Z, 1, 1), (9, A), torch.float32)
    assert torch.equal(batch.weight, torch.ones(9))
    assert batch.action.abs().max() <= 1
    assert torch.equal(batch.reward[5:], batch.nstep_reward[5:])
    assert (batch.discount.dtype, batch.index.dtype) == (torch.float32, torch.int64)


def test_real_transitions_are_those_of_a_plain_replay_with_features_for_pixels() -> None:
    replay, source = made(n_step=3), world()
    plain = build(source, 80, depth=1)
    source.fill(40, plain)
    batch, expected = replay.sample(20, frozenset()), plain.sample(20, frozenset())
    assert torch.equal(batch.obs[:, :, 0, 0], encode(expected.obs))
    assert torch.equal(batch.nstep_obs[:, :, 0, 0], encode(expected.nstep_obs))
    for name in ("action", "reward", "nstep_reward", "discount", "index"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))


def test_a_row_becomes_the_transition_that_it_was_made_of() -> None:
    replay = made(n_step=3)
    real = replay.sample(30, frozenset())
    with NoHost():
        again = replay._batch(flat(real))
    for name in ("obs", "action", "nstep_reward", "nstep_obs", "discount"):
        torch.testing.assert_close(getattr(again, name), getattr(real, name))
    assert again.reward.isnan().all()  # not modelled, and nobody may take it for the return
    blurred = flat(real) + 0.04 * torch.sign(torch.randn(30, 2 * Z + A + 2, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(replay._batch(blurred).discount, real.discount)
    assert {round(d, 5) for d in real.discount.tolist()} >= {0, round(GAMMA**3, 5)}


def test_it_learns_every_so_many_steps_on_what_can_be_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "replay.synthetic.fit", lambda model, rows, updates, rng: learned.append((len(rows), updates)) or 0.0
    )
    replay = made()
    for step in (0, 9, 10, 11, 19, 20, 45, 54, 55):
        replay.advance(step)
    assert learned == [(len(replay), 3)] * 4  # at 10, 20, 45 and 55
    assert len(replay.sample(8, frozenset()).index) == 8


def test_a_restored_replay_draws_the_same() -> None:
    replay = made()
    replay.advance(10)
    replay.sample(4, frozenset())
    state, stream = copy.deepcopy(replay.state_dict()), replay._features.rng.get_state()
    other = made(rows=0)
    other._features.rng.set_state(stream)
    other.load_state_dict(state)
    for step in (15, 20):
        for each in (replay, other):
            each.advance(step)
        assert_equal_batches(replay.sample(8, frozenset()), other.sample(8, frozenset()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.0}, r"replay.synthetic.share must be in \[0, 1\), got 1.0"),
        ({"every": 0}, "replay.synthetic.every must be at least 1, got 0"),
        ({"sampling_steps": 0}, "replay.synthetic.sampling_steps must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        SyntheticConfig(**changes)


@pytest.mark.parametrize("changes", [{"prioritized": True}, {"storage": "cuda"}])
def test_only_uniform_draws_on_the_host(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^replay\.(prioritized|storage)=.*: replay.synthetic draws uniformly"):
        made(**changes)


@pytest.mark.slow
def test_made_transitions_obey_the_world_unless_next_states_are_shuffled() -> None:
    """s' = 0.8 s + 0.2 a and r = -s**2, learned from rows; from shuffled ones as far off as those."""
    rng = torch.Generator().manual_seed(0)
    state, action = torch.rand(3000, 1, generator=rng) * 2 - 1, torch.rand(3000, 1, generator=rng) * 2 - 1
    rows = torch.cat([state, action, -state.square(), 0.9 * torch.ones(3000, 1), 0.8 * state + 0.2 * action], 1)
    shuffled = rows.clone()
    shuffled[:, -1] = rows[torch.randperm(3000, generator=rng), -1]
    errors = []
    for data in (rows, shuffled):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Denoiser(data.shape[1])
        mean, std = moments(data)
        fit(model, (data - mean) / std, 800, rng)
        drawn = model.sample(2000, 16, rng) * std + mean
        expected = 0.8 * drawn[:, 0] + 0.2 * drawn[:, 1]
        errors.append(((drawn[:, -1] - expected).square().mean().sqrt() / rows[:, -1].std()).item())
    assert errors[0] < 0.15
    assert errors[1] > 1
