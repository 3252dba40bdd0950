"""Streams are stable for ever, independent of one another, and can be continued."""

import json
from contextlib import suppress

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


def test_seeds_differ_by_every_part_and_neighbouring_streams_are_uncorrelated() -> None:
    paths = [(0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (1, "a"), (0, 1, "a")]
    seeds = {derive(*path) for path in paths} | {derive(seed, "env", copy) for seed in range(50) for copy in range(50)}
    assert len(seeds) == len(paths) + 2500
    assert 0 <= min(seeds) < 2**62 < max(seeds) < 2**63
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


@pytest.mark.parametrize(
    ("generator", "other", "message"),
    [
        (numpy_stream(0, "a"), torch_stream(0, "a"), "Tensor is not the state"),
        (torch_stream(0, "a"), numpy_stream(0, "a"), "dict is not the state"),
        (numpy_stream(0, "a"), np.random.Generator(np.random.Philox(0)), "PCG64"),
    ],
)
def test_states_of_another_kind_are_refused(generator, other, message):
    with pytest.raises((TypeError, ValueError), match=message):
        set_generator_state(generator, generator_state(other))


@pytest.mark.parametrize("error", [None, KeyError])
def test_initialisation_disturbs_no_other_stream_even_after_an_error(error):
    made = []
    for name in ("encoder", "encoder", "head"):
        before = torch.get_rng_state()
        with suppress(KeyError), seeded(0, name):
            made.append(torch.nn.Linear(3, 5).weight)
            if error:
                raise error
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(17)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
