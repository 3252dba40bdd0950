"""Whether an update could be captured as a graph: it reads no value from the device and its shapes depend on none."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.overrides import TorchFunctionMode

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
