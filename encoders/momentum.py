"""Momentum copies: networks that follow others slowly and learn from no gradient."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy that requires no gradient and that exported weights leave out."""
    copy = deepcopy(module).requires_grad_(False)
    copy.is_momentum_copy = True  # type: ignore[assignment]
    return copy


def is_momentum_copy(module: nn.Module) -> bool:
    """Whether `momentum_copy` made this module."""
    return bool(getattr(module, "is_momentum_copy", False))


@torch.no_grad()
def follow(copy: nn.Module, module: nn.Module, momentum: float) -> None:
    """copy = momentum * copy + (1 - momentum) * module, for all parameters."""
    torch._foreach_lerp_(list(copy.parameters()), list(module.parameters()), 1 - momentum)
