"""Whether an update could be captured as a graph: it reads no value from the device and its shapes depend on none."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HOST = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor, Tensor.tolist, Tensor.item, Tensor.numpy}


class NoHost(TorchFunctionMode):
    """Refuses values that come from Python or go there: on a device each is a copy that a graph cannot hold."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        index = args[1] if func in (Tensor.__getitem__, Tensor.__setitem__) else ()
        if func in HOST or any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,))):
            raise RuntimeError(f"{func} needs the host")
        return func(*args, **(kwargs or {}))


def run_without_data(function: Callable[[Any], Any], parts: Any, shared: Sequence[object] = ()) -> Any:
    """Call `function` on a copy of `parts` whose tensors have shapes and no data; RuntimeError where data are needed.

    Args:
        shared: what cannot be copied, such as generators.
    """
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        parts = copy.deepcopy(parts, {id(one): one for one in shared})
    with mode, NoHost():
        return function(parts)


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on the CPU: kernels are noted with their memory, and `replay` runs them again there.

    A recording on a GPU computes nothing; this one does, so the first replay has been made already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, list[Any]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = alias((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, inputs, tree_leaves(alias(result))))
        return result

    def register_generator_state(self, generator: torch.Generator) -> None:
        """A generator of the CPU goes on by itself."""

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, inputs, results in self._calls if self.replays > 1 else ():
            args, kwargs = alias(inputs)
            for old, new in zip(results, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def alias(tree: Any) -> Any:
    """The same memory in tensors whose shapes no later call changes."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


@contextmanager
def taped() -> Iterator[None]:
    """`agents.capture` records on the CPU."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    replaced = {
        "CUDAGraph": Tape,
        "graph": lambda tape: tape,
        "current_stream": lambda: stream,
        "Stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "set_stream": lambda _: None,
        "current_device": lambda: 0,
        "default_generators": [SimpleNamespace(clone_state=lambda: 0, graphsafe_set_state=lambda state: None)],
    }
    with patch.multiple(torch.cuda, **replaced):
        yield
