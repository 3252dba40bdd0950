"""One generator a purpose: every random stream of a run follows from (seed, name) and disturbs no other."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Generator: TypeAlias = np.random.Generator | torch.Generator


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the stream `names`, the same on every machine and in every release."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """The NumPy stream `name` of a run."""
    return np.random.Generator(np.random.PCG64(derive(seed, name)))


def torch_stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The torch stream `name` of a run. Devices have different algorithms, so their numbers differ."""
    return torch.Generator(device).manual_seed(derive(seed, name))


def held_out(names: Iterable[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) which of two or more different names are kept for testing, each with probability `share`.

    The seed and a name alone decide, so that names that come or go move no other. Only where one part would be empty,
    as it may be of few names, it takes the name that comes nearest.
    """
    chance = np.array([derive(seed, "split", name) for name in names]) / 2**63
    bound: float = np.clip(share, np.nextafter(chance.min(), 1), chance.max())
    return chance < bound


def generator_state(generator: Generator) -> Any:
    """All that is needed to go on: a dict of ints and strings for NumPy, a uint8 tensor for torch."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.bit_generator.state


def set_generator_state(generator: Generator, state: Any) -> None:
    """Continue where `generator_state` was taken.

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
    """Initialise weights from the stream `name`; torch's global generator is afterwards as it was before.

    Only the CPU generator is seeded: make modules on the CPU and move them, and each device starts from equal weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, name))
        yield
