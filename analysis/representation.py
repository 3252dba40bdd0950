"""Measurements of a representation: rank and spread of features, and cosines between gradients of losses."""

from collections.abc import Mapping

import torch
from torch import Tensor

from agents import Agent
from encoders import Encoder, dead_share
from replay import Batch


def diagnose(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    """Costly measurements for the log. The agent and its random streams are not changed.

    Returns:
        `aux/<task>/grad_cosine` with the gradient of the TD loss on the encoder, and the metrics of `representation`:
        scalars, and vectors for histograms.
    """
    with agent.preserved_streams():
        features = agent.encoder(batch.obs)
        rewarded, _ = agent.with_bonus(batch, features.detach(), learning=False)
        terms = {"td": agent.td_loss(features, rewarded, batch.nstep_obs)[0]}
        terms |= agent.suite.losses(batch, features, agent.encoder)[0]
        cosines = gradient_cosines(terms, "td", agent.encoder)
    metrics = {f"aux/{name}/grad_cosine": cosine for name, cosine in cosines.items()}
    return metrics | representation(features.detach())


def representation(features: Tensor) -> dict[str, Tensor]:
    """Metrics of (B, Z) features by tag.

    `repr/effective_rank`; `repr/feature_stds`, the standard deviation (Z,) of each dimension over the batch;
    `repr/feature_std`, their mean; `repr/dead_share`, the share of dimensions that hardly vary.
    """
    stds = features.std(0)
    return {
        "repr/effective_rank": effective_rank(features),
        "repr/feature_stds": stds,
        "repr/feature_std": stds.mean(),
        "repr/dead_share": dead_share(features),
    }


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007) of (B, Z) features.

    Between 1 (collapsed) and min(B - 1, Z).
    """
    singular = torch.linalg.svdvals(features - features.mean(0))
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(torch.special.entr(share).sum())


def gradient_cosines(terms: Mapping[str, Tensor], reference: str, encoder: Encoder) -> dict[str, Tensor]:
    """Cosine between the encoder gradients of each term and of `reference`; negative if they conflict."""
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    if not parameters:
        return {}

    def gradient(term: Tensor) -> Tensor:
        gradients = torch.autograd.grad(
            term.mean(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in gradients])

    anchor = gradient(terms[reference])
    return {
        name: torch.cosine_similarity(gradient(term), anchor, dim=0)
        for name, term in terms.items()
        if name != reference
    }
