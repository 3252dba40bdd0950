"""One row for each registered task, a batch that holds what all of them read, and the whole state of a run."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from aux_help import generator
from torch import Tensor, nn

from agents import DQN, SAC, Agent, DQNConfig, SACConfig, Streams
from aux_tasks import AuxSuite, TaskConfig, TaskSetting
from encoders import Encoder, EncoderConfig, build_encoder
from replay import Batch

STACK, SIZE, ACTIONS, LONGEST = 4, 24, 3, 29
SHAPE = (3 * STACK, SIZE, SIZE)
B = 4

CASES: dict[str, dict[str, Any]] = {  # options by task, and by task/variant
    "rotation": {"hidden": 8},
    "rotation/all": {"hidden": 8, "all_rotations": True, "crop_rows": [2, 20]},
    "permutation": {"hidden": 8},
    "deepmdp": {"hidden": 8},
    "deepmdp/maps": {"hidden": 8, "space": "maps"},
    "deepmdp/mmd": {"hidden": 8, "model": "ensemble", "members": 2, "distance": "mmd"},
    "dbc": {"hidden": 8},
    "dbc/bonus": {"hidden": 8},
    "dbc/released": {"hidden": 8, "form": "released"},
    "dbc/robust": {"hidden": 8, "form": "robust", "model": "ensemble", "members": 2},
    "dbc/simsr": {"hidden": 8, "form": "robust", "reward_weight": 0.0, "momentum": 0.5},
    "dbc/normed": {"hidden": 8, "form": "normed", "pairs": "all"},
    "dbc/mico": {"form": "mico", "momentum": 0.5},
    "dbc/rap": {"hidden": 8, "form": "rap"},
    "curl": {},
    "reconstruction": {"channels": 4},
    "spr": {"projection_dim": 8},
    "predictive": {"hidden": 8},
    "self_prediction": {"hidden": 8},
    "self_prediction/bonus": {"hidden": 8},
    "contrastive_ucb": {"hidden": 8, "latent_dim": 3},
    "contrastive_ucb/bonus": {"hidden": 8, "latent_dim": 3},
    "soda": {"hidden": 8, "projection_dim": 4},
    "inverse_dynamics": {"hidden": 8},
    "temporal_cpc": {"hidden": 8},
    "st_dim": {},
    "denoising": {"channels": 4},
    "denoising/gaussian": {"channels": 4, "noise": "gaussian", "emphasis": 0.5},
    "relative_position": {"hidden": 8},
    "colorization": {"channels": 4, "bin_size": 20.0},
    "exemplar": {"classes": 8},
    "exemplar/patch": {"classes": 8, "patch_size": 8},
    "simclr": {"hidden": 8, "projection_dim": 4},
    "moco": {"hidden": 8, "projection_dim": 4, "queue": 32},
    "byol": {"hidden": 8, "projection_dim": 4},
    "barlow_twins": {"hidden": 8, "projection_dim": 4},
    "vicreg": {"hidden": 8, "projection_dim": 4},
    "tov_vicreg": {"hidden": 8, "projection_dim": 4},
    "split_brain": {"channels": 4},
    "split_brain/time": {"channels": 4, "halves": "time"},
    "masked_autoencoder": {"mask_ratio": 0.5, "decoder_depth": 1},
    "masked_autoencoder/contrast": {"mask_ratio": 0.5, "decoder_depth": 1, "contrast": 0.1},
    "context_encoder": {"channels": 4},
    "context_encoder/adversarial": {"channels": 4, "adversarial": 0.5},
    "bigan": {"channels": 4, "latent_dim": 3},
    "shuffle_learn": {"hidden": 8},
    "odd_one_out": {"hidden": 8},
    "arrow_of_time": {"hidden": 8},
    "jigsaw": {"hidden": 8, "embedding_dim": 4, "permutations": 5},
    "counting": {"counts": 4},
    "cpc_image": {"embedding_dim": 4},
    "video_colorization": {"embedding_dim": 4},
    "rig": {"channels": 4, "latent_dim": 3},
    "rig/skewed": {"channels": 4, "latent_dim": 3, "skew": -1.0, "foreground": 0.0},
    "cc_rig": {"channels": 4, "latent_dim": 3, "context_dim": 2},
    "temporal_distance": {"hidden": 8, "latent_dim": 3},
    "contrastive_goal": {"hidden": 8, "latent_dim": 3},
    "tcn": {"hidden": 8, "embedding_dim": 4},
    "single_view_tcn": {"hidden": 8, "embedding_dim": 4},
    "mftcn": {"embedding_dim": 4, "channels": 4},
    "tracking": {"patch_size": 12, "search": 4, "embedding_dim": 4, "hard_after": 1},
    "motion_statistics": {"hidden": 8},
    "grasp2vec": {"embedding_dim": 8},
}


def small_encoder(case: str = "", seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    if case.startswith("masked_autoencoder"):
        return build_encoder(EncoderConfig("vit"), SHAPE)
    return Encoder(nn.Conv2d(SHAPE[0], 4, 4, stride=4), nn.LazyLinear(6), SHAPE)


def suite_of(
    case: str,
    encoder: Encoder,
    *,
    weight: float = 1.0,
    continuous: bool = False,
    seed: int = 1,
    options: dict[str, Any] | None = None,
) -> AuxSuite:
    """A suite of the one task, with the options of its row or others, or of none where the case is empty.

    A case that ends in /bonus adds the task's bonus to the rewards, with the same weight.
    """
    setting = TaskSetting(encoder, STACK, None if continuous else ACTIONS, ACTIONS, 0.9, generator(2))
    name, row = case.partition("/")[0], CASES.get(case, {})
    bonus = weight if case.endswith("/bonus") else 0.0
    tasks = {name: TaskConfig(weight, bonus_weight=bonus, options=row if options is None else options)} if case else {}
    torch.manual_seed(seed)
    return AuxSuite(tasks, setting, learning_rate=1e-2, adam_eps=1e-8, max_grad_norm=10.0)


@cache
def frames() -> Tensor:
    """(B + 2, T, 3, SIZE, SIZE): a patterned thing bounces before a patterned ground, in colours of their own."""
    rng = np.random.default_rng(0)
    count, length = B + 2, LONGEST + STACK - 1
    ground = rng.integers(100, 150, (count, 1, 3, 6, 6)).repeat(4, 3).repeat(4, 4)
    clip = np.broadcast_to(ground, (count, length, 3, SIZE, SIZE)).astype(np.uint8)
    thing = rng.integers(4, size=(count, 3, 4, 4)).repeat(2, 2).repeat(2, 3) * 85
    begin, turn = rng.integers(3, size=(count, 2)), SIZE - 8
    for i, t in np.ndindex(count, length):
        y, x = turn - np.abs((begin[i] + t) % (2 * turn) - turn)
        clip[i, t, :, y : y + 8, x : x + 8] = thing[i]
    return torch.from_numpy(clip)


def batch_for_all(size: int = B, *, continuous: bool = False) -> Batch:
    """A batch with every field that a task can read."""
    draw, whole = generator(5), frames()[:size]
    stacked = torch.cat([whole[:, k : k + LONGEST] for k in range(STACK)], dim=2)
    action = torch.randint(ACTIONS, (size, LONGEST - 1), generator=draw)
    if continuous:
        action = torch.rand(size, LONGEST - 1, ACTIONS, generator=draw) * 2 - 1
    one, reward, mask = torch.ones(size), torch.randn(size, generator=draw), torch.ones(size, LONGEST - 1)
    obs, later = stacked[:, 0].contiguous(), stacked[:, 1].contiguous()
    batch = Batch(obs, action[:, 0], reward, reward, later, one * 0.9, one, one.long(), later)
    views = torch.stack([obs, stacked[:, 9], stacked[:, 18]], dim=1)
    rgb, clip_views = whole[:, STACK - 1].contiguous(), torch.stack([stacked, stacked.flip(4)], dim=2)
    more = {"clip": stacked, "clip_action": action, "clip_mask": mask, "clip_views": clip_views}
    return replace(batch, **more, rgb=rgb, views=views, context=obs, future=stacked[:, 5].contiguous())


def learn(suite: AuxSuite, encoder: Encoder, batch: Batch, updates: int = 1) -> None:
    """Update the heads, and with them the encoder by plain gradient descent."""
    for _ in range(updates):
        terms, _ = suite.losses(batch, encoder(batch.obs), encoder)
        torch.stack(list(terms.values())).sum(0).mean().backward()
        with torch.no_grad():
            for p in encoder.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad
                    p.grad = None
        suite.after_step(batch, encoder)


def agent_of(kind: str, case: str, weight: float = 1.0, *, alone: bool = False, **config: Any) -> Agent:
    """A DQN or SAC with the one task; `alone`: without it, on the encoder that it needs."""
    encoder = small_encoder(case)
    suite = suite_of("" if alone else case, encoder, weight=weight, continuous=kind == "sac")
    streams = Streams(np.random.default_rng(0), torch.Generator().manual_seed(3), torch.Generator().manual_seed(5))
    torch.manual_seed(4)
    if kind == "dqn":
        return DQN(DQNConfig(hidden=8, random_shift=2, **config), encoder, ACTIONS, suite, streams)
    return SAC(SACConfig(hidden=8, random_shift=2, **config), encoder, ACTIONS, suite, streams)


def whole_state(
    *modules: nn.Module, generators: Iterable[torch.Generator], optimizers: Iterable[torch.optim.Optimizer]
) -> dict[str, Any]:
    """Parameters, buffers and plain attributes of modules, generators, optimisers, and torch's own random state."""
    state: dict[str, Any] = {"torch": torch.get_rng_state().clone()}
    for m, module in enumerate(modules):
        for name, part in module.named_modules():
            held = vars(part) | vars(part)["_parameters"] | vars(part)["_buffers"]
            plain = {key: value for key, value in held.items() if isinstance(value, Tensor | int | float)}
            state |= {f"{m}.{name}.{key}": copied(value) for key, value in plain.items()}
    state |= {f"generator {g}": stream.get_state().clone() for g, stream in enumerate(generators)}
    for o, optimizer in enumerate(optimizers):
        for p, moments in enumerate(optimizer.state.values()):
            state |= {f"optimizer {o} {p} {key}": copied(value) for key, value in moments.items()}
    return state


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what differs."""

    def same(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else type(a) is type(b) and a == b

    return [n for n in before.keys() | after.keys() if not (n in before and n in after and same(before[n], after[n]))]
