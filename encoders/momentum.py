"""Momentum copies: modules that follow another one slowly (He et al. 2020, MoCo, equation 2)."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
MARK = "_is_momentum_copy"


def momentum_copy(module: M) -> M:
    """Return a deep copy without gradient, marked, so that exported weights leave it out."""
    copy = deepcopy(module).requires_grad_(False)
    setattr(copy, MARK, True)
    return copy


def is_momentum_copy(module: nn.Module) -> bool:
    """Return whether `momentum_copy` made the module."""
    return getattr(module, MARK, False)


@torch.no_grad()
def follow(copy: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move a copy towards its module: copy = momentum * copy + (1 - momentum) * module, for every parameter.

    Args:
        copy: made by `momentum_copy`.
        module: what it was made of.
        momentum: share of the copy that is kept, in [0, 1]; 0 copies, 1 leaves the copy as it is.
    """
    torch._foreach_lerp_(list(copy.parameters()), list(module.parameters()), 1 - momentum)
