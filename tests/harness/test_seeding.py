"""Streams are stable for ever, independent of one another, and can be continued."""

import json

import numpy as np
import pytest
import torch

from harness.seeding import derive, generator_state, numpy_stream, seeded, set_generator_state, torch_stream
from harness.tree import decode, encode


def test_seeds_never_change() -> None:
    assert derive(0, "replay") == 2_084_860_065_207_622_285
    assert derive(1, "replay", 3) == 415_223_683_199_389_992
    assert numpy_stream(0, "replay").integers(0, 1 << 30, 3).tolist() == [138070536, 565044547, 838634898]
    assert torch_stream(0, "replay").initial_seed() == derive(0, "replay")


def test_seeds_differ_by_every_part() -> None:
    paths = [(0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (1, "a"), (0, 1, "a")]
    seeds = {derive(*path) for path in paths} | {derive(seed, "env", copy) for seed in range(50) for copy in range(50)}
    assert len(seeds) == len(paths) + 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_neighbouring_streams_are_uncorrelated() -> None:
    streams = [numpy_stream(seed, name) for seed in range(4) for name in ("act", "replay")]
    correlation = np.corrcoef([stream.standard_normal(4000) for stream in streams]) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("stream", [numpy_stream, torch_stream])
def test_a_stream_continues_from_its_state(stream) -> None:
    def draw(generator):
        if isinstance(generator, torch.Generator):
            return torch.randn(5, generator=generator).tolist()
        return [*generator.standard_normal(5), *generator.integers(0, 9, 3, dtype=np.int32)]

    generator = stream(3, "act")
    draw(generator)
    structure, arrays = encode(generator_state(generator))
    expected = [draw(generator), draw(generator)]
    other = stream(4, "act")
    set_generator_state(other, decode(json.loads(json.dumps(structure)), arrays))
    assert [draw(other), draw(other)] == expected


def test_states_of_another_kind_are_refused() -> None:
    numpy, torch_ = numpy_stream(0, "a"), torch_stream(0, "a")
    with pytest.raises(TypeError, match="Tensor is not the state"):
        set_generator_state(numpy, generator_state(torch_))
    with pytest.raises(TypeError, match="dict is not the state"):
        set_generator_state(torch_, generator_state(numpy))
    with pytest.raises(ValueError, match="PCG64"):
        set_generator_state(numpy, generator_state(np.random.Generator(np.random.Philox(0))))


def test_initialisation_disturbs_no_other_stream() -> None:
    before = torch.get_rng_state()
    with seeded(0, "encoder"):
        first = torch.nn.Linear(3, 5).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(17)
    with seeded(0, "encoder"):
        again = torch.nn.Linear(3, 5).weight
    with seeded(0, "head"):
        other = torch.nn.Linear(3, 5).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_stream_returns_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="in init"), seeded(0, "encoder"):
        raise ValueError(f"in init {torch.rand(3)}")
    assert torch.equal(torch.get_rng_state(), before)
