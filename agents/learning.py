"""What every learner shares: one weighted sum of loss terms, schedules as tensors, and one owner for each parameter."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn


class Schedule:
    """Values that follow from the agent step, as floats for acting and as tensors for updates.

    The tensors are views of one vector that `advance` overwrites in place, so that a captured update reads the new
    values.

    Args:
        functions: agent step to value, by name.
        device: of the tensors.
    """

    def __init__(self, functions: Mapping[str, Callable[[int], float]], device: torch.device) -> None:
        self._functions = dict(functions)
        # The fused Adam of the CPU reads its learning rate as a double, that of CUDA as a float.
        self._vector = torch.zeros(len(functions), dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self._vector = self._vector.to(device)
        self.tensors: dict[str, Tensor] = dict(zip(functions, self._vector.unbind(), strict=True))
        self.advance(0)

    def advance(self, step: int) -> None:
        """Compute every value for an agent step."""
        self.step = step
        self.values: dict[str, float] = {name: function(step) for name, function in self._functions.items()}
        values = torch.tensor(list(self.values.values()), dtype=self._vector.dtype, pin_memory=self._vector.is_cuda)
        self._vector.copy_(values, non_blocking=True)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, Tensor | float], sample_weight: Tensor) -> Tensor:
    """Mean over the batch of sum_k weights[k] * terms[k], each sample scaled by its importance weight.

    Args:
        terms: unreduced losses, each (B,).
        weights: one for each term, a number or a tensor ().
        sample_weight: (B,) importance weights of prioritised replay.

    Raises:
        ValueError: names differ, or a term is not (B,).
    """
    if terms.keys() != weights.keys():
        raise ValueError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ")
    for name, term in terms.items():
        if term.shape != sample_weight.shape:
            raise ValueError(f"loss {name!r} has shape {tuple(term.shape)}, expected {tuple(sample_weight.shape)}")
    total = torch.zeros_like(sample_weight)
    for name, term in terms.items():
        total = total + weights[name] * term
    return (sample_weight * total).mean()


def check_ownership(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Raise ValueError unless every trainable parameter of `module` is in exactly one optimiser."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    owners = Counter(id(parameter) for group in groups for parameter in group["params"])
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and owners[id(parameter)] != 1:
            raise ValueError(f"parameter {name} is in {owners[id(parameter)]} optimisers, expected 1")
