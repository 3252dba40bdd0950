"""Check that state is finite, so that NaN and infinity stop a run before they are saved."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.tree import Segment, Tree


class NonFiniteError(RuntimeError):
    """A tensor was NaN or infinite."""


def check_finite(tree: Tree, step: int) -> None:
    """Check every tensor and array of floats in a tree (see `harness.tree`).

    Raises:
        NonFiniteError: one holds NaN or infinity; the message names the first and the step.
    """
    if found := next(_nonfinite(tree, ""), None):
        raise NonFiniteError(f"{found} at step {step}")


def _nonfinite(node: Tree, where: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _nonfinite(child, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _nonfinite(child, f"{where}.{i}".lstrip("."))
    elif isinstance(node, Segment):
        yield from _nonfinite(node.array, where)
    elif isinstance(node, np.ndarray) and node.dtype.kind == "f":
        if not np.isfinite(node).all():
            yield f"{where} is {node[~np.isfinite(node)].flat[0]}"
    elif isinstance(node, Tensor) and node.is_floating_point() and not (finite := torch.isfinite(node)).all():
        yield f"{where} is {node[~finite][0].item()}"
