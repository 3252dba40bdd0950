"""Auxiliary gradients that oppose the agent's on the shared encoder: gated by their cosine, or projected."""

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.config import Conflict

TINY = torch.finfo(torch.float32).tiny


def backward(losses: Sequence[Tensor], shared: Sequence[Tensor], rule: Conflict, turn: int) -> Tensor:
    """Leave the gradients of the sum of K losses, but on the `shared` parameters those that `rule` makes of them.

    Args:
        losses: scalars, the agent's first, then each auxiliary task's with its weight.
        shared: parameters that several losses reach.
        rule: what becomes of gradients that conflict.
        turn: of the order in which pcgrad projects.

    Returns:
        (K - 1,) the cosine of each task's gradient on `shared` with the agent's.
    """
    rows = []
    for i, loss in enumerate(losses):
        loss.backward(retain_graph=i + 1 < len(losses))  # type: ignore[no-untyped-call]
        rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in shared]))
        for parameter in shared:
            parameter.grad = None
    gradients = torch.stack(rows)
    gram = gradients @ gradients.T
    parts = torch.split(factors(gram, rule, turn) @ gradients, [p.numel() for p in shared])
    for parameter, part in zip(shared, parts, strict=True):  # in its layout, as a fused optimiser reads it
        parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))
    return cosines(gram)[1:]


def factors(gram: Tensor, rule: Conflict, turn: int) -> Tensor:
    """The factors (K,) of K gradients in the sum that moves the shared parameters.

    Args:
        gram: (K, K) products of the gradients with each other; the first is the agent's.
        rule: of the cosine c of a task's gradient with the agent's, `gate` takes 1 where c >= 0 and else 0, and
            `gate_weighted` max(0, c) (Du et al. 2018, "Adapting auxiliary losses using gradient similarity", equations
            4 and 3). `pcgrad` takes from each gradient, the agent's too, its part against each of the others (Yu et al.
            2020, "Gradient surgery for multi-task learning", algorithm 1).
        turn: pcgrad begins with this gradient, modulo K; the paper draws the order.
    """
    if rule is Conflict.pcgrad:
        return _projected(gram, turn)
    cosine = cosines(gram)
    kept = torch.where(cosine < 0, 0.0, 1.0) if rule is Conflict.gate else cosine.clamp_min(0)
    return torch.cat([torch.ones_like(kept[:1]), kept[1:]])


def cosines(gram: Tensor) -> Tensor:
    """(K,) of each gradient with the first; 0 where one is 0."""
    norms = gram.diagonal().sqrt()
    return gram[0] / (norms[0] * norms).clamp_min(TINY)


def _projected(gram: Tensor, turn: int) -> Tensor:
    unit = torch.eye(len(gram), device=gram.device)
    shares = unit  # row i: gradient i so far, as a sum of the K it began as
    for k in range(len(gram)):
        j = (turn + k) % len(gram)
        against = (shares @ gram[:, j]).clamp_max(0) / gram[j, j].clamp_min(TINY)
        shares = shares - torch.outer(against * (1 - unit[j]), unit[j])
    return shares.sum(0)
