"""Random streams: one generator for each purpose, seeded from (seed, name) and independent of all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch

from harness.derive import derive as derive  # as part of this interface

Generator: TypeAlias = np.random.Generator | torch.Generator


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """The NumPy stream `name` of a run."""
    return np.random.Generator(np.random.PCG64(derive(seed, name)))


def torch_stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The torch stream `name` of a run. Devices use different algorithms, so their numbers differ."""
    return torch.Generator(device).manual_seed(derive(seed, name))


def generator_state(generator: Generator) -> Any:
    """The state of a generator: a dict of ints and strings for NumPy, a uint8 tensor for torch."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.bit_generator.state


def set_generator_state(generator: Generator, state: Any) -> None:
    """Restore a state from `generator_state`.

    Raises:
        TypeError: the state is of the other kind of generator.
        ValueError: the state is of another NumPy algorithm.
    """
    if isinstance(generator, torch.Generator) != isinstance(state, torch.Tensor):
        raise TypeError(f"a {type(state).__name__} is not the state of a {type(generator).__module__} generator")
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Seed torch's global generator for the block, as for initialising weights, and restore it afterwards.

    Only the CPU generator is seeded. Make modules on the CPU and then move them, so that weights do not depend on the
    device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, name))
        yield
